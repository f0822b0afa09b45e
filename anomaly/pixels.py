"""How well is the place found? Figures over pixels, from counts of their scores.

Images go by one after the other, and memory follows neither their number nor their
size: a pixel is counted in one of `LEVELS` levels, which are equal steps of the bits of
a float32, and those of one level tie. On figures of untied scores that is an error
below 1e-4. No curve is sampled.
"""

import cv2
import numpy as np

LEVELS = 2**20  # between the lowest and the highest score
OCTAVES = 10  # below the highest score, all that is lower ties
CHUNK = 2**20  # pixels at once


class PixelCounts:
    """Counts (LEVELS,) of pixel scores, from the lowest level to the highest.

    `low` and `high` bound all scores, which are not negative.
    """

    def __init__(self, low, high):
        low, high = _bits([max(low, high * 2.0**-OCTAVES), high]).tolist()
        self.low, self.shift = low, max(0, (high - low).bit_length() - 20)
        self.normal = np.zeros(LEVELS, np.int64)
        self.bad = np.zeros(LEVELS, np.int64)
        self.regions = np.zeros(LEVELS)  # a region weighs 1 in all
        self.quiet = np.zeros(LEVELS)  # pixels of normal images, of which each weighs 1
        self.found = np.zeros(LEVELS)  # bad pixels; a bad image weighs 1 in all
        self.images = np.zeros(2, int)  # normal, bad
        self.quiet_pixels = 0

    @classmethod
    def of(cls, pairs):
        """The counts of (map, mask) pairs that are all in memory."""
        maps, _ = zip(*pairs, strict=True)
        counts = cls(min(map(np.nanmin, maps)), max(map(np.nanmax, maps)))
        for scores, mask in pairs:
            counts.add(scores, mask)
        return counts

    def add(self, scores, mask):
        """Count a map (H, W) and its mask (H, W), True where it is bad.

        Where the map is NaN there is no pixel; ValueError if that is everywhere.
        """
        outside = np.isnan(scores)
        if outside.all():
            raise ValueError("an anomaly map is NaN everywhere")
        mask = np.asarray(mask, dtype=bool) & ~outside
        marked, where = int(mask.sum()), np.flatnonzero(mask)
        scores, counts = np.asarray(scores, np.float32).ravel(), 0
        for start in range(0, scores.size, CHUNK):
            part = slice(start, start + CHUNK)
            level = self._level(scores[part][~outside.ravel()[part]])
            counts += np.bincount(level, None, LEVELS)
        self.images += [not marked, bool(marked)]
        if not marked:
            size = scores.size - int(outside.sum())
            self.normal += counts
            self.quiet += counts / size
            self.quiet_pixels += size
            return
        _, region = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        region, level = region.ravel()[where], self._level(scores[where])
        bad = np.bincount(level, None, LEVELS)
        self.normal += counts - bad
        self.bad += bad
        self.found += bad / marked
        self.regions += np.bincount(level, 1 / np.bincount(region)[region], LEVELS)

    def _level(self, scores):
        above = np.maximum(_bits(scores), self.low) - self.low
        return np.minimum(above >> self.shift, LEVELS - 1)

    @property
    def has_both(self):
        return self.normal.any() and self.bad.any()


def _bits(scores):
    """Whole numbers in the order of non-negative scores."""
    return np.ascontiguousarray(scores, np.float32).view(np.int32)


def _from(counts):
    """Counts at each level or above it."""
    return np.cumsum(counts[::-1])[::-1]


def _area(normal, weights, limit):
    """Area to false-positive rate limit, normalised; no curve is sampled.

    weights (LEVELS,) of the bad pixels add up to 1. Those of a level enter the curve
    linearly while the false-positive rate passes through its normal pixels, from those
    above it to those at least as high.
    """
    stop = _from(normal) / normal.sum()
    start = np.append(stop[1:], 0)
    step = np.maximum(2 * (stop - start), 1 / normal.sum())
    cut = np.clip(limit - start, 0, None) ** 2 / step
    area = np.where(stop <= limit, limit - (start + stop) / 2, cut)
    return min(1.0, float(weights @ area / limit))


def pixel_auroc(counts) -> float | None:
    if not counts.has_both:
        return None
    return _area(counts.normal, counts.bad / counts.bad.sum(), 1.0)


def aupro(counts, max_fpr=0.3) -> float | None:
    """Mean overlap with the true regions, integrated to max_fpr, normalised to [0, 1].

    Regions have 8 neighbours. Bergmann et al., IJCV 129:1038, 2021. Normal pixels of
    all images make the FPR.
    """
    if not counts.has_both:
        return None
    return _area(counts.normal, counts.regions / counts.regions.sum(), max_fpr)


def pixel_average_precision(counts) -> float | None:
    if not counts.has_both:
        return None
    tp, fp = _from(counts.bad), _from(counts.normal)
    return float(counts.bad @ (tp / np.maximum(tp + fp, 1)) / counts.bad.sum())


def aupimo(counts, fpr_range=(1e-5, 1e-4)) -> float | None:
    """Mean over bad images of the true-positive rate, averaged over log FPR.

    Bertoldo et al., BMVC 2024. The FPR is the mean of the normal images' own; at each
    FPR the threshold is the lowest that keeps to it. None without a bad or a normal
    image, or with too few normal pixels to resolve the lower end of the range.
    """
    low, high = fpr_range
    if not counts.images.all() or 1 / counts.quiet_pixels > low:
        return None
    fpr = _from(counts.quiet) / counts.images[0]
    area = np.log(high / np.clip(fpr, low, high)) / np.log(high / low)
    return float(counts.found @ area / counts.images[1])
