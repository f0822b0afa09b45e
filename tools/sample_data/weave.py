"""The tape of a zipper: broken twill. Lengths in image widths."""

import numpy as np

from sample_data.noise import noise

TABLE = 128  # threads before a table repeats


def weave(rng, x, y, n):
    """Relief of a coarse and of a fine weave, (n, n) each: 0 cloth, about 1 a gap."""
    x = x + 0.0011 * noise(rng, n, n, 40, 40)
    y = y + 0.0016 * noise(rng, n, n, 30, 30) + 0.004 * noise(rng, n, n, 4, 4)
    coarse = lattice(rng, x, y, 0.0173, 0.0545, 1.3)
    fine = lattice(rng, x, y, 0.0098, 0.0172, 0.3)
    return coarse, fine


def lattice(rng, x, y, px, py, slant):
    """Gaps between threads that repeat every px, py."""
    # Tables of fixed size: a defect must not change what its twin draws.
    kinds = rng.random((3, TABLE, TABLE), dtype=np.float32)
    phase = rng.random(2, dtype=np.float32)
    u = x / px + phase[0]
    pair = np.floor(u / 2).astype(np.int32)
    offset = np.arange(TABLE) * 0.382 + rng.normal(0, 0.06, TABLE) + phase[1]
    v = y / py + offset.astype(np.float32)[pair % TABLE]
    row = np.floor(v).astype(np.int32)
    inner, lean, strength = kinds[:, row % TABLE, pair % TABLE]
    across, down = u - 2 * np.floor(u / 2), v - np.floor(v)
    sides = np.minimum(across, 2 - across) * px
    ends = np.minimum(down, 1 - down) * py
    middle = np.abs(across - 1 - slant * (lean - 0.5) * (down - 0.5)) * px
    half = np.abs(down - 0.3 - 0.4 * lean) * py + 9 * ((across > 1) != (lean > 0.5)) * (
        inner < 0.75
    )
    dark = 0.75 * gap(sides, 0.002) + (0.6 + 0.4 * strength) * gap(ends, 0.0021)
    dark = np.maximum(dark, (0.4 + 0.5 * inner) * gap(middle, 0.0018))
    return np.maximum(dark, 0.75 * strength * gap(half, 0.0019))


def gap(distance, width):
    return np.exp(-((distance / width) ** 2))
