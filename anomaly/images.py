"""Images and masks from files of many kinds: read right, or refused by name."""

import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from anomaly.errors import CONTROLS, InputError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")  # by content, whatever the ending says
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
UNSUPPORTED = {".gif", ".webp", ".heic", ".heif", ".avif", ".jp2", ".jfif", ".svg"}
MAX_PIXELS = 100_000_000  # refused from the header, before anything is decoded
warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters is raised below


def entries(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files."""
    try:
        found = sorted(Path(folder).iterdir(), key=lambda p: p.name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise InputError(f"{folder}: not a readable folder ({reason})") from error
    return [p for p in found if not p.name.startswith(".")]


def list_images(folder: Path, optional: bool = False) -> list[Path]:
    """Images of a folder by name; what only looks like one raises InputError."""
    images = []
    if optional and not os.path.lexists(folder):
        return images
    for path in entries(folder):
        suffix = path.suffix.lower()
        if os.path.isdir(path):
            raise InputError(
                f"{path}: images belong directly in {folder.name}/, not in folders "
                "(MVTec AD's own layout? run: python tools/import_mvtec.py)"
            )
        if suffix in UNSUPPORTED:
            raise InputError(f"{path}: convert it to PNG, JPEG, BMP or TIFF")
        if suffix in SUFFIXES:
            if not os.path.isfile(path):
                raise InputError(f"{path}: not a file (a broken link?); remove it")
            if CONTROLS.search(path.name):
                raise InputError(f"{path}: control characters in the name; rename it")
            images.append(path)
    if not images and not optional:
        raise InputError(f"{folder}: no image here; add PNG, JPEG, BMP or TIFF files")
    return images


def by_stem(paths: list[Path]) -> dict[str, Path]:
    """Index by stem: it names the mask and the heat map, so it must be unique."""
    found: dict[str, Path] = {}
    for path in paths:
        if (other := found.setdefault(path.stem, path)) is not path:
            raise InputError(f"{path}: {other.name} has the same stem; rename one")
    return found


def read_image(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image as RGB: (H, W, 3) uint8, resized if `size` = (H, W) is given.

    Grey is repeated, alpha laid on white, 16 bit keeps its upper byte, EXIF rotation
    is applied. Refused by InputError: what is damaged or cut short, has several
    frames or pages, 32-bit or float pixels (no agreed range), or `MAX_PIXELS`.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _refuse_by_header(path, image)
            if image.format == "PNG":
                image.verify()  # checksums, which the decoder skips for pixels
        with Image.open(path, formats=FORMATS) as image:
            ImageOps.exif_transpose(image, in_place=True)
            pixels = _rgb(image)
    except InputError:
        raise
    except Exception as error:  # a decoder fed with garbage may raise anything
        reason = getattr(error, "strerror", None) or "empty, truncated or damaged?"
        if isinstance(error, Image.DecompressionBombError):
            reason = f"more than {MAX_PIXELS // 10**6} megapixels"
        raise InputError(
            f"{path}: cannot be read as an image ({reason}); replace or remove it"
        ) from error
    return pixels if size is None else resized(pixels, size)


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (H, W, 3) brought to `size` (H, W): averaged down, or enlarged."""
    if size == pixels.shape[:2]:
        return pixels
    shrinks = size[0] * size[1] < pixels.shape[0] * pixels.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels, size[::-1], interpolation=method)


def to_grey(image: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) as grey (H, W), uint8."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _refuse_by_header(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a JPEG photo, then its previews
        raise InputError(f"{path}: {frames} frames or pages; save the right one alone")
    if image.mode in ("I", "F"):
        raise InputError(f"{path}: 32-bit or float pixels; save it as 8 or 16 bit")


def _rgb(image: Image.Image) -> np.ndarray:
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    if image.mode == "L" or image.mode.startswith("I;16"):
        grey = np.asarray(image)  # (H, W)
        grey = grey if grey.dtype == np.uint8 else (grey >> 8).astype(np.uint8)
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read the mask of an image of `shape` (H, W) as bool.

    True is brighter than half the brightest pixel: 0/1 and 0/255 masks both work.
    """
    mask = read_image(path).max(axis=2)
    if mask.shape != tuple(shape):
        raise InputError(
            f"{path}: mask of {mask.shape[1]}x{mask.shape[0]} for an image of "
            f"{shape[1]}x{shape[0]}; make them equal"
        )
    return mask > mask.max() / 2
