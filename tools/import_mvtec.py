"""Turn categories in MVTec AD's layout into this project's data layout.

    python tools/import_mvtec.py bottle.tar.xz --train-bad 10
    python main.py -p category bottle

Reads a folder, a .tar.xz/.tar.gz/.tar.bz2/.tar or a .zip that holds one category or a
whole data set of them (layout of Bergmann et al., "MVTec AD", CVPR 2019):

    bottle/train/good/000.png                       normal training images
    bottle/test/good/000.png                        normal test images
    bottle/test/crack/000.png                       defects, one folder per kind
    bottle/ground_truth/crack/000_mask.png          their pixel masks

and writes below the data set folder:

    bottle/train/good/000.png                       unchanged
    bottle/train/bad/000_crack.png                  --train-bad N defects
    bottle/test/000.png                             all the rest, shuffled
    bottle/ground_truth/000.png                     the mask of test image 000, 0 or 255
    image_anomaly_labels.json                       labels and defect kinds, merged

Either everything arrives or nothing does. The same input and seed give the same files.
"""

import argparse
import hashlib
import json
import lzma
import os
import shutil
import signal
import stat
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
LABELS = "image_anomaly_labels.json"
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
NOTICES = {"license.txt", "readme.txt"}  # a data set's licence travels with it
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
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 exchange width and height
DEPTH = 2  # a category lies at most this many folders below the top
LAYOUT = "train/good, test/good, test/<defect> and ground_truth/<defect>"


class InputError(ValueError):
    """Bad input; the message is one line that names it and the remedy."""


@dataclass(frozen=True)
class Sample:
    """One test image of the source. `mask` is None for good ones and without masks."""

    image: Path
    kind: str  # "good" or the kind of defect
    mask: Path | None


@dataclass(frozen=True)
class Category:
    """What the source holds of one category, checked."""

    name: str
    train_good: list[Path]
    good: list[Sample]
    bad: list[Sample]
    notices: list[Path]


# Archives


def extract(archive: Path, target: Path, only: str | None) -> None:
    """Unpack the images of MVTec AD's layout from `archive` into the folder `target`.

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
            key = "/".join(parts).casefold()  # Windows and macOS ignore case
            if key in seen:
                raise InputError(f"{archive}: holds '{name}' twice")
            seen.add(key)
            path = target.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
    except ARCHIVE_ERRORS as error:
        if isinstance(error, InputError) or getattr(error, "errno", None) is not None:
            raise  # ours, or the operating system's, such as a full disk
        reason = (str(error) or type(error).__name__).splitlines()[0].strip(":")
        raise InputError(
            f"{archive}: not a whole .tar, .tar.xz, .tar.gz or .zip archive ({reason})"
        ) from error


def tar_members(path: Path):
    """Yield (name, "file" | "folder" | "other", opener) in the archive's order."""
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            kind = "file" if member.isreg() else "folder" if member.isdir() else "other"
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
            kind = "folder" if member.is_dir() else "file"
            opener = partial(archive.open, member)
            yield member.filename, kind if is_plain else "other", opener


def safe_parts(archive: Path, name: str, kind: str) -> tuple[str, ...]:
    """The member's path in parts; refuses whatever could leave the target folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    dots = [
        part for part in path.parts if not part.strip(". ")
    ]  # Windows: ".. " is ".."
    if path.is_absolute() or dots or ":" in name or "\0" in name:
        raise InputError(f"{archive}: the path of member '{name}' is not safe")
    if kind == "other":
        raise InputError(f"{archive}: member '{name}' is a link or a device")
    return path.parts


def is_wanted(parts: tuple[str, ...], only: str | None) -> bool:
    """Is this member an image of the layout (or a notice) of a wanted category?"""
    if not parts or parts[-1].startswith("."):
        return False
    if parts[-1].lower() in NOTICES:
        above = parts[:-1]
    elif len(parts) >= 3 and Path(parts[-1]).suffix.lower() in IMAGES:
        above, folder, kind = parts[:-3], *parts[-3:-1]
        if folder not in ("test", "ground_truth") and (folder, kind) != (
            "train",
            "good",
        ):
            return False
    else:
        return False
    if len(above) > DEPTH:
        return False
    return only is None or not above or above[-1] == only


# Reading the layout


def subfolders(folder: Path) -> list[Path]:
    """Folders right below, sorted by name, without hidden ones."""
    return sorted(
        (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")),
        key=lambda p: p.name,
    )


def images(folder: Path) -> list[Path]:
    """Image files right below, sorted by name; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(
        (
            p
            for p in folder.iterdir()
            if p.suffix.lower() in IMAGES and not p.name.startswith(".") and p.is_file()
        ),
        key=lambda p: p.name,
    )


