"""Which pixels a mask marks, however its author wrote it."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from anomaly.depth import is_deep, samples
from anomaly.errors import InputError
from anomaly.formats import FORMATS
from anomaly.images import read_image

GREYS = 32  # more of them than any author would number classes with


def read_marked(path: Path) -> tuple[np.ndarray, list[str]]:
    """The marked pixels (H, W) bool, and what is odd about them in words.

    Any value but black marks: masks may hold 1, 255 or class numbers, in 8 or 16 bit,
    in colour, or as strokes on transparent ground. Lossy files put ringing round their
    edges; there it takes half of the maximum. Raises InputError.
    """
    values, is_lossy = brightness(path)
    marked = values > (values.max() / 2 if is_lossy else 0)
    odd = []
    if not marked.any():
        odd.append("empty masks")
    elif not marked.all() and marked.mean() > 0.5:
        odd.append("masks that mark more than half of the picture (inverted?)")
    if not is_lossy and len(np.unique(values)) > GREYS:
        odd.append("masks with soft edges, of which all but black counts")
    return marked, odd


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """The marked pixels of the mask of an image of `shape` (H, W), as bool."""
    return checked_mask(path, shape)[0]


def checked_mask(path: Path, shape: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """`read_marked` of the mask of an image of `shape` (H, W)."""
    marked, odd = read_marked(path)
    if marked.shape != tuple(shape):
        raise InputError(
            f"{path}: mask of {marked.shape[1]}x{marked.shape[0]} for an image of "
            f"{shape[1]}x{shape[0]}; make them equal"
        )
    return marked, odd


def brightness(path: Path) -> tuple[np.ndarray, bool]:
    """Values (H, W) of a mask, 0 where nothing is marked, and whether it is lossy."""
    read_image(path)  # refuses what is damaged
    with Image.open(path, formats=FORMATS) as image:
        kind = str(image.info.get("compression", ""))
        is_lossy = image.format in ("JPEG", "MPO", "WEBP") or "jpeg" in kind
        if is_deep(image):
            values = samples(image, path)
            return _of_rgb(values[..., :3], values[..., 3:]), is_lossy
        ImageOps.exif_transpose(image, in_place=True)
        if not image.has_transparency_data:
            return np.asarray(image.convert("RGB")).max(axis=2), is_lossy
        rgba = np.asarray(image.convert("RGBA"))
        return _of_rgb(rgba[..., :3], rgba[..., 3:]), is_lossy


def _of_rgb(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W) of colour (H, W, C) and alpha (H, W, 1 or 0)."""
    marks = colour.max(axis=2)
    if not alpha.shape[2]:
        return marks
    alpha = alpha[..., 0]
    marks = marks * (alpha > 0)
    drawn_in_black = not marks.any() and alpha.min() < alpha.max()
    return alpha if drawn_in_black else marks
