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
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

from anomaly.cli import any_console
from anomaly.errors import InputError, one_line
from anomaly.files import ROOT
from anomaly.labels import LABEL_FILE
from anomaly.names import some
from label_file import read_entries
from mvtec.archives import extract
from mvtec.find import find_categories
from mvtec.install import build, check_free, install, workspace_in
from mvtec.layout import Category, Sample, read_category
from mvtec.names import check_name
from mvtec.split import split


def import_dataset(
    source: Path,
    root: Path,
    train_bad: int = 0,
    only: str | None = None,
    seed: int = 0,
) -> list[str]:
    """Import all categories of `source` (or `only` one) into the data set `root`.

    Returns lines that say what was done and what was odd. Raises InputError.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if root.exists() and not root.is_dir():
        raise InputError(f"--dataset-path {root} is not a folder")
    read_entries(root)  # a damaged label file is said before the work, not after
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
        except InputError as error:  # named as if the archive were a folder
            inside, shown = one_line(str(top)), one_line(str(source))
            raise InputError(str(error).replace(inside, shown)) from error
        plans = [
            (category, *split(category, train_bad, seed)) for category in categories
        ]
        built, labels, report = workspace / "built", {}, []
        for category, chosen, test in plans:
            labels[category.name] = build(category, chosen, test, built, place)
            report += describe(category, chosen, test, root)
        install(built, root, labels)
    return report


def plain_stem(path: Path) -> str:
    """The archive's name without its endings: bottle for bottle.tar.xz."""
    return path.name.split(".")[0]


def describe(
    category: Category, chosen: list[Sample], test: list[Sample], root: Path
) -> list[str]:
    def kinds(samples: list[Sample]) -> str:
        counts = sorted(Counter(sample.kind for sample in samples).items())
        return ", ".join(f"{count} {kind}" for kind, count in counts)

    masks = sum(sample.mask is not None for sample in test)
    summary = (
        f"{category.name}: {len(category.train_good)} in train/good, "
        f"{len(chosen)} in train/bad{f' ({kinds(chosen)})' if chosen else ''}, "
        f"{len(test)} in test ({kinds(test)}), "
        f"{masks or 'no'} masks -> {root / category.name}"
    )
    remarks = [f"{category.name}: {k}: {some(v)}" for k, v in category.remarks.items()]
    return [summary, *map(one_line, remarks)]


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
    print(f"labels merged into {root / LABEL_FILE}")
    return 0


if __name__ == "__main__":
    any_console()
    sys.exit(main())
