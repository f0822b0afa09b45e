"""Which pixels a mask marks, however its author wrote it."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from anomaly.errors import InputError
from anomaly.images import read_image

GREYS = 32  # more of them than any author would number classes with


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    """The marked pixels (H, W) bool, and what is odd about them in words.

    Any value but black marks: masks may hold 1, 255 or class numbers, in 8 or 16 bit,
    in colour, or as strokes on transparent ground. Lossy files put ringing round their
    edges; there it takes half of the maximum. Raises InputError.
    """
    read_image(path)  # refuses what is damaged
    with Image.open(path) as image:
        kind = image.info.get("compression", "")
        is_lossy = image.format in ("JPEG", "MPO") or "jpeg" in str(kind)
        if not image.mode.startswith("I;16") and any(
            ";16" in str(tile[3]) for tile in image.tile
        ):
            raise InputError(f"{path}: a mask in 16-bit colour; save it in 8 bit")
        ImageOps.exif_transpose(image, in_place=True)
        values = brightness(image)
    marked = values > (values.max() / 2 if is_lossy else 0)
    odd = []
    if not marked.any():
        odd.append("empty masks")
    elif not marked.all() and marked.mean() > 0.5:
        odd.append("masks that mark more than half of the picture (inverted?)")
    if not is_lossy and len(np.unique(values)) > GREYS:
        odd.append("masks with soft edges, of which all but black counts")
    return marked, odd


def brightness(image: Image.Image) -> np.ndarray:
    """(H, W), 0 where nothing is marked."""
    if image.mode.startswith("I;16"):
        return np.asarray(image)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB")).max(axis=2)
    rgba = np.asarray(image.convert("RGBA"))
    alpha = rgba[..., 3]
    marks = rgba[..., :3].max(axis=2) * (alpha > 0)
    drawn_in_black = not marks.any() and alpha.min() < alpha.max()
    return alpha if drawn_in_black else marks


def write(marked: np.ndarray, target: Path) -> None:
    """Save (H, W) bool as 8-bit PNG: 255 and 0."""
    Image.fromarray(marked * np.uint8(255)).save(target, format="PNG")
