"""The folders of a category: which images there are, without their labels."""

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from anomaly.errors import InputError
from anomaly.files import fingerprint
from anomaly.images import by_stem, entries, list_images


@dataclass(frozen=True)
class Dataset:
    """The image files of one category, sorted by name. No labels, on purpose."""

    root: Path
    category: str
    train_good: list[Path]
    train_bad: list[Path]
    test: list[Path]

    def fingerprint(self) -> str:
        """SHA-256 of names and bytes of all images, whatever their order on disk."""
        return fingerprint(self.root, self.train_good + self.train_bad + self.test)


def categories(root: Path) -> list[str]:
    """Names of the folders of `root` that hold `train/good`."""
    return [p.name for p in entries(root) if os.path.isdir(p / "train/good")]


def load_dataset(root: Path, category: str) -> Dataset:
    """List a category's images; InputError where the layout is not right.

    Hidden files, and files that are no images (notes.txt, Thumbs.db), do not count.
    """
    if category not in [p.name for p in entries(root)]:
        there = categories(root)
        near = get_close_matches(category, there, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        there = ", ".join(there) or "none (a category is a folder with train/good)"
        raise InputError(
            f"category {category!r} is not in {root}; {hint}available: {there}"
        )
    folder = Path(root) / category
    dataset = Dataset(
        Path(root),
        category,
        train_good=list_images(folder / "train/good"),
        train_bad=list_images(folder / "train/bad", optional=True),
        test=list_images(folder / "test"),
    )
    by_stem(dataset.test)
    return dataset
