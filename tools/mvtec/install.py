"""Writing the project's layout: a whole category arrives, or nothing does."""

import os
import shutil
import signal
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from anomaly.errors import InputError
from anomaly.masks import read_marked
from anomaly.names import fold
from label_file import merge_labels
from mvtec.layout import Category, Sample


def build(
    category: Category, chosen: list[Sample], test: list[Sample], root: Path, place
) -> dict[str, dict[str, str]]:
    """Write one category below `root` and return its labels.

    `place(source, target)` copies or moves a file.
    """
    folder = root / category.name
    for part in ("train/good", "train/bad", "test", "ground_truth"):
        (folder / part).mkdir(parents=True)
    for path in category.notices:
        place(path, folder / path.name)
    for name, path in category.train_good.items():
        place(path, folder / "train" / "good" / name)
    for number, sample in enumerate(chosen):
        file = f"{number:03d}_{sample.kind}{sample.image.suffix.lower()}"
        place(sample.image, folder / "train" / "bad" / file)
    labels = {}
    digits = max(3, len(str(len(test) - 1)))
    for number, sample in enumerate(test):
        stem = f"{number:0{digits}d}"
        file = stem + sample.image.suffix.lower()
        place(sample.image, folder / "test" / file)
        if sample.mask is not None:
            marked, _ = read_marked(sample.mask)
            write_mask(marked, folder / "ground_truth" / f"{stem}.png")
        entry = {"original_category": category.name, "label": "good"}
        if sample.kind != "good":
            entry |= {"label": "bad", "defect": sample.kind}
        labels[f"{category.name}/test/{file}"] = entry
    for part in ("train/bad", "ground_truth"):
        if not any((folder / part).iterdir()):
            (folder / part).rmdir()
    return labels


def write_mask(marked: np.ndarray, target: Path) -> None:
    """Save (H, W) bool as 8-bit PNG: 255 and 0."""
    Image.fromarray(marked * np.uint8(255)).save(target, format="PNG")


def check_free(root: Path, names) -> None:
    """Refuse categories that the data set has, in whatever case they are written."""
    taken = {fold(p.name) for p in root.iterdir()} if root.is_dir() else set()
    for name in names:
        if fold(name) in taken:
            raise InputError(
                f"{root / name} exists and is left as it is: remove it, "
                "or import into another --dataset-path"
            )


def install(built: Path, root: Path, labels: dict) -> None:
    """Move the finished categories to `root` and merge `labels`: all or nothing.

    `labels` maps a category's name to its entries. From here on Ctrl-C is ignored,
    until workspace_in has cleaned up.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    check_free(root, labels)
    made = {key: entry for of in labels.values() for key, entry in of.items()}
    moved = []
    try:
        for name in labels:
            os.rename(built / name, root / name)
            moved.append(name)
        merge_labels(root, labels, made)
    except (OSError, InputError):
        for name in moved:
            os.rename(root / name, built / name)
        raise


@contextmanager
def workspace_in(root: Path):
    """A temporary folder in `root`, so that a rename suffices to install from it.

    Makes `root` where it is missing, and takes it away again if it stays empty.
    """
    missing = [p for p in (root, *root.parents) if not p.exists()]
    interrupt = signal.getsignal(signal.SIGINT)
    folder = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".import-", dir=root))
        yield folder
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if folder is not None:
            shutil.rmtree(folder)
        with suppress(OSError):  # not empty: the import succeeded
            for path in missing:
                path.rmdir()
        signal.signal(signal.SIGINT, interrupt)
