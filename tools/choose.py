"""Print the README's table of the choice: image scores on the training folders alone.

    python tools/choose.py [DATASET_PATH …] [-p name value …]

AUROC of train/good, out of sample, against train/bad, for each category that has some.
No test image is looked at.
"""

import sys

import numpy as np

import helpers as hp
from anomaly.cli import Parser, run, typed
from anomaly.dataset import categories
from anomaly.metrics import auroc
from anomaly.scores import image_scores
from anomaly.settings import Settings

SCORES = ("max", 0.01, 0.02, 0.05, 0.1, "scan")


def row(settings):
    """AUROC of each image score on one category's training folders."""
    detection = hp.detect(settings)
    patches = np.concatenate([detection.normal, detection.bad])
    is_bad = np.repeat([0, 1], [len(detection.normal), len(detection.bad)])
    return [
        auroc(is_bad, image_scores(patches, score, detection.usual)) for score in SCORES
    ]


def print_table(options):
    """A row for each category, and their mean."""
    print("| | " + " | ".join(map(str, SCORES)) + " |")
    print("|---" * (len(SCORES) + 1) + "|")
    rows = {}
    for path in options.dataset_paths or [""]:
        base = {"dataset_path": path, **typed(options.parameters)}
        for name in categories(Settings(**base).data):
            settings = Settings(**base | {"category": name})
            if len(hp.load_dataset(settings.data, name).train_bad):
                rows[f"{name} ({path or 'bundled'})"] = row(settings)
    rows["mean"] = np.mean(list(rows.values()), axis=0)
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in values) + " |")


def main():
    """Exit status: 0 done, 2 bad input (one line on stderr)."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset_paths", nargs="*", metavar="DATASET_PATH")
    return run(parser, print_table)


if __name__ == "__main__":
    sys.exit(main())
