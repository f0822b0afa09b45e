"""Names of files and folders: which count, which do not, and which cannot be."""

import unicodedata
from pathlib import Path

from anomaly.errors import InputError

GOOD = {"good", "ok", "normal"}
TRUTH = {"ground_truth", "ground-truth", "ground truth", "groundtruth", "mask", "masks"}
LAYOUT = "train/good, test/good, test/<defect> and ground_truth/<defect>"
NOTICES = {"license.txt", "readme.txt"}  # a data set's licence travels with it
# Known not to be images. Whatever else is no image is refused, not passed over.
SUFFIXES = {".txt", ".json", ".csv", ".md", ".xml"}
FILES = {"thumbs.db", "desktop.ini", "license", "readme"}
FOLDERS = {  # of operating systems and network storage
    "@eadir",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "__macosx",
    "lost+found",
    "system volume information",
}
WINDOWS = {"con", "prn", "aux", "nul"}
WINDOWS |= {f"{port}{digit}" for port in ("com", "lpt") for digit in range(1, 10)}
LONGEST = 200  # bytes; most file systems take 255, and a number is put before it


def nfc(name: str) -> str:
    """The name as most systems write it; macOS may take its accents apart."""
    return unicodedata.normalize("NFC", name)


def fold(name: str) -> str:
    """What two names have in common that Windows or macOS take for the same."""
    return nfc(nfc(name).casefold())


def is_stray_folder(name: str) -> bool:
    return name.startswith(".") or fold(name) in FOLDERS


def is_stray_file(name: str) -> bool:
    known = fold(name) in FILES or Path(name).suffix.lower() in SUFFIXES
    return known or name.startswith(".")


def check_name(name: str) -> None:
    """Names must do as folder names on Windows too, and as JSON text."""
    unfit = set(name) & set('<>:"/\\|?*') or not name.isprintable()
    reserved = fold(name.split(".")[0]).strip() in WINDOWS
    too_long = len(name.encode(errors="replace")) > LONGEST
    if not name or name != name.strip(". ") or unfit or reserved or too_long:
        raise InputError(f"'{name}' cannot name a category or a defect: rename it")


def some(names: list[str]) -> str:
    """A list for a line on the console."""
    more = f", … ({len(names)} in all)" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
