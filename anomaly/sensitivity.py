"""Which defects are found, by size and place: what trials with planted ones say.

A trial is a defect of known size at a known place (cf. `planted`), found or not.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit

from anomaly.features import project, stream
from anomaly.gaussian import fit_gaussian
from anomaly.languages import speaker
from anomaly.machine import readers

SLOPES = np.geomspace(0.5, 16, 24)  # of `fit_trials`, per e-fold of the size
PRIOR = 1.0  # trials' worth by which a place is held to the average of all
MIDDLE, BORDER = 0.5, 0.25  # depth from which is middle, to which is border


class Response(NamedTuple):
    """Chance of a find, expit(level + slope * log(size)), at one or more places."""

    level: np.ndarray  # (M,), NaN where too few trials are near
    slope: float
    sizes: tuple  # (lowest, highest) that were tried

    def chance(self, size):
        """(M,) of a defect of that size."""
        return expit(self.level + self.slope * np.log(size))

    def smallest(self, chance):
        """Smallest size (M,) found with that chance, infinite where none tried is."""
        logit = np.log(chance / (1 - chance))
        size = np.exp((logit - self.level) / self.slope)
        size = np.maximum(size, self.sizes[0])
        return np.where(size > self.sizes[1], np.inf, size)


def fit_trials(sizes, found, weights=None, enough=6.0):
    """`Response` to trials: sizes (n,), found (n,) bool, weights (M, n) by nearness.

    Logistic in the logarithm of the size: one slope, the level each place's own (local
    likelihood: Tibshirani & Hastie, JASA 1987), held to that of all by PRIOR trials. A
    slope from all trials under one level would be too flat. A place whose weights add
    up to less than `enough` trials has no level.
    """
    t, y = np.log(sizes), np.asarray(found, float)
    weights = np.ones((1, len(t))) if weights is None else np.atleast_2d(weights)
    known = weights.sum(1) >= enough
    near = weights[known] if known.any() else np.ones((1, len(t)))
    fits = [(_log_likelihood(slope, t, y, near), slope) for slope in SLOPES]
    slope, level = max(fits)[1], np.full(len(weights), np.nan)
    if known.any():
        level[known] = _levels(slope, t, y, near)
    return Response(level, slope, (float(np.min(sizes)), float(np.max(sizes))))


def _log_likelihood(slope, t, y, weights):
    """Of all trials, at places of their own levels; flat slopes win a tie."""
    eta = _levels(slope, t, y, weights)[:, None] + slope * t
    terms = weights * (y * eta - np.logaddexp(0, eta))
    return terms.sum() / weights.sum() * len(t) - 0.1 * slope


def _levels(slope, t, y, weights):
    """Levels (M,) of weights (M, n), held to that of all trials."""
    middle = _level(slope, t, y, np.ones((1, len(t))), -slope * np.median(t), 0.1)
    return _level(slope, t, y, weights, middle, PRIOR)


def _level(slope, t, y, weights, middle, prior):
    """By bisection: the higher, the more finds are expected."""
    low = np.full(len(weights), -slope * t.max() - 12.0)
    high = np.full(len(weights), -slope * t.min() + 12.0)
    seen = weights @ y
    for _ in range(30):
        level = (low + high) / 2
        expected = (weights * expit(level[:, None] + slope * t)).sum(1)
        gap = seen - expected - prior * (expit(level - middle) - 0.5)
        low, high = np.where(gap > 0, level, low), np.where(gap > 0, high, level)
    return (low + high) / 2


def nearness(at, places, width=0.1):
    """Weights (M, n) of trials at `places` (n, 2) for points `at` (M, 2): Gaussian."""
    gap = np.asarray(at)[:, None] - np.asarray(places)[None]
    return np.exp(-np.square(gap).sum(-1) / (2 * width**2))


def sensitivity_map(places, sizes, found, grid=24, width=0.1):
    """`Response` on a grid of places, row by row: level (grid * grid,).

    places (n, 2) are (x, y) as shares of the sides, as is the kernel's `width`.
    """
    ticks = (np.arange(grid) + 0.5) / grid
    x, y = np.meshgrid(ticks, ticks)
    at = np.stack([x.ravel(), y.ravel()], axis=1)
    weights = nearness(at, places, width)
    response = fit_trials(sizes, found, weights)
    alone = weights.max(1) < np.exp(-0.5)  # no trial within a width: beyond the product
    response.level[alone] = np.nan
    return response


def smallest_sizes(plan, found, contrasts):
    """[{kind, contrast, half, nine}]: sizes found with chance ½ and .9.

    plan: [Defect], cf. `planted`; found (P,). None where none that was tried is.
    """
    kinds, sizes, strength = (np.array([row[i] for row in plan]) for i in (1, 2, 3))
    rows = []
    for kind in dict.fromkeys(kinds.tolist()):
        mine = kinds == kind
        weights = np.equal.outer(np.array(contrasts), strength[mine]).astype(float)
        response = fit_trials(sizes[mine], found[mine], weights)
        pairs = zip(response.smallest(0.5), response.smallest(0.9), strict=True)
        for contrast, pair in zip(contrasts, pairs, strict=True):
            half, nine = (float(s) if np.isfinite(s) else None for s in pair)
            rows.append(
                {"kind": kind, "contrast": contrast, "half": half, "nine": nine}
            )
    return rows


def by_depth(depth, sizes, found):
    """`Response` in the middle of the product and at its border, (2,).

    depth (n,) of each trial, 0 at the edge, 1 where it is farthest.
    """
    depth = np.asarray(depth)
    where = np.stack([depth >= MIDDLE, depth <= BORDER]).astype(float)
    return fit_trials(sizes, found, where)


def sentence(response, side, lang="en"):
    """What `by_depth` says, for images of `side` pixels."""
    say = speaker(lang)
    if np.isnan(response.level).any():
        return say(
            "Too few trials in the middle or at the border: no sentence.",
            "中部或边缘的试验太少，无法给出结论。",
        )
    tried = np.arange(*np.rint(response.sizes) + (0, 1))
    chance = expit(response.level[0] + response.slope * np.log(tried))
    size = int(tried[np.abs(chance - 0.9).argmin()])
    middle, border = (round(10 * chance) for chance in response.chance(size))
    reached = middle >= 9
    share = f"{size / side:.1%}"
    least = reached and size == tried[0]
    return say(
        f"{'A' if reached else 'Even a'} dark spot of {size} pixels ({share} of the "
        f"width) in the middle is found {middle} times of 10, at the border {border} "
        f"times of 10{'; no smaller one was tried' if least else ''}.",
        f"{'' if reached else '即使是'}直径 {size} 像素（宽度的 {share}）的暗斑，"
        f"在产品中部 10 次中能发现 {middle} 次，在边缘 10 次中能发现 {border} 次"
        f"{'；未试更小的暗斑' if least else ''}。",
    )


# --------------------------------------------- images made from normal ones: trials


def trial_scores(model, good, fold, plan, draw, covariance):
    """Patch distances (P, h, w) of images made from normal ones, and what draw gave.

    plan: P rows that begin with the index of their normal image; draw(row) is a tuple
    that begins with the image (H, W, 3). `model` gives network and framing; each row is
    scored by a Gaussian of the other folds' good (N, h, w, D).
    """
    of_row = np.array([fold[row[0]] for row in plan])
    scores, drawn = np.empty((len(plan), *good.shape[1:3]), np.float32), {}
    for k in np.unique(of_row):
        fitted = torch.from_numpy(np.flatnonzero(fold != k)).to(good.device)
        own = replace(model, gaussian=fit_gaussian(good, covariance, images=fitted))
        rows = np.flatnonzero(of_row == k)
        with readers() as pool:
            images, *rest = zip(*pool.map(draw, [plan[i] for i in rows]), strict=True)
        what = f"images of our own, fold {k + 1}"
        scores[rows] = own.patch_scores(images, what)
        drawn |= dict(zip(rows, zip(*rest, strict=True), strict=True))
    return scores, [drawn[i] for i in range(len(plan))]


def features_of(model, sources, what, read=None):
    """Features (B, h, w, D), as the model's own are kept, of what `stream` takes."""
    mean = model.gaussian.mean
    parts = stream(model.trunk, model.framing, sources, what, read)
    x = torch.cat([project(x, mean.shape[-1]).half().float() for x, _ in parts])
    return x.masked_fill(mean[..., :1].isnan(), torch.nan)  # outside of the region
