"""Intervals and DeLong's test against their definitions, and by simulation."""

import numpy as np
import pytest
from samples import sample
from scipy.stats import binomtest, norm
from sklearn import metrics as sk

from anomaly.intervals import _interval, bootstrap_interval, delong_test, roc_band
from anomaly.metrics import confusion_counts


@pytest.mark.parametrize("metric", ["auroc", "average_precision"])
def test_bootstrap_samples_are_those_of_a_plain_bootstrap(metric):
    """Below ~.9 with many images the percentiles are the wider part: compare them."""
    labels, scores = sample(1, good=200, bad=200, shift=0.8)
    rng = np.random.default_rng(5)
    good, bad = scores[labels == 0], scores[labels == 1]
    truth = np.repeat([0, 1], 200)
    function = {"auroc": sk.roc_auc_score}.get(metric, sk.average_precision_score)
    values = [
        function(truth, np.append(rng.choice(good, 200), rng.choice(bad, 200)))
        for _ in range(250)
    ]
    low, high = bootstrap_interval(metric, labels, scores)
    expected = np.quantile(values, [0.025, 0.975])
    widest = 2 * norm.ppf(0.975) * np.sqrt(0.25 / 200)
    assert low <= expected[0] + 0.01 and high >= expected[1] - 0.01
    assert high - low < widest
    _, tp, fp = confusion_counts(labels == 1, scores, n_boot=3, seed=0)
    assert (tp[:, -1] == 200).all() and (fp[:, -1] == 200).all()  # stratified


def test_bootstrap_area_matches_sklearn_on_the_resample_itself(monkeypatch):
    """The figures of each resample equal sklearn's with its counts as weights."""
    labels, scores = sample(2, good=15, bad=25)
    kept = {}
    original = _interval

    def spy(values, *rest):
        kept["values"] = values
        return original(values, *rest)

    monkeypatch.setattr("anomaly.intervals._interval", spy)
    distinct, tp, fp = confusion_counts(labels == 1, scores, 20, 7)
    for metric, function in (
        ("auroc", sk.roc_auc_score),
        ("average_precision", sk.average_precision_score),
    ):
        bootstrap_interval(metric, labels, scores, n_boot=20, seed=7)
        for row in range(20):
            weight = np.append(np.diff(tp[row]), np.diff(fp[row]))
            truth = np.repeat([1, 0], len(distinct))
            expected = function(truth, np.tile(distinct, 2), sample_weight=weight)
            assert kept["values"][row] == pytest.approx(expected, abs=1e-12)


def test_interval_is_deterministic_and_blind_to_order():
    labels, scores = sample(4)
    order = np.random.default_rng(0).permutation(len(labels))
    for metric in ("auroc", "average_precision"):
        first = bootstrap_interval(metric, labels, scores)
        assert first == bootstrap_interval(metric, labels[order], scores[order])
    labels, scores = sample(4, bad=300)  # here the percentiles are the wider part
    first, other = (bootstrap_interval("auroc", labels, scores, seed=s) for s in (0, 1))
    assert first != other


def test_perfect_ranking_keeps_an_honest_lower_limit():
    labels = np.repeat([0, 1], [40, 70])
    low, high = bootstrap_interval("auroc", labels, labels)
    # Newcombe's equation at estimate 1: (1 - t)^2 = z^2 V(t), V after Hanley & McNeil
    q1, q2 = low / (2 - low), 2 * low**2 / (1 + low)
    variance = low * (1 - low) + 54 * (q1 - low**2) + 54 * (q2 - low**2)
    assert high == 1
    assert 1 - low == pytest.approx(1.959964 * np.sqrt(variance / 2800), abs=2e-4)
    low, high = bootstrap_interval("average_precision", labels, labels)
    wilson = binomtest(70, 70).proportion_ci(method="wilson").low
    assert (low, high) == (pytest.approx(wilson, abs=2e-4), 1)
    low, high = bootstrap_interval("auroc", labels, -labels)
    assert low == 0 and 0.02 < high < 0.06
    low, _ = bootstrap_interval("auroc", [0, 1], [0, 1])
    assert low < 0.3  # two images prove nothing


