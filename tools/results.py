"""Print the README's table of results: the assignment's method and the default.

python tools/results.py [DATASET_PATH] [-p name value …]
"""

import sys
from functools import partial

import numpy as np

import helpers as hp
from anomaly import evaluation
from anomaly.cli import Parser, run, typed
from anomaly.dataset import categories
from anomaly.intervals import bootstrap_interval
from anomaly.labels import read_labels
from anomaly.metrics import auroc, classification_metrics
from anomaly.scores import image_scores
from anomaly.settings import Settings


def cell(labels, scores, seed=0):
    """AUROC with its interval."""
    low, high = bootstrap_interval("auroc", labels.is_bad, scores, seed=seed)
    return f"{auroc(labels.is_bad, scores):.4f} [{low:.3f}, {high:.3f}]"


def worst_day(settings, is_bad, threshold):
    """The lowest AUROC and the highest false-positive rate of seven other days."""
    picks, days = hp.steadiness(settings, limit=len(is_bad))
    days = evaluation.other_days(is_bad[picks], days, threshold)
    lowest = min(day["auroc"] for day in days)
    return f"{lowest:.4f} / {max(day['false_positive_rate'] for day in days):.3f}"


def row(settings, with_days):
    """One line of the table."""
    detection = hp.detect(settings)
    labels = read_labels(detection.dataset)
    features = hp.extract_features(settings)
    whole = image_scores(features.assignment, "max")
    map_of = partial(detection.map, outside=np.nan)
    pixel = evaluation.pixel_figures(detection.dataset.test, map_of, labels)
    pixels = "–"
    if pixel["aupro"] is not None:
        pixels = f"{pixel['pixel_auroc']:.4f} / {pixel['aupro']:.4f}"
    flagged = detection.test_scores > detection.threshold.value
    decision = classification_metrics(labels.is_bad, flagged)
    rates = f"{decision['false_positive_rate']:.3f} / {decision['recall']:.3f}"
    figures = cell(labels, whole), cell(labels, detection.test_scores), rates, pixels
    if with_days:
        figures += (worst_day(settings, labels.is_bad, detection.threshold),)
    name = f"{settings.category}, `{detection.settings.backbone}`"
    return "| " + " | ".join((name, *figures)) + " |"


def main():
    """Exit status: 0 done, 2 bad input (one line on stderr)."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset_path", nargs="?", default="")
    parser.add_argument(
        "--no-days", action="store_true", help="without the seven other days"
    )
    return run(parser, print_table)


def print_table(options):
    """A row for each category of the data set."""
    base = {"dataset_path": options.dataset_path, **typed(options.parameters)}
    with_days = not options.no_days
    heads = "| | assignment, AUROC | default, AUROC | FPR / recall "
    heads += "| pixel AUROC / AUPRO |" + " worst day, AUROC / FPR |" * with_days
    print(heads, "|---" * (heads.count("|") - 1) + "|", sep="\n")
    for name in categories(Settings(**base).data):
        print(row(Settings(**base | {"category": name}), with_days), flush=True)


if __name__ == "__main__":
    sys.exit(main())
