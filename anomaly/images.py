"""Images from files of many kinds: read right, or refused by name."""

import os
import warnings
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from anomaly.depth import FULL_SCALE, is_deep, range_of, samples, upper_bits
from anomaly.errors import CONTROLS, InputError
from anomaly.formats import (
    FORMATS,
    MAX_PIXELS,
    REMEDY,
    SUFFIXES,
    refuse_by_header,
    true_kind,
)
from anomaly.names import is_stray_file, is_stray_folder, nfc

ORIENTATION = 0x0112  # EXIF's tag
warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters is raised below


def entries(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files."""
    try:
        found = sorted(Path(folder).iterdir(), key=lambda p: p.name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise InputError(f"{folder}: not a readable folder ({reason})") from error
    return [p for p in found if not p.name.startswith(".")]


def list_images(
    folder: Path, optional: bool = False, refused: list | None = None
) -> list[Path]:
    """Images of a folder by name; what only looks like one raises InputError.

    With a list `refused`, a file that cannot be one of them goes there, as (path,
    InputError), and the others are listed.
    """
    images, errors = [], []
    if optional and not os.path.lexists(folder):
        return images
    for path in entries(folder):
        if os.path.isdir(path):
            if is_stray_folder(path.name):
                continue
            raise InputError(
                f"{path}: images belong directly in {folder.name}/, not in folders; "
                "move them up, each under a name of its own (MVTec AD's layout, or "
                "folders by date in it: python tools/import_mvtec.py)"
            )
        if is_stray_file(path.name):
            continue
        if error := _unlisted(path):
            if refused is None:
                raise error
            errors.append((path, error))
        else:
            images.append(path)
    if not (images or errors or optional):
        raise InputError(f"{folder}: no image here; add PNG, JPEG, BMP or TIFF files")
    if refused is not None:
        refused.extend(errors)
    return images


def _unlisted(path: Path) -> InputError | None:
    """Why a file cannot be an image of a folder, by its name and kind."""
    if not os.path.isfile(path):
        return InputError(f"{path}: not a file (a broken link?); remove it")
    if path.suffix.lower() not in SUFFIXES:
        return InputError(f"{path}: {REMEDY}, or remove it (not a kind that is read)")
    if CONTROLS.search(path.name):
        return InputError(f"{path}: control characters in the name; rename it")
    return None


def by_stem(paths: list[Path]) -> dict[str, Path]:
    """Index by stem: it names the mask and the heat map, so it must be unique."""
    found: dict[str, Path] = {}
    for path in paths:
        if (other := found.setdefault(nfc(path.stem), path)) is not path:
            raise InputError(f"{path}: {other.name} has the same stem; rename one")
    return found


def read_image(
    path: Path,
    size: tuple[int, int] | None = None,
    full_scale: int = FULL_SCALE,
    at_most: int | None = None,
    at_least: tuple[int, int] | None = None,
) -> np.ndarray:
    """Read an image as RGB: (H, W, 3) uint8, resized if `size` = (H, W) is given.

    With `at_most` no side is longer than so many pixels; its shape stays. Then a JPEG
    is decoded at a fraction of its size, twice what is asked for or more; `at_least`
    (H, W) asks for that alone: reduced to it, the image is that of `size`.
    Grey is repeated, alpha laid on white, EXIF rotation applied. Of 16 bit the upper
    eight up to `full_scale` are kept, cf. `depth.full_scale`. Refused by InputError:
    what is damaged or cut short, has several frames or pages, signed, float or 32-bit
    pixels (no agreed range), no pixel that is not transparent, or `MAX_PIXELS`.
    """
    with _refused_by_name(path):
        with Image.open(path, formats=FORMATS) as image:
            refuse_by_header(path, image)
            if image.format == "PNG":
                image.verify()  # checksums, which the decoder skips for pixels
        with Image.open(path, formats=FORMATS) as image:
            if is_deep(image):
                image = _eight_bits(image, path, full_scale)
            else:
                if wanted := at_most or max(size or at_least or [0]):
                    image.draft(None, (2 * wanted, 2 * wanted))  # for JPEG alone
                ImageOps.exif_transpose(image, in_place=True)
            pixels = _rgb(image, path)
    pixels = shrunk(pixels, at_most) if at_most else pixels
    return pixels if size is None else resized(pixels, tuple(size))


def image_shape(path: Path) -> tuple[int, int]:
    """(H, W) of an image, by its header: what `read_image` gives has this shape."""
    with _refused_by_name(path), Image.open(path, formats=FORMATS) as image:
        exif = Image.Image.getexif(image)  # PNG's own decodes the pixels first
        turned = exif.get(ORIENTATION) in (5, 6, 7, 8) and image.format != "TIFF"
        return image.size if turned else image.size[::-1]


@contextmanager
def _refused_by_name(path: Path):
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a decoder fed with garbage may raise anything
        raise InputError(f"{path}: {_reason(path, error)}") from error


def shrunk(pixels: np.ndarray, at_most: int) -> np.ndarray:
    """Pixels (H, W, 3), no side longer than `at_most`; their shape stays."""
    if (longer := max(pixels.shape)) <= at_most:
        return pixels
    size = (max(1, round(side * at_most / longer)) for side in pixels.shape[:2])
    return resized(pixels, tuple(size))


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


def _eight_bits(image: Image.Image, path: Path, full_scale: int) -> Image.Image:
    values = samples(image, path)
    eight = upper_bits(values, full_scale)
    if eight.shape[2] == 4:  # alpha has a range of its own
        eight[..., 3] = upper_bits(values[..., 3], range_of(int(values[..., 3].max())))
    return Image.fromarray(eight[..., 0] if eight.shape[2] == 1 else eight)


def _rgb(image: Image.Image, path: Path) -> np.ndarray:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if not rgba.getextrema()[3][1]:
            raise InputError(
                f"{path}: wholly transparent; save it without transparency"
            )
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba)
    if image.mode == "L":
        return cv2.cvtColor(np.asarray(image), cv2.COLOR_GRAY2RGB)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _reason(path: Path, error: Exception) -> str:
    """Why a file cannot be read as an image, and the remedy."""
    if isinstance(error, Image.DecompressionBombError):
        reason = f"more than {MAX_PIXELS // 10**6} megapixels"
    elif isinstance(error, UnidentifiedImageError) and (kind := true_kind(path)):
        return f"is {kind}"
    else:
        reason = getattr(error, "strerror", None) or "empty, truncated or damaged?"
    return f"cannot be read as an image ({reason}); replace or remove it"
