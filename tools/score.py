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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import helpers as hp
from anomaly.report.pictures import heatmap_panel
from anomaly.scores import map_scale


def parse(argv):
    parser = hp.Parser(
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
            paths += hp.list_images(source)
        elif source.is_file():
            paths.append(source)
        else:
            raise hp.InputError(f"{source}: no such file")
    return list(dict.fromkeys(path.absolute() for path in paths))


def score(paths, settings, out=None):
    """Yield (path, score, is abnormal, threshold) as each heat map has been written."""
    model = hp.fit_model(settings)
    size, threshold = settings.image_size, model.threshold.threshold
    scale = map_scale(hp.anomaly_maps(model.normal, size, settings.sigma))
    names = set()
    for path in paths:
        image = hp.read_image(path)
        patches, windows = model.score([image])  # (1, h, w), (1, 4)
        value = hp.image_scores(patches, settings.image_score)[0]
        heat = hp.anomaly_map(patches[0], (size, size), settings.sigma, windows[0])
        panel = heatmap_panel(image, heat, scale, settings.colormap)
        name, count = path.stem, 1
        while name.casefold() in names:  # the same name in another folder
            name, count = f"{path.stem}_{count + 1}", count + 1
        names.add(name.casefold())
        folder = out or settings.output / "scored"
        hp.write_image(folder / f"heatmap_{name}.png", panel)
        yield path, value, value > threshold, threshold


def main(argv=None):
    """Exit status: 0 done, 2 bad input (one line on stderr), 130 Ctrl-C."""
    try:
        options = parse(argv)
        settings = hp.Settings(**hp.typed(options.parameters))
        paths = find_images(options.images)
        for path, value, is_bad, threshold in score(paths, settings, options.out):
            decision = "bad" if is_bad else "good"
            name = hp.one_line(path.name)
            line = f"{name}  score {value:.4g}  threshold {threshold:.4g}  {decision}"
            print(line, flush=True)
    except (hp.InputError, OSError) as error:
        print("score:", hp.one_line(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("score: interrupted", file=sys.stderr)
        return 130
    print(f"heat maps in {options.out or settings.output / 'scored'}")
    return 0


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):  # names that the console cannot show
        stream.reconfigure(errors="backslashreplace")
    sys.exit(main())
