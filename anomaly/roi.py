"""The region of interest: which patches of an image count.

An optional picture roi.png beside train/, as large as the normal images: white counts,
what is black takes no part. It lies where the product lies in the mean image, and moves
with the window of an image. What is outside is covered before the network looks at it
(cf. `framing`), since what a patch says depends on much around it; and a patch there is
none: its features are NaN, which shows wherever somebody forgets it. Copies alone
(`likeness.thumbnail`, `duplicates`) are still told by the whole image.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch

from anomaly.depth import range_of
from anomaly.errors import InputError
from anomaly.files import stamp
from anomaly.images import entries, image_shape, resized
from anomaly.masks import brightness
from anomaly.names import fold, is_stray_file

NAME = "roi.png"


def find_roi(folder: Path, normal: Path) -> Path | None:
    """The roi.png of a category's folder, in any case; None if there is none.

    InputError for what may be meant as one and is not read, and for one that is empty
    or not of the size of the `normal` image.
    """
    named = [p for p in entries(folder) if fold(p.stem) == "roi"]
    meant = [p for p in named if os.path.isdir(p) or not is_stray_file(p.name)]
    for path in meant:
        if not os.path.isfile(path):
            raise InputError(
                f"{path}: the region of interest is a file, {NAME}; remove or rename it"
            )
        if fold(path.name) != NAME:
            raise InputError(
                f"{path}: the region of interest is read from {NAME} alone; save it as "
                "PNG under this name, or rename it"
            )
    if len(meant) > 1:
        raise InputError(f"{meant[1]}: there is {meant[0].name}, too; remove one")
    for path in meant:
        (height, width), (H, W) = read_roi(path).shape, image_shape(normal)
        if (height, width) != (H, W):
            raise InputError(
                f"{path}: {width}x{height}, but {normal} is {W}x{H}; make them equal"
            )
    return meant[0] if meant else None


def read_roi(path: Path) -> np.ndarray:
    """What counts, (H, W) bool: all brighter than half of white.

    Colour, alpha and 16 bit are read as those of masks are (cf. `masks`; there all but
    black marks). InputError for what is no image, or nowhere white.
    """
    return _read(path, *stamp(path))


@cache  # every stage asks
def _read(path, *stamp):
    values = brightness(path)[0]
    white = range_of(int(values.max()))
    if not (inside := values > white / 2).any():
        raise InputError(
            f"{path}: empty; paint white what counts (the brightest pixel is "
            f"{values.max()} of {white})"
        )
    return inside


def share_inside(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Which share of each pixel counts, of the region brought to `size`: float32."""
    return resized(np.float32(read_roi(path)), size)


def only_inside(features, path, read, side):
    """Patch features (B, h, w, D), NaN where a patch lies outside of the region.

    A patch belongs to it if at least half of the patch does. Images are read in the
    size `read`, of which the network sees the middle, `side` pixels. As they are where
    path is None. InputError if no patch is left.
    """
    if path is None:
        return features
    h, w = features.shape[1:3]
    outside = torch.from_numpy(_outside(path, read, side, (h, w), *stamp(path)))
    return features.masked_fill(outside[..., None].to(features.device), torch.nan)


@cache  # every batch asks
def _outside(path, read, side, grid, *stamp):
    margin = (read[0] - side) // 2
    window = share_inside(path, read)[margin : margin + side, margin : margin + side]
    outside = resized(np.ascontiguousarray(window), grid) < 0.5 - 1e-4  # rounding
    if outside.all():
        raise InputError(
            f"{path}: no patch of the {grid[1]}x{grid[0]} of an image lies in it by "
            "half; paint more of it white, or choose a larger image_size"
        )
    return outside
