"""The two coils of a zipper: rows of shaded capsules. Lengths in pitches."""

import numpy as np

from sample_data.canvas import segment
from sample_data.noise import curve, noise, step

PITCH = 0.0342  # one tooth, in image heights
TEETH = 64  # of each coil, more than a picture shows


class Wear:
    """How far each coil (0 left, 1 right) and its teeth are out of place."""

    def __init__(self, n):
        self.spread = np.zeros((2, n, 1), np.float32)  # outward shift of a coil
        self.squash = np.zeros((2, n, 1), np.float32)  # vertical shift of its teeth
        self.short = np.zeros((2, TEETH), np.float32)  # share of a tooth that is gone
        self.shift = np.zeros((2, TEETH), np.float32)  # vertical shift of one tooth
        self.rows = (np.arange(n, dtype=np.float32) + 0.5)[:, None] / n

    def add(self, hurt, kind, level, at, side):
        """One defect of the teeth at height `at`; other kinds change nothing."""
        other = 1 - side
        bump = np.exp(-(((self.rows - at) / (0.035 + 0.02 * level)) ** 2))
        swirl = (self.rows - at) / 0.04 * bump
        first = int(at / PITCH) + 1
        if kind == "split_teeth":
            self.spread[side] += (0.65 + 0.3 * level) * bump
            self.spread[other] += (0.35 + 0.1 * level) * bump
            self.squash[side] += (0.25 + 0.3 * level) * swirl
        elif kind == "squeezed_teeth":
            self.spread[side] -= (0.6 + 0.3 * level) * bump
            self.spread[other] += (0.25 + 0.15 * level) * bump
            self.squash[side] += (0.9 + 0.2 * level) * swirl
        elif kind == "broken_teeth":
            for tooth in range(first, first + 3 + round(2 * level)):
                self.short[side, tooth] = 0.75 + 0.25 * level
                self.shift[side, tooth] = hurt.choice([-1, 1]) * (0.3 + 0.15 * level)
        elif kind == "rough":
            for tooth in range(first - 1, first + 4 + round(2 * level)):
                self.shift[side, tooth] += hurt.choice([-1, 1]) * (0.18 + 0.1 * level)


def coils(rng, hurt, x, y, n, centre, defects):
    """Both coils on a strip round `centre`; grey values and coverage like x.

    x, y and centre are in image widths; defects are (kind, level, at, side).
    """
    jitter = rng.normal(0, 0.02, (2, TEETH)).astype(np.float32)
    gain = 1 + rng.normal(0, 0.06, (2, TEETH)).astype(np.float32)
    phase = rng.uniform(0, 1)
    drift = 0.05 * curve(rng, n, 4)[:, None]
    wear = Wear(n)
    for defect in defects:
        wear.add(hurt, *defect)
    canvas = 27 + 3 * noise(rng, *x.shape, 60, 12)
    soft = 0.5 / (n * PITCH)
    cover = np.zeros(x.shape, np.float32)
    for side, sign in enumerate((-1, 1)):
        c = sign * (x - centre) / PITCH - wear.spread[side]
        v = y / PITCH + phase + 0.5 * side + drift + wear.squash[side] + 1
        cover = np.maximum(cover, step(c, 1.72, 1.55) * (c > -0.3))
        stitch = np.exp(-(((c - 0.93) / 0.36) ** 4))
        canvas += (60 - canvas) * stitch * (0.55 + 0.2 * np.cos(2 * np.pi * v))
        for near in (-1, 0, 1):
            which = np.floor(v).astype(np.int32) + near
            index = np.clip(which, 0, TEETH - 1)
            dy = v - which - 0.5 - jitter[side][index] - wear.shift[side][index]
            lean = 0.09 if side == 0 else 0.0
            lost = wear.short[side][index]
            tooth(canvas, c, dy, 76 * gain[side][index], lost, lean, soft)
    return canvas, cover


def tooth(canvas, c, dy, tone, lost, lean, soft):
    """Draw one tooth: thread over the coil, the loop round the edge, the hook."""
    capsule(canvas, c, dy, (0.62, 0, 1.3, -0.08), 0.2, 62.0, 4, 2 * soft)
    hole = np.hypot((c - 0.92) / 0.2, (dy + 0.5) / 0.2)
    canvas += (20 - canvas) * step(hole, 1.15, 0.75) * 0.85
    for ends in ((1.2, -0.1, 1.46, -0.28), (1.46, -0.28, 1.66, -0.66)):
        capsule(canvas, c, dy, ends, 0.145, tone * (1 - 0.25 * lost), 62, soft)
    inner = -0.24 + 0.55 * lost
    ends = (inner, lean, 0.62, 0.0)
    capsule(canvas, c, dy, ends, 0.165 * (1 - 0.3 * lost), tone * 1.05, 52, soft)
    glint = np.hypot(c - inner - 0.06, dy - lean + 0.03)
    canvas += 60 * np.exp(-((glint / 0.09) ** 2))


def capsule(canvas, x, y, ends, radius, tone, shine, soft):
    """Shade one lit, rounded bar onto `canvas` (in place)."""
    distance, _, across = segment(x, y, *ends)
    cover = step(distance, radius + soft, radius - soft)
    rise = np.clip(across * np.sign(ends[2] - ends[0] + 1e-9) / radius, -1, 1)
    value = tone * (1 - 0.4 * rise - 0.35 * rise**2)
    value = value + shine * np.exp(-(((rise + 0.25) / 0.3) ** 2))
    canvas += (value - canvas) * cover
