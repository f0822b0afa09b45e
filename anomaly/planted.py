"""Defects planted on normal images, with exact masks: what would be missed?

Simple means of OpenCV, seeded: the same seed plants the same defect. Lengths are in
pixels of the image that is given.
"""

from typing import NamedTuple

import cv2
import numpy as np

from anomaly.images import to_grey

KINDS = ("spot", "scratch", "missing piece", "stain", "blur")
CHINESE = ("斑点", "划痕", "缺块", "污渍", "模糊")
RING = 0.04  # of the side: the border that is background where there is one
SCALE = 8  # shapes are drawn so many times larger: their edges are smooth


class Defect(NamedTuple):
    """What is planted where."""

    source: int  # index of the normal image
    kind: str  # one of KINDS
    size: float  # diameter, or length of a scratch
    contrast: float  # 0 is invisible, 1 the strongest
    seed: int


class Planted(NamedTuple):
    image: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (H, W) bool, the pixels that changed
    place: tuple  # (x, y) of the middle, shares of the sides
    depth: float  # 0 at the product's edge, 1 where it is farthest


def draw_plan(kind, sources, sizes, contrasts, count, seed=0):
    """`count` defects of a kind [Defect], evenly spread over all that is given.

    sources are the indices of normal images; sizes (lowest, highest), whose logarithm
    is spread evenly; contrasts, a list.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    step = (np.arange(count) + rng.random(count)) / count
    spread = np.exp(np.interp(rng.permutation(step), [0, 1], np.log(sizes)))
    turns = rng.permutation(np.resize(sources, count))
    seeds = rng.integers(2**31, size=count)
    strength = np.resize(contrasts, count)
    rows = zip(turns, spread, strength, seeds, strict=True)
    return [Defect(int(i), kind, float(s), float(c), int(n)) for i, s, c, n in rows]


def product(image, margin=0):
    """Where the product is, (H, W) bool: not the background, nor the `margin`.

    The background is of the colour of the outermost ring, if that is of one colour;
    otherwise the product fills the image.
    """
    lab = cv2.cvtColor(cv2.medianBlur(image, 5), cv2.COLOR_RGB2LAB).astype(np.float32)
    height, width = image.shape[:2]
    ring = np.ones((height, width), bool)
    edge = max(2, round(RING * width))
    ring[edge:-edge, edge:-edge] = False
    away = np.linalg.norm(lab - np.median(lab[ring], axis=0), axis=2)
    grey = np.uint8(np.clip(away * 2, 0, 255))
    level, found = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    found = cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((edge, edge), np.uint8))
    outline, _ = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros((height, width), np.uint8)
    if outline and (grey[ring] > level).mean() < 0.15:
        largest = max(map(cv2.contourArea, outline))
        kept = [line for line in outline if cv2.contourArea(line) > 0.1 * largest]
        cv2.drawContours(filled, kept, -1, 1, cv2.FILLED)
    if filled.mean() < 0.01:
        filled[:] = 1
    if margin:
        inner = np.zeros_like(filled)
        inner[margin:-margin, margin:-margin] = 1
        filled &= inner
    return filled.astype(bool)


def plant(image, defect, margin=0, region=None):
    """`Planted`: an image (H, W, 3) uint8 RGB with a defect somewhere on the product.

    Nothing is planted in the outermost `margin` pixels, nor outside of the `region`
    (H, W) bool.
    """
    rng = np.random.default_rng(defect.seed)
    inside = product(image, margin)
    if region is not None:  # of the background, if no product is in it
        inside = inside & region if (inside & region).any() else region
    depths = cv2.distanceTransform(np.pad(np.uint8(inside), 1), cv2.DIST_L2, 5)
    depths = depths[1:-1, 1:-1] / max(depths.max(), 1)
    ys, xs = inside.nonzero()
    at = rng.integers(len(ys))
    x, y = int(xs[at]), int(ys[at])
    draw = {"spot": _spot, "scratch": _scratch, "missing piece": _piece}
    draw |= {"stain": _stain, "blur": _blur}
    alpha, paint = draw[defect.kind](image, (x, y), defect.size, defect.contrast, rng)
    alpha = alpha[..., None]  # (H, W, 1), how opaque
    mixed = np.rint(image * (1 - alpha) + paint * alpha)
    result = np.uint8(np.clip(mixed, 0, 255))
    mask = (result != image).any(axis=2)
    sides = image.shape[1], image.shape[0]
    place = (x + 0.5) / sides[0], (y + 0.5) / sides[1]
    return Planted(result, mask, place, float(depths[y, x]))


def _shape(image, points):
    """Opacity (H, W) of a filled polygon with smooth edges; points (n, 2) in pixels."""
    height, width = image.shape[:2]
    low = np.floor(points.min(0) - 2).astype(int)
    high = np.ceil(points.max(0) + 3).astype(int)
    canvas = np.zeros((*(high - low)[::-1] * SCALE,), np.uint8)
    corners = np.rint((points - low + 0.5) * SCALE - 0.5).astype(np.int32)
    cv2.fillPoly(canvas, [corners], 255)
    size = tuple(map(int, high - low))
    small = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)
    alpha = np.zeros((height, width), np.float32)
    (x0, y0), (x1, y1) = np.maximum(low, 0), np.minimum(high, (width, height))
    part = small[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]]
    alpha[y0:y1, x0:x1] = part / 255
    return alpha


def _round(middle, size, rng, rough=0.0, corners=64):
    """Points (n, 2) of a circle; `rough` is how far it departs from one."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radius, turn = np.ones(corners), rng.random() * 2 * np.pi
    for wave in range(2, 6):
        phase = rng.random() * 2 * np.pi
        radius += rough * rng.normal() / wave * np.cos(wave * angle + phase)
    radius = np.maximum(radius, 0.3)
    stretch = np.exp(rough * rng.normal() / 2)
    x, y = radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch
    turned = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    return np.array(middle) + np.stack(turned, axis=1) * size / 2


