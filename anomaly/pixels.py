"""How well is the place found? Figures over pixels, exact, no curve is sampled."""

import cv2
import numpy as np


def _pixels(maps, masks):
    """Sorted normal and bad pixel scores, and the bad ones' weights: (P,), (Q,), (Q,).

    A connected region (8 neighbours) weighs 1 in all, divided by the number of regions.
    None unless both kinds occur. Maps and masks (H, W) may differ in size per image.
    """
    normal, bad, weights = [], [], []
    for scores, mask in zip(maps, masks, strict=True):
        mask = np.asarray(mask, dtype=bool)
        _, region = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        normal.append(scores[~mask])
        bad.append(scores[mask])
        weights.append(1 / np.bincount(region.ravel())[region[mask]])
    if not any(map(len, normal)) or not any(map(len, bad)):
        return None
    normal, bad, weights = map(np.concatenate, (normal, bad, weights))
    order = np.argsort(bad)
    normal.sort()
    if np.isnan(normal[-1]) or np.isnan(bad[order[-1]]):
        raise ValueError("anomaly maps contain NaN")
    return normal, bad[order], weights[order] / weights.sum()


def _area(normal, bad, weights, limit):
    """Area to false-positive rate limit, normalised; exact, no curve is sampled.

    A bad pixel enters the curve linearly while the false-positive rate passes through
    its ties with normal pixels, from those above it to those at least as high.
    """
    n = len(normal)
    start = (n - np.searchsorted(normal, bad, side="right")) / n
    stop = (n - np.searchsorted(normal, bad, side="left")) / n
    cut = np.clip(limit - start, 0, None) ** 2 / np.maximum(2 * (stop - start), 1 / n)
    area = np.where(stop <= limit, limit - (start + stop) / 2, cut)
    return min(1.0, float(weights @ area / limit))


def pixel_auroc(maps, masks) -> float | None:
    if (pixels := _pixels(maps, masks)) is None:
        return None
    normal, bad, _ = pixels
    return _area(normal, bad, np.full(len(bad), 1 / len(bad)), 1.0)


def aupro(maps, masks, max_fpr=0.3) -> float | None:
    """Mean overlap with the true regions, integrated to max_fpr, normalised to [0, 1].

    Bergmann et al., IJCV 129:1038, 2021. Normal pixels of all images make the FPR.
    """
    pixels = _pixels(maps, masks)
    return None if pixels is None else _area(*pixels, max_fpr)


def pixel_average_precision(maps, masks) -> float | None:
    if (pixels := _pixels(maps, masks)) is None:
        return None
    normal, bad, _ = pixels
    tp = len(bad) - np.searchsorted(bad, bad, side="left")
    fp = len(normal) - np.searchsorted(normal, bad, side="left")
    return float((tp / (tp + fp)).mean())


def aupimo(maps, masks, fpr_range=(1e-5, 1e-4)) -> float | None:
    """Mean over bad images of the true-positive rate, averaged over log FPR.

    Bertoldo et al., BMVC 2024. The FPR is the mean of the normal images' own; at each
    FPR the threshold is the lowest that keeps to it. None without a bad or a normal
    image, or with too few normal pixels to resolve the lower end of the range.
    """
    low, high = fpr_range
    pairs = [(m, np.asarray(k, dtype=bool)) for m, k in zip(maps, masks, strict=True)]
    normal = [np.sort(scores, axis=None) for scores, mask in pairs if not mask.any()]
    bad = [np.sort(scores[mask]) for scores, mask in pairs if mask.any()]
    if not normal or not bad or 1 / sum(map(len, normal)) > low:
        return None
    areas = []
    for scores in bad:
        fpr = np.mean([1 - np.searchsorted(n, scores) / len(n) for n in normal], axis=0)
        areas.append(np.log(high / np.clip(fpr, low, high)).mean() / np.log(high / low))
    return float(np.mean(areas))
