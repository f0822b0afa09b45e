"""Score new images with a category's model, and draw where they are abnormal.

    python tools/score.py photo.png                          against hazelnut
    python tools/score.py photos/ -p category zipper         every image of a folder

Prints name, score and decision of each image and writes heatmap_{name}.png, on the
colour scale of the notebooks, to report/{category}/scored/. The model is fitted on
first use and kept in the stage cache. Parameters are those of main.py.
"""

import argparse
import sys
from pathlib import Path

from anomaly.cli import Parser, typed
from anomaly.errors import InputError, one_line
from anomaly.files import write_image
from anomaly.images import list_images
from anomaly.report.pictures import heatmap_panel
from anomaly.settings import Settings
from helpers import fit_model


def parse(argv):
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--out", type=Path, metavar="DIR", help="of the heat maps")
    return parser.parse_args(argv)


def find_images(sources):
    """The files to score, each once: images as they are, folders' images by name."""
    paths = []
    for source in sources:
        if source.is_dir():
            paths += list_images(source)
        elif source.is_file():
            paths.append(source)
        else:
            raise InputError(f"{source}: no such file")
    return list(dict.fromkeys(path.absolute() for path in paths))


def score(paths, settings, out=None):
    """Yield (path, score, is abnormal, threshold) as each heat map has been written."""
    model, names = fit_model(settings), set()
    for path in paths:
        image = model.framing.read(path)
        value, heat = model.score(image)
        panel = heatmap_panel(image, heat, model.scale, settings.colormap)
        name, count = path.stem, 1
        while name.casefold() in names:  # the same name in another folder
            name, count = f"{path.stem}_{count + 1}", count + 1
        names.add(name.casefold())
        folder = out or settings.output / "scored"
        write_image(folder / f"heatmap_{name}.png", panel)
        threshold = model.threshold.value
        yield path, value, value > threshold, threshold


def main(argv=None):
    """Exit status: 0 done, 2 bad input (one line on stderr), 130 Ctrl-C."""
    try:
        options = parse(argv)
        settings = Settings(**typed(options.parameters))
        paths = find_images(options.images)
        for path, value, is_bad, threshold in score(paths, settings, options.out):
            decision = "bad" if is_bad else "good"
            name = one_line(path.name)
            line = f"{name}  score {value:.4g}  threshold {threshold:.4g}  {decision}"
            print(line, flush=True)
    except (InputError, OSError) as error:
        print("score:", one_line(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("score: interrupted", file=sys.stderr)
        return 130
    print(f"heat maps in {options.out or settings.output / 'scored'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
