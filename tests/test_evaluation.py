"""The figures of metrics.json from arrays, and why some are null."""

from pathlib import Path

import numpy as np
import pytest
from samples import encode, sample

from anomaly import evaluation
from anomaly.intervals import bootstrap_interval, delong_test
from anomaly.labels import Labels
from anomaly.metrics import auroc, average_precision
from anomaly.pixels import PixelCounts, pixel_auroc
from anomaly.scores import Threshold

THRESHOLD = Threshold(0.5, 0.05, 19, "a rule")
IMAGE = {"auroc", "average_precision", "oracle"}
PIXEL = {metric.__name__ for metric in evaluation.PIXEL_METRICS}


def test_counts():
    found = evaluation.counts("abcd", "efghi", np.array([0, 1, 1, -1, -1, -1]))
    assert list(found.values()) == [4, 5, 1, 2, 3]


def test_ranking_and_decision_are_those_of_the_metrics():
    labels, scores = sample(0)
    figures = evaluation.ranking(labels, scores, seed=3)
    assert figures["auroc"] == auroc(labels, scores)
    assert figures["average_precision"] == average_precision(labels, scores)
    for name in ("auroc", "average_precision"):
        interval = bootstrap_interval(name, labels, scores, seed=3)
        assert figures[f"{name}_ci95"] == interval
    figures = evaluation.decision(labels, scores, THRESHOLD)
    assert (figures["threshold"], figures["promised_fpr"]) == (0.5, 0.05)
    assert figures["false_positive_rate"] == (scores[labels == 0] > 0.5).mean()


def test_comparison_is_with_the_first_row():
    labels, scores = sample(1)
    rows = {"assignment": -scores, "other": scores}
    found = evaluation.comparison(labels, scores, rows)
    assert [row["name"] for row in found["ablation"]] == list(rows)
    assert found["assignment"] == found["ablation"][0]
    assert found["delong_p"] == delong_test(labels, scores, -scores)["p_value"]


def test_other_days_have_a_row_each():
    labels, scores = sample(2)
    rows = evaluation.other_days(
        labels, {"none": scores, "dark": scores + 9}, THRESHOLD
    )
    assert [row["name"] for row in rows] == ["none", "dark"]
    assert rows[0]["auroc"] == pytest.approx(rows[1]["auroc"])
    assert rows[1]["false_positive_rate"] == 1 and rows[0]["n"] == len(labels)


@pytest.mark.parametrize(
    "is_bad, has_masks, null",
    [
        ([0, 1], True, set()),
        ([0, 1], False, PIXEL),
        ([0, -1], True, IMAGE),
        ([1, 1], False, IMAGE | PIXEL),
        ([-1, -1], True, IMAGE),
    ],
)
def test_null_reasons(is_bad, has_masks, null):
    assert set(evaluation.null_reasons(np.array(is_bad), has_masks)) == null


def truth(tmp_path, masks=True):
    """Four images: good; bad with a mask; bad without one; unlabelled."""
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        path.write_bytes(encode(np.zeros((6, 8, 3), np.uint8), ".png"))
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:5] = 255
    (tmp_path / "mask.png").write_bytes(encode(mask, ".png"))
    found = [None, tmp_path / "mask.png" if masks else None, None, None]
    return paths, Labels(np.array([0, 1, 1, -1]), ["", "a", "a,b", ""], found, []), mask


def test_pixel_figures_take_the_images_whose_defect_is_known(tmp_path):
    paths, labels, mask = truth(tmp_path)
    maps = np.random.default_rng(0).random((4, 6, 8))
    asked = []

    def map_of(index, shape=None):
        asked.extend([(index, shape)] if shape else [])
        return maps[index]

    figures = evaluation.pixel_figures(paths, map_of, labels)
    assert asked == [(0, (6, 8)), (1, (6, 8))] and set(figures) == PIXEL
    counts = PixelCounts.of([(maps[0], mask * 0), (maps[1], mask)])
    assert figures["pixel_auroc"] == pixel_auroc(counts)
    is_bad = np.append(np.zeros(48), mask.ravel() > 0)
    assert figures["pixel_auroc"] == pytest.approx(auroc(is_bad, maps[:2].ravel()))


def test_pixel_figures_without_masks_are_none_and_read_no_image(tmp_path):
    _, labels, _ = truth(tmp_path, masks=False)
    figures = evaluation.pixel_figures([Path("none")] * 4, None, labels)
    assert figures == dict.fromkeys(PIXEL)


def test_scores_csv(tmp_path):
    paths, labels, _ = truth(tmp_path)
    scores = np.array([0.25, 1 / 3, 2, 0.5])
    lines = evaluation.scores_csv(paths, labels, scores, THRESHOLD)
    lines = lines.decode().splitlines()
    assert lines == [
        "filename,label,score,prediction,defect",
        "0.png,good,0.25,good,",
        "1.png,bad,0.333333,good,a",
        '2.png,bad,2,bad,"a,b"',
        "3.png,,0.5,good,",
    ]


@pytest.mark.parametrize("interval, swapped", [((0.1, 0.49), True), (None, False)])
def test_an_interval_below_chance_looks_swapped(interval, swapped):
    assert evaluation.looks_swapped(interval) is swapped


def test_swapped_labels_are_noticed_and_right_ones_are_not():
    labels, scores = sample(0)
    for turned in (False, True):
        figures = evaluation.ranking(1 - labels if turned else labels, scores)
        assert evaluation.looks_swapped(figures["auroc_ci95"]) is turned


def test_chance_does_not_look_swapped():
    labels, scores = sample(1, shift=0)
    assert not evaluation.looks_swapped(
        evaluation.ranking(labels, scores)["auroc_ci95"]
    )