def find_categories(top: Path, only: str | None, top_name: str) -> dict[str, Path]:
    """Category folders at or below `top`: those with train/good, nearest to the top.

    Where `top` is itself a category, `only` or else `top_name` is its name.
    """
    level = [top]
    for _ in range(DEPTH + 1):
        found = [p for p in level if (p / "train" / "good").is_dir()]
        if found == [top]:
            return {only or top_name: top}
        if found:
            break
        level = [child for p in level for child in subfolders(p)]
    if only is not None:
        found = [p for p in found if p.name == only]
    if not found:
        what = f"category '{only}'" if only else "category"
        raise InputError(f"no {what} in MVTec AD's layout ({LAYOUT})")
    names = Counter(p.name.casefold() for p in found)
    for path in found:
        if names[path.name.casefold()] > 1:
            raise InputError(f"more than one category is named '{path.name}'")
    return {path.name: path for path in found}


def image_size(path: Path, label: str) -> tuple[int, int]:
    """(width, height) as shown, after checking that the file is a whole image."""
    try:
        with Image.open(path) as image:
            size = image.size
            # Cameras may say in EXIF that the picture is to be turned by 90 degrees.
            if image.format == "JPEG" and image.getexif().get(ORIENTATION, 1) >= 5:
                size = size[::-1]
            image.verify()
    except Exception as error:  # Pillow raises many types on damaged files
        raise InputError(f"{label} is not a readable image") from error
    return size


def read_category(name: str, folder: Path) -> Category:
    """Read and check one category in MVTec AD's layout."""

    def label(path: Path) -> str:
        return f"{name}/{path.relative_to(folder).as_posix()}"

    check_name(name)
    train_good = images(folder / "train" / "good")
    for path in train_good:
        image_size(path, label(path))
    good, bad = [], []
    # No masks at all is a data set without pixel labels; some of them is a fault.
    has_masks = (folder / "ground_truth").is_dir()
    test = folder / "test"
    for kind in subfolders(test) if test.is_dir() else []:
        check_name(kind.name)
        if kind.name.casefold() == "good":
            good += [Sample(path, "good", None) for path in images(kind)]
            for sample in good:
                image_size(sample.image, label(sample.image))
            continue
        truth = folder / "ground_truth" / kind.name
        masks = {path.stem: path for path in images(truth)}
        for path in images(kind):
            size = image_size(path, label(path))
            mask = masks.get(f"{path.stem}_mask", masks.get(path.stem))
            if has_masks and mask is None:
                expected = label(truth / f"{path.stem}_mask.png")
                raise InputError(f"{label(path)} has no mask: {expected} is missing")
            if mask is not None and image_size(mask, label(mask)) != size:
                raise InputError(
                    f"{label(mask)} and {label(path)} are not of the same size"
                )
            bad.append(Sample(path, kind.name, mask))
    for where, found in (
        ("train/good", train_good),
        ("test/good", good),
        ("test/<defect>", bad),
    ):
        if not found:
            raise InputError(
                f"{name} has no images in {where}: MVTec AD's layout is {LAYOUT}"
            )
    notices = [p for p in folder.iterdir() if p.name.lower() in NOTICES]
    return Category(name, train_good, good, bad, sorted(notices))


def check_name(name: str) -> None:
    """Names must do as folder names on Windows too, and as JSON text."""
    unfit = set(name) & set('<>:"/\\|?*') or not name.isprintable()
    if not name or name != name.strip(". ") or unfit:
        raise InputError(f"'{name}' cannot name a category or a defect: rename it")


# Writing the project's layout


def shuffled(samples: list[Sample], seed: int, name: str) -> list[Sample]:
    """Seeded order that hangs on names alone, on any machine and Python version."""

    def key(sample: Sample) -> bytes:
        text = f"{seed}/{name}/{sample.kind}/{sample.image.name}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    return sorted(samples, key=key)


def split(category: Category, train_bad: int, seed: int):
    """Choose `train_bad` defects for training, in turn from every kind.

    Returns (train_bad, test), lists of samples; test is in its final order.
    """
    if train_bad >= len(category.bad):
        raise InputError(
            f"--train-bad {train_bad}: {category.name} has {len(category.bad)} defect "
            "images, and at least one must stay in test"
        )
    rank, turns = Counter(), []
    for sample in shuffled(category.bad, seed, category.name):
        turns.append((rank[sample.kind], sample))
        rank[sample.kind] += 1
    turns.sort(key=lambda turn: turn[0])
    chosen = [sample for _, sample in turns[:train_bad]]
    rest = [sample for _, sample in turns[train_bad:]]
    return chosen, shuffled(category.good + rest, seed, category.name)


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
    for path in category.train_good:
        place(path, folder / "train" / "good" / path.name)
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
            write_mask(sample.mask, folder / "ground_truth" / f"{stem}.png")
        entry = {"original_category": category.name, "label": "good"}
        if sample.kind != "good":
            entry |= {"label": "bad", "defect": sample.kind}
        labels[f"{category.name}/test/{file}"] = entry
    for part in ("train/bad", "ground_truth"):
        if not any((folder / part).iterdir()):
            (folder / part).rmdir()
    return labels


def write_mask(source: Path, target: Path) -> None:
    """Save a mask as 8-bit PNG: 255 where the source is not black, else 0."""
    with Image.open(source) as image:
        grey = image.convert("L")  # 16-bit values are clipped to 255, not scaled to 0
    grey.point(lambda value: 255 if value else 0).save(target, format="PNG")


