"""Where the source's categories are."""

from collections import Counter
from pathlib import Path

from anomaly.errors import InputError
from anomaly.names import fold, nfc, some
from mvtec.archives import DEPTH
from mvtec.folders import folders
from mvtec.names import GOOD, LAYOUT


def find_categories(top: Path, only: str | None, top_name: str) -> dict[str, Path]:
    """Category folders at or below `top`: those with train/good, nearest to the top.

    Where `top` is itself a category, `only` or else `top_name` is its name.
    """
    level = [top]
    for _ in range(DEPTH + 1):
        found = [p for p in level if has_normal_images(p)]
        if found == [top]:
            return {nfc(only or top_name): top}
        if found:
            refuse_unfinished(level, found, only)
            break
        level = [child for p in level for child in folders(p)]
    if only is not None:
        found = [p for p in found if nfc(p.name) == nfc(only)]
    if not found:
        what = f"category '{only}'" if only else "category"
        raise InputError(f"{top}: no {what} in MVTec AD's layout ({LAYOUT}){hint(top)}")
    names = Counter(fold(p.name) for p in found)
    for path in found:
        if names[fold(path.name)] > 1:
            raise InputError(f"{top}: more than one category is named '{path.name}'")
    return {nfc(path.name): path for path in found}


def refuse_unfinished(level: list[Path], found: list[Path], only: str | None) -> None:
    """Beside categories, a folder that was meant to be one is not passed over."""
    for path in level if only is None else []:
        parts = {fold(p.name) for p in folders(path)}
        if path not in found and parts & {"train", "test"}:
            raise InputError(f"{path}: no normal images in train/good")


def has_normal_images(folder: Path) -> bool:
    """Does it hold train/good, in whatever case, or train/ok?"""
    trains = [p for p in folders(folder) if fold(p.name) == "train"]
    return any(fold(p.name) in GOOD for train in trains for p in folders(train))


def hint(top: Path) -> str:
    """What else this may be."""
    below = [top, *folders(top)]
    if any((p / "Data" / "Images").is_dir() for p in below):
        return "; VisA's own? its authors' prepare_data.py writes this layout"
    found = [p.name for p in folders(top)]
    return f"; its folders are {some(found)}" if found else ""
