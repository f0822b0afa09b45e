"""The body of a hazelnut: a solid of revolution, ray-traced. Lengths in nut radii."""

from dataclasses import dataclass

import cv2
import numpy as np

REACH = 1.6  # the profile is tabulated from -REACH to REACH
HEIGHTS = np.linspace(-REACH, REACH, 8192, dtype=np.float32)


@dataclass(frozen=True)
class Nut:
    """What the camera sees of a nut, at the P pixels that it covers."""

    inside: np.ndarray  # (n, n) bool: those pixels
    body: np.ndarray  # (3, P) points on the surface, the nut's axis is z
    normal: np.ndarray  # (3, P) towards the outside, as the camera sees it
    to_body: np.ndarray  # (3, 3) from the camera's coordinates to the nut's


def trace(rng, n):
    """Throw a nut on a picture of n x n pixels, as a Nut."""
    radius, slope = profile(rng)
    stretch = 1 / rng.uniform(0.93, 1.0)  # not quite round
    axes = rotation(rng)
    scale = rng.uniform(0.32, 0.36)
    shift = rng.normal(0, 0.012, 2) - scale * 0.1 * axes[2, :2]
    shift, to_body = shift.astype(np.float32), axes.astype(np.float32)
    grid = (np.arange(n, dtype=np.float32) + 0.5) / n - 0.5
    x, y = np.meshgrid((grid - shift[0]) / scale, (grid - shift[1]) / scale)
    near = x**2 + y**2 < 1.25**2
    x, y = x[near].astype(np.float32), y[near].astype(np.float32)
    flat = to_body[:, :1] * x + to_body[:, 1:2] * y  # (3, P)
    w = march(flat, to_body[:, 2:], radius, slope, stretch)
    body = flat + to_body[:, 2:] * w
    bx, by, bz = body
    rho = np.sqrt(bx**2 + (by * stretch) ** 2) + 1e-5
    r = np.interp(bz, HEIGHTS, radius).astype(np.float32)
    s = np.interp(bz, HEIGHTS, slope).astype(np.float32)
    # A ray that misses runs on past the nut; one that hits ends on the surface.
    hit = (np.abs(rho - r) / np.sqrt(1 + s**2) < 0.02) & (w > -1.0)
    normal = np.stack([bx / rho, by * stretch**2 / rho, -s])
    normal /= np.linalg.norm(normal, axis=0)
    normal = to_body.T @ normal
    hit &= normal[2] > 0
    inside = np.zeros((n, n), bool)
    inside[near] = hit
    return Nut(inside, body[:, hit], normal[:, hit], to_body)


def profile(rng):
    """Radius over height (base below, tip above) and its slope, tables over HEIGHTS."""
    base, waist, tip = -0.84, rng.uniform(-0.16, 0.0), rng.uniform(0.98, 1.14)
    low = np.clip((waist - HEIGHTS) / (waist - base), 0, 1)
    high = np.clip((HEIGHTS - waist) / (tip - waist), 0, 1)
    point = rng.uniform(0.66, 0.8)
    radius = (1 - low**2.5) ** (1 / 2.3) * (1 - high**2.15) ** point
    radius -= rng.uniform(0.01, 0.04) * np.exp(-(((high - 0.9) / 0.06) ** 2))
    outside = np.maximum(base - HEIGHTS, HEIGHTS - tip)
    radius = np.where(outside > 0, -3 * outside, np.maximum(radius, 0))
    radius = cv2.GaussianBlur(radius[:, None].astype(np.float32), (1, 41), 9)[:, 0]
    slope = np.clip(np.gradient(radius, HEIGHTS), -12, 12).astype(np.float32)
    return radius, slope


def rotation(rng):
    """How the nut lies: the matrix (3, 3) from the camera's coordinates to its own."""
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
    return np.stack([first, np.cross(axis, first), axis])


def march(flat, view, radius, slope, stretch):
    """Depth (P,) at which rays through `flat` (3, P) along `view` (3, 1) end."""
    w = np.full_like(flat[0], 1.3)
    for i in range(26):
        bx, by, bz = flat + view * w
        index = (bz + REACH) * (8191 / (2 * REACH))
        index = np.clip(index, 0, 8191).astype(np.int32)
        gap = np.sqrt(bx**2 + (by * stretch) ** 2) - radius[index]
        w -= gap / np.sqrt(1 + slope[index] ** 2) * (0.97 if i < 20 else 0.8)
    return w
