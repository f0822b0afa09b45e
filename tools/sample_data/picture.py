"""One picture and its mask, from the scene with and without its defect."""

import cv2
import numpy as np

from sample_data import hazelnut, zipper
from sample_data.nut_defects import DEFECTS as NUT_DEFECTS

DRAW = {"hazelnut": hazelnut.draw, "zipper": zipper.draw}
DEFECTS = {"hazelnut": tuple(NUT_DEFECTS), "zipper": (*zipper.SINGLE, "combined")}
CATEGORIES = tuple(DRAW)
VISIBLE = 5.0  # grey levels: a smaller change is not part of the mask


def render(category, key, size, kind="", level=1.0):
    """One picture and its mask, both uint8.

    Image (size, size, 3) RGB for hazelnut, (size, size) for zipper; mask (size, size),
    255 where the picture visibly differs from its good twin. `key` is a sequence of
    integers that names the scene; `level` runs from 0, barely visible, to 1, obvious.
    """
    draw = DRAW[category]
    picture = draw(key, size, kind, level)
    mask = np.zeros((size, size), np.uint8)
    if kind:
        mask = difference(picture, draw(key, size, "", level))
    grain = np.random.default_rng([*key, 2])
    noise = grain.standard_normal(picture.shape[:2]).astype(np.float32)
    noise *= 1.1 if category == "hazelnut" else 1.4 * (picture < 250)
    picture = picture + (noise if picture.ndim == 2 else noise[..., None])
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), mask


def difference(picture, twin):
    """Mask (H, W) uint8: 255 where two pictures visibly differ, without holes."""
    change = np.abs(picture - twin)
    change = change if change.ndim == 2 else change.max(axis=2)
    mask = np.zeros(change.shape, np.uint8)
    mask[change > min(VISIBLE, change.max() / 2)] = 255
    reach = max(3, round(len(mask) * 0.02) | 1)  # close over gaps of one tooth
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, disc)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(mask, outlines, -1, 255, cv2.FILLED)
    return mask
