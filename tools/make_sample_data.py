"""Render the bundled sample data: hazelnuts and zippers, good and defective.

    python tools/make_sample_data.py                        the committed data set
    python tools/make_sample_data.py --out /tmp/tiny --image-size 64 --train-good 4 \\
        --train-bad 1 --test-good 2 --test-bad 1            a tiny one, for tests

Every picture is drawn from a seed by the formulas in this file; no photograph is
involved. A hazelnut is a solid of revolution, ray-traced and lit, with a texture in
(longitude, colatitude); a zipper is a woven tape with two coils of shaded capsules.
Units: lengths are fractions of the image (zipper) or nut radii (hazelnut), so that one
seed shows the same scene at every size.

A bad picture has a good twin: the same scene without its defect. Its mask is where the
two differ visibly, so masks are exact by construction. Layout and labels follow the
README's data contract. Same seed, same options: same files.
"""

import argparse
import json
import os
import signal
import struct
import sys
import tempfile
import zlib
from functools import cache
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LABELS = "image_anomaly_labels.json"
CATEGORIES = ("hazelnut", "zipper")
DEFECTS = {
    "hazelnut": ("crack", "cut", "hole", "print"),
    "zipper": (
        "broken_teeth",
        "split_teeth",
        "squeezed_teeth",
        "rough",
        "fabric_border",
        "fabric_interior",
        "combined",
    ),
}
SPLITS = ("train/good", "train/bad", "test/good", "test/bad")
SUPERSAMPLE = 2
VISIBLE = 5.0  # grey levels: a smaller change is not part of the mask
# Written into every PNG: tells our files from anybody else's.
STAMP = b"Software\0make_sample_data.py"


class SampleError(ValueError):
    """One line that says what stands in the way."""


# ---------------------------------------------------------------- drawing kit


@cache
def _taps(size, cells, wrap):
    """Cubic interpolation between cell centres: cells and weights, (4, size) each."""
    at = (np.arange(size) + 0.5) / size * cells - 0.5
    first = np.floor(at).astype(int) - 1
    columns = first + np.arange(4)[:, None]
    t = np.abs(at - columns)
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    columns = columns % cells if wrap else np.clip(columns, 0, cells - 1)
    return columns, np.where(t < 1, near, far).astype(np.float32)


def _noise(rng, height, width, ny, nx, wrap=False):
    """Smooth noise of ny x nx cells, about unit variance; `wrap` closes it in x."""
    grid = rng.standard_normal((ny, nx)).astype(np.float32) * np.float32(1.35)
    # Not as matrix products: a BLAS may sum in another order on another machine.
    rows = zip(*_taps(height, ny, False), strict=True)
    tall = sum(grid[row] * weight[:, None] for row, weight in rows)
    columns = zip(*_taps(width, nx, wrap), strict=True)
    return sum(tall[:, column] * weight for column, weight in columns)


def _lookup(field, x, y):
    """Bilinear samples of field (h, w) or (h, w, C) at pixel positions x, y (P,)."""
    h, w = field.shape[:2]
    x, y = np.clip(x, 0, w - 1.001), np.clip(y, 0, h - 1.001)
    left, top = x.astype(np.int32), y.astype(np.int32)
    fx, fy = x - left, y - top
    if field.ndim == 3:
        fx, fy = fx[:, None], fy[:, None]
    upper = field[top, left] * (1 - fx) + field[top, left + 1] * fx
    lower = field[top + 1, left] * (1 - fx) + field[top + 1, left + 1] * fx
    return upper * (1 - fy) + lower * fy


def _curve(rng, size, cells):
    """Smooth one-dimensional noise, (size,)."""
    return _noise(rng, 2, size, 1, cells)[0]


