"""Print the README's table of results: the assignment's method and the default.

python tools/results.py [DATASET_PATH] [-p name value …]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import helpers as hp


def cell(labels, scores, seed=0):
    """AUROC with its interval."""
    low, high = hp.bootstrap_interval("auroc", labels.is_bad, scores, seed=seed)
    return f"{hp.auroc(labels.is_bad, scores):.4f} [{low:.3f}, {high:.3f}]"


def row(settings):
    """One line of the table."""
    detection = hp.detect(settings)
    labels = hp.read_labels(detection.dataset)
    features = hp.extract_features(settings)
    whole = hp.image_scores(features.assignment, "max")
    pixel = hp.pixel_figures(detection, labels)
    pixels = "–"
    if pixel["aupro"] is not None:
        pixels = f"{pixel['pixel_auroc']:.4f} / {pixel['aupro']:.4f}"
    flagged = detection.test_scores > detection.threshold.threshold
    decision = hp.classification_metrics(labels.is_bad, flagged)
    rates = f"{decision['false_positive_rate']:.3f} / {decision['recall']:.3f}"
    figures = cell(labels, whole), cell(labels, detection.test_scores), rates, pixels
    days = hp.steadiness_table(
        settings, labels.is_bad, detection.threshold.threshold, limit=len(labels.is_bad)
    )
    worst = [
        worst(day[key] for day in days)
        for worst, key in ((min, "auroc"), (max, "false_positive_rate"))
    ]
    name = f"{settings.category}, `{detection.settings.backbone}`"
    day = f"{worst[0]:.4f} / {worst[1]:.3f}"
    return "| " + " | ".join((name, *figures, day)) + " |"


def main():
    """Exit status: 0 done, 2 bad input (one line on stderr)."""
    parser = hp.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset_path", nargs="?", default="")
    try:
        print_table(parser.parse_args())
    except hp.InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def print_table(options):
    """A row for each category of the data set."""
    base = {"dataset_path": options.dataset_path, **hp.typed(options.parameters)}
    print(
        "| | assignment, AUROC | default, AUROC | FPR / recall | pixel AUROC / AUPRO "
        "| worst day, AUROC / FPR |"
    )
    print("|---|---|---|---|---|---|")
    for name in hp.categories(hp.Settings(**base).data):
        print(row(hp.Settings(**base | {"category": name})), flush=True)


if __name__ == "__main__":
    sys.exit(main())
