"""The data set on disk: pictures, masks and labels; nobody else's file is touched."""

import os
import struct
import tempfile
import zlib
from pathlib import Path

import cv2

from anomaly.errors import InputError
from label_file import merge_labels, read_entries
from sample_data.picture import CATEGORIES, render
from sample_data.plan import Plan

# Written into every PNG: tells our files from anybody else's.
STAMP = b"Software\0make_sample_data.py"


def make(out, categories=CATEGORIES, **options):
    """Write the data set below `out`; returns the label dictionary of the new images.

    `options` are those of Plan. A category's folder appears as a whole, or an older one
    of this tool's stays as it was; then the labels are merged into the label file.
    Raises InputError if that would touch a file that this tool did not make.
    """
    out, plan = Path(out), Plan(**options)
    if unknown := [c for c in categories if c not in CATEGORIES]:
        raise InputError(
            f"category {unknown[0]!r}: choose from {', '.join(CATEGORIES)}"
        )
    read_entries(out)  # a damaged label file is said before the work, not after
    for category in categories:
        check_free(out / category)
    out.mkdir(parents=True, exist_ok=True)
    made = {}
    for category in categories:
        with tempfile.TemporaryDirectory(prefix=f".{category}-", dir=out) as scratch:
            made |= write_category(Path(scratch, "new"), category, plan)
            replace(out / category, Path(scratch))
    merge_labels(out, categories, made)
    return made


def write_category(folder, category, plan):
    """Draw one category's pictures and masks into `folder`; returns its labels."""
    entries = {}
    for name, key, kind, level in plan.scenes(category):
        image, mask = render(category, key, plan.image_size, kind, level)
        path = folder / name
        write_png(path, image)
        if not name.startswith("test/"):
            continue
        entry = {"original_category": category, "label": "good"}
        if kind:
            entry |= {"label": "bad", "defect": kind}
            write_png(folder / "ground_truth" / path.name, mask)
        entries[f"{category}/{name}"] = entry
    return dict(sorted(entries.items()))


def replace(target, scratch):
    """Put scratch/new in the place of `target`, or leave everything as it was."""
    new, old = scratch / "new", scratch / "old"
    check_free(target)  # again: rendering took a while
    try:
        if target.exists():
            os.rename(target, old)
        os.rename(new, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.rename(old, target)
        raise


def write_png(path, image):
    """Write grey or RGB uint8 with our stamp behind the header."""
    bgr = image if image.ndim == 2 else image[..., ::-1]
    code = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    chunk = b"tEXt" + STAMP
    chunk = struct.pack(">I", len(STAMP)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(code[:33] + chunk + code[33:])  # 8 signature + 25 IHDR


def check_free(folder):
    """Raise InputError unless `folder` is absent or holds this tool's files only."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is not a folder; choose another --out")
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or is_ours(path)):
            raise InputError(f"{path} was not made by this tool; choose another --out")


def is_ours(path):
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return STAMP in file.read(128)