def _step(x, low, high):
    """Smoothstep from 0 at `low` to 1 at `high` (which may be the smaller)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _blend(base, colour, alpha):
    """`colour` over `base`; alpha (H, W), colours (3,) or (H, W, 3) or grey."""
    if np.ndim(base) == 3:
        alpha = alpha[..., None]
    return base + (colour - base) * alpha


def _segment(x, y, x0, y0, x1, y1):
    """Distance to a segment, position 0..1 along it, signed offset across it."""
    dx, dy = x1 - x0, y1 - y0
    length = np.sqrt(dx * dx + dy * dy) + 1e-6
    along = ((x - x0) * dx + (y - y0) * dy) / length
    across = ((y - y0) * dx - (x - x0) * dy) / length
    beyond = along - np.clip(along, 0, length)
    return np.sqrt(across**2 + beyond**2), along / length, across


def _fibres(rng, size, count, x, y, spread, length, width, bend=1.2):
    """Coverage (size, size) of `count` curved hairs; all lengths in image widths."""
    layer = np.zeros((size, size), np.uint8)
    t = np.linspace(0, 1, 10)
    for _ in range(count):
        cx = x + spread[0] * rng.standard_normal()
        cy = y + spread[1] * rng.standard_normal()
        turn = rng.uniform(0, 2 * np.pi) + rng.normal() * bend * t
        reach = length * rng.uniform(0.5, 1.2) / len(t)
        px = (cx + np.cumsum(np.cos(turn)) * reach) * size
        py = (cy + np.cumsum(np.sin(turn)) * reach) * size
        points = np.round(np.stack([px, py], 1) * 16).astype(np.int32)
        cv2.polylines(
            layer,
            [points],
            False,
            int(rng.integers(120, 256)),
            max(1, round(width * size)),
            cv2.LINE_AA,
            4,
        )
    return layer.astype(np.float32) / 255


def _spots(rng, n, count, low, high, size, tone):
    """Coverage (n, n) of `count` round specks; x, y from low to high, size in 1/512."""
    layer = np.zeros((n, n), np.uint8)
    for _ in range(count):
        spot = tuple(int(v * n * 16) for v in rng.uniform(low, high))
        r = int(rng.uniform(*size) * n / 32)
        cv2.circle(layer, spot, r, int(rng.integers(*tone)), -1, cv2.LINE_AA, 4)
    return layer.astype(np.float32) / 255


def _shrink(image, size):
    """Area-average to `size` and soften like a lens."""
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 0.45 * max(size / 256, 0.5))


# ---------------------------------------------------------------- hazelnut

TAN = np.float32([205, 158, 112])
BLACK = np.float32([24, 17, 16])
WHITE = np.float32([226, 228, 226])
_Z = np.linspace(-1.6, 1.6, 8192, dtype=np.float32)  # where the profile is tabulated


def _profile(rng):
    """Radius over height z (base below, tip above) and its slope, tables over _Z."""
    base, waist, tip = -0.84, rng.uniform(-0.16, 0.0), rng.uniform(0.98, 1.14)
    low = np.clip((waist - _Z) / (waist - base), 0, 1)
    high = np.clip((_Z - waist) / (tip - waist), 0, 1)
    point = rng.uniform(0.66, 0.8)
    radius = (1 - low**2.5) ** (1 / 2.3) * (1 - high**2.15) ** point
    radius -= rng.uniform(0.01, 0.04) * np.exp(-(((high - 0.9) / 0.06) ** 2))
    outside = np.maximum(base - _Z, _Z - tip)
    radius = np.where(outside > 0, -3 * outside, np.maximum(radius, 0))
    radius = cv2.GaussianBlur(radius[:, None].astype(np.float32), (1, 41), 9)[:, 0]
    slope = np.clip(np.gradient(radius, _Z), -12, 12).astype(np.float32)
    return radius, slope


def _trace(rng, n):
    """Ray-trace a nut: hits (n, n), body points (3, P), normals, view-to-body."""
    radius, slope = _profile(rng)
    oval = rng.uniform(0.93, 1.0)
    turn = rng.uniform(0, 2 * np.pi)
    tilt = np.clip(rng.normal(-0.12, 0.38), -1.05, 0.75)  # < 0 shows the cap
    axis = np.array(
        [np.cos(turn) * np.cos(tilt), np.sin(turn) * np.cos(tilt), np.sin(tilt)]
    )
    side = np.cross(axis, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side)
    roll = rng.uniform(0, 2 * np.pi)
    other = np.cross(axis, side)
    first = np.cos(roll) * side + np.sin(roll) * other
    second = np.cross(axis, first)
    to_body = np.stack([first, second, axis]).astype(np.float32)  # body = to_body @ v
    scale = rng.uniform(0.32, 0.36)
    shift = rng.normal(0, 0.012, 2) - scale * 0.1 * axis[:2]
    shift = shift.astype(np.float32)
    grid = (np.arange(n, dtype=np.float32) + 0.5) / n - 0.5
    x, y = np.meshgrid((grid - shift[0]) / scale, (grid - shift[1]) / scale)
    near = x**2 + y**2 < 1.25**2
    x, y = x[near].astype(np.float32), y[near].astype(np.float32)
    flat = to_body[:, :1] * x + to_body[:, 1:2] * y  # (3, P)
    w = np.full_like(x, 1.3)
    stretch = 1 / oval
    for i in range(26):
        bx, by, bz = flat + to_body[:, 2:] * w
        index = np.clip((bz + 1.6) * (8191 / 3.2), 0, 8191).astype(np.int32)
        rho = np.sqrt(bx**2 + (by * stretch) ** 2)
        gap = rho - radius[index]
        w -= gap / np.sqrt(1 + slope[index] ** 2) * (0.97 if i < 20 else 0.8)
    body = flat + to_body[:, 2:] * w
    bx, by, bz = body
    rho = np.sqrt(bx**2 + (by * stretch) ** 2) + 1e-5
    r = np.interp(bz, _Z, radius).astype(np.float32)
    s = np.interp(bz, _Z, slope).astype(np.float32)
    # A ray that misses runs on past the nut; one that hits ends on the surface.
    hit = (np.abs(rho - r) / np.sqrt(1 + s**2) < 0.02) & (w > -1.0)
    normal = np.stack([bx / rho, by * stretch**2 / rho, -s])
    normal /= np.linalg.norm(normal, axis=0)
    normal = to_body.T @ normal
    hit &= normal[2] > 0
    inside = np.zeros((n, n), bool)
    inside[near] = hit
    return inside, body[:, hit], normal[:, hit], to_body


def _shell(rng, n):
    """Texture over (colatitude from the tip, longitude): colour (h, w, 3), height."""
    h, w = n * 3 // 4, n * 2
    lat = ((np.arange(h, dtype=np.float32) + 0.5) / h)[:, None]
    lon = ((np.arange(w, dtype=np.float32) + 0.5) / w)[None]

    def noise(ny, nx):
        return _noise(rng, h, w, ny, nx, wrap=True)

    broad, mid, fine = noise(2, 30), noise(3, 74), noise(7, 210)
    stripes = 0.45 * broad + 0.5 * mid + 0.35 * fine
    dark = _step(stripes, 0.0, 1.9) * 0.6 + 0.25 * _step(mid, 0.4, 1.8)
    hue = rng.normal(0, 1)
    body = np.float32([166, 83, 57]) + hue * np.float32([4, 6, 3])
    body = body * rng.uniform(0.88, 1.08)
    colour = np.broadcast_to(body, (h, w, 3)).astype(np.float32)
    colour = _blend(colour, body * np.float32([1.18, 1.22, 1.1]), _step(-broad, 0, 2))
    colour = _blend(colour, body * np.float32([0.6, 0.55, 0.6]), dark)
    colour *= (1 + 0.025 * noise(30, 200) + 0.05 * noise(5, 8))[..., None]
    height = -0.8 * stripes * np.sin(np.pi * lat) ** 0.5
    # Grey bloom round the tip, in streaks that run down the stripes.
    reach = rng.uniform(0.12, 0.3)
    bloom = _step(lat + 0.07 * broad + 0.05 * fine, reach, 0.03)
    bloom = bloom * np.clip(0.55 + 0.3 * mid + 0.25 * noise(30, 90), 0, 1)
    bloom += 0.22 * _step(noise(9, 40) + 0.8 * noise(60, 200), 1.3, 3.2)
    colour = _blend(colour, np.float32([158, 128, 112]), np.clip(bloom, 0, 0.8))
    # Light scratches and specks.
    specks = np.zeros((h, w), np.uint8)
    for _ in range(rng.poisson(26)):
        cx, cy = rng.uniform(0, w), rng.uniform(0.1, 0.7) * h
        size = rng.uniform(0.5, 2.0, 2) * n / 512
        at = (int(cx * 16), int(cy * 16))
        axes = (max(4, int(size[0] * 16)), max(6, int(size[1] * 24)))
        level = int(rng.integers(50, 210))
        cv2.ellipse(specks, at, axes, 0, 0, 360, level, -1, cv2.LINE_AA, 4)
    colour = _blend(colour, TAN, specks.astype(np.float32) / 255 * 0.8)
    # The cap: its border wanders, carries a scalloped rim, and its fibres are radial.
    edge = (
        rng.uniform(0.665, 0.735) + 0.008 * noise(1, 14)[:1] + 0.003 * noise(1, 60)[:1]
    )
    teeth = int(rng.integers(44, 60))
    wave = np.abs(((lon * teeth + 0.35 * noise(1, 30)[:1]) % 1) * 2 - 1)
    depth = np.clip(0.026 + 0.012 * noise(1, 25)[:1], 0.008, 0.05)
    rim = edge + 0.008 + depth * wave**1.4 * (0.75 + 0.3 * noise(1, 110)[:1])
    hair = 0.45 * noise(24, 90) + 0.75 * noise(46, 220) + 0.55 * noise(110, 300)
    age = rng.uniform(0, 1)
    tone = np.float32([146, 109, 82]) * (0.6 + 0.55 * age)
    tone = tone + (1 - age) * np.float32([-4, -8, -6])
    cap = np.broadcast_to(tone, (h, w, 3)).astype(np.float32)
    cap = _blend(cap, tone * np.float32(0.66), _step(-hair, 0.1, 1.8))
    cap = _blend(cap, tone * np.float32([1.3, 1.3, 1.22]), _step(hair, 0.5, 1.9))
    cap *= (1 + 0.16 * noise(7, 14) + 0.1 * noise(24, 64))[..., None]
    cap *= (0.72 + 0.28 * _step(lat, rim, rim + 0.05))[..., None]
    soft = 1.5 / h
    within = _step(lat, edge - soft, edge + soft)
    inner = _step(lat, rim - soft, rim + soft)
    band = np.float32([186, 126, 84]) * (0.75 + 0.3 * age)
    colour = _blend(colour, band * (1 + 0.12 * noise(30, 200))[..., None], within)
    colour = _blend(colour, cap, inner)
    line = np.exp(-(((lat - edge) / 0.0055) ** 2)) + 0.9 * np.exp(
        -(((lat - rim - 0.004) / 0.006) ** 2)
    )
    colour *= 1 - 0.62 * np.clip(line, 0, 1)[..., None]
    height = height * (1 - inner) + inner * (0.6 * hair - 1.5) + 1.2 * within
    return colour, height.astype(np.float32)


def _nut_defect(kind, rng, level, colour, place, shade):
    """Paint one defect; `place` gives tangent coordinates round a visible point.

    level is 0 (barely visible) to 1 (obvious). Returns colour (P, 3), lit already.
    """
    n = 256

    def wiggle(angle, cells):
        ring = _noise(rng, 2, n, 1, cells, wrap=True)[0]
        return np.interp(angle / (2 * np.pi) % 1 * n, np.arange(n), ring, period=n)

    def mottle(a, b, cells):
        field = _noise(rng, n, n, cells, cells)
        return _lookup(field, (a * 0.5 + 0.5) * n, (b * 0.5 + 0.5) * n)

    if kind == "crack" and level > 0.6:  # a piece of the shell is missing
        a, b = place(0.75, rng)
        size = 0.2 + 0.38 * level
        angle, rho = np.arctan2(b, a), np.hypot(a, b)
        outline = size * (1 + 0.13 * wiggle(angle, 5) + 0.035 * wiggle(angle, 17))
        depth = outline - rho
        rim = 0.07 * (1 + 0.25 * wiggle(angle, 9))
        wood = TAN * (1 + 0.1 * mottle(a, b, 60))[:, None] * (0.55 + 0.5 * shade)
        pores = _step(mottle(a, b, 90), 1.6, 2.0) * _step(depth, 0.015, 0.03)
        wood = wood * (1 - 0.8 * pores[:, None])
        colour = _blend(colour, wood, _step(depth, -0.008, 0.008)[:, None])
        wrinkles = mottle(a * 0.6 + 0.35 * b, b * 2, 24) + 0.6 * mottle(a, b, 70)
        round_ = np.sqrt(np.clip(1.05 - (rho / outline) ** 2, 0.03, 1))
        lit = 0.4 + 0.6 * round_ - 0.25 * (a + b) / size
        kernel = np.float32([118, 62, 46]) * (1 + 0.24 * wrinkles)[:, None]
        kernel = _blend(
            kernel,
            np.float32([196, 160, 110]),
            0.6 * _step(wrinkles, 1.7, 2.3)[:, None],
        )
        kernel *= (np.clip(lit, 0.15, 1.25) * _step(depth, rim, rim + 0.16))[:, None]
        return _blend(colour, kernel, _step(depth, rim - 0.01, rim + 0.01)[:, None])
    if kind == "crack":  # a fissure
        a, b = place(0.8, rng)
        half = 0.3 + 0.45 * level
        path = np.interp(a, np.linspace(-1, 1, n), _curve(rng, n, 9) * 0.035)
        path = path + np.interp(a, np.linspace(-1, 1, n), _curve(rng, n, 40) * 0.012)
        taper = np.clip(1 - (a / half) ** 2, 0, 1)
        width = (0.019 + 0.026 * level**2) * taper * (1 + 0.3 * mottle(a, b * 0, 20))
        off = np.abs(b - path)
        inside = _step(off, width + 0.006, width - 0.006) * _step(taper, 0.0, 0.12)
        edge = _step(off, width + 0.022, width + 0.008) * (taper > 0) * 0.7 * level
        colour = _blend(colour, TAN * (0.5 + 0.4 * shade), edge[:, None])
        return _blend(colour, BLACK, (0.92 * inside)[:, None])
    if kind == "cut":
        a, b = place(0.8, rng)
        half, width = 0.17 + 0.15 * level, 0.023 + 0.02 * level
        path = 0.08 * a + np.interp(
            a, np.linspace(-1, 1, n), _curve(rng, n, 14) * 0.008
        )
        lens = width * np.sqrt(np.clip(1 - (a / half) ** 2, 0, 1))
        lens = lens * (1 + 0.25 * mottle(a, b * 0, 40))
        off = np.abs(b - path)
        wood = TAN * (0.45 + 0.55 * shade) * (1 + 0.12 * mottle(a * 3, b, 60))[:, None]
        inside = _step(off, lens + 0.006, lens - 0.006) * (lens > 0)
        colour = _blend(colour, wood, ((0.6 + 0.4 * level) * inside)[:, None])
        core = _step(np.abs(b - path - 0.3 * lens), 0.35 * lens + 0.004, 0.1 * lens)
        dark = core * inside * _step(mottle(a, b, 12), -0.6, 0.5) * (0.3 + 0.5 * level)
        colour = _blend(colour, BLACK * 2, dark[:, None])
        if level > 0.5:  # the blade slipped once more
            slip = np.abs(b - 0.09 + 0.35 * (a - 0.1))
            slip = _step(slip, 0.012, 0.004) * (np.abs(a - 0.1) < half * 0.6)
            colour = _blend(colour, TAN * (0.5 + 0.5 * shade), 0.6 * slip[:, None])
        return colour
    if kind == "hole":
        a, b = place(0.75, rng)
        angle, rho = np.arctan2(b, a), np.hypot(a, b)
        size = 0.048 + 0.075 * level
        outer = (size + 0.03) * (1 + 0.16 * wiggle(angle, 9) + 0.1 * wiggle(angle, 23))
        wood = TAN * (0.4 + 0.6 * shade) * (1 + 0.12 * mottle(a, b, 80))[:, None]
        colour = _blend(colour, wood, _step(rho, outer + 0.01, outer - 0.008)[:, None])
        inner = size * (1 + 0.06 * wiggle(angle, 11))
        wall = BLACK + 40 * np.clip((a + b) / size, 0, 1)[:, None] * TAN / 255
        return _blend(colour, wall, _step(rho, inner + 0.01, inner - 0.008)[:, None])
    # print
    a, b = place(0.7, rng)
    chips = mottle(a, b, 70) + 0.7 * mottle(a, b, 30)
    if level > 0.45:
        word = rng.permutation(list(_STROKES))[: 2 + round(2 * level)]
        size = 0.16 + 0.1 * level
        ink = np.zeros_like(a)
        for k, letter in enumerate(word):
            u = a / size - (k - (len(word) - 1) / 2) * 1.25 + 0.5
            v = b / size + 0.7
            for x0, y0, x1, y1 in _STROKES[letter]:
                d, _, _ = _segment(u, v, x0, y0 * 1.4, x1, y1 * 1.4)
                ink = np.maximum(ink, _step(d, 0.17, 0.09))
        ink = ink * _step(chips, -1.6, -0.9)
    else:
        size = 0.16 + 0.25 * level
        bristles = mottle(a * 0.25, b * 2.2, 60) + 0.45 * chips
        patch = _step(np.hypot(a / size, b / size * 1.4), 1.05, 0.7)
        ink = patch * _step(bristles, 0.35, 0.8)
    colour = _blend(colour, WHITE * (0.72 + 0.3 * shade), 0.95 * ink[:, None])
    return colour


_STROKES = {  # letters on a 1 x 1 box as line segments
    "A": [(0, 1, 0.5, 0), (0.5, 0, 1, 1), (0.22, 0.62, 0.78, 0.62)],
    "E": [(0, 0, 0, 1), (0, 0, 0.9, 0), (0, 0.5, 0.7, 0.5), (0, 1, 0.9, 1)],
    "F": [(0, 0, 0, 1), (0, 0, 0.9, 0), (0, 0.5, 0.7, 0.5)],
    "H": [(0, 0, 0, 1), (1, 0, 1, 1), (0, 0.5, 1, 0.5)],
    "K": [(0, 0, 0, 1), (0, 0.55, 0.9, 0), (0.3, 0.4, 1, 1)],
    "N": [(0, 1, 0, 0), (0, 0, 1, 1), (1, 1, 1, 0)],
    "T": [(0, 0, 1, 0), (0.5, 0, 0.5, 1)],
    "V": [(0, 0, 0.5, 1), (0.5, 1, 1, 0)],
    "X": [(0, 0, 1, 1), (0, 1, 1, 0)],
    "Z": [(0, 0, 1, 0), (1, 0, 0, 1), (0, 1, 1, 1)],
}


def _draw_hazelnut(key, size, kind, level):
    """One nut before grain: float32 (size, size, 3), RGB."""
    rng = np.random.default_rng(key)
    n = size * SUPERSAMPLE
    inside, body, normal, to_body = _trace(rng, n)
    texture, height = _shell(rng, n)
    h, w = height.shape
    lon = np.arctan2(body[1], body[0]) / (2 * np.pi) % 1
    lat = np.arctan2(np.hypot(body[0], body[1]), body[2] + 0.06) / np.pi
    pad = 2

    def sample(field):
        wrapped = np.concatenate([field[:, -pad:], field, field[:, :pad]], axis=1)
        return _lookup(wrapped, lon * w - 0.5 + pad, lat * h - 0.5)

    # Bump mapping: tilt the normal against the height's slope along both tangents.
    slope = np.stack([np.gradient(height, axis=1), np.gradient(height, axis=0)], -1)
    slope = sample(slope.astype(np.float32)) * (512 / n)
    axis = to_body[2]
    down = -(axis[:, None] - normal * (axis @ normal))
    down /= np.linalg.norm(down, axis=0) + 1e-6
    around = np.cross(axis, normal, axis=0)
    around /= np.linalg.norm(around, axis=0) + 1e-6
    bumpy = normal - 0.16 * (around * slope[:, 0] + down * slope[:, 1])
    bumpy /= np.linalg.norm(bumpy, axis=0)
    light = np.float32([-0.3, -0.42, 0.86]) + rng.normal(0, 0.05, 3).astype(np.float32)
    light /= np.linalg.norm(light)
    exposure = rng.normal(1.0, 0.04)

    def lit(vectors):
        diffuse = np.clip(light @ vectors, 0, 1)
        return (0.24 + 0.66 * diffuse + 0.22 * np.clip(vectors[2], 0, 1)) * exposure

    half = light + np.float32([0, 0, 1])
    half /= np.linalg.norm(half)
    gloss = np.clip(half @ bumpy, 0, 1) ** 22
    colour = sample(texture) * lit(bumpy)[:, None] + 11 * gloss[:, None]
    if kind:
        hurt = np.random.default_rng([*key, 1])

        def place(facing, rng):
            """Tangent coordinates (a, b), nut radii, round a random visible point."""
            clear = np.flatnonzero((normal[2] > facing) & (lat > 0.12) & (lat < 0.9))
            # By coordinates, not by pixel number: the same spot at every size.
            aim = normal[:2, clear] - hurt_aim[:, None]
            p = clear[np.argmin((aim**2).sum(0))]
            first = np.cross(normal[:, p], np.append(rng.normal(0, 1, 2), 0))
            first /= np.linalg.norm(first)
            offset = to_body.T @ (body - body[:, p : p + 1])
            a = first @ offset
            b = np.cross(normal[:, p], first) @ offset
            far = 9 * (normal[:, p] @ normal < 0.1)  # the nut's other side
            return (a + far).astype(np.float32), (b + far).astype(np.float32)

        hurt_aim = hurt.uniform(-0.5, 0.5, 2)
        colour = _nut_defect(kind, hurt, level, colour, place, lit(normal)[:, None])
    tint = np.float32([36, 36.5, 41]) + rng.normal(0, 0.8, 3).astype(np.float32)
    canvas = np.tile(tint, (n, n, 1))
    canvas *= (1 + 0.035 * _noise(rng, n, n, 4, 4))[..., None]
    dust = _spots(rng, n, rng.poisson(7), (0, 0), (1, 1), (0.5, 1.6), (20, 110))
    canvas = _blend(canvas, np.float32([128, 124, 120]), dust)
    canvas[inside] = colour
    return _shrink(np.clip(canvas, 0, 255), size)


# ---------------------------------------------------------------- zipper

PITCH = 0.0342  # one tooth, in image heights


def _weave(rng, x, y, n):
    """Broken twill: relief in -1 (gaps) .. 1, from coordinates in image widths."""
    x = x + 0.0011 * _noise(rng, n, n, 40, 40)
    y = y + 0.0016 * _noise(rng, n, n, 30, 30) + 0.004 * _noise(rng, n, n, 4, 4)

    def gap(distance, width):
        return np.exp(-((distance / width) ** 2))

    def lattice(px, py, slant):
        # Tables of fixed size: a defect must not change what its twin draws.
        kinds = rng.random((3, 128, 128), dtype=np.float32)
        phase = rng.random(2, dtype=np.float32)
        u = x / px + phase[0]
        pair = np.floor(u / 2).astype(np.int32)
        offset = np.arange(128) * 0.382 + rng.normal(0, 0.06, 128) + phase[1]
        v = y / py + offset.astype(np.float32)[pair % 128]
        row = np.floor(v).astype(np.int32)
        inner, lean, strength = kinds[:, row % 128, pair % 128]
        across, down = u - 2 * np.floor(u / 2), v - np.floor(v)
        sides = np.minimum(across, 2 - across) * px
        ends = np.minimum(down, 1 - down) * py
        middle = np.abs(across - 1 - slant * (lean - 0.5) * (down - 0.5)) * px
        half = np.abs(down - 0.3 - 0.4 * lean) * py + 9 * (
            (across > 1) != (lean > 0.5)
        ) * (inner < 0.75)
        dark = 0.75 * gap(sides, 0.002) + (0.6 + 0.4 * strength) * gap(ends, 0.0021)
        dark = np.maximum(dark, (0.4 + 0.5 * inner) * gap(middle, 0.0018))
        return np.maximum(dark, 0.75 * strength * gap(half, 0.0019))

    coarse = lattice(0.0173, 0.0545, 1.3)
    fine = lattice(0.0098, 0.0172, 0.3)
    return coarse, fine


def _capsule(canvas, x, y, ends, radius, tone, shine, soft):
    """Shade one lit, rounded bar onto `canvas` (in place); lengths in pitches."""
    distance, along, across = _segment(x, y, *ends)
    cover = _step(distance, radius + soft, radius - soft)
    rise = np.clip(across * np.sign(ends[2] - ends[0] + 1e-9) / radius, -1, 1)
    value = tone * (1 - 0.4 * rise - 0.35 * rise**2)
    value = value + shine * np.exp(-(((rise + 0.25) / 0.3) ** 2))
    canvas += (value - canvas) * cover
    return along


def _chain(rng, hurt, x, y, n, centre, defects):
    """Both coils on a strip round `centre`; grey values and coverage like x."""
    v_jitter = rng.normal(0, 0.02, (2, 64)).astype(np.float32)
    gain = 1 + rng.normal(0, 0.06, (2, 64)).astype(np.float32)
    phase = rng.uniform(0, 1)
    drift = 0.05 * _curve(rng, n, 4)[:, None]
    spread = np.zeros((2, n, 1), np.float32)  # outward shift of a coil, pitches
    squash = np.zeros((2, n, 1), np.float32)  # vertical shift of its teeth, pitches
    short = np.zeros((2, 64), np.float32)
    shift = np.zeros((2, 64), np.float32)
    rows = (np.arange(n, dtype=np.float32) + 0.5)[:, None] / n
    for kind, level, at, side in defects:
        bump = np.exp(-(((rows - at) / (0.035 + 0.02 * level)) ** 2))
        swirl = (rows - at) / 0.04 * bump
        first = int(at / PITCH) + 1
        if kind == "split_teeth":
            spread[side] += (0.65 + 0.3 * level) * bump
            spread[1 - side] += (0.35 + 0.1 * level) * bump
            squash[side] += (0.25 + 0.3 * level) * swirl
        elif kind == "squeezed_teeth":
            spread[side] -= (0.6 + 0.3 * level) * bump
            spread[1 - side] += (0.25 + 0.15 * level) * bump
            squash[side] += (0.9 + 0.2 * level) * swirl
        elif kind == "broken_teeth":
            for tooth in range(first, first + 3 + round(2 * level)):
                short[side, tooth] = 0.75 + 0.25 * level
                shift[side, tooth] = hurt.choice([-1, 1]) * (0.3 + 0.15 * level)
        elif kind == "rough":
            for tooth in range(first - 1, first + 4 + round(2 * level)):
                shift[side, tooth] += hurt.choice([-1, 1]) * (0.18 + 0.1 * level)
    canvas = 27 + 3 * _noise(rng, *x.shape, 60, 12)
    soft = 0.5 / (n * PITCH)
    cover = np.zeros(x.shape, np.float32)
    for side, sign in enumerate((-1, 1)):
        c = sign * (x - centre) / PITCH - spread[side]
        v = y / PITCH + phase + 0.5 * side + drift + squash[side] + 1
        cover = np.maximum(cover, _step(c, 1.72, 1.55) * (c > -0.3))
        stitch = np.exp(-(((c - 0.93) / 0.36) ** 4))
        canvas += (60 - canvas) * stitch * (0.55 + 0.2 * np.cos(2 * np.pi * v))
        for step in (-1, 0, 1):
            tooth = np.floor(v).astype(np.int32) + step
            index = np.clip(tooth, 0, 63)
            dy = v - tooth - 0.5 - v_jitter[side][index] - shift[side][index]
            tone = 76 * gain[side][index]
            lost = short[side][index]
            # thread over the coil, the loop that goes round the edge, the hook
            _capsule(canvas, c, dy, (0.62, 0, 1.3, -0.08), 0.2, 62.0, 4, 2 * soft)
            hole = np.hypot((c - 0.92) / 0.2, (dy + 0.5) / 0.2)
            canvas += (20 - canvas) * _step(hole, 1.15, 0.75) * 0.85
            for ends in ((1.2, -0.1, 1.46, -0.28), (1.46, -0.28, 1.66, -0.66)):
                _capsule(canvas, c, dy, ends, 0.145, tone * (1 - 0.25 * lost), 62, soft)
            inner = -0.24 + 0.55 * lost
            lean = 0.09 if side == 0 else 0.0
            ends = (inner, lean, 0.62, 0.0)
            _capsule(
                canvas, c, dy, ends, 0.165 * (1 - 0.3 * lost), tone * 1.05, 52, soft
            )
            glint = np.hypot(c - inner - 0.06, dy - lean + 0.03)
            canvas += 60 * np.exp(-((glint / 0.09) ** 2))
    return canvas, cover


def _draw_zipper(key, size, kind, level):
    """One zipper before grain: float32 (size, size)."""
    rng = np.random.default_rng(key)
    hurt = np.random.default_rng([*key, 1])
    n = size * SUPERSAMPLE
    grid = (np.arange(n, dtype=np.float32) + 0.5) / n
    x, y = np.meshgrid(grid, grid)
    rows = grid[:, None]
    middle = 0.5 + rng.uniform(-0.011, 0.011)
    bow = 0.0016 * _curve(rng, n, 3)[:, None] + rng.uniform(-0.006, 0.006) * (
        rows - 0.5
    )
    centre = middle + bow
    edges = [
        centre
        + sign * rng.uniform(0.384, 0.394)
        + 0.0013 * _curve(rng, n, 5)[:, None]
        + 0.0014 * np.cos(2 * np.pi * (rows / 0.0272 + rng.uniform()))
        + 0.0008 * _curve(rng, n, 70)[:, None]
        for sign in (-1, 1)
    ]
    plan = []
    if kind:
        kinds = [kind]
        if kind == "combined":
            others = [k for k in DEFECTS["zipper"] if k != "combined"]
            kinds = list(hurt.choice(others, 2, replace=False))
        spots = hurt.permutation([hurt.uniform(0.12, 0.42), hurt.uniform(0.55, 0.86)])
        plan = [
            (k, level, float(spot), int(hurt.integers(2)))
            for k, spot in zip(kinds, spots, strict=False)
        ]
    damage = np.zeros((n, n), np.float32)  # grey levels added to the tape
    weave_x, weave_y = x - centre, y
    fuzz = []  # (coverage, grey) of hairs that stand out
    for what, amount, at, side in plan:
        out = 2 * side - 1
        if what == "fabric_border":
            shape = (rows - at) / (0.014 + 0.022 * amount)
            notch = np.exp(-(shape**4)) * (1 + 0.3 * _curve(hurt, n, 60)[:, None])
            edges[side] = edges[side] - out * (0.011 + 0.018 * amount) * notch
            edges[side] = edges[side] + out * 0.01 * np.exp(-((shape - 1.6) ** 2 / 0.2))
            ex = float(edges[side][int(at * n), 0])
            near = np.exp(-(((x - ex) / 0.05) ** 2 + ((y - at) / 0.06) ** 2))
            damage -= (4 + 12 * amount) * near
            count, spot, spread = 3 + round(7 * amount), (ex, at), (0.004, 0.018)
            hair = _fibres(hurt, n, count, *spot, spread, 0.032, 0.0025, bend=2.5)
            fuzz.append((hair, 80 + 120 * amount))
        elif what == "fabric_interior":
            cx = middle + out * hurt.uniform(0.14, 0.3)
            wide, tall = (1.05 + 0.35 * amount) * hurt.uniform(0.024, 0.038, 2)
            wide, tall = float(wide), float(tall)
            lumps = 1 + 0.4 * _noise(hurt, n, n, 24, 24)
            ring = ((x - cx) / wide) ** 2 + ((y - at) / tall) ** 2
            blot = np.exp(-(ring**1.3) / np.maximum(lumps, 0.3))
            damage -= (18 + 12 * amount) * blot * (0.75 + 0.35 * lumps)
            weave_y = weave_y + 0.025 * blot * _noise(hurt, n, n, 14, 14)
            weave_x = weave_x + 0.02 * blot * _noise(hurt, n, n, 18, 18)
            count, spot, spread = round(10 * amount), (cx, at), (wide / 2, tall / 2)
            hair = _fibres(hurt, n, count, *spot, spread, 0.03, 0.0018)
            fuzz.append((hair, 60 + 70 * amount))
        elif what == "rough":
            count, spot = 24 + round(16 * amount), (middle + out * 0.04, at + 0.03)
            hair = _fibres(hurt, n, count, *spot, (0.012, 0.03), 0.024, 0.0018)
            fuzz.append((hair, 150 + 40 * amount))
        elif what == "broken_teeth":  # bright splinters
            count, spot = 5 + round(5 * amount), (middle + out * 0.03, at + 0.02)
            hair = _fibres(hurt, n, count, *spot, (0.012, 0.014), 0.02, 0.0035)
            fuzz.append((hair, 150 + 80 * amount))
    strip = slice(int(0.36 * n), int(0.64 * n))
    coarse, fine = _weave(rng, weave_x, weave_y, n)
    off = np.abs(x - centre)
    near = _step(off, 0.105, 0.092)
    gaps = coarse * (1 - near) + fine * near
    ribs = np.abs(x - np.where(x < centre, edges[0], edges[1]))
    gaps = np.where(ribs < 0.016, 0.6 * fine + 0.25 * coarse, gaps)
    base = 62.5 + rng.uniform(-4, 4)
    tape = base * (
        1 + 0.022 * _noise(rng, n, n, 3, 3) + 0.04 * _noise(rng, n, n, 110, 110)
    )
    tape = tape + 8.0 - 38 * np.clip(gaps, 0, 1.1) + damage
    # Lit from above: the upper lip of a gap falls into shade, the lower one shines.
    tape = tape - 30 * np.gradient(gaps, axis=0) * (n / 512)
    tape -= 15 * np.exp(-(((off - 0.055) / 0.02) ** 2))
    tape -= 14 * np.exp(-((ribs / 0.006) ** 2))
    chain, cover = _chain(
        rng,
        hurt,
        x[:, strip],
        y[:, strip],
        n,
        centre,
        [d for d in plan if not d[0].startswith("fabric")],
    )
    tape[:, strip] += (chain * base / 62.5 - tape[:, strip]) * cover
    left, right = (x - edges[0]) * n, (edges[1] - x) * n
    cloth = _step(left, -0.7, 0.7) * _step(right, -0.7, 0.7)
    canvas = 255 + (tape - 255) * cloth
    for hair, tone in fuzz:
        canvas += (tone - canvas) * hair * 0.85
    # Lint: good zippers carry it too.
    lint = _spots(rng, n, rng.poisson(4), (0.16, 0), (0.84, 1), (0.45, 0.9), (40, 190))
    canvas += (230 - canvas) * lint
    lint = _fibres(
        rng, n, rng.poisson(0.3), 0.5, 0.5, (0.17, 0.25), 0.03, 0.001, bend=1.5
    )
    canvas += (100 - canvas) * lint * 0.8 * cloth
    return _shrink(np.clip(canvas, 0, 255).astype(np.float32), size)


# ---------------------------------------------------------------- one picture


def render(category, key, size, kind="", level=1.0):
    """One picture and its mask, both uint8.

    Image (size, size, 3) RGB for hazelnut, (size, size) for zipper; mask (size, size),
    255 where the picture visibly differs from its good twin. `key` is a sequence of
    integers that names the scene; `level` runs from 0, barely visible, to 1, obvious.
    """
    draw = {"hazelnut": _draw_hazelnut, "zipper": _draw_zipper}[category]
    picture = draw(key, size, kind, level)
    mask = np.zeros((size, size), np.uint8)
    if kind:
        change = np.abs(picture - draw(key, size, "", level))
        change = change if change.ndim == 2 else change.max(axis=2)
        mask[change > min(VISIBLE, change.max() / 2)] = 255
        reach = max(3, round(size * 0.02) | 1)  # close over gaps of one tooth
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, disc)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mask, outlines, -1, 255, cv2.FILLED)
    grain = np.random.default_rng([*key, 2])
    noise = grain.standard_normal(picture.shape[:2]).astype(np.float32)
    noise *= 1.1 if category == "hazelnut" else 1.4 * (picture < 250)
    picture = picture + (noise if picture.ndim == 2 else noise[..., None])
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), mask


# ---------------------------------------------------------------- the data set


def _png(image):
    """PNG bytes with our stamp behind the header; `image` grey or RGB, uint8."""
    bgr = image if image.ndim == 2 else image[..., ::-1]
    ok, code = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not ok:
        raise SampleError("OpenCV cannot encode PNG files")
    code, chunk = code.tobytes(), b"tEXt" + STAMP
    chunk = struct.pack(">I", len(STAMP)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return code[:33] + chunk + code[33:]  # 8 signature + 25 IHDR


def _is_ours(path):
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return STAMP in file.read(128)


def _check_free(folder):
    """Raise unless `folder` is absent or holds this tool's files only."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise SampleError(f"{folder} is not a folder; choose another --out")
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or _is_ours(path)):
            raise SampleError(f"{path} was not made by this tool; choose another --out")


