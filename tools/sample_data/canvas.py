"""What is drawn on a picture: blends, segments, hairs, specks, and the lens."""

import cv2
import numpy as np

SUPERSAMPLE = 2  # pictures are drawn this many times too large


def blend(base, colour, alpha):
    """`colour` over `base`; alpha (H, W), colours (3,) or (H, W, 3) or grey."""
    if np.ndim(base) == 3:
        alpha = alpha[..., None]
    return base + (colour - base) * alpha


def segment(x, y, x0, y0, x1, y1):
    """Distance to a segment, position 0..1 along it, signed offset across it."""
    dx, dy = x1 - x0, y1 - y0
    length = np.sqrt(dx * dx + dy * dy) + 1e-6
    along = ((x - x0) * dx + (y - y0) * dy) / length
    across = ((y - y0) * dx - (x - x0) * dy) / length
    beyond = along - np.clip(along, 0, length)
    return np.sqrt(across**2 + beyond**2), along / length, across


def fibres(rng, size, count, x, y, spread, length, width, bend=1.2):
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


def spots(rng, n, count, low, high, size, tone):
    """Coverage (n, n) of `count` round specks; x, y from low to high, size in 1/512."""
    layer = np.zeros((n, n), np.uint8)
    for _ in range(count):
        spot = tuple(int(v * n * 16) for v in rng.uniform(low, high))
        r = int(rng.uniform(*size) * n / 32)
        cv2.circle(layer, spot, r, int(rng.integers(*tone)), -1, cv2.LINE_AA, 4)
    return layer.astype(np.float32) / 255


def shrink(image, size):
    """Area-average to `size` and soften like a lens."""
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 0.45 * max(size / 256, 0.5))