@pytest.mark.parametrize("truth", [0.85, 0.95, 0.995])
def test_interval_covers_the_true_auroc(truth):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 70])
    shift = np.sqrt(2) * norm.ppf(truth)
    hits = 0
    for seed in range(120):
        scores = rng.normal(size=110) + shift * labels
        low, high = bootstrap_interval("auroc", labels, scores, 200, seed=seed)
        hits += low <= truth <= high
    assert hits / 120 >= 0.94


def test_roc_band_encloses_the_curve_and_is_honest_at_the_corner():
    labels, scores = sample(6)
    grid = np.linspace(0, 1, 51)
    low, high = roc_band(labels, scores, grid)
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    curve = np.interp(grid, fpr, tpr)
    assert (low <= curve).all() and (curve <= high).all()
    assert (low >= 0).all() and (high <= 1).all()
    assert low.shape == high.shape == grid.shape
    low, high = roc_band(labels, labels, grid)
    wilson = binomtest(70, 70).proportion_ci(method="wilson").low
    assert low == pytest.approx(wilson, abs=2e-4) and (high == 1).all()


def test_roc_band_covers_the_true_curve_pointwise():
    rng = np.random.default_rng(1)
    labels, grid = np.repeat([0, 1], [40, 70]), np.array([0.1, 0.3, 0.6])
    truth = norm.sf(norm.isf(grid) - 1.5)
    hits = np.zeros(3)
    for seed in range(150):
        scores = rng.normal(size=110) + 1.5 * labels
        low, high = roc_band(labels, scores, grid, 200, seed=seed)
        hits += (low <= truth) & (truth <= high)
    assert (hits / 150 >= 0.92).all()


def placements(labels, scores):
    """Kernel means over the other class, by the definition (DeLong et al., eq. 4)."""
    bad, good = scores[labels == 1], scores[labels == 0]
    kernel = (bad[:, None] > good) + 0.5 * (bad[:, None] == good)
    return kernel.mean(), kernel.mean(axis=1), kernel.mean(axis=0)


@pytest.mark.parametrize("seed", range(5))
def test_delong_equals_the_covariance_of_placement_values(seed):
    labels, a = sample(seed)
    b = np.round(a + np.random.default_rng(seed).normal(size=len(a)), 1)
    (area_a, v10_a, v01_a), (area_b, v10_b, v01_b) = (
        placements(labels, s) for s in (a, b)
    )
    s10, s01 = np.cov(v10_a, v10_b), np.cov(v01_a, v01_b)
    s = s10 / 70 + s01 / 40
    variance = s[0, 0] + s[1, 1] - 2 * s[0, 1]
    p_value = 2 * norm.sf(abs(area_a - area_b) / np.sqrt(variance))
    got = delong_test(labels, a, b)
    assert got == pytest.approx(
        {
            "auroc_a": area_a,
            "auroc_b": area_b,
            "difference": area_a - area_b,
            "variance": variance,
            "p_value": p_value,
        },
        abs=1e-12,
    )
    swapped = delong_test(labels, b, a)
    assert swapped["difference"] == -got["difference"]
    assert swapped["p_value"] == pytest.approx(got["p_value"], abs=1e-12)


def test_delong_holds_its_level_and_its_variance():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 70])
    tests = []
    for _ in range(600):
        base = rng.normal(size=110) + 1.2 * labels
        a, b = base + rng.normal(size=(2, 110))
        tests.append(delong_test(labels, a, b))
    rejected = np.mean([t["p_value"] < 0.05 for t in tests])
    assert 0.025 <= rejected <= 0.08
    spread = np.var([t["difference"] for t in tests])
    assert np.mean([t["variance"] for t in tests]) == pytest.approx(spread, rel=0.15)


def test_delong_without_variance():
    labels = np.array([0, 0, 0, 1, 1, 1])
    same = delong_test(labels, labels, 3 * labels + 1)
    assert (same["difference"], same["variance"], same["p_value"]) == (0, 0, 1)
    opposite = delong_test(labels, labels, -labels)
    assert (opposite["difference"], opposite["p_value"]) == (1, None)
    assert delong_test([0, 0, 1], [0, 1, 2], [0, 1, 2]) is None