def _read_labels(path):
    if not path.exists():
        return {}
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SampleError(
            f"{path} is not JSON ({error}); repair or remove it"
        ) from None
    if not isinstance(labels, dict):
        raise SampleError(f"{path} holds no JSON object; repair or remove it")
    return labels


def _plan(category, seed, counts):
    """Yield (path below the category, scene key, defect kind or "", level)."""
    number = CATEGORIES.index(category)
    kinds = DEFECTS[category]
    good = counts[2]  # the first places of the shuffled order
    order = np.random.default_rng([seed, number, 9]).permutation(sum(counts[2:]))
    for split, count in enumerate(counts):
        for i in range(count):
            kind, level = "", 1.0
            if split % 2:
                rounds, turn = divmod(i, len(kinds))
                kind = kinds[turn]
                # Walk through the levels, starting elsewhere for every kind.
                level = ((3 * rounds + 2 * turn + 2) % 5) / 4
            name = f"{SPLITS[split]}/{i + 1:03d}.png"
            if split >= 2:
                place = order[i + (good if split == 3 else 0)]
                name = f"test/{place + 1:03d}.png"
            yield name, (seed, number, split, i), kind, level


def make(
    out,
    categories=CATEGORIES,
    *,
    seed=0,
    image_size=256,
    train_good=60,
    train_bad=10,
    test_good=24,
    test_bad=16,
):
    """Write the data set below `out`; returns the label dictionary of the new images.

    A category's folder appears as a whole, or an older one of this tool's stays as it
    was; then the labels are merged into the label file. Raises SampleError if that
    would touch a file that this tool did not make.
    """
    out = Path(out)
    counts = (train_good, train_bad, test_good, test_bad)
    if unknown := [c for c in categories if c not in CATEGORIES]:
        raise SampleError(
            f"category {unknown[0]!r}: choose from {', '.join(CATEGORIES)}"
        )
    if min(counts) < 0 or train_good < 1:
        raise SampleError("counts must be at least 0, --train-good at least 1")
    if not 32 <= image_size <= 2048:
        raise SampleError(f"image size {image_size}: choose 32 to 2048")
    if seed < 0:
        raise SampleError(f"seed {seed}: choose 0 or more")
    labels = _read_labels(out / LABELS)
    for category in categories:
        _check_free(out / category)
    out.mkdir(parents=True, exist_ok=True)
    made = {}
    for category in categories:
        with tempfile.TemporaryDirectory(prefix=f".{category}-", dir=out) as scratch:
            new, old = Path(scratch, "new"), Path(scratch, "old")
            entries = {}
            for name, key, kind, level in _plan(category, seed, counts):
                image, mask = render(category, key, image_size, kind, level)
                path = new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_png(image))
                if not name.startswith("test/"):
                    continue
                entry = {"original_category": category, "label": "good"}
                if kind:
                    entry |= {"label": "bad", "defect": kind}
                    truth = new / "ground_truth" / path.name
                    truth.parent.mkdir(exist_ok=True)
                    truth.write_bytes(_png(mask))
                entries[f"{category}/{name}"] = entry
            target = out / category
            _check_free(target)  # again: rendering took a while
            try:
                if target.exists():
                    os.rename(target, old)
                os.rename(new, target)
            except BaseException:
                if old.exists() and not target.exists():
                    os.rename(old, target)
                raise
        made |= dict(sorted(entries.items()))
    kept = {k: v for k, v in labels.items() if k.split("/")[0] not in categories}
    text = json.dumps(dict(sorted((kept | made).items())), indent=4) + "\n"
    draft = out / f".{LABELS}-{os.getpid()}"
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, out / LABELS)
    finally:
        draft.unlink(missing_ok=True)
    return made


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="default: project root")
    parser.add_argument("--category", choices=CATEGORIES, help="default: both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--train-good", type=int, default=60)
    parser.add_argument("--train-bad", type=int, default=10)
    parser.add_argument("--test-good", type=int, default=24)
    parser.add_argument("--test-bad", type=int, default=16)
    args = vars(parser.parse_args(argv))
    one = args.pop("category")
    # A killed run cleans up behind itself, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        made = make(args.pop("out"), [one] if one else CATEGORIES, **args)
    except (SampleError, OSError) as error:
        print(f"make_sample_data: {error}", file=sys.stderr)
        return 2
    bad = sum(entry["label"] == "bad" for entry in made.values())
    print(
        f"{len(made) - bad} good and {bad} bad test images, with their training images"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
