"""The project's folder, files that are whole or absent, and digests of files."""

import hashlib
import itertools
import os
import shutil
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import cv2

from anomaly.errors import InputError

ROOT = Path(__file__).resolve().parent.parent  # the project's folder
PART = ".part-"  # starts the name of every file while it is being written
_serial = itertools.count()  # two files of a folder may be written at the same time


@contextmanager
def whole_file(path):
    """A path to write to; it becomes `path` when the block is done, else nothing does.

    Raises InputError where it cannot be written.
    """
    part = path.with_name(f"{PART}{os.getpid()}-{next(_serial)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "free some space, or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def write_file(path, content):
    """Write bytes so that the file is whole or absent, whatever happens."""
    with whole_file(path) as part:
        part.write_bytes(content)


def write_image(path, image):
    """Write an RGB array (H, W, 3) as PNG."""
    write_file(path, cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def sweep(folder):
    """Remove what killed runs left half-written in `folder`, once an hour old."""
    for part in folder.glob(f"{PART}*"):
        with suppress(OSError):  # another run may be as quick
            if time.time() - part.stat().st_mtime > 3600:
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def fingerprint(root: Path, paths: list[Path]) -> str:
    """SHA-256 of the names below `root` and bytes of files, in whatever order."""
    total = hashlib.sha256()
    for path in sorted(paths):
        try:
            content = bytes.fromhex(sha256(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        total.update(os.fsencode(path.relative_to(root).as_posix()) + b"\0" + content)
    return total.hexdigest()


def sha256(path: Path) -> str:
    """Hex digest of a file, read once for as long as it stays as it is."""
    return _digest(path, *stamp(path))


@cache  # a notebook asks for every stage
def _digest(path: Path, *stamp) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file: as long as they stay, so does what is known of it."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
