"""Regions of a map: against scipy.ndimage and against counting pixels one by one."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from anomaly.evaluation import region_figures
from anomaly.files import write_image
from anomaly.labels import Labels
from anomaly.regions import (
    find_regions,
    map_peaks,
    pixel_counts,
    pixel_f1,
    region_hits,
)
from anomaly.scores import anomaly_map, conformal_threshold, enlarged

EIGHT = np.ones((3, 3))


def smooth(seed, shape=(40, 60)):
    noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 2)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [None, (40, 60), (123, 91), (17, 200)])
def test_regions_are_those_of_scipy(seed, shape):
    heat, threshold = smooth(seed), 0.15
    found = find_regions(heat, threshold, shape)
    full = enlarged(heat, shape or heat.shape)
    labels, count = ndimage.label(full > threshold, EIGHT)
    assert len(found) == count > 3
    assert [r.peak for r in found] == sorted((r.peak for r in found), reverse=True)
    rows = ndimage.find_objects(labels)
    expected = {
        ((x.start, y.start, x.stop - x.start, y.stop - y.start), int(area), peak)
        for (y, x), area, peak in zip(
            rows,
            ndimage.sum_labels(labels > 0, labels, range(1, count + 1)),
            ndimage.maximum(full, labels, range(1, count + 1)).tolist(),
            strict=True,
        )
    }
    assert {(r.box, r.area, r.peak) for r in found} == expected
    for region in found:
        x, y, width, height = region.box
        inside = labels == labels[tuple(region.contour[0, ::-1])]
        drawn = cv2.fillPoly(np.zeros(full.shape, np.uint8), [region.contour], 1)
        np.testing.assert_array_equal(
            drawn > 0, ndimage.binary_fill_holes(inside, EIGHT)
        )
        assert region.share == inside.mean()
        assert region.contour.min(0).tolist() == [x, y]
        assert (region.contour.max(0) + 1 - [x, y]).tolist() == [width, height]


def test_no_region_where_nothing_is_above():
    heat = smooth(0)
    assert find_regions(heat, float(heat.max()), (400, 600)) == []
    assert find_regions(heat, np.inf) == []
    assert enlarged(heat, (999, 1001)).max() <= heat.max()
    (all_of_it,) = find_regions(heat, -np.inf)
    assert all_of_it.box == (0, 0, 60, 40) and all_of_it.share == 1


def test_peaks_are_those_of_the_maps():
    patches = np.random.default_rng(0).random((5, 8, 8), np.float32)
    windows = np.array([[0.1, 0, 0.9, 0.95]] * 5)
    maps = [
        anomaly_map(p, (64, 64), 2.0, w) for p, w in zip(patches, windows, strict=True)
    ]
    peaks = map_peaks(patches, windows, 64, 2.0)
    assert peaks.tolist() == [m.max() for m in maps]
    value = conformal_threshold(peaks, 0.4).value  # 2 of 6 may exceed it
    assert sum(bool(find_regions(m, value, (90, 90))) for m in maps) == 1


@pytest.mark.parametrize("seed", range(20))
def test_hits_and_f1_against_counting(seed):
    found, mask = smooth(seed) > 0.2, smooth(seed + 99) > 0.25
    labels, count = ndimage.label(mask, EIGHT)
    touched = {int(labels[i]) for i in zip(*np.nonzero(found), strict=True)} - {0}
    assert region_hits(found, mask) == (len(touched), count)
    tp = sum(bool(f and m) for f, m in zip(found.flat, mask.flat, strict=True))
    f1 = 2 * tp / (found.sum() + mask.sum())
    assert pixel_f1(*pixel_counts(found, mask)) == pytest.approx(f1)


def test_figures_of_a_test_set(tmp_path):
    """Two good images, one of which shows a region; two bad with three defects."""
    maps = np.zeros((5, 20, 20), np.float32)
    maps[1, 3:5, 3:5] = 9
    maps[2, 2:6, 2:6] = 9
    maps[4] = 9  # bad without a mask: nothing is known of its pixels
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    masks = [None, None, tmp_path / "m2.png", tmp_path / "m3.png", None]
    for path in paths:
        write_image(path, np.zeros((20, 20, 3), np.uint8))
    for path, corners in ((masks[2], [(2, 2), (12, 12)]), (masks[3], [(9, 9)])):
        mask = np.zeros((20, 20, 3), np.uint8)
        for y, x in corners:
            mask[y : y + 4, x : x + 4] = 255
        write_image(path, mask)
    threshold = conformal_threshold(np.full(19, 5.0), 0.05)

    def figures(is_bad, masks):
        labels = Labels(np.array(is_bad, np.int8), [""] * 5, masks, [])
        return region_figures(paths, lambda i, shape: maps[i], labels, threshold)

    assert figures([0, 0, 1, 1, 1], masks) == {
        "map_threshold": 5.0,
        "map_promised_fpr": 0.05,
        "region_fpr": 0.5,
        "n_true_regions": 3,
        "region_recall": pytest.approx(1 / 3),
        "pixel_f1": pytest.approx(2 * 16 / (2 * 16 + 4 + 32)),
    }
    without = figures([0, -1, 1, 1, 1], [None] * 5)
    assert without["region_fpr"] == 0
    missing = ("n_true_regions", "region_recall", "pixel_f1")
    assert all(without[name] is None for name in missing)
