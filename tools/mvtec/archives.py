"""Unpacking .tar and .zip files from anywhere, without trusting them."""

import errno
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from functools import partial
from pathlib import Path, PurePosixPath

from anomaly.errors import InputError
from anomaly.names import fold, is_stray_file, is_stray_folder
from mvtec.names import NOTICES, TRUTH

ARCHIVE_ERRORS = (  # what the standard library raises on damaged archives
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,  # a compression method that Python does not know
)
DEPTH = 2  # a category lies at most this many folders below the top


def extract(archive: Path, target: Path, only: str | None) -> None:
    """Unpack what may belong to a category from `archive` into the folder `target`.

    `only` skips all categories but that one. A member that could write or read outside
    of `target` makes the whole archive refused; nothing but plain files is created.
    """
    with archive.open("rb") as file:
        members = zip_members if file.read(4) == b"PK\x03\x04" else tar_members
    seen = set()
    try:
        for name, kind, open_member in members(archive):
            parts = safe_parts(archive, name, kind)
            if kind == "folder" or not is_wanted(parts, only):
                continue
            key = fold("/".join(parts))
            if key in seen:
                raise InputError(f"{archive}: holds '{name}' twice")
            seen.add(key)
            write_member(open_member, target.joinpath(*parts), f"{archive}: '{name}'")
    except ARCHIVE_ERRORS as error:
        # A damaged table of contents may lead to a place before the file's start.
        if getattr(error, "errno", None) not in (None, errno.EINVAL):
            raise  # the operating system's, such as a full disk
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = reason.splitlines()[0].strip(":")
        raise InputError(
            f"{archive}: not a whole .tar, .tar.xz, .tar.gz or .zip archive ({reason})"
        ) from error


def write_member(open_member, path: Path, label: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = path.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{label} is both a file and a folder") from error
    with copy, open_member() as source:
        shutil.copyfileobj(source, copy, 1 << 20)


def tar_members(path: Path):
    """Yield (name, "file" | "folder" | "other", opener) in the archive's order."""
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            # A sparse file of a few bytes may say that it is larger than any disk.
            is_plain = member.isreg() and not member.issparse()
            kind = "file" if is_plain else "folder" if member.isdir() else "other"
            yield member.name, kind, partial(archive.extractfile, member)
        # Where the file stops between two members tarfile sees the archive's end. The
        # true end is two blocks of zeros; reading on checks the compression's sums.
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it breaks off")
        while archive.fileobj.read(1 << 20):
            pass


def zip_members(path: Path):
    """Yield (name, "file" | "folder" | "other", opener) in the archive's order."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.flag_bits & 1:
                raise zipfile.BadZipFile("it is encrypted")
            # The upper half holds Unix's file type, 0 where Windows made the archive.
            unix = stat.S_IFMT(member.external_attr >> 16)
            is_plain = unix in (0, stat.S_IFREG, stat.S_IFDIR)
            name = zip_name(member)
            kind = "folder" if name.endswith(("/", "\\")) else "file"
            yield name, kind if is_plain else "other", partial(archive.open, member)


def zip_name(member: zipfile.ZipInfo) -> str:
    """The member's name, also where the archive does not say how it is written.

    macOS writes UTF-8 without saying so, Chinese Windows GBK. GB 2312, the part of it
    that is in use, shares no byte with Western letters.
    """
    if member.flag_bits & 0x800 or member.filename.isascii():
        return member.filename
    raw = member.orig_filename.encode("cp437", "surrogateescape")
    for encoding in ("utf-8", "gb2312"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return member.filename


def safe_parts(archive: Path, name: str, kind: str) -> tuple[str, ...]:
    """The member's path in parts; refuses whatever could leave the target folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    # Windows takes ".. " for "..".
    dots = [part for part in path.parts if not part.strip(". ")]
    if path.is_absolute() or dots or ":" in name or "\0" in name:
        raise InputError(f"{archive}: the path of member '{name}' is not safe")
    if kind == "other":
        raise InputError(f"{archive}: member '{name}' is a link or a device")
    if max(len(part.encode(errors="replace")) for part in (*path.parts, "")) > 255:
        raise InputError(f"{archive}: the name of member '{name}' is too long")
    return path.parts


def is_wanted(parts: tuple[str, ...], only: str | None) -> bool:
    """May this file belong to a wanted category? What it is, the layout will see."""
    if not parts or any(map(is_stray_folder, parts[:-1])):
        return False
    if is_stray_file(parts[-1]) and parts[-1].lower() not in NOTICES:
        return False
    at_top = fold(parts[0]) in {"train", "test", *TRUTH, *NOTICES}
    return only is None or at_top or fold(only) in map(fold, parts[: DEPTH + 1])
