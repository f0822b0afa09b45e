"""A hazelnut on dark ground: body, skin, light and defect put together."""

import numpy as np

from sample_data.canvas import SUPERSAMPLE, blend, shrink, spots
from sample_data.noise import lookup, noise
from sample_data.nut import trace
from sample_data.nut_defects import DEFECTS
from sample_data.shell import shell

PAD = 2  # columns that the skin overlaps itself, for interpolation across its seam


def draw(key, size, kind, level):
    """One nut before grain: float32 (size, size, 3), RGB."""
    rng = np.random.default_rng(key)
    n = size * SUPERSAMPLE
    nut = trace(rng, n)
    texture, height = shell(rng, n)
    lat = np.arctan2(np.hypot(nut.body[0], nut.body[1]), nut.body[2] + 0.06) / np.pi
    sample = sampler(nut, lat, *height.shape)
    bumpy = bump(nut, height, sample, n)
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
        place = placer(nut, lat, hurt.uniform(-0.5, 0.5, 2))
        colour = DEFECTS[kind](hurt, level, colour, place, lit(nut.normal)[:, None])
    canvas = ground(rng, n)
    canvas[nut.inside] = colour
    return shrink(np.clip(canvas, 0, 255), size)


def sampler(nut, lat, h, w):
    """A function from fields (h, w) or (h, w, C) of the skin to the nut's pixels."""
    lon = np.arctan2(nut.body[1], nut.body[0]) / (2 * np.pi) % 1

    def sample(field):
        wrapped = np.concatenate([field[:, -PAD:], field, field[:, :PAD]], axis=1)
        return lookup(wrapped, lon * w - 0.5 + PAD, lat * h - 0.5)

    return sample


def bump(nut, height, sample, n):
    """Normals (3, P), tilted against the height's slope along both tangents."""
    slope = np.stack([np.gradient(height, axis=1), np.gradient(height, axis=0)], -1)
    slope = sample(slope.astype(np.float32)) * (512 / n)
    axis, normal = nut.to_body[2], nut.normal
    down = -(axis[:, None] - normal * (axis @ normal))
    down /= np.linalg.norm(down, axis=0) + 1e-6
    around = np.cross(axis, normal, axis=0)
    around /= np.linalg.norm(around, axis=0) + 1e-6
    bumpy = normal - 0.16 * (around * slope[:, 0] + down * slope[:, 1])
    bumpy /= np.linalg.norm(bumpy, axis=0)
    return bumpy


def placer(nut, lat, aim):
    """A function for tangent coordinates round the visible point nearest to `aim`."""
    normal = nut.normal

    def place(facing, rng):
        """(a, b), each (P,) in nut radii; where normals face us more than `facing`."""
        clear = np.flatnonzero((normal[2] > facing) & (lat > 0.12) & (lat < 0.9))
        # By coordinates, not by pixel number: the same spot at every size.
        off = normal[:2, clear] - aim[:, None]
        p = clear[np.argmin((off**2).sum(0))]
        first = np.cross(normal[:, p], np.append(rng.normal(0, 1, 2), 0))
        first /= np.linalg.norm(first)
        offset = nut.to_body.T @ (nut.body - nut.body[:, p : p + 1])
        a = first @ offset
        b = np.cross(normal[:, p], first) @ offset
        far = 9 * (normal[:, p] @ normal < 0.1)  # the nut's other side
        return (a + far).astype(np.float32), (b + far).astype(np.float32)

    return place


def ground(rng, n):
    """Dark cloth with a little dust, (n, n, 3)."""
    tint = np.float32([36, 36.5, 41]) + rng.normal(0, 0.8, 3).astype(np.float32)
    canvas = np.tile(tint, (n, n, 1))
    canvas *= (1 + 0.035 * noise(rng, n, n, 4, 4))[..., None]
    dust = spots(rng, n, rng.poisson(7), (0, 0), (1, 1), (0.5, 1.6), (20, 110))
    return blend(canvas, np.float32([128, 124, 120]), dust)