def read_labels(root: Path) -> dict:
    """The labels that the data set has so far; empty if there is no file."""
    path = root / LABELS
    if not path.exists():
        return {}
    try:
        labels = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(labels, dict):
        raise InputError(f"{path} must hold one JSON object")
    return labels


def check_free(root: Path, names) -> None:
    """Refuse categories that the data set has, in whatever case they are written."""
    taken = {p.name.casefold() for p in root.iterdir()} if root.is_dir() else set()
    for name in names:
        if name.casefold() in taken:
            raise InputError(
                f"{root / name} exists and is left as it is: remove it, "
                "or import into another --dataset-path"
            )


def install(workspace: Path, built: Path, root: Path, labels: dict) -> None:
    """Move the finished categories to `root` and merge `labels`: all or nothing.

    `labels` maps a category's name to its entries. From here on Ctrl-C is ignored,
    until workspace_in has cleaned up.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    check_free(root, labels)
    stale = tuple(f"{name}/" for name in labels)
    merged = {k: v for k, v in read_labels(root).items() if not k.startswith(stale)}
    for entries in labels.values():
        merged |= entries
    draft = workspace / LABELS
    text = json.dumps(merged, indent=4, ensure_ascii=False) + "\n"
    draft.write_bytes(text.encode())
    moved = []
    try:
        for name in labels:
            os.rename(built / name, root / name)
            moved.append(name)
        os.replace(draft, root / LABELS)
    except OSError:
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


def import_dataset(
    source: Path,
    root: Path,
    train_bad: int = 0,
    only: str | None = None,
    seed: int = 0,
) -> list[str]:
    """Import all categories of `source` (or `only` one) into the data set `root`.

    Returns one line per category that says what was done. Raises InputError.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if root.exists() and not root.is_dir():
        raise InputError(f"--dataset-path {root} is not a folder")
    read_labels(root)  # a damaged label file is said before the work, not after
    if only is not None:
        check_name(only)
    with workspace_in(root) as workspace:
        top, place, top_name = source, shutil.copyfile, source.resolve().name
        if not source.is_dir():
            top, place, top_name = workspace / "source", os.replace, plain_stem(source)
            top.mkdir()
            extract(source, top, only)
        try:
            folders = find_categories(top, only, top_name)
            check_free(root, folders)
            categories = [read_category(*item) for item in folders.items()]
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
        plans = [
            (category, *split(category, train_bad, seed)) for category in categories
        ]
        built, labels, report = workspace / "built", {}, []
        for category, chosen, test in plans:
            labels[category.name] = build(category, chosen, test, built, place)
            report.append(describe(category, chosen, test, root))
        install(workspace, built, root, labels)
    return report


def plain_stem(path: Path) -> str:
    """The archive's name without its endings: bottle for bottle.tar.xz."""
    return path.name.split(".")[0]


def describe(
    category: Category, chosen: list[Sample], test: list[Sample], root: Path
) -> str:
    def kinds(samples: list[Sample]) -> str:
        counts = sorted(Counter(sample.kind for sample in samples).items())
        return ", ".join(f"{count} {kind}" for kind, count in counts)

    masks = sum(sample.mask is not None for sample in test)
    return (
        f"{category.name}: {len(category.train_good)} in train/good, "
        f"{len(chosen)} in train/bad{f' ({kinds(chosen)})' if chosen else ''}, "
        f"{len(test)} in test ({kinds(test)}), "
        f"{masks or 'no'} masks -> {root / category.name}"
    )


# Command line


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputError(f"{message} (see --help)")


def count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a count: 0, 1, 2, …")
    return int(text)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        description="Import categories in MVTec AD's layout into the project's own.",
        epilog="Afterwards: python main.py -p category NAME",
    )
    parser.add_argument(
        "source",
        metavar="ARCHIVE_OR_FOLDER",
        type=Path,
        help="a folder, .tar.xz, .tar.gz, .tar or .zip with one category or several",
    )
    parser.add_argument(
        "--dataset-path",
        metavar="DIR",
        default="",
        help="data set to import into; relative to the project root, like the "
        "dataset_path of main.py (default: the project root)",
    )
    parser.add_argument(
        "--train-bad",
        metavar="N",
        type=count,
        default=0,
        help="defect images per category that go to train/bad (default 0)",
    )
    parser.add_argument(
        "--category",
        metavar="NAME",
        help="of several categories import this one; where the source is the category "
        "itself (train/ at its top), name it so",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the shuffle and the choice (default 0)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input (one line on stderr), 130 Ctrl-C."""
    try:
        options = parse(argv)
        root = Path(os.path.abspath(ROOT / Path(options.dataset_path).expanduser()))
        report = import_dataset(
            options.source, root, options.train_bad, options.category, options.seed
        )
    except (InputError, OSError) as error:
        print("import_mvtec:", *str(error).split(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("import_mvtec: interrupted, nothing was imported", file=sys.stderr)
        return 130
    print(*report, sep="\n")
    print(f"labels merged into {root / LABELS}")
    return 0


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):  # names that the console cannot show
        stream.reconfigure(errors="backslashreplace")
    sys.exit(main())
