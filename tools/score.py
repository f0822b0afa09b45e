"""Score new images with a category's model, and show where they are abnormal.

    python tools/score.py photo.png                          against hazelnut
    python tools/score.py photos/ -p category zipper         every image of a folder
    python tools/score.py --save zipper.safetensors -p category zipper
    python tools/score.py photos/ --model zipper.safetensors --json answers.json

Prints score, decision, p-value and number of abnormal regions of each image and writes
heatmap_{name}.png, on the colour scale of the notebooks, to report/{category}/scored/.
The model comes from a file, or is fitted on first use and kept in the stage cache.
Parameters are those of main.py. A folder ends with a line about drift if its images
are unlike the normal ones.

Exit status: 0 no image is flagged, 3 some are, 2 bad input: an image that cannot be
read is named, the others are scored. 130 Ctrl-C.
"""

import argparse
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import tqdm

from anomaly.answers import csv_file, json_file, line
from anomaly.cli import Parser, typed
from anomaly.dataset import load_dataset
from anomaly.drift import drift, drift_line
from anomaly.errors import InputError, one_line
from anomaly.files import write_image
from anomaly.images import list_images
from anomaly.modelfile import load_model, save_model
from anomaly.onnx import save_onnx
from anomaly.report.pictures import heatmap_panel
from anomaly.settings import Settings
from helpers import fit_model

SAVERS = {".safetensors": save_model, ".onnx": save_onnx}


def parse(argv):
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE_OR_FOLDER")
    for name, metavar, words in (
        ("out", "DIR", "of the heat maps"),
        ("json", "FILE", "the answers in full: regions, contours, promises"),
        ("csv", "FILE", "the answers as a table, a row for each image"),
        ("model", "FILE", "a saved model: no training image is needed"),
        ("save", "FILE", "save the model: .safetensors, or .onnx for other programs"),
        ("recalibrate", "DIR", "take the thresholds from these new normal images"),
        ("refit", "DIR", "fit to the data set and these new normal images"),
    ):
        parser.add_argument(f"--{name}", type=Path, metavar=metavar, help=words)
    options = parser.parse_args(argv)
    if not (options.images or options.save):
        parser.error("nothing to do: name images, or --save FILE")
    if options.save and options.save.suffix not in SAVERS:
        raise InputError(f"--save {options.save}: name it *{' or *'.join(SAVERS)}")
    return options


def find_images(sources):
    """The files to score, each once: images as they are, folders' images by name.

    And those of folders that are of a kind that is not read: (path, `InputError`).
    """
    paths, refused = [], []
    for source in sources:
        if source.is_dir():
            paths += list_images(source, refused=refused)
        elif source.is_file():
            paths.append(source)
        else:
            raise InputError(f"{source}: no such file")
    return list(dict.fromkeys(path.absolute() for path in paths)), refused


def get_model(options):
    """The model that the command line asks for, saved if it says so."""
    values = typed(options.parameters)
    model = load_model(options.model, **values) if options.model else None
    settings = model.settings if model else Settings(**values)
    if options.refit:
        model = refitted(settings, list_images(options.refit))
    model = model or fit_model(settings)
    if options.recalibrate:
        model = model.recalibrated(list_images(options.recalibrate))
    if options.save:
        SAVERS[options.save.suffix](options.save, model)
        print(f"model saved to {options.save}")
    return model


def refitted(settings, paths):
    """The model of the data set's normal images and of new ones, (paths)."""
    dataset = load_dataset(settings.data, settings.category)
    old = dataset.train_good
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / settings.category
        for part in ("train/good", "test"):
            (root / part).mkdir(parents=True)
        for index, path in enumerate(old + paths):
            name = f"{index:06}_{path.name}"  # the same name may be in both
            shutil.copy(path, root / "train/good" / name)
        shutil.copy(old[0], root / "test")  # what a data set must have
        if dataset.roi:
            shutil.copy(dataset.roi, root)
        model = fit_model(replace(settings, dataset_path=folder))
    back = {"dataset_path": settings.dataset_path}
    return replace(model, settings=replace(model.settings, **back))


def score(model, paths, folder, writers=(), refused=()):
    """Score, draw and print; returns decisions, scores, place and light of each.

    What cannot be read, or is `refused`, is named on stderr, and is in none of them.
    """
    names, rows = set(), []
    look = {"colormap": model.settings.colormap, "contour": model.map_threshold.value}
    for answer in chain(refused, model.answers(paths, "scoring")):
        for write in writers:
            write(answer)
        if isinstance(answer[1], InputError):
            say(f"score: {answer[1]}", sys.stderr)
            continue
        panel = heatmap_panel(answer.image, answer.heat, model.scale, **look)
        stem, count = answer.path.stem, 1
        name = stem
        while name.casefold() in names:  # the same name in another folder
            name, count = f"{stem}_{count + 1}", count + 1
        names.add(name.casefold())
        write_image(folder / f"heatmap_{name}.png", panel)
        say(line(answer, model.threshold))
        rows.append((answer.is_bad, answer.score, *answer.seen))
    rows = np.array(rows).reshape(-1, 6)
    return rows[:, 0], rows[:, 1], rows[:, 2:]


def say(text, stream=None):
    """Print a line above the progress bar."""
    with tqdm.tqdm.external_write_mode():
        print(text, file=stream, flush=True)


def run(options):
    """Exit status."""
    (paths, refused), model = find_images(options.images), get_model(options)
    print(model.threshold.rule)
    if not paths + refused:
        return 0
    folder = options.out or model.settings.output / "scored"
    with ExitStack() as files:
        named = ((options.json, json_file), (options.csv, csv_file))
        sinks = [files.enter_context(kind(p, model)) for p, kind in named if p]
        writers = [write for write, _ in sinks]
        is_bad, scores, seen = score(model, paths, folder, writers, refused)
        p_values = drift(model.normals, scores, seen)
        for _, end in sinks:
            end["drift_p"] = p_values
    drifting = drift_line(p_values)
    if drifting and any(source.is_dir() for source in options.images):
        print(drifting)
    print(f"heat maps in {folder}")
    return 2 if len(scores) < len(paths + refused) else 3 * bool(is_bad.any())


def main(argv=None):
    """Exit status, cf. above; bad input is one line on stderr."""
    try:
        return run(parse(argv))
    except (InputError, OSError) as error:
        print("score:", one_line(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("score: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
