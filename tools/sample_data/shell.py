"""The skin of a hazelnut, over colatitude from the tip (rows) and longitude."""

from functools import partial

import cv2
import numpy as np

from sample_data.canvas import blend
from sample_data.noise import noise as smooth
from sample_data.noise import step

TAN = np.float32([205, 158, 112])  # bare wood


def shell(rng, n):
    """Colour (h, w, 3) and height (h, w) of a skin for a picture of n x n pixels."""
    h, w = n * 3 // 4, n * 2
    lat = ((np.arange(h, dtype=np.float32) + 0.5) / h)[:, None]
    noise = partial(smooth, rng, h, w, wrap=True)
    broad, mid, fine = noise(2, 30), noise(3, 74), noise(7, 210)
    stripes = 0.45 * broad + 0.5 * mid + 0.35 * fine
    colour = striped(rng, noise, stripes, broad, mid)
    height = -0.8 * stripes * np.sin(np.pi * lat) ** 0.5
    colour = bloom(rng, noise, colour, lat, broad, mid, fine)
    colour = blend(colour, TAN, specks(rng, h, w, n) * 0.8)
    return cap(rng, noise, colour, height, lat)


def striped(rng, noise, stripes, broad, mid):
    """Brown with darker and lighter stripes from tip to base, (h, w, 3)."""
    dark = step(stripes, 0.0, 1.9) * 0.6 + 0.25 * step(mid, 0.4, 1.8)
    hue = rng.normal(0, 1)
    body = np.float32([166, 83, 57]) + hue * np.float32([4, 6, 3])
    body = body * rng.uniform(0.88, 1.08)
    colour = np.broadcast_to(body, (*stripes.shape, 3)).astype(np.float32)
    colour = blend(colour, body * np.float32([1.18, 1.22, 1.1]), step(-broad, 0, 2))
    colour = blend(colour, body * np.float32([0.6, 0.55, 0.6]), dark)
    colour *= (1 + 0.025 * noise(30, 200) + 0.05 * noise(5, 8))[..., None]
    return colour


def bloom(rng, noise, colour, lat, broad, mid, fine):
    """Grey bloom round the tip, in streaks that run down the stripes."""
    reach = rng.uniform(0.12, 0.3)
    cover = step(lat + 0.07 * broad + 0.05 * fine, reach, 0.03)
    cover = cover * np.clip(0.55 + 0.3 * mid + 0.25 * noise(30, 90), 0, 1)
    cover += 0.22 * step(noise(9, 40) + 0.8 * noise(60, 200), 1.3, 3.2)
    return blend(colour, np.float32([158, 128, 112]), np.clip(cover, 0, 0.8))


def specks(rng, h, w, n):
    """Coverage (h, w) of light scratches and specks."""
    layer = np.zeros((h, w), np.uint8)
    for _ in range(rng.poisson(26)):
        cx, cy = rng.uniform(0, w), rng.uniform(0.1, 0.7) * h
        size = rng.uniform(0.5, 2.0, 2) * n / 512
        at = (int(cx * 16), int(cy * 16))
        axes = (max(4, int(size[0] * 16)), max(6, int(size[1] * 24)))
        level = int(rng.integers(50, 210))
        cv2.ellipse(layer, at, axes, 0, 0, 360, level, -1, cv2.LINE_AA, 4)
    return layer.astype(np.float32) / 255


def cap(rng, noise, colour, height, lat):
    """Lay the cap over the base: a wandering border, a scalloped rim, radial fibres.

    Returns colour (h, w, 3) and height (h, w).
    """
    edge, rim = borders(rng, noise, colour.shape[1])
    hair = 0.45 * noise(24, 90) + 0.75 * noise(46, 220) + 0.55 * noise(110, 300)
    age = rng.uniform(0, 1)
    tone = np.float32([146, 109, 82]) * (0.6 + 0.55 * age)
    tone = tone + (1 - age) * np.float32([-4, -8, -6])
    felt = np.broadcast_to(tone, colour.shape).astype(np.float32)
    felt = blend(felt, tone * np.float32(0.66), step(-hair, 0.1, 1.8))
    felt = blend(felt, tone * np.float32([1.3, 1.3, 1.22]), step(hair, 0.5, 1.9))
    felt *= (1 + 0.16 * noise(7, 14) + 0.1 * noise(24, 64))[..., None]
    felt *= (0.72 + 0.28 * step(lat, rim, rim + 0.05))[..., None]
    soft = 1.5 / len(height)
    within = step(lat, edge - soft, edge + soft)
    inner = step(lat, rim - soft, rim + soft)
    band = np.float32([186, 126, 84]) * (0.75 + 0.3 * age)
    colour = blend(colour, band * (1 + 0.12 * noise(30, 200))[..., None], within)
    colour = blend(colour, felt, inner)
    line = np.exp(-(((lat - edge) / 0.0055) ** 2)) + 0.9 * np.exp(
        -(((lat - rim - 0.004) / 0.006) ** 2)
    )
    colour *= 1 - 0.62 * np.clip(line, 0, 1)[..., None]
    height = height * (1 - inner) + inner * (0.6 * hair - 1.5) + 1.2 * within
    return colour, height.astype(np.float32)


def borders(rng, noise, w):
    """Colatitudes (1, w) where the cap's border and its rim run."""
    lon = ((np.arange(w, dtype=np.float32) + 0.5) / w)[None]
    edge = (
        rng.uniform(0.665, 0.735) + 0.008 * noise(1, 14)[:1] + 0.003 * noise(1, 60)[:1]
    )
    teeth = int(rng.integers(44, 60))
    wave = np.abs(((lon * teeth + 0.35 * noise(1, 30)[:1]) % 1) * 2 - 1)
    depth = np.clip(0.026 + 0.012 * noise(1, 25)[:1], 0.008, 0.05)
    rim = edge + 0.008 + depth * wave**1.4 * (0.75 + 0.3 * noise(1, 110)[:1])
    return edge, rim
