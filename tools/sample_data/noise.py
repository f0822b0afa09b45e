"""Smooth noise that is the same on every machine, and how fields are sampled."""

from functools import cache

import numpy as np


@cache
def taps(size, cells, wrap):
    """Cubic interpolation between cell centres: cells and weights, (4, size) each."""
    at = (np.arange(size) + 0.5) / size * cells - 0.5
    first = np.floor(at).astype(int) - 1
    columns = first + np.arange(4)[:, None]
    t = np.abs(at - columns)
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    columns = columns % cells if wrap else np.clip(columns, 0, cells - 1)
    return columns, np.where(t < 1, near, far).astype(np.float32)


def noise(rng, height, width, ny, nx, wrap=False):
    """Smooth noise of ny x nx cells, about unit variance; `wrap` closes it in x."""
    grid = rng.standard_normal((ny, nx)).astype(np.float32) * np.float32(1.35)
    # Not as matrix products: a BLAS may sum in another order on another machine.
    rows = zip(*taps(height, ny, False), strict=True)
    tall = sum(grid[row] * weight[:, None] for row, weight in rows)
    columns = zip(*taps(width, nx, wrap), strict=True)
    return sum(tall[:, column] * weight for column, weight in columns)


def curve(rng, size, cells):
    """Smooth one-dimensional noise, (size,)."""
    return noise(rng, 2, size, 1, cells)[0]


def lookup(field, x, y):
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


def step(x, low, high):
    """Smoothstep from 0 at `low` to 1 at `high` (which may be the smaller)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
