"""What can be wrong with a zipper's tape, and the hairs that broken teeth leave.

A defect takes (tape, hurt, amount, at, side): amount from 0 (barely visible) to 1
(obvious), `at` a height, side 0 left or 1 right. It changes the tape in place.
"""

import numpy as np

from sample_data.canvas import fibres
from sample_data.noise import curve, noise


def fabric_border(tape, hurt, amount, at, side):
    out = 2 * side - 1
    shape = (tape.rows - at) / (0.014 + 0.022 * amount)
    notch = np.exp(-(shape**4)) * (1 + 0.3 * curve(hurt, tape.n, 60)[:, None])
    edge = tape.edges[side] - out * (0.011 + 0.018 * amount) * notch
    edge = edge + out * 0.01 * np.exp(-((shape - 1.6) ** 2 / 0.2))
    tape.edges[side] = edge
    x = float(edge[int(at * tape.n), 0])
    near = np.exp(-(((tape.x - x) / 0.05) ** 2 + ((tape.y - at) / 0.06) ** 2))
    tape.damage -= (4 + 12 * amount) * near
    count, spot, spread = 3 + round(7 * amount), (x, at), (0.004, 0.018)
    hair = fibres(hurt, tape.n, count, *spot, spread, 0.032, 0.0025, bend=2.5)
    tape.hairs.append((hair, 80 + 120 * amount))


def fabric_interior(tape, hurt, amount, at, side):
    n, out = tape.n, 2 * side - 1
    x = tape.middle + out * hurt.uniform(0.14, 0.3)
    wide, tall = (1.05 + 0.35 * amount) * hurt.uniform(0.024, 0.038, 2)
    wide, tall = float(wide), float(tall)
    lumps = 1 + 0.4 * noise(hurt, n, n, 24, 24)
    ring = ((tape.x - x) / wide) ** 2 + ((tape.y - at) / tall) ** 2
    blot = np.exp(-(ring**1.3) / np.maximum(lumps, 0.3))
    tape.damage -= (18 + 12 * amount) * blot * (0.75 + 0.35 * lumps)
    tape.weave_y = tape.weave_y + 0.025 * blot * noise(hurt, n, n, 14, 14)
    tape.weave_x = tape.weave_x + 0.02 * blot * noise(hurt, n, n, 18, 18)
    count, spot, spread = round(10 * amount), (x, at), (wide / 2, tall / 2)
    hair = fibres(hurt, n, count, *spot, spread, 0.03, 0.0018)
    tape.hairs.append((hair, 60 + 70 * amount))


def rough(tape, hurt, amount, at, side):
    out = 2 * side - 1
    count, spot = 24 + round(16 * amount), (tape.middle + out * 0.04, at + 0.03)
    hair = fibres(hurt, tape.n, count, *spot, (0.012, 0.03), 0.024, 0.0018)
    tape.hairs.append((hair, 150 + 40 * amount))


def splinters(tape, hurt, amount, at, side):
    """Bright ones, of broken teeth."""
    out = 2 * side - 1
    count, spot = 5 + round(5 * amount), (tape.middle + out * 0.03, at + 0.02)
    hair = fibres(hurt, tape.n, count, *spot, (0.012, 0.014), 0.02, 0.0035)
    tape.hairs.append((hair, 150 + 80 * amount))


DEFECTS = {
    "fabric_border": fabric_border,
    "fabric_interior": fabric_interior,
    "rough": rough,
    "broken_teeth": splinters,
}
