"""Where an image is abnormal: connected regions of its map above a threshold.

The threshold of the map is conformal, as that of the image is: of the highest value of
each normal image's map, out of sample. Pixels are connected to all eight neighbours.
"""

from typing import NamedTuple

import cv2
import numpy as np

from anomaly.scores import anomaly_map, enlarged


class Region(NamedTuple):
    """A region in pixels of the image; x to the right, y downwards."""

    box: tuple[int, int, int, int]  # left, top, width, height
    area: int  # pixels
    share: float  # of the image's pixels
    peak: float  # highest value of the map in it
    contour: np.ndarray  # (n, 2) outer corners (x, y), which belong to the region


def map_peaks(patch_scores, windows, size, sigma):
    """Highest value (N,) of each anomaly map: patches (N, h, w), windows (N, 4)."""
    pairs = zip(patch_scores, windows, strict=True)
    return np.array([anomaly_map(s, (size, size), sigma, w).max() for s, w in pairs])


def find_regions(heat, threshold, shape=None):
    """The `Region`s of an anomaly map (h, w), highest peak first.

    In pixels of an image of `shape` (H, W), of the map itself if None. There is none
    where no value is above `threshold`, whatever the shape.
    """
    if heat.max() <= threshold:  # before it is enlarged to some megapixels
        return []
    heat = enlarged(heat, shape or heat.shape)
    above, found = np.uint8(heat > threshold), []
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    for index in range(1, count):
        x, y, width, height, area = boxes[index].tolist()
        at = slice(y, y + height), slice(x, x + width)
        own = labels[at] == index
        outline = cv2.findContours(
            np.uint8(own), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y)
        )[0][0].reshape(-1, 2)
        box, peak = (x, y, width, height), float(heat[at][own].max())
        found.append(Region(box, area, area / heat.size, peak, outline))
    return sorted(found, key=lambda region: -region.peak)


def region_hits(found, mask):
    """How many regions of `mask` (H, W) `found` (H, W) touches, and how many it has."""
    count, labels = cv2.connectedComponents(np.uint8(mask), connectivity=8)
    return len(np.unique(labels[found & (labels > 0)])), count - 1


def pixel_counts(found, mask):
    """True positives, false positives, false negatives, for `pixel_f1`."""
    both = np.count_nonzero(found & mask)
    return np.array([both, found.sum() - both, mask.sum() - both])


def pixel_f1(true_positives, false_positives, false_negatives) -> float | None:
    """F1 of counts summed over all images, as MVTec AD 2 scores a binary map.

    Heckler-Kram et al., "The MVTec AD 2 Dataset", 2025. None without a bad pixel.
    """
    if not true_positives + false_negatives:
        return None
    errors = false_positives + false_negatives
    return float(2 * true_positives / (2 * true_positives + errors))
