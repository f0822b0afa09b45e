"""16-bit files: which value in them is white. One answer for a category.

A camera of 10, 12 or 14 bit writes its values as they are into files of 16 bit: white
is 1023, 4095 or 16383 then, and the upper byte would leave a few grey levels. Which it
is, the normal images say together: the least of `RANGES` that none of them exceeds.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from anomaly.errors import InputError
from anomaly.files import stamp
from anomaly.formats import FORMATS, refuse_by_header

RANGES = (2**8 - 1, 2**10 - 1, 2**12 - 1, 2**14 - 1, 2**16 - 1)
FULL_SCALE = RANGES[-1]
TURNS = {  # EXIF's orientation: how to turn (H, W, C)
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}
REMEDY = "save it in 8 bit, or as plain RGB"


def is_deep(image: Image.Image) -> bool:
    """Has an opened file 16-bit samples whose range it does not say for sure?"""
    if image.mode.startswith("I"):
        return True
    if image.format == "TIFF":
        return 16 in image.tag_v2.get(258, ())
    arguments = str(image.tile[0][3]) if image.tile else ""
    # PPM: the decoder scales by the file's own maximum, unless that is 65535
    return ";16" in arguments or (image.format == "PPM" and "65535" in arguments)


def samples(image: Image.Image, path: Path) -> np.ndarray:
    """The values of a deep image: (H, W, 1, 3 or 4) uint16, RGB, the right way up."""
    image.load()  # refuses what is cut short
    if "transparency" in image.info:
        raise InputError(f"{path}: 16 bit with a transparent colour; {REMEDY}")
    upright = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        if image.format == "TIFF" and image.tag_v2.get(262) == 0:
            raise InputError(f"{path}: 16 bit with 0 for white; {REMEDY}")
        return np.asarray(upright).astype(np.uint16)[..., None]
    with path.open("rb") as file:  # Pillow keeps eight bits
        data = np.frombuffer(file.read(), np.uint8)
    values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    upper = np.asarray(upright.convert("RGBA" if image.mode == "LA" else image.mode))
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise InputError(f"{path}: 16 bit in {image.mode}; {REMEDY}")
    values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    if image.format != "TIFF":  # which OpenCV turns
        values = TURNS.get(image.getexif().get(0x0112), np.asarray)(values)
    # planes of their own, CMYK: what both read alike is right
    if values.shape != upper.shape or (values >> 8 != upper).any():
        raise InputError(f"{path}: 16-bit colour of a rare kind; {REMEDY}")
    return np.ascontiguousarray(values)


def upper_bits(values: np.ndarray, full_scale: int) -> np.ndarray:
    """Eight bits of values up to full_scale, 2^b - 1; what is brighter is white."""
    return (np.minimum(values, full_scale) >> (full_scale.bit_length() - 8)).astype(
        "u1"
    )


def range_of(value: int) -> int:
    """The least of RANGES that reaches `value`."""
    return next(full for full in RANGES if full >= value)


def brightest(path: Path) -> int:
    """The highest value of a 16-bit image, or which its tags allow; 0 for others."""
    return _brightest(path, *stamp(path))


@cache  # every stage asks
def _brightest(path: Path, *stamp) -> int:
    try:
        with Image.open(path, formats=FORMATS) as image:
            refuse_by_header(path, image)
            if not is_deep(image):
                return 0
            said = _said(image.tag_v2) if image.format == "TIFF" else 0
            return max(said, int(samples(image, path)[..., :3].max()))
    except Exception:  # whoever reads it for its pixels says what is wrong with it
        return 0


def _said(tags) -> int:
    """The highest value by a TIFF's own BitsPerSample and SMaxSampleValue, or 0."""
    allowed = [2**bits - 1 for bits in tags.get(258, ()) if bits < 16]
    marked = np.ravel(tags.get(341, ()))
    allowed += [int(v) for v in marked if isinstance(v, int | np.integer)]
    return max((value for value in allowed if 0 < value < FULL_SCALE), default=0)


def full_scale(paths: list[Path]) -> int:
    """White of the 16-bit images among `paths`; 65535 if there is none."""
    with ThreadPoolExecutor() as pool:
        values = [value for value in pool.map(brightest, paths) if value]
    return range_of(max(values)) if values else FULL_SCALE
