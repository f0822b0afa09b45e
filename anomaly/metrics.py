"""How good are scores, and decisions? Figures over images.

Labels: 0 good, 1 bad; anything else (-1, unlabelled) is left out. Higher scores are
more abnormal. What a test set cannot define is None, not NaN.
"""

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score


def labelled(labels, scores):
    """(is_bad, scores) of the labelled images; None unless both classes occur."""
    labels, scores = np.asarray(labels), np.asarray(scores) * 1.0
    known = (labels == 0) | (labels == 1)
    is_bad, scores = labels[known] == 1, scores[known]
    if np.isnan(scores).any():
        raise ValueError("scores contain NaN")
    return None if is_bad.all() or not is_bad.any() else (is_bad, scores)


def auroc(labels, scores) -> float | None:
    known = labelled(labels, scores)
    return None if known is None else float(roc_auc_score(*known))


def average_precision(labels, scores) -> float | None:
    known = labelled(labels, scores)
    return None if known is None else float(average_precision_score(*known))


def per_defect_auroc(defects, labels, scores) -> dict[str, float | None]:
    """AUROC of each named kind of defect against all good images."""
    defects, labels = np.asarray(defects), np.asarray(labels)
    kinds = np.unique(defects[(labels == 1) & (defects != "")]).tolist()
    others = {kind: (labels == 1) & (defects != kind) for kind in kinds}
    return {
        k: auroc(np.where(left_out, -1, labels), scores)
        for k, left_out in others.items()
    }


def confusion_counts(is_bad, scores, n_boot=0, seed=0):
    """Confusion counts as the threshold falls past each of K distinct scores.

    Returns distinct scores, descending (K,), true and false positives (B, K + 1) from
    none to all; B = 1 is the sample, B = n_boot its stratified bootstrap resamples.
    """
    order = np.argsort(scores)[::-1]  # the input's order is no matter
    is_bad, scores = is_bad[order], scores[order]
    last = np.append(scores[1:] != scores[:-1], True)  # of each group of ties
    weight = np.ones((n_boot or 1, len(scores)), dtype=np.int64)
    rng = np.random.default_rng(seed)
    for row in (is_bad, ~is_bad) if n_boot else ():
        weight[:, row] = rng.multinomial(
            row.sum(), np.full(row.sum(), 1 / row.sum()), n_boot
        )
    tp, fp = (np.cumsum(weight * row, axis=1)[:, last] for row in (is_bad, ~is_bad))
    return scores[last], *(np.pad(count, ((0, 0), (1, 0))) for count in (tp, fp))


def classification_metrics(is_bad, prediction) -> dict:
    """Figures of a decision (1 or True: bad), None where the denominator is zero."""
    is_bad, said_bad = np.asarray(is_bad), np.asarray(prediction).astype(bool)
    tp, fp = int(said_bad[is_bad == 1].sum()), int(said_bad[is_bad == 0].sum())
    bad, good = int((is_bad == 1).sum()), int((is_bad == 0).sum())
    return {
        "confusion_matrix": [[good - fp, fp], [bad - tp, tp]],  # [[tn, fp], [fn, tp]]
        "false_positive_rate": fp / good if good else None,
        "recall": tp / bad if bad else None,
        "precision": tp / (tp + fp) if tp + fp else None,
        "f1": 2 * tp / (tp + fp + bad) if bad else None,
        "accuracy": (good - fp + tp) / (good + bad) if good + bad else None,
    }


def oracle_threshold(labels, scores) -> dict | None:
    """Best thresholds in hindsight, midway between scores; of equals the highest."""
    known = labelled(labels, scores)
    if known is None:
        return None
    (is_bad, scores), (distinct, tp, fp) = known, confusion_counts(*known)
    upper, lower, tp, fp = distinct[:-1], distinct[1:], tp[0], fp[0]
    middle = lower + (upper - lower) / 2
    middle = np.where(middle < upper, middle, lower)  # adjacent floats have no middle
    ends = distinct[:1], np.nextafter(distinct[-1:], -np.inf)  # none bad, all bad
    thresholds = np.concatenate([ends[0], middle, ends[1]])

    def best(criterion):
        threshold = thresholds[np.argmax(criterion)]
        figures = classification_metrics(is_bad, scores > threshold)
        return {"threshold": float(threshold), **figures}

    youden = best(tp / tp[-1] - fp / fp[-1])
    f1_optimal = best(2 * tp / (tp + fp + tp[-1]))
    rule = "oracle: uses the test labels (maximal Youden index)"
    return {"rule": rule, **youden, "f1_optimal": f1_optimal}
