"""The figures of metrics.json and the rows of scores.csv, from arrays.

Labels as in `metrics`. What labels or masks do not allow is None; `null_reasons` says
why.
"""

import csv
import io
import json

import numpy as np

from anomaly.images import image_shape
from anomaly.intervals import bootstrap_interval, delong_test
from anomaly.masks import read_mask
from anomaly.metrics import (
    auroc,
    average_precision,
    classification_metrics,
    oracle_threshold,
    per_defect_auroc,
)
from anomaly.pixels import (
    PixelCounts,
    aupimo,
    aupro,
    pixel_auroc,
    pixel_average_precision,
)
from anomaly.regions import pixel_counts, pixel_f1, region_hits

SUBJECT = ("category", "backbone", "covariance", "image_score", "image_size")
PIXEL_METRICS = (pixel_auroc, aupro, pixel_average_precision, aupimo)


def counts(train_good, train_bad, is_bad):
    """How many images there are in each part, and of the test images of each label."""
    names = {0: "n_test_good", 1: "n_test_bad", -1: "n_test_unlabelled"}
    tested = {name: int((is_bad == label).sum()) for label, name in names.items()}
    return {"n_train_good": len(train_good), "n_train_bad": len(train_bad), **tested}


def ranking(is_bad, scores, seed=0):
    """How well scores (T,) order the images: AUROC, average precision, intervals."""
    return {
        "auroc": auroc(is_bad, scores),
        "auroc_ci95": bootstrap_interval("auroc", is_bad, scores, seed=seed),
        "average_precision": average_precision(is_bad, scores),
        "average_precision_ci95": bootstrap_interval(
            "average_precision", is_bad, scores, seed=seed
        ),
    }


def looks_swapped(interval):
    """Does the 95 % interval of an AUROC lie below chance? Then labels may be swapped.

    `interval` is (low, high), or None.
    """
    return interval is not None and interval[1] < 0.5


def decision(is_bad, scores, threshold):
    """What `threshold`, a `Threshold`, decides, beside the best in hindsight."""
    return {
        "threshold": threshold.value,
        "threshold_rule": threshold.rule,
        "promised_fpr": threshold.promised_fpr,
        **classification_metrics(is_bad, scores > threshold.value),
        "oracle": oracle_threshold(is_bad, scores),
    }


def per_defect(defect, is_bad, scores):
    """Number of images and AUROC of each named kind of defect."""
    return {
        kind: {"n": defect.count(kind), "auroc": value}
        for kind, value in per_defect_auroc(defect, is_bad, scores).items()
    }


def pixel_figures(paths, map_of, labels):
    """Pixel metrics over the test images whose defect, or absence of one, is known.

    map_of(index, shape) is the anomaly map of a path, without a shape of its own size.
    Where it is NaN there is no pixel, cf. `roi`: what lies there is neither found nor
    missed. None where there is no mask.
    """
    if not any(labels.masks):
        return {metric.__name__: None for metric in PIXEL_METRICS}
    maps = [map_of(i) for i in known_places(labels)]  # enlarged, they have this range
    counts = PixelCounts(np.nanmin(maps), np.nanmax(maps))
    for heat, mask in pixel_pairs(paths, map_of, labels):
        counts.add(heat, mask)
    return {metric.__name__: metric(counts) for metric in PIXEL_METRICS}


def known_places(labels):
    """Indices of the test images whose defect, or absence of one, is known."""
    return [i for i, mask in enumerate(labels.masks) if labels.is_bad[i] == 0 or mask]


def pixel_pairs(paths, map_of, labels):
    """Yield (map, mask), (H, W) each, of one image after the other."""
    for i in known_places(labels):
        shape, mask = image_shape(paths[i]), labels.masks[i]
        mask = read_mask(mask, shape) if mask else np.zeros(shape, bool)
        heat = map_of(i, shape)
        yield heat, mask & ~np.isnan(heat)


def region_figures(paths, map_of, labels, threshold):
    """What a threshold of the maps, a `Threshold`, shows, and what it misses.

    Share of good images that show any region, which is what it promises about; share of
    the true regions that it touches, and F1 of pixels. Paths and map_of as in
    `pixel_figures`; one image after the other is in memory.
    """
    known = [labels.is_bad[i] for i in known_places(labels)]
    shown, hits, counts = [], np.zeros(2, int), np.zeros(3, int)
    pairs = pixel_pairs(paths, map_of, labels)
    for label, (heat, mask) in zip(known, pairs, strict=True):
        found = heat > threshold.value
        shown += [found.any()] * int(label == 0)
        hits += region_hits(found, mask)
        counts += pixel_counts(found, mask)
    return {
        "map_threshold": threshold.value,
        "map_promised_fpr": threshold.promised_fpr,
        "region_fpr": float(np.mean(shown)) if shown else None,
        "n_true_regions": int(hits[1]) if any(labels.masks) else None,
        "region_recall": float(hits[0] / hits[1]) if hits[1] else None,
        "pixel_f1": pixel_f1(*counts),
    }


def comparison(is_bad, scores, rows, seed=0):
    """AUROC of {method: scores (T,)}, and DeLong's test of `scores` against the first.

    The first row is the assignment's method.
    """
    table = [
        {
            "name": name,
            "auroc": auroc(is_bad, row),
            "auroc_ci95": bootstrap_interval("auroc", is_bad, row, seed=seed),
        }
        for name, row in rows.items()
    ]
    test = delong_test(is_bad, scores, next(iter(rows.values())))
    return {
        "assignment": table[0],
        "delong_p": test and test["p_value"],
        "ablation": table,
    }


def other_days(is_bad, rows, threshold):
    """AUROC and false-positive rate of {other day: scores (n,)}, a row each."""
    return [
        {
            "name": name,
            "n": len(is_bad),
            "auroc": auroc(is_bad, scores),
            "false_positive_rate": classification_metrics(
                is_bad, scores > threshold.value
            )["false_positive_rate"],
        }
        for name, scores in rows.items()
    ]


def null_reasons(is_bad, has_masks):
    """Why a figure is null, by its key in metrics.json."""
    reasons = {}
    for value, name in ((0, "good"), (1, "bad")):
        if not (is_bad == value).any():
            for key in ("auroc", "average_precision", "oracle"):
                reasons[key] = f"no {name} test image is labelled"
    if not has_masks:
        for metric in PIXEL_METRICS:
            reasons[metric.__name__] = "no masks in ground_truth"
    return reasons


def scores_csv(paths, labels, scores, threshold):
    """scores.csv as bytes; the column `defect` is there if any is named."""
    word = {0: "good", 1: "bad", -1: ""}
    columns = {
        "filename": [path.name for path in paths],
        "label": [word[int(label)] for label in labels.is_bad],
        "score": [f"{score:.6g}" for score in scores],
        "prediction": [word[int(score > threshold.value)] for score in scores],
    }
    if any(labels.defect):
        columns["defect"] = labels.defect
    with io.StringIO(newline="") as text:
        table = csv.writer(text)
        table.writerow(columns)
        table.writerows(zip(*columns.values(), strict=True))
        return text.getvalue().encode()


def as_json(metrics):
    """metrics.json as bytes."""
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()