def _grey_below(image, alpha):
    """Mean grey level of what a shape covers."""
    return float((to_grey(image) * alpha).sum() / max(alpha.sum(), 1e-6))


def _spot(image, middle, size, contrast, rng):
    """Dark, or light on what is dark already."""
    alpha = _shape(image, _round(middle, size, rng))
    return alpha * contrast, 0.0 if _grey_below(image, alpha) > 48 else 255.0


def _scratch(image, middle, size, contrast, rng):
    """A slightly bent line of this length, a twelfth as wide, ends tapered."""
    t = np.linspace(-0.5, 0.5, 24)
    turn, bend = rng.random() * np.pi, rng.normal() * 0.25
    along, across = t * size, bend * size * (t**2 - 1 / 12)
    half = max(size / 12, 1.2) / 2 * np.sqrt(np.maximum(1 - (2 * t) ** 4, 0.02))
    one = np.stack([along, across + half], 1), np.stack([along, across - half], 1)
    points = np.concatenate([one[0], one[1][::-1]])
    c, s = np.cos(turn), np.sin(turn)
    points = np.array(middle) + points @ np.array([[c, s], [-s, c]])
    alpha = _shape(image, points)
    shade = 255.0 if _grey_below(image, alpha) < 190 else 0.0  # bare material shines
    return alpha * contrast, shade


def _piece(image, middle, size, contrast, rng):
    """Broken off: what is behind the product is seen, or a hole's darkness."""
    points = _round(middle, size, rng, rough=0.35, corners=9)
    alpha = _shape(image, points)
    edge = max(2, round(RING * image.shape[1]))
    ring = np.concatenate([image[:edge].reshape(-1, 3), image[-edge:].reshape(-1, 3)])
    behind = np.median(ring, axis=0)
    below = image[alpha > 0.5].mean(0) if (alpha > 0.5).any() else behind
    if np.abs(behind - below).max() < 40:  # the product fills the image
        behind = below * 0.3
    shade = cv2.GaussianBlur(alpha, (0, 0), max(size / 8, 0.7))[..., None]
    return alpha * contrast, behind * (0.75 + 0.25 * shade)


def _stain(image, middle, size, contrast, rng):
    """A soft, uneven, brownish veil through which the product is seen."""
    alpha = _shape(image, _round(middle, size, rng, rough=0.3))
    grain = cv2.GaussianBlur(
        rng.random(alpha.shape, np.float32), (0, 0), max(size / 6, 1)
    )
    grain = (grain - grain.min()) / max(np.ptp(grain), 1e-6)
    soft = cv2.GaussianBlur(alpha, (0, 0), max(size / 12, 0.5)) * (0.6 + 0.4 * grain)
    tint = np.array([0.62, 0.48, 0.30]) if rng.random() < 0.5 else np.full(3, 0.4)
    return soft * contrast, image * tint


def _blur(image, middle, size, contrast, rng):
    """Smeared: what is fine is gone, by a Gaussian of 1.5 % of the width at most."""
    alpha = _shape(image, _round(middle, size, rng, rough=0.15))
    sigma = max(0.015 * contrast * image.shape[1], 0.3)
    return alpha, cv2.GaussianBlur(image, (0, 0), sigma).astype(np.float32)
