"""What the training folders predicted, beside what the test set says."""

import numpy as np

from anomaly.intervals import bootstrap_interval, share_interval
from anomaly.languages import speaker
from anomaly.metrics import auroc

WHAT = ("false-positive rate", "AUROC", "defects found")
CHINESE = ("假阳性率", "AUROC", "检出率")


def predicted_and_measured(normal, bad, truth, test, threshold, seed=0, lang="en"):
    """[[name, predicted, measured]] of each of WHAT, as texts, with 95 % intervals.

    Scores of normal (N,) and bad (B,) training images, and test (T,), whose truth (T,)
    is 0, 1 or -1. The promise is that of a new normal image.
    """
    over = test > threshold.value
    training = np.repeat([0, 1], [len(normal), len(bad)])
    areas = (training, np.concatenate([normal, bad])), (truth, test)
    alarms, finds = over[truth == 0], over[truth == 1]
    names = speaker(lang)(WHAT, CHINESE)
    return [
        [names[0], f"≤ {threshold.promised_fpr:.3f}", share_text(alarms)],
        [names[1], *(area_text(*pair, seed) for pair in areas)],
        [names[2], share_text(bad > threshold.value), share_text(finds)],
    ]


def share_text(hits):
    """A share with its interval, of hits (n,) bool."""
    if not len(hits):
        return "–"
    low, high = share_interval(int(hits.sum()), len(hits))
    return f"{hits.mean():.3f} [{low:.3f}, {high:.3f}]"


def area_text(labels, scores, seed):
    """An AUROC with its interval."""
    value = auroc(labels, scores)
    if value is None:
        return "–"
    low, high = bootstrap_interval("auroc", labels, scores, seed=seed)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def found_by_size(sizes, found, groups=3):
    """[(mean size, share found, its interval)] of defects, small to large."""
    order = np.argsort(sizes, kind="stable")
    rows = []
    for part in np.array_split(order, groups):
        hits = found[part]
        middle = float(np.exp(np.log(np.maximum(sizes[part], 1e-9)).mean()))
        interval = share_interval(int(hits.sum()), len(hits))
        rows.append((middle, float(hits.mean()), interval))
    return rows
