"""The folders of a category: which images there are, without their labels."""

import os
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import numpy as np

from anomaly.depth import FULL_SCALE, brightest, full_scale
from anomaly.errors import InputError, one_line
from anomaly.files import fingerprint
from anomaly.formats import SUFFIXES, sides
from anomaly.images import by_stem, entries, list_images, read_image
from anomaly.machine import readers
from anomaly.names import is_stray_folder, nfc, some
from anomaly.roi import find_roi, read_roi

PARTS = ("train", "test", "ground_truth")
LONG = 4  # times as long as wide: beyond, measured, small defects are lost


@dataclass(frozen=True)
class Dataset:
    """The image files of one category, sorted by name. No labels, on purpose."""

    root: Path
    category: str
    train_good: list[Path]
    train_bad: list[Path]
    test: list[Path]
    roi: Path | None = None  # the region of interest, cf. `roi`

    def fingerprint(self) -> str:
        """SHA-256 of names and bytes of all images and the region, in any order."""
        return fingerprint(self.root, self.images + [self.roi] * bool(self.roi))

    @property
    def images(self) -> list[Path]:
        return self.train_good + self.train_bad + self.test

    @cached_property
    def full_scale(self) -> int:
        """White of the 16-bit images by the normal ones, cf. `depth.full_scale`."""
        return full_scale(self.train_good)

    def read(self, path, size=None, at_most=None) -> np.ndarray:
        """`read_image` of one of the images, its white that of the category."""
        return read_image(path, size, self.full_scale, at_most)

    def read_normal(self, size: tuple[int, int]) -> list[np.ndarray]:
        """All normal training images; InputError if they show the same."""
        with readers() as pool:
            images = list(pool.map(lambda path: self.read(path, size), self.train_good))
        first, *rest = images
        if rest and all(np.array_equal(first, image) for image in rest):
            raise InputError(
                f"{self.train_good[0].parent}: all {len(images)} images show the same "
                "(copies, or all black?), which leaves nothing to learn; replace them"
            )
        return images

    def remarks(self) -> list[str]:
        """What is odd about the images, one line each."""
        folder = Path(self.root) / self.category
        found = [p for p in subfolders(folder) if p.name not in PARTS]
        train = folder / "train"
        found += [p for p in subfolders(train) if p.name not in ("good", "bad")]
        found += [p for p in entries(train) if p.suffix.lower() in SUFFIXES]
        lines = []
        if found:
            lines.append(
                f"not used: {some([f'{p.parent.name}/{p.name}' for p in found])}"
            )
        if self.roi:
            share = read_roi(self.roi).mean()
            lines.append(f"{self.roi.name}: {share:.1%} of the image count")
        if highest := max(map(brightest, self.train_good), default=0):
            lines.append(
                f"16-bit images: {self.full_scale} is taken for white "
                f"(brightest normal pixel, or the files' own tag: {highest})"
            )
        clipped = [p for p in self.images if brightest(p) > self.full_scale]
        if clipped and self.full_scale < FULL_SCALE:
            names = some([p.name for p in clipped])
            lines.append(f"brighter than any normal image, cut off at white: {names}")
        ratios = [
            max(w, h) / min(w, h) for w, h in filter(None, map(sides, self.images))
        ]
        if ratios and (ratio := float(np.median(ratios))) >= LONG:
            lines.append(
                f"images are {ratio:.0f}:1 and squashed to a square: small defects may "
                "be lost; images cut into pieces are better"
            )
        return [one_line(line) for line in lines]


def subfolders(folder: Path) -> list[Path]:
    found = [p for p in entries(folder) if os.path.isdir(p)]
    return [p for p in found if not is_stray_folder(p.name)]


def categories(root: Path) -> list[str]:
    """Names of the folders of `root` that hold `train/good`."""
    return [p.name for p in entries(root) if os.path.isdir(p / "train/good")]


def load_dataset(root: Path, category: str) -> Dataset:
    """List a category's images; InputError where the layout is not right.

    Hidden files, and known non-images (notes.txt, Thumbs.db), do not count.
    """
    names = {nfc(p.name): p.name for p in entries(root)}
    if (name := names.get(nfc(category))) is None:
        there = categories(root)
        near = get_close_matches(category, there, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        there = ", ".join(there) or "none (a category is a folder with train/good)"
        raise InputError(
            f"category {category!r} is not in {root}; {hint}available: {there}"
        )
    folder = Path(root) / name
    good = list_images(folder / "train/good")
    dataset = Dataset(
        Path(root),
        name,
        train_good=good,
        train_bad=list_images(folder / "train/bad", optional=True),
        test=list_images(folder / "test"),
        roi=find_roi(folder, good[0]),
    )
    by_stem(dataset.test)
    return dataset
