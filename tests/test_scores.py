"""Image scores, maps and the threshold's promise."""

from fractions import Fraction
from math import ceil

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anomaly.scores import anomaly_map, conformal_threshold, image_scores, map_scale


def test_a_map_lies_where_the_window_was():
    patches = np.zeros((8, 8), np.float32)
    patches[2, 5] = 1  # row, column
    window = (0.1, 0.2, 0.5, 0.6)
    found = anomaly_map(patches, (300, 200), window=window)
    rows, columns = np.mgrid[:300, :200] + 0.5
    centre = [(found * axis).sum() / found.sum() for axis in (columns, rows)]
    expected = [200 * (0.1 + 0.5 * 5.5 / 8), 300 * (0.2 + 0.6 * 2.5 / 8)]
    np.testing.assert_allclose(centre, expected, atol=0.5)
    edge = anomaly_map(np.arange(4.0).reshape(2, 2), (20, 20), window=window)
    assert edge[0, 0] == 0 and edge[-1, -1] == 3  # beyond it the nearest counts


def test_without_a_window_a_map_is_enlarged_as_opencv_does():
    patches = np.random.default_rng(0).random((5, 7)).astype(np.float32)
    expected = cv2.resize(patches, (70, 50), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(anomaly_map(patches, (50, 70)), expected, atol=0.03)


@pytest.mark.parametrize(("n", "max_fpr"), [(19, 0.05), (99, 0.07), (200, 0.01)])
def test_conformal_rank_is_the_textbook_one(n, max_fpr):
    scores = np.random.default_rng(0).permutation(n) + 1.0  # rank = score
    got = conformal_threshold(scores, max_fpr)
    ranks = np.arange(1, n + 1)  # smallest rank with (n + 1 - rank) / (n + 1) <= fpr
    assert got.value == ranks[(n + 1 - ranks) <= max_fpr * (n + 1) + 1e-9].min()
    assert got.promised_fpr == pytest.approx((n + 1 - got.value) / (n + 1))
    assert got.promised_fpr <= max_fpr + 1e-9 and got.n == n
    assert "or more" not in got.rule


def test_conformal_says_what_too_few_images_can_promise():
    got = conformal_threshold([3.0, 1.0, 2.0], 0.05)
    assert (got.value, got.promised_fpr, got.n) == (3.0, 0.25, 3)
    assert "0.25" in got.rule and "19 images or more" in got.rule
    assert conformal_threshold([], 0.05) is None
    with pytest.raises(ValueError, match="max_fpr"):
        conformal_threshold([1.0], 1.0)


@pytest.mark.parametrize("n", [10, 30, 157])
def test_conformal_false_positive_rate_is_the_promised_one(n):
    """Over calibration sets the expected rate is exactly the promise (no ties)."""
    rng = np.random.default_rng(0)
    promises, rates = [], []
    for _ in range(3000):
        got = conformal_threshold(rng.exponential(size=n), 0.05)
        promises.append(got.promised_fpr)
        rates.append(np.exp(-got.value))  # P(new score > threshold)
    error = 4 * np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) == pytest.approx(promises[0], abs=error)


@given(st.integers(1, 3000), st.integers(1, 99_999))
@example(149, 18_000)
def test_conformal_rank_is_that_of_exact_arithmetic(n, share):
    """(n + 1) (1 - max_fpr) in floats can miss a whole number."""
    max_fpr = share / 100_000
    rank = min(n, ceil((n + 1) * (1 - Fraction(str(max_fpr)))))
    got = conformal_threshold(np.arange(1, n + 1), max_fpr)  # score = rank
    assert got.value == rank
    assert got.promised_fpr == (n + 1 - rank) / (n + 1)


@pytest.mark.parametrize(
    "image_score, expected", [("max", 5), (1.0, 2.5), (0.25, 4.5), (1e-9, 5), (0.5, 4)]
)
def test_image_scores_average_the_highest_share(image_score, expected):
    patches = np.random.default_rng(0).permutation([5, 4, 4, 3, 2, 1, 1, 0.0])
    got = image_scores(patches.reshape(1, 2, 4), image_score)
    assert got == pytest.approx([expected])


@pytest.mark.parametrize("image_score", ["max", 0.02, "scan"])
def test_a_folder_without_images_has_no_scores(image_score):
    usual = np.ones((2, 1))
    got = image_scores(np.empty((0, 4, 4)), image_score, usual)
    assert got.shape == (0,)


def test_map_scale_keeps_normal_pixels_in_the_cold_half():
    maps = np.random.default_rng(0).exponential(size=(4, 64, 64))
    low, high = map_scale(maps)
    share = (maps > (low + high) / 2).mean()
    assert low == pytest.approx(np.median(maps), abs=0.1) and share < 0.01
    low, high = map_scale(np.full((2, 8, 8), 3.0))
    assert low == 3 and high > low  # constant images have colours, too
