"""From patch distances to answers: image score, anomaly map, threshold."""

from fractions import Fraction
from math import ceil
from typing import NamedTuple

import cv2
import numpy as np


def image_scores(patch_scores, image_score):
    """Image scores (N,) from patch scores (N, h, w): how abnormal is each image?

    `image_score` is "max", the assignment's, or the share of patches whose highest
    scores are averaged: steadier than a single maximum.
    """
    flat = patch_scores.reshape(len(patch_scores), -1)  # (N, h * w)
    count = 1 if image_score == "max" else max(1, round(image_score * flat.shape[1]))
    return np.partition(flat, -count, axis=1)[:, -count:].mean(axis=1)


WHOLE = (0, 0, 1, 1)  # the window that is the image itself


def anomaly_map(patch_score, shape, sigma=0.0, window=WHOLE):
    """Patch scores (h, w) brought to `shape` (H, W), smoothed by `sigma` pixels.

    They lie in the `window` of the image, cf. `Framing.apply`; beyond it the nearest
    counts.
    """
    scores = np.asarray(patch_score, dtype=np.float32)
    sides, step = scores.shape[::-1], np.array(window[2:]) * shape[::-1]  # (x, y) each
    scale = sides / step  # patches per pixel
    shift = scale * (0.5 - np.array(window[:2]) * shape[::-1]) - 0.5
    to_patch = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    scores = cv2.warpAffine(  # (H, W)
        scores, to_patch, shape[::-1], flags=how, borderMode=cv2.BORDER_REPLICATE
    )
    if sigma > 0:
        scores = cv2.GaussianBlur(scores, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return scores


def anomaly_maps(patch_scores, windows, size, sigma):
    """`anomaly_map` of every image: (N, h, w) and windows (N, 4) to (N, size, size)."""
    pairs = zip(patch_scores, windows, strict=True)
    return np.stack([anomaly_map(s, (size, size), sigma, w) for s, w in pairs])


def map_scale(normal_maps) -> tuple[float, float]:
    """The (low, high) of a category's colours, anchored on maps of normal images.

    normal_maps: (N, h, w). Low is their median, the middle of the scale their 99.5 %
    quantile: normal pixels stay in the cold half, what is warm is rare among them.
    """
    sample = normal_maps[:, ::2, ::2]  # smooth maps: a quarter of the pixels does
    low, edge = np.quantile(sample, [0.5, 0.995])
    return float(low), float(low + 2 * max(edge - low, 1e-6))


class Threshold(NamedTuple):
    value: float  # bad iff score > value
    promised_fpr: float  # what n scores can promise, above max_fpr where n is too small
    n: int
    rule: str


def conformal_threshold(normal_scores, max_fpr) -> Threshold | None:
    """Split-conformal quantile (Vovk et al., 2005): rank ceil((n + 1) (1 - max_fpr)).

    Exact for new normal images exchangeable with the n, if the model that scores both
    was fitted to neither. Of K-fold scores the proof keeps about twice the rate (Barber
    et al., Ann. Stat. 49:486, 2021); in practice the final model has seen more images
    than the folds' and scores new ones lower.
    """
    scores = np.sort(np.asarray(normal_scores).ravel())
    if not (n := len(scores)):
        return None
    if np.isnan(scores[-1]) or not 0 < max_fpr < 1:
        raise ValueError("conformal_threshold: NaN score, or max_fpr not in (0, 1)")
    rate = Fraction(str(max_fpr))  # exact: floats can miss a rank by one
    exceeding = max(1, n + 1 - ceil((n + 1) * (1 - rate)))
    promised = exceeding / (n + 1)
    rule = (
        f"conformal: above rank {n + 1 - exceeding} of {n} out-of-sample normal scores"
    )
    rule += f", which promises a false-positive rate of at most {promised:.4f}"
    if promised > max_fpr + 1e-9:
        rule += f" ({max_fpr:g} takes {ceil(1 / max_fpr - 1e-9) - 1} images or more)"
    return Threshold(float(scores[n - exceeding]), promised, n, rule)
