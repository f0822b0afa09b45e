"""What lies in a folder: what does not count is passed over, the rest never is."""

from pathlib import Path

from anomaly.errors import InputError
from anomaly.formats import REMEDY, SUFFIXES
from anomaly.images import entries
from anomaly.names import fold, is_stray_file, is_stray_folder
from mvtec.names import TRUTH

NESTED = 3  # folders inside a folder of images, such as one for each day


def folders(folder: Path) -> list[Path]:
    """Folders right below, sorted by name, without hidden and known foreign ones."""
    return [p for p in entries(folder) if p.is_dir() and not is_stray_folder(p.name)]


def only_folders(folder: Path, remedy: str) -> dict[str, Path]:
    """Folders right below by folded name; a file there that may matter is refused."""
    found: dict[str, Path] = {}
    for path in entries(folder):
        if path.is_dir():
            if is_stray_folder(path.name):
                continue
            if (other := found.setdefault(fold(path.name), path)) is not path:
                raise InputError(f"{path}: {other.name} has the same name; rename one")
        elif not is_stray_file(path.name):
            raise InputError(f"{path} is not in one of the folders: {remedy}")
    return found


def images(folder: Path, depth: int = NESTED) -> list[tuple[str, Path]]:
    """Images at and below `folder` as (name below it, path), in the order of names."""
    found = []
    for path in entries(folder):
        if path.is_dir():
            if is_stray_folder(path.name):
                continue
            if fold(path.name) in TRUTH:
                raise InputError(f"{path}: masks belong in ground_truth/<defect>")
            if depth == 0:
                raise InputError(f"{path}: more than {NESTED} folders deep")
            below = images(path, depth - 1)
            found += [(f"{path.name}/{name}", image) for name, image in below]
        elif is_stray_file(path.name):
            continue
        elif not path.is_file():
            raise InputError(f"{path}: not a file (a broken link?); remove it")
        elif path.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"{path}: {REMEDY}, or remove it (not a kind that is read)"
            )
        else:
            found.append((path.name, path))
    return found


def stem(name: str) -> str:
    """The name below its folder without the ending."""
    return name[: -len(Path(name).suffix)]
