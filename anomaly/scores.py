"""From patch distances to answers: image score, anomaly map, threshold.

A distance that is NaN is that of no patch, cf. `roi`: it takes no part.
"""

from fractions import Fraction
from math import ceil
from typing import NamedTuple

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

SCAN_SHARE = 0.1  # of the patches, at most, that a defect is looked for in


def image_scores(patch_scores, image_score, usual=None):
    """Image scores (N,) from patch scores (N, h, w): how abnormal is each image?

    `image_score` is "max", the assignment's; a share of patches, whose highest scores
    are averaged; or "scan", which tries all sizes of a defect: the means of the k
    highest for k = 1, 2, 4, … patches, in units of what is `usual` for normal images,
    and the log-mean-exp of these, a soft maximum.
    """
    if not len(patch_scores):
        return np.zeros(0)
    if image_score == "scan":
        z = (top_means(patch_scores) - usual[0]) / usual[1]  # (N, K)
        return np.logaddexp.reduce(z, axis=1) - np.log(z.shape[1])
    flat = _flat(patch_scores)  # (N, P)
    count = top_count(flat.shape[1], image_score)
    return np.partition(flat, -count, axis=1)[:, -count:].mean(axis=1)


def _flat(x):
    flat = x.reshape(len(x), np.prod(x.shape[1:]))  # -1 needs an image
    outside = np.isnan(flat).all(axis=0)
    return flat[:, ~outside] if outside.any() else flat


def top_count(patches, image_score):
    """How many of the highest patch scores "max" or a share averages."""
    return 1 if image_score == "max" else max(1, round(image_score * patches))


def scan_sizes(patches, share=SCAN_SHARE):
    """The sizes 1, 2, 4, … of a defect, in patches, that "scan" tries."""
    return 2 ** np.arange(int(np.log2(max(1, share * patches))) + 1)


def top_means(patch_scores, share=SCAN_SHARE):
    """Logarithm of the mean of the 1, 2, 4, … highest patch scores: (N, K)."""
    flat = -np.sort(-_flat(patch_scores), axis=1)
    sizes = scan_sizes(flat.shape[1], share)
    means = np.cumsum(flat, axis=1, dtype=float)[:, sizes - 1] / sizes
    return np.log(np.maximum(means, 1e-9))


def usual_means(normal):
    """Mean and deviation (2, K) of `top_means` over normal images, out of sample."""
    means = top_means(normal)
    return np.stack([means.mean(0), np.maximum(means.std(0), 1e-9)])


WHOLE = (0, 0, 1, 1)  # the window that is the image itself


def anomaly_map(patch_score, shape, sigma=0.0, window=WHOLE, outside=0.0):
    """Patch scores (h, w) brought to `shape` (H, W), smoothed by `sigma` pixels.

    They lie in the `window` of the image, cf. `Framing.apply`; beyond it the nearest
    counts. So it does where there is no patch, before smoothing; then the map takes the
    value `outside` there.
    """
    scores = np.asarray(patch_score, dtype=np.float32)
    gaps = np.isnan(scores)
    sides, step = scores.shape[::-1], np.array(window[2:]) * shape[::-1]  # (x, y) each
    scale = sides / step  # patches per pixel
    shift = scale * (0.5 - np.array(window[:2]) * shape[::-1]) - 0.5
    to_patch = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP}
    how |= {"M": to_patch, "dsize": shape[::-1], "borderMode": cv2.BORDER_REPLICATE}
    if has_gaps := gaps.any():
        scores = scores.flat[nearest(gaps)]
    scores = cv2.warpAffine(scores, **how)  # (H, W)
    if sigma > 0:
        scores = cv2.GaussianBlur(scores, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    if has_gaps:
        scores[cv2.warpAffine(np.float32(gaps), **how) > 0.5] = outside
    return scores


def nearest(gaps):
    """Index (h, w) of the patch nearest to each that is there, gaps (h, w) bool."""
    at = distance_transform_edt(gaps, return_distances=False, return_indices=True)
    return np.ravel_multi_index(at, gaps.shape)


def anomaly_maps(patch_scores, windows, size, sigma, outside=0.0):
    """`anomaly_map` of every image: (N, h, w) and windows (N, 4) to (N, size, size)."""
    pairs = zip(patch_scores, windows, strict=True)
    return np.stack([anomaly_map(s, (size, size), sigma, w, outside) for s, w in pairs])


def enlarged(smooth, shape):
    """A map (h, w) brought to `shape` (H, W), for pictures and masks of that size.

    NaN stays NaN where it takes half of what is interpolated, and is zero to the rest.
    """
    if shape == smooth.shape:
        return smooth
    gaps = np.isnan(smooth)
    if not gaps.any():
        return cv2.resize(smooth, shape[::-1])
    large = cv2.resize(np.where(gaps, np.float32(0), smooth), shape[::-1])
    large[cv2.resize(np.float32(gaps), shape[::-1]) > 0.5] = np.nan
    return large


def map_scale(normal_maps) -> tuple[float, float]:
    """The (low, high) of a category's colours, anchored on maps of normal images.

    normal_maps: (N, h, w), of which NaN does not count. Low is their median, the middle
    of the scale their 99.5 % quantile: normal pixels stay in the cold half, what is
    warm is rare among them.
    """
    sample = normal_maps[:, ::2, ::2]  # smooth maps: a quarter of the pixels does
    low, edge = np.quantile(sample[~np.isnan(sample)], [0.5, 0.995])
    return float(low), float(low + 2 * max(edge - low, 1e-6))


class Threshold(NamedTuple):
    value: float  # bad iff score > value
    promised_fpr: float  # what n scores can promise, above max_fpr where n is too small
    n: int
    rule: str


def enough(max_fpr) -> int:
    """How many normal images it takes to promise this false-positive rate."""
    return ceil(1 / Fraction(str(max_fpr))) - 1


def conformal_threshold(normal_scores, max_fpr, n_images=None) -> Threshold | None:
    """Split-conformal quantile (Vovk et al., 2005): rank ceil((n + 1) (1 - max_fpr)).

    Exact for new normal images exchangeable with the n, if the model that scores both
    was fitted to neither. Of K-fold scores the proof keeps about twice the rate (Barber
    et al., Ann. Stat. 49:486, 2021); in practice the final model has seen more images
    than the folds' and scores new ones lower. Where look-alikes count once, the scores
    are their groups' highest, of `n_images` in all.
    """
    scores = np.sort(np.asarray(normal_scores).ravel())
    if not (n := len(scores)):
        return None
    if np.isnan(scores[-1]) or not 0 < max_fpr < 1:
        raise ValueError("conformal_threshold: NaN score, or max_fpr not in (0, 1)")
    rate = Fraction(str(max_fpr))  # exact: floats can miss a rank by one
    exceeding = max(1, n + 1 - ceil((n + 1) * (1 - rate)))
    promised = exceeding / (n + 1)
    rule = f"conformal: above rank {n + 1 - exceeding} of {n} out-of-sample scores of "
    rule += "normal images"
    if n_images not in (None, n):
        rule += f", {n_images} of which look-alikes count once"
    rule += f", which promises a false-positive rate of at most {promised:.4f}"
    if promised > max_fpr + 1e-9:
        rule += f" ({max_fpr:g} takes {enough(max_fpr)} images or more)"
    return Threshold(float(scores[n - exceeding]), promised, n, rule)
