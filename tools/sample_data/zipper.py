"""A zipper on white ground: tape, coils, defect and lint. Lengths in image widths."""

from dataclasses import dataclass, field

import numpy as np

from sample_data.canvas import SUPERSAMPLE, fibres, shrink, spots
from sample_data.noise import curve, noise, step
from sample_data.teeth import coils
from sample_data.weave import weave
from sample_data.zipper_defects import DEFECTS

SINGLE = (  # what a combined defect is made of
    "broken_teeth",
    "split_teeth",
    "squeezed_teeth",
    "rough",
    "fabric_border",
    "fabric_interior",
)


@dataclass
class Tape:
    """Where the tape lies, and what is wrong with it."""

    n: int  # pixels a side
    x: np.ndarray  # (n, n)
    y: np.ndarray  # (n, n)
    rows: np.ndarray  # (n, 1)
    middle: float
    centre: np.ndarray  # (n, 1): the line between the coils
    edges: list[np.ndarray]  # (n, 1) each, left and right
    damage: np.ndarray  # (n, n) grey levels added to it
    weave_x: np.ndarray  # (n, n) coordinates of the threads
    weave_y: np.ndarray
    hairs: list = field(default_factory=list)  # (coverage (n, n), grey) that stand out


def draw(key, size, kind, level):
    """One zipper before grain: float32 (size, size)."""
    rng = np.random.default_rng(key)
    hurt = np.random.default_rng([*key, 1])
    n = size * SUPERSAMPLE
    tape = lay(rng, n)
    defects = plan(hurt, kind, level) if kind else []
    for what, *where in defects:
        if what in DEFECTS:
            DEFECTS[what](tape, hurt, *where)
    cloth, base = fabric(rng, tape)
    strip = slice(int(0.36 * n), int(0.64 * n))
    x, y = tape.x[:, strip], tape.y[:, strip]
    of_teeth = [d for d in defects if not d[0].startswith("fabric")]
    chain, cover = coils(rng, hurt, x, y, n, tape.centre, of_teeth)
    cloth[:, strip] += (chain * base / 62.5 - cloth[:, strip]) * cover
    left, right = (tape.x - tape.edges[0]) * n, (tape.edges[1] - tape.x) * n
    inside = step(left, -0.7, 0.7) * step(right, -0.7, 0.7)
    canvas = 255 + (cloth - 255) * inside
    for hair, tone in tape.hairs:
        canvas += (tone - canvas) * hair * 0.85
    lint(rng, canvas, inside)
    return shrink(np.clip(canvas, 0, 255).astype(np.float32), size)


def lay(rng, n):
    """A whole Tape, at a slightly random place."""
    grid = (np.arange(n, dtype=np.float32) + 0.5) / n
    x, y = np.meshgrid(grid, grid)
    rows = grid[:, None]
    middle = 0.5 + rng.uniform(-0.011, 0.011)
    bow = 0.0016 * curve(rng, n, 3)[:, None] + rng.uniform(-0.006, 0.006) * (rows - 0.5)
    centre = middle + bow
    edges = [
        centre
        + sign * rng.uniform(0.384, 0.394)
        + 0.0013 * curve(rng, n, 5)[:, None]
        + 0.0014 * np.cos(2 * np.pi * (rows / 0.0272 + rng.uniform()))
        + 0.0008 * curve(rng, n, 70)[:, None]
        for sign in (-1, 1)
    ]
    damage = np.zeros((n, n), np.float32)
    return Tape(n, x, y, rows, middle, centre, edges, damage, x - centre, y)


def plan(hurt, kind, level):
    """Which single defects there are, and where: (kind, level, height, side) each."""
    kinds = [kind]
    if kind == "combined":
        kinds = list(hurt.choice(SINGLE, 2, replace=False))
    spots = hurt.permutation([hurt.uniform(0.12, 0.42), hurt.uniform(0.55, 0.86)])
    return [
        (k, level, float(spot), int(hurt.integers(2)))
        for k, spot in zip(kinds, spots, strict=False)
    ]


def fabric(rng, tape):
    """Grey levels (n, n) of the woven tape, and its base level."""
    n = tape.n
    coarse, fine = weave(rng, tape.weave_x, tape.weave_y, n)
    off = np.abs(tape.x - tape.centre)
    near = step(off, 0.105, 0.092)
    gaps = coarse * (1 - near) + fine * near
    edge = np.where(tape.x < tape.centre, tape.edges[0], tape.edges[1])
    ribs = np.abs(tape.x - edge)
    gaps = np.where(ribs < 0.016, 0.6 * fine + 0.25 * coarse, gaps)
    base = 62.5 + rng.uniform(-4, 4)
    cloth = base * (
        1 + 0.022 * noise(rng, n, n, 3, 3) + 0.04 * noise(rng, n, n, 110, 110)
    )
    cloth = cloth + 8.0 - 38 * np.clip(gaps, 0, 1.1) + tape.damage
    # Lit from above: the upper lip of a gap falls into shade, the lower one shines.
    cloth = cloth - 30 * np.gradient(gaps, axis=0) * (n / 512)
    cloth -= 15 * np.exp(-(((off - 0.055) / 0.02) ** 2))
    cloth -= 14 * np.exp(-((ribs / 0.006) ** 2))
    return cloth, base


def lint(rng, canvas, inside):
    """Specks and hairs (in place); good zippers carry them too."""
    n = len(canvas)
    specks = spots(rng, n, rng.poisson(4), (0.16, 0), (0.84, 1), (0.45, 0.9), (40, 190))
    canvas += (230 - canvas) * specks
    count, spread = rng.poisson(0.3), (0.17, 0.25)
    hairs = fibres(rng, n, count, 0.5, 0.5, spread, 0.03, 0.001, bend=1.5)
    canvas += (100 - canvas) * hairs * 0.8 * inside
