"""What can be wrong with a hazelnut: crack, cut, hole, print.

A defect takes (rng, level, colour, place, shade): level from 0 (barely visible) to 1
(obvious), colour (P, 3) of the lit nut, place(facing, rng) for tangent coordinates a, b
(P,) round a visible point, shade (P, 1). It returns the colour (P, 3), lit already.
"""

import numpy as np

from sample_data.canvas import blend, segment
from sample_data.noise import curve, lookup, noise, step
from sample_data.shell import TAN

BLACK = np.float32([24, 17, 16])
WHITE = np.float32([226, 228, 226])
CELLS = 256  # samples of each noise
ALONG = np.linspace(-1, 1, CELLS)
STROKES = {  # letters on a 1 x 1 box as line segments
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


def wiggle(rng, angle, cells):
    """Smooth noise over an angle (P,), closed in a ring."""
    ring = noise(rng, 2, CELLS, 1, cells, wrap=True)[0]
    at = angle / (2 * np.pi) % 1 * CELLS
    return np.interp(at, np.arange(CELLS), ring, period=CELLS)


def mottle(rng, a, b, cells):
    """Smooth noise over tangent coordinates (P,)."""
    field = noise(rng, CELLS, CELLS, cells, cells)
    return lookup(field, (a * 0.5 + 0.5) * CELLS, (b * 0.5 + 0.5) * CELLS)


def wander(rng, a, cells, size):
    """A line that wanders by about `size` over a (P,)."""
    return np.interp(a, ALONG, curve(rng, CELLS, cells) * size)


def crack(rng, level, colour, place, shade):
    draw = shell_gone if level > 0.6 else fissure
    return draw(rng, level, colour, place, shade)


def shell_gone(rng, level, colour, place, shade):
    """A piece of the shell is missing, and the kernel shows."""
    a, b = place(0.75, rng)
    size = 0.2 + 0.38 * level
    angle, rho = np.arctan2(b, a), np.hypot(a, b)
    outline = size * (1 + 0.13 * wiggle(rng, angle, 5) + 0.035 * wiggle(rng, angle, 17))
    depth = outline - rho
    rim = 0.07 * (1 + 0.25 * wiggle(rng, angle, 9))
    wood = TAN * (1 + 0.1 * mottle(rng, a, b, 60))[:, None] * (0.55 + 0.5 * shade)
    pores = step(mottle(rng, a, b, 90), 1.6, 2.0) * step(depth, 0.015, 0.03)
    wood = wood * (1 - 0.8 * pores[:, None])
    colour = blend(colour, wood, step(depth, -0.008, 0.008)[:, None])
    wrinkles = mottle(rng, a * 0.6 + 0.35 * b, b * 2, 24)
    wrinkles = wrinkles + 0.6 * mottle(rng, a, b, 70)
    dome = np.sqrt(np.clip(1.05 - (rho / outline) ** 2, 0.03, 1))
    lit = 0.4 + 0.6 * dome - 0.25 * (a + b) / size
    kernel = np.float32([118, 62, 46]) * (1 + 0.24 * wrinkles)[:, None]
    ridges = 0.6 * step(wrinkles, 1.7, 2.3)[:, None]
    kernel = blend(kernel, np.float32([196, 160, 110]), ridges)
    kernel *= (np.clip(lit, 0.15, 1.25) * step(depth, rim, rim + 0.16))[:, None]
    return blend(colour, kernel, step(depth, rim - 0.01, rim + 0.01)[:, None])


def fissure(rng, level, colour, place, shade):
    a, b = place(0.8, rng)
    half = 0.3 + 0.45 * level
    path = wander(rng, a, 9, 0.035)
    path = path + wander(rng, a, 40, 0.012)
    taper = np.clip(1 - (a / half) ** 2, 0, 1)
    width = (0.019 + 0.026 * level**2) * taper * (1 + 0.3 * mottle(rng, a, b * 0, 20))
    off = np.abs(b - path)
    inside = step(off, width + 0.006, width - 0.006) * step(taper, 0.0, 0.12)
    edge = step(off, width + 0.022, width + 0.008) * (taper > 0) * 0.7 * level
    colour = blend(colour, TAN * (0.5 + 0.4 * shade), edge[:, None])
    return blend(colour, BLACK, (0.92 * inside)[:, None])


def cut(rng, level, colour, place, shade):
    a, b = place(0.8, rng)
    half, width = 0.17 + 0.15 * level, 0.023 + 0.02 * level
    path = 0.08 * a + wander(rng, a, 14, 0.008)
    lens = width * np.sqrt(np.clip(1 - (a / half) ** 2, 0, 1))
    lens = lens * (1 + 0.25 * mottle(rng, a, b * 0, 40))
    off = np.abs(b - path)
    grain = (1 + 0.12 * mottle(rng, a * 3, b, 60))[:, None]
    wood = TAN * (0.45 + 0.55 * shade) * grain
    inside = step(off, lens + 0.006, lens - 0.006) * (lens > 0)
    colour = blend(colour, wood, ((0.6 + 0.4 * level) * inside)[:, None])
    core = step(np.abs(b - path - 0.3 * lens), 0.35 * lens + 0.004, 0.1 * lens)
    dark = core * inside * step(mottle(rng, a, b, 12), -0.6, 0.5) * (0.3 + 0.5 * level)
    colour = blend(colour, BLACK * 2, dark[:, None])
    if level > 0.5:  # the blade slipped once more
        slip = np.abs(b - 0.09 + 0.35 * (a - 0.1))
        slip = step(slip, 0.012, 0.004) * (np.abs(a - 0.1) < half * 0.6)
        colour = blend(colour, TAN * (0.5 + 0.5 * shade), 0.6 * slip[:, None])
    return colour


def hole(rng, level, colour, place, shade):
    a, b = place(0.75, rng)
    angle, rho = np.arctan2(b, a), np.hypot(a, b)
    size = 0.048 + 0.075 * level
    ragged = 1 + 0.16 * wiggle(rng, angle, 9) + 0.1 * wiggle(rng, angle, 23)
    outer = (size + 0.03) * ragged
    wood = TAN * (0.4 + 0.6 * shade) * (1 + 0.12 * mottle(rng, a, b, 80))[:, None]
    colour = blend(colour, wood, step(rho, outer + 0.01, outer - 0.008)[:, None])
    inner = size * (1 + 0.06 * wiggle(rng, angle, 11))
    wall = BLACK + 40 * np.clip((a + b) / size, 0, 1)[:, None] * TAN / 255
    return blend(colour, wall, step(rho, inner + 0.01, inner - 0.008)[:, None])


def stamp(rng, level, colour, place, shade):
    """White ink: letters, or where it is faint a smear."""
    a, b = place(0.7, rng)
    chips = mottle(rng, a, b, 70) + 0.7 * mottle(rng, a, b, 30)
    if level > 0.45:
        word = rng.permutation(list(STROKES))[: 2 + round(2 * level)]
        ink = letters(word, a, b, 0.16 + 0.1 * level) * step(chips, -1.6, -0.9)
    else:
        size = 0.16 + 0.25 * level
        bristles = mottle(rng, a * 0.25, b * 2.2, 60) + 0.45 * chips
        patch = step(np.hypot(a / size, b / size * 1.4), 1.05, 0.7)
        ink = patch * step(bristles, 0.35, 0.8)
    return blend(colour, WHITE * (0.72 + 0.3 * shade), 0.95 * ink[:, None])


def letters(word, a, b, size):
    """Coverage (P,) of a word whose letters are `size` wide."""
    ink = np.zeros_like(a)
    for k, letter in enumerate(word):
        u = a / size - (k - (len(word) - 1) / 2) * 1.25 + 0.5
        v = b / size + 0.7
        for x0, y0, x1, y1 in STROKES[letter]:
            d, _, _ = segment(u, v, x0, y0 * 1.4, x1, y1 * 1.4)
            ink = np.maximum(ink, step(d, 0.17, 0.09))
    return ink


DEFECTS = {"crack": crack, "cut": cut, "hole": hole, "print": stamp}
