"""What a file is by its content, and what of it cannot be read right."""

from contextlib import suppress
from functools import cache
from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from anomaly.errors import InputError
from anomaly.files import stamp

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")  # whatever the ending says
SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff"}
SUFFIXES |= {".webp", ".pgm", ".ppm", ".pbm", ".pnm"}
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
REMEDY = "convert it to PNG, JPEG, BMP or TIFF"
MAX_PIXELS = 100_000_000  # refused from the header, before anything is decoded
UNSIGNED = {1, 4}  # TIFF's SampleFormat: 2 is signed, 3 float, 4 not said

KINDS = (  # place and bytes that tell a file, and what it is then
    (0, b"GIF8", "GIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xffO\xffQ", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyp", "HEIC or a video"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"8BPS", "Photoshop"),
    (0, b"SIMPLE  =", "FITS"),
    (128, b"DICM", "DICOM"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"<?xml", "XML or SVG"),
    (0, b"<svg", "SVG"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
)
TIFF_STARTS = (b"II*\0", b"MM\0*")
NUMBERS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}


def refuse_by_header(path: Path, image: Image.Image) -> None:
    """InputError for pixels that are many, of several frames, or without a range."""
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a JPEG photo, then its previews
        raise InputError(f"{path}: {frames} frames or pages; save the right one alone")
    numbers = set(image.tag_v2.get(339, ())) if image.format == "TIFF" else set()
    is_grey16 = image.mode.startswith("I;16")
    is_grey16 |= image.format == "PPM" and image.mode == "I"
    if not (is_grey16 or image.mode in MODES) or numbers - UNSIGNED:
        what = tiff_samples(image.tag_v2) if image.format == "TIFF" else image.mode
        raise InputError(f"{path}: pixels of {what}; save it as 8 or 16 bit")


def tiff_samples(tags) -> str:
    """The samples of a TIFF's pixels in words, from its tags."""
    bits, channels = tags.get(258, (1,)), tags.get(277, 1)
    bits = bits[0] if isinstance(bits, tuple) else bits
    number = tags.get(339, (1,))
    number = NUMBERS.get(number[0] if isinstance(number, tuple) else number, "unknown")
    return f"{channels} channel{'s' * (channels != 1)}, {bits} bit, {number}"


def true_kind(path: Path) -> str | None:
    """What a file is that none of FORMATS reads, and the remedy; None if unknown."""
    with path.open("rb") as file:
        start = file.read(512)
        if not start:
            return "empty; copy it again"
        if start.startswith(b"version https://git-lfs"):
            return "a pointer of Git LFS, not the image; run: git lfs pull"
        if not start.strip(b"\0"):
            return "zeros alone, a copy that failed; copy it again"
        for place, mark, kind in KINDS:
            if start[place:].lower().startswith(mark.lower()):
                return f"{kind}, whatever its name says; {REMEDY}"
        if start[:4] in TIFF_STARTS:
            with suppress(Exception):  # damaged tags may raise anything
                tags = ImageFileDirectory_v2(start[:8])
                file.seek(tags.next)
                tags.load(file)
                if {256, 257, 258, 262, 277} <= set(tags):  # else cut short
                    return f"a TIFF of a rare kind ({tiff_samples(tags)}); {REMEDY}"
    return None


def sides(path: Path) -> tuple[int, int] | None:
    """Width and height by an image's header; None for one that cannot be read."""
    return _sides(path, *stamp(path))


@cache
def _sides(path: Path, *stamp) -> tuple[int, int] | None:
    with suppress(Exception), Image.open(path, formats=FORMATS) as image:
        return image.size
    return None  # whoever reads it for its pixels says what is wrong with it
