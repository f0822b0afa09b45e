"""How far to trust a detector: how many images it takes, and bad ones among them.

Everything here is out of sample: an image is scored by a model that saw neither it nor
an image that shares its fold.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import betabinom

from anomaly.doubts import strange_normals
from anomaly.features import progress
from anomaly.gaussian import cross_validated_scores, fit_gaussian, wide
from anomaly.metrics import auroc
from anomaly.scores import conformal_threshold, image_scores, usual_means

LOOK = 0.1  # of the normal images, those of the highest scores, are looked at


# ------------------------------------------------------ how many images are needed


class Point(NamedTuple):
    """One subset of normal images, and what its model did to the others."""

    n: int
    auroc: float | None
    false_alarms: int
    held_out: int  # normal images of which so many were false alarms
    promised: float
    found: float | None  # share of the bad ones above the threshold


def sizes_up_to(n):
    """2, 4, 8, … below four fifths of n, and these four fifths."""
    most = max(2, round(0.8 * n))
    return [*(2**k for k in range(1, 20) if 2**k < 0.9 * most), most]


def learning_curve(good, bad, sizes, draws=5, seed=0, **options):
    """[Point] of models fitted to few normal images; nested subsets, `draws` of each.

    good (N, h, w, D), no look-alikes among them; bad (B, h, w, D). `options` are those
    of `decide`.
    """
    orders = [
        np.random.default_rng([seed, d]).permutation(len(good)) for d in range(draws)
    ]
    plan = [(order, n) for order in orders for n in sizes]
    points = []
    for order, n in one_by_one(plan, "subsets"):
        order = torch.from_numpy(order).to(good.device)
        points.append(_point(good[order[:n]], good[order[n:]], bad, **options))
    return points


def one_by_one(items, what):
    """The items under a bar of progress."""
    return (item for [item] in progress([[item] for item in items], what, len(items)))


def _point(known, others, bad, covariance, image_score, max_fpr):
    n = len(known)
    patches = cross_validated_scores(known, covariance=covariance).cpu().numpy()
    usual = usual_means(patches)
    normal = image_scores(patches, image_score, usual)
    threshold = conformal_threshold(normal, max_fpr)
    model = fit_gaussian(known, covariance)
    held, found = (
        image_scores(model.score(x).cpu().numpy(), image_score, usual)
        if len(x)
        else np.zeros(0)
        for x in (others, bad)
    )
    labels = np.repeat([0, 1], [len(held), len(found)])
    return Point(
        n,
        auroc(labels, np.concatenate([held, found])),
        int((held > threshold.value).sum()),
        len(held),
        threshold.promised_fpr,
        float((found > threshold.value).mean()) if len(found) else None,
    )


def chance_band(n, held_out, max_fpr, level=0.9):
    """(low, high) of the measured false-positive rate if the promise is kept exactly.

    With the k-th highest of n scores as threshold, the false alarms among m new normal
    images are beta-binomial (m, k, n + 1 - k).
    """
    k = round(conformal_threshold(np.arange(n), max_fpr).promised_fpr * (n + 1))
    law = betabinom(held_out, k, n + 1 - k)
    return law.ppf((1 - level) / 2) / held_out, law.ppf((1 + level) / 2) / held_out


def summary(points):
    """[{n, AUROC with its range over the subsets, promised and measured FPR, found}]"""
    rows = []
    for n in sorted({p.n for p in points}):
        mine = [p for p in points if p.n == n]
        areas = [p.auroc for p in mine if p.auroc is not None]
        held = sum(p.held_out for p in mine)
        row = {"n": n, "auroc": float(np.mean(areas)) if areas else None}
        row |= {"lowest": min(areas, default=None), "highest": max(areas, default=None)}
        alarms = sum(p.false_alarms for p in mine)
        row |= {"promised": mine[0].promised, "fpr": alarms / held if held else None}
        found = [p.found for p in mine if p.found is not None]
        rows.append(row | {"found": float(np.mean(found)) if found else None})
    return rows


def flat_from(curve, tolerance=0.01):
    """The least n of a `summary` from which no AUROC is `tolerance` below the last."""
    if curve[-1]["auroc"] is None:
        return None
    low = [row["n"] for row in curve if row["auroc"] < curve[-1]["auroc"] - tolerance]
    return min(row["n"] for row in curve if row["n"] > max(low, default=0))


# -------------------------------------------------- a bad image among the good ones


class Mixture(NamedTuple):
    """What bad images among the normal ones do."""

    hidden: int
    share: float
    auroc: float | None
    threshold: float
    found: float  # share of the other bad images above the threshold
    false_alarms: float  # share of the truly normal images above it
    named: int  # of `hidden`, how many the list of strange normals names
    listed: int  # how long that list is
    on_top: int  # of `hidden`, how many are among as many highest scores
    trimmed: tuple | None  # auroc, found, false_alarms after a look, cf. LOOK


def out_of_sample(features, fold, fits, covariance="shrunk"):
    """Distances (N, h, w): each image by the model of the other folds' `fits` (N,)."""
    fold, fits = (torch.as_tensor(x).to(features.device) for x in (fold, fits))
    scores = features.new_empty(features.shape[:3], dtype=wide(features))
    for k in fold.unique():
        images = ((fold != k) & fits).nonzero().squeeze(1)
        model = fit_gaussian(features, covariance, images=images)
        scores[fold == k] = model.score(features[fold == k])
    return scores.cpu().numpy()


def contaminate(features, fold, is_bad, shares, seed=0, **options):
    """[Mixture] with that many bad images among the normal ones, nested.

    And what it is worth to look at the highest scores and take out the bad ones there.

    features (N, h, w, D) of normal and bad images; fold (N,); is_bad (N,) bool. Bad
    images that are not mixed in are what is to be found.
    """
    order = np.random.default_rng(seed).permutation(np.flatnonzero(is_bad))
    counts = [min(round(share * (~is_bad).sum()), len(order) - 1) for share in shares]
    rows = one_by_one(list(dict.fromkeys(counts)), "mixtures")
    return [_mixture(features, fold, is_bad, order[:m], **options) for m in rows]


def _mixture(features, fold, is_bad, mixed, covariance, image_score, max_fpr):
    fits, hidden = ~is_bad, np.zeros(len(is_bad), bool)
    hidden[mixed] = True
    fits = fits | hidden

    def judge(fits):
        """Scores (N,) of all, threshold, and what it does to the others."""
        patches = out_of_sample(features, fold, fits, covariance)
        scores = image_scores(patches, image_score, usual_means(patches[fits]))
        threshold = conformal_threshold(scores[fits], max_fpr).value
        label = np.where(hidden, -1, is_bad)
        over = scores > threshold
        figures = auroc(label, scores), over[label == 1].mean(), over[~is_bad].mean()
        return scores, threshold, tuple(map(float, figures))

    scores, threshold, figures = judge(fits)
    members = np.flatnonzero(fits)
    strange = members[strange_normals(scores[fits])]
    ranked = members[np.argsort(-scores[fits], kind="stable")]
    top, seen = ranked[: len(mixed)], ranked[: -int(-LOOK * len(ranked) // 1)]
    seen = np.union1d(seen, strange)
    kept = fits.copy()
    kept[seen[hidden[seen]]] = False
    trimmed = judge(kept)[2] if kept.sum() < fits.sum() else None
    share = len(mixed) / (~is_bad).sum()
    counted = (hidden[strange].sum(), len(strange), hidden[top].sum())
    counted = map(int, counted)
    return Mixture(
        len(mixed), share, figures[0], threshold, *figures[1:], *counted, trimmed
    )
