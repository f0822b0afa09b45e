"""Every figure over images against sklearn, SciPy or a brute-force computation."""

import numpy as np
import pytest
from samples import sample
from scipy.stats import mannwhitneyu
from sklearn import metrics as sk

from anomaly.intervals import bootstrap_interval, delong_test, roc_band
from anomaly.metrics import (
    auroc,
    average_precision,
    classification_metrics,
    oracle_threshold,
    per_defect_auroc,
)
from anomaly.pixels import PixelCounts
from anomaly.scores import conformal_threshold

ONE_CLASS = [np.zeros(5, int), np.ones(5, int), np.full(5, -1), np.zeros(0, int)]


@pytest.mark.parametrize("seed", range(5))
def test_auroc_and_average_precision_agree_with_others(seed):
    labels, scores = sample(seed)
    u = mannwhitneyu(scores[labels == 1], scores[labels == 0]).statistic
    assert auroc(labels, scores) == pytest.approx(u / (40 * 70), abs=1e-12)
    ap = sk.average_precision_score(labels, scores)
    assert average_precision(labels, scores) == pytest.approx(ap, abs=1e-12)


def test_unlabelled_images_are_left_out():
    labels, scores = sample(0)
    more_labels, more_scores = np.append(labels, [-1, -1]), np.append(scores, [-9, 9])
    for function in (auroc, average_precision, oracle_threshold):
        assert function(more_labels, more_scores) == function(labels, scores)
    for metric in ("auroc", "average_precision"):
        assert bootstrap_interval(metric, more_labels, more_scores) == (
            bootstrap_interval(metric, labels, scores)
        )
    assert delong_test(more_labels, more_scores, -more_scores) == (
        delong_test(labels, scores, -scores)
    )
    assert classification_metrics([-1, 0, 1, -1], [1, 0, 1, 0])["accuracy"] == 1


@pytest.mark.parametrize("labels", ONE_CLASS, ids=["good", "bad", "none", "empty"])
def test_one_class_is_none_without_a_warning(labels, recwarn):
    scores = np.arange(len(labels), dtype=float)
    assert auroc(labels, scores) is None
    assert average_precision(labels, scores) is None
    assert bootstrap_interval("auroc", labels, scores) is None
    assert bootstrap_interval("average_precision", labels, scores) is None
    assert roc_band(labels, scores, [0, 1]) is None
    assert delong_test(labels, scores, scores) is None
    assert oracle_threshold(labels, scores) is None
    assert not recwarn.list


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        auroc([0, 1], [0, np.nan])
    with pytest.raises(ValueError, match="NaN"):
        conformal_threshold([0, np.nan], 0.05)
    with pytest.raises(ValueError, match="NaN"):
        PixelCounts(0, 1).add(np.full((1, 2), np.nan), [[0, 1]])


def test_per_defect_auroc_sets_each_kind_against_all_good():
    labels, scores = sample(3)
    defects = np.where(labels == 1, np.where(np.arange(110) % 2, "crack", "cut"), "")
    defects[np.flatnonzero(labels == 1)[0]] = ""  # bad, kind unknown
    got = per_defect_auroc(defects.tolist(), labels, scores)
    assert list(got) == ["crack", "cut"]
    for kind, value in got.items():
        bad = scores[(labels == 1) & (defects == kind)]
        u = mannwhitneyu(bad, scores[labels == 0]).statistic
        assert value == pytest.approx(u / (len(bad) * 40), abs=1e-12)
    assert per_defect_auroc(["hole"], [1], [0.5]) == {"hole": None}
    assert per_defect_auroc(["", ""], [0, 1], [0, 1]) == {}


def test_classification_metrics_agree_with_sklearn():
    labels, scores = sample(7)
    said = scores > 0.7
    got = classification_metrics(labels, said)
    assert got["confusion_matrix"] == sk.confusion_matrix(labels, said).tolist()
    assert got["recall"] == pytest.approx(sk.recall_score(labels, said))
    assert got["precision"] == pytest.approx(sk.precision_score(labels, said))
    assert got["f1"] == pytest.approx(sk.f1_score(labels, said))
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(labels, said))
    fpr = said[labels == 0].mean()
    assert got["false_positive_rate"] == pytest.approx(fpr)
    assert got == classification_metrics(labels, said.astype(int).tolist())


def test_classification_metrics_without_a_denominator():
    good = classification_metrics([0, 0], [0, 1])
    assert good["confusion_matrix"] == [[1, 1], [0, 0]]
    assert good["recall"] is None and good["f1"] is None and good["precision"] == 0
    bad = classification_metrics([1, 1], [0, 0])
    assert bad["false_positive_rate"] is None and bad["precision"] is None
    assert bad["recall"] == bad["f1"] == bad["accuracy"] == 0
    assert classification_metrics([-1], [1])["accuracy"] is None


@pytest.mark.parametrize("seed", range(5))
def test_oracle_beats_every_other_threshold(seed):
    labels, scores = sample(seed, shift=[1.5, 0, -1, 0.3, 3][seed])
    got = oracle_threshold(labels, scores)
    candidates = np.append(np.unique(scores), -np.inf)
    figures = [classification_metrics(labels, scores > t) for t in candidates]
    best = max(f["recall"] - f["false_positive_rate"] for f in figures)
    assert got["recall"] - got["false_positive_rate"] == pytest.approx(best, abs=1e-12)
    assert got["f1_optimal"]["f1"] == pytest.approx(max(f["f1"] for f in figures))
    assert "uses the test labels" in got["rule"]
    for part in (got, got["f1_optimal"]):
        again = classification_metrics(labels, scores > part["threshold"])
        assert again.items() <= part.items()


def test_oracle_threshold_lies_midway():
    assert oracle_threshold([0, 0, 1, 1], [1, 2, 5, 6])["threshold"] == 3.5
    low = np.nextafter(np.float32(1), np.float32(2))
    scores = np.array([low, np.nextafter(low, np.float32(2))])  # nothing in between
    got = oracle_threshold([0, 1], scores)
    assert (scores > got["threshold"]).tolist() == [False, True]
