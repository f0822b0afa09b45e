"""What the source holds of a category, checked."""

from dataclasses import dataclass, field
from pathlib import Path

from anomaly.errors import CONTROLS, InputError
from anomaly.images import entries, read_image
from anomaly.labels import LABEL_FILE
from anomaly.masks import read_marked
from anomaly.names import fold, nfc
from mvtec.folders import images, only_folders, stem
from mvtec.names import GOOD, LAYOUT, NOTICES, TRUTH, check_name


@dataclass(frozen=True)
class Sample:
    """One test image of the source. `mask` is None for good ones and without masks."""

    name: str  # below the folder of its kind
    image: Path
    kind: str  # "good" or the kind of defect
    mask: Path | None = None


@dataclass
class Category:
    """What the source holds of one category, checked."""

    name: str
    train_good: dict[str, Path] = field(default_factory=dict)  # by name to be
    good: list[Sample] = field(default_factory=list)
    bad: list[Sample] = field(default_factory=list)
    notices: list[Path] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)  # what is odd, where

    def remark(self, what: str, where: str) -> None:
        self.remarks.setdefault(what, []).append(where)


def read_category(name: str, folder: Path) -> Category:
    """Read and check one category in MVTec AD's layout."""
    check_name(name)
    category = Category(name)
    notices = [p for p in entries(folder) if p.name.lower() in NOTICES]
    category.notices = [p for p in notices if p.is_file()]
    parts = only_folders(folder, f"the layout is {LAYOUT}")
    truths = [p for key, p in parts.items() if key in TRUTH]
    for key, path in parts.items():
        if key not in {"train", "test", *TRUTH}:
            raise InputError(
                f"{path}: not part of the layout ({LAYOUT}): rename or remove it"
            )
    if len(truths) > 1:
        raise InputError(
            f"{truths[0]} and {truths[1].name}: which one holds the masks?"
        )
    read_train(category, parts["train"])
    if "test" in parts:
        read_test(category, parts["test"], truths[0] if truths else None)
    for where, found in (
        ("train/good", category.train_good),
        ("test/good", category.good),
        ("test/<defect>", category.bad),
    ):
        if not found:
            raise InputError(
                f"{folder}: {name} has no images in {where}: "
                f"MVTec AD's layout is {LAYOUT}"
            )
    return category


def the_good(kinds: dict[str, Path]) -> list[Path]:
    """The folders of normal images: at most one. InputError otherwise."""
    found = [path for key, path in kinds.items() if key in GOOD]
    if len(found) > 1:
        raise InputError(f"{found[0]} and {found[1].name} both hold normal images")
    return found


def read_train(category: Category, folder: Path) -> None:
    kinds = only_folders(folder, "normal images for training belong in train/good")
    normal = the_good(kinds)
    for path in kinds.values():
        if path not in normal:
            raise InputError(
                f"{path}: only normal images are for training; move it to test "
                "(--train-bad N takes some of them back)"
            )
    taken: dict[str, Path] = {}
    for path in normal:
        read_as_good(category, path, "train")
        for name, image in images(path):
            read_image(image)
            flat = name.replace("/", "_")
            if CONTROLS.search(flat) or len(flat.encode(errors="replace")) > 255:
                raise InputError(f"{image}: the name does not fit; rename it")
            if (other := taken.setdefault(fold(flat), image)) is not image:
                raise InputError(f"{image}: {other} has the same name; rename one")
            if flat != name:
                category.remark("brought up from folders in train/good", flat)
            category.train_good[flat] = image


def read_as_good(category: Category, path: Path, part: str) -> None:
    if fold(path.name) != "good":
        category.remark("read as good", f"{part}/{path.name}")


def read_test(category: Category, folder: Path, truth: Path | None) -> None:
    kinds = only_folders(
        folder,
        "test images belong in test/good and test/<defect> (mixed in one folder, with "
        f"labels in {LABEL_FILE}, they need no import)",
    )
    normal = the_good(kinds)
    masks_of = {} if truth is None else read_truth(truth, kinds)
    for key, path in kinds.items():
        if path in normal:
            read_as_good(category, path, "test")
            category.good += read_kind(category, "good", path, masks_of.get(key))
            continue
        check_name(kind := nfc(path.name))
        of_kind = None if truth is None else masks_of.get(key, {})
        category.bad += read_kind(category, kind, path, of_kind)


def read_kind(category: Category, kind: str, folder: Path, of_kind) -> list[Sample]:
    """Samples of one kind; `of_kind` holds masks by stem, None where none can be."""
    samples, seen = [], set()
    for name, image in images(folder):
        shape, key = read_image(image).shape[:2], fold(stem(name))
        if of_kind and key in of_kind:
            if key in seen:
                raise InputError(f"{image}: another image has its stem, and one mask")
            check_mask(category, kind, of_kind[key], image, shape)
        elif of_kind is not None and kind != "good":
            what = "bad images without a mask, which the pixel metrics leave out"
            category.remark(what, f"{kind}/{name}")
        seen.add(key)
        mask = of_kind.get(key) if of_kind and kind != "good" else None
        samples.append(Sample(nfc(name), image, kind, mask))
    for key, mask in (of_kind or {}).items():
        if key not in seen:
            raise InputError(
                f"{mask}: no image in test/{folder.name} goes with this mask; name it "
                "<image>_mask.png, or remove it"
            )
    return samples


def read_truth(truth: Path, kinds: dict[str, Path]) -> dict[str, dict[str, Path]]:
    """Masks by kind and by their image's stem, both folded."""
    found = {}
    for key, path in only_folders(truth, "masks belong in one for each kind").items():
        of_kind: dict[str, Path] = {}
        for name, mask in images(path):
            image = fold(stem(name).removesuffix("_mask"))
            if (other := of_kind.setdefault(image, mask)) is not mask:
                raise InputError(f"{mask}: {other.name} is for the same image, too")
        if of_kind and key not in kinds:
            raise InputError(f"{path}: there is no folder test/{path.name}; rename it")
        found[key] = of_kind
    return found


def check_mask(category, kind: str, mask: Path, image: Path, shape) -> None:
    marked, odd = read_marked(mask)
    if marked.shape != shape:
        raise InputError(f"{mask} and {image} are not of the same size")
    if kind == "good":
        if marked.any():
            raise InputError(f"{mask} marks a defect on a normal image")
        return
    for what in odd:
        category.remark(what, f"{kind}/{mask.name}")
