"""Names of files and folders: which count, and which two are the same."""

import unicodedata
from pathlib import Path

# Known not to be images. Whatever else is no image is refused, not passed over.
SUFFIXES = {".txt", ".md", ".json", ".csv", ".xml", ".yaml", ".yml", ".html", ".pdf"}
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


def some(names: list[str]) -> str:
    """A list for a line on the console."""
    more = f", … ({len(names)} in all)" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
