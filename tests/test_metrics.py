"""Every metric against sklearn, SciPy, a brute-force computation or a simulation."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import binomtest, mannwhitneyu, norm
from sklearn import metrics as sk

import helpers as hp

ONE_CLASS = [np.zeros(5, int), np.ones(5, int), np.full(5, -1), np.zeros(0, int)]


def sample(seed, good=40, bad=70, shift=1.5, decimals=1):
    """Labels and scores; one decimal makes plenty of ties within and across classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], [good, bad]))
    return labels, np.round(rng.normal(size=good + bad) + shift * labels, decimals)


def pixels(seed, decimals=1):
    """Tiny maps of several sizes with ties, the last three normal."""
    rng = np.random.default_rng(seed)
    sizes = [(6, 7), (5, 9), (8, 8), (4, 6), (7, 7), (6, 6), (5, 5)]
    masks = [rng.random(size) < 0.25 for size in sizes]
    for mask in masks[-3:]:
        mask[:] = False
    maps = [np.round(rng.normal(size=m.shape) + m, decimals) for m in masks]
    return maps, masks


def flat(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


# ------------------------------------------------------------------ image level


@pytest.mark.parametrize("seed", range(5))
def test_auroc_and_average_precision_agree_with_others(seed):
    labels, scores = sample(seed)
    u = mannwhitneyu(scores[labels == 1], scores[labels == 0]).statistic
    assert hp.auroc(labels, scores) == pytest.approx(u / (40 * 70), abs=1e-12)
    ap = sk.average_precision_score(labels, scores)
    assert hp.average_precision(labels, scores) == pytest.approx(ap, abs=1e-12)


def test_unlabelled_images_are_left_out():
    labels, scores = sample(0)
    more_labels, more_scores = np.append(labels, [-1, -1]), np.append(scores, [-9, 9])
    for function in (hp.auroc, hp.average_precision, hp.oracle_threshold):
        assert function(more_labels, more_scores) == function(labels, scores)
    for metric in ("auroc", "average_precision"):
        assert hp.bootstrap_interval(metric, more_labels, more_scores) == (
            hp.bootstrap_interval(metric, labels, scores)
        )
    assert hp.delong_test(more_labels, more_scores, -more_scores) == (
        hp.delong_test(labels, scores, -scores)
    )
    assert hp.classification_metrics([-1, 0, 1, -1], [1, 0, 1, 0])["accuracy"] == 1


@pytest.mark.parametrize("labels", ONE_CLASS, ids=["good", "bad", "none", "empty"])
def test_one_class_is_none_without_a_warning(labels, recwarn):
    scores = np.arange(len(labels), dtype=float)
    assert hp.auroc(labels, scores) is None
    assert hp.average_precision(labels, scores) is None
    assert hp.bootstrap_interval("auroc", labels, scores) is None
    assert hp.bootstrap_interval("average_precision", labels, scores) is None
    assert hp.roc_band(labels, scores, [0, 1]) is None
    assert hp.delong_test(labels, scores, scores) is None
    assert hp.oracle_threshold(labels, scores) is None
    assert not recwarn.list


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        hp.auroc([0, 1], [0, np.nan])
    with pytest.raises(ValueError, match="NaN"):
        hp.conformal_threshold([0, np.nan], 0.05)
    with pytest.raises(ValueError, match="NaN"):
        hp.pixel_auroc([np.array([[0, np.nan]])], [np.array([[0, 1]])])


def test_per_defect_auroc_sets_each_kind_against_all_good():
    labels, scores = sample(3)
    defects = np.where(labels == 1, np.where(np.arange(110) % 2, "crack", "cut"), "")
    defects[np.flatnonzero(labels == 1)[0]] = ""  # bad, kind unknown
    got = hp.per_defect_auroc(defects.tolist(), labels, scores)
    assert list(got) == ["crack", "cut"]
    for kind, value in got.items():
        bad = scores[(labels == 1) & (defects == kind)]
        u = mannwhitneyu(bad, scores[labels == 0]).statistic
        assert value == pytest.approx(u / (len(bad) * 40), abs=1e-12)
    assert hp.per_defect_auroc(["hole"], [1], [0.5]) == {"hole": None}
    assert hp.per_defect_auroc(["", ""], [0, 1], [0, 1]) == {}


# ------------------------------------------------------------------ intervals


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
    low, high = hp.bootstrap_interval(metric, labels, scores)
    expected = np.quantile(values, [0.025, 0.975])
    widest = 2 * norm.ppf(0.975) * np.sqrt(0.25 / 200)
    assert low <= expected[0] + 0.01 and high >= expected[1] - 0.01
    assert high - low < widest
    _, tp, fp = hp._counts(labels == 1, scores, n_boot=3, seed=0)
    assert (tp[:, -1] == 200).all() and (fp[:, -1] == 200).all()  # stratified


def test_bootstrap_area_matches_sklearn_on_the_resample_itself(monkeypatch):
    """The figures of each resample equal sklearn's with its counts as weights."""
    labels, scores = sample(2, good=15, bad=25)
    kept = {}
    original = hp._interval

    def spy(values, *rest):
        kept["values"] = values
        return original(values, *rest)

    monkeypatch.setattr(hp, "_interval", spy)
    distinct, tp, fp = hp._counts(labels == 1, scores, 20, 7)
    for metric, function in (
        ("auroc", sk.roc_auc_score),
        ("average_precision", sk.average_precision_score),
    ):
        hp.bootstrap_interval(metric, labels, scores, n_boot=20, seed=7)
        for row in range(20):
            weight = np.append(np.diff(tp[row]), np.diff(fp[row]))
            truth = np.repeat([1, 0], len(distinct))
            expected = function(truth, np.tile(distinct, 2), sample_weight=weight)
            assert kept["values"][row] == pytest.approx(expected, abs=1e-12)


def test_interval_is_deterministic_and_blind_to_order():
    labels, scores = sample(4)
    order = np.random.default_rng(0).permutation(len(labels))
    for metric in ("auroc", "average_precision"):
        first = hp.bootstrap_interval(metric, labels, scores)
        assert first == hp.bootstrap_interval(metric, labels[order], scores[order])
    labels, scores = sample(4, bad=300)  # here the percentiles are the wider part
    first, other = (
        hp.bootstrap_interval("auroc", labels, scores, seed=s) for s in (0, 1)
    )
    assert first != other


def test_perfect_ranking_keeps_an_honest_lower_limit():
    labels = np.repeat([0, 1], [40, 70])
    low, high = hp.bootstrap_interval("auroc", labels, labels)
    # Newcombe's equation at estimate 1: (1 - t)^2 = z^2 V(t), V after Hanley & McNeil
    q1, q2 = low / (2 - low), 2 * low**2 / (1 + low)
    variance = low * (1 - low) + 54 * (q1 - low**2) + 54 * (q2 - low**2)
    assert high == 1
    assert 1 - low == pytest.approx(1.959964 * np.sqrt(variance / 2800), abs=2e-4)
    low, high = hp.bootstrap_interval("average_precision", labels, labels)
    wilson = binomtest(70, 70).proportion_ci(method="wilson").low
    assert (low, high) == (pytest.approx(wilson, abs=2e-4), 1)
    low, high = hp.bootstrap_interval("auroc", labels, -labels)
    assert low == 0 and 0.02 < high < 0.06
    low, _ = hp.bootstrap_interval("auroc", [0, 1], [0, 1])
    assert low < 0.3  # two images prove nothing


@pytest.mark.parametrize("truth", [0.85, 0.95, 0.995])
def test_interval_covers_the_true_auroc(truth):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 70])
    shift = np.sqrt(2) * norm.ppf(truth)
    hits = 0
    for seed in range(120):
        scores = rng.normal(size=110) + shift * labels
        low, high = hp.bootstrap_interval("auroc", labels, scores, 200, seed=seed)
        hits += low <= truth <= high
    assert hits / 120 >= 0.94


def test_roc_band_encloses_the_curve_and_is_honest_at_the_corner():
    labels, scores = sample(6)
    grid = np.linspace(0, 1, 51)
    low, high = hp.roc_band(labels, scores, grid)
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    curve = np.interp(grid, fpr, tpr)
    assert (low <= curve).all() and (curve <= high).all()
    assert (low >= 0).all() and (high <= 1).all()
    assert low.shape == high.shape == grid.shape
    low, high = hp.roc_band(labels, labels, grid)
    wilson = binomtest(70, 70).proportion_ci(method="wilson").low
    assert low == pytest.approx(wilson, abs=2e-4) and (high == 1).all()


def test_roc_band_covers_the_true_curve_pointwise():
    rng = np.random.default_rng(1)
    labels, grid = np.repeat([0, 1], [40, 70]), np.array([0.1, 0.3, 0.6])
    truth = norm.sf(norm.isf(grid) - 1.5)
    hits = np.zeros(3)
    for seed in range(150):
        scores = rng.normal(size=110) + 1.5 * labels
        low, high = hp.roc_band(labels, scores, grid, 200, seed=seed)
        hits += (low <= truth) & (truth <= high)
    assert (hits / 150 >= 0.92).all()


# ------------------------------------------------------------------ DeLong


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
    got = hp.delong_test(labels, a, b)
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
    swapped = hp.delong_test(labels, b, a)
    assert swapped["difference"] == -got["difference"]
    assert swapped["p_value"] == pytest.approx(got["p_value"], abs=1e-12)


def test_delong_holds_its_level_and_its_variance():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 70])
    tests = []
    for _ in range(600):
        base = rng.normal(size=110) + 1.2 * labels
        a, b = base + rng.normal(size=(2, 110))
        tests.append(hp.delong_test(labels, a, b))
    rejected = np.mean([t["p_value"] < 0.05 for t in tests])
    assert 0.025 <= rejected <= 0.08
    spread = np.var([t["difference"] for t in tests])
    assert np.mean([t["variance"] for t in tests]) == pytest.approx(spread, rel=0.15)


def test_delong_without_variance():
    labels = np.array([0, 0, 0, 1, 1, 1])
    same = hp.delong_test(labels, labels, 3 * labels + 1)
    assert (same["difference"], same["variance"], same["p_value"]) == (0, 0, 1)
    opposite = hp.delong_test(labels, labels, -labels)
    assert (opposite["difference"], opposite["p_value"]) == (1, None)
    assert hp.delong_test([0, 0, 1], [0, 1, 2], [0, 1, 2]) is None


# ------------------------------------------------------------------ decisions


@pytest.mark.parametrize(("n", "max_fpr"), [(19, 0.05), (99, 0.07), (200, 0.01)])
def test_conformal_rank_is_the_textbook_one(n, max_fpr):
    scores = np.random.default_rng(0).permutation(n) + 1.0  # rank = score
    got = hp.conformal_threshold(scores, max_fpr)
    ranks = np.arange(1, n + 1)  # smallest rank with (n + 1 - rank) / (n + 1) <= fpr
    assert got.threshold == ranks[(n + 1 - ranks) <= max_fpr * (n + 1) + 1e-9].min()
    assert got.promised_fpr == pytest.approx((n + 1 - got.threshold) / (n + 1))
    assert got.promised_fpr <= max_fpr + 1e-9 and got.n == n
    assert "or more" not in got.rule


def test_conformal_says_what_too_few_images_can_promise():
    got = hp.conformal_threshold([3.0, 1.0, 2.0], 0.05)
    assert (got.threshold, got.promised_fpr, got.n) == (3.0, 0.25, 3)
    assert "0.25" in got.rule and "19 images or more" in got.rule
    assert hp.conformal_threshold([], 0.05) is None
    with pytest.raises(ValueError, match="max_fpr"):
        hp.conformal_threshold([1.0], 1.0)


@pytest.mark.parametrize("n", [10, 30, 157])
def test_conformal_false_positive_rate_is_the_promised_one(n):
    """Over calibration sets the expected rate is exactly the promise (no ties)."""
    rng = np.random.default_rng(0)
    promises, rates = [], []
    for _ in range(3000):
        got = hp.conformal_threshold(rng.exponential(size=n), 0.05)
        promises.append(got.promised_fpr)
        rates.append(np.exp(-got.threshold))  # P(new score > threshold)
    error = 4 * np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) == pytest.approx(promises[0], abs=error)


def test_classification_metrics_agree_with_sklearn():
    labels, scores = sample(7)
    said = scores > 0.7
    got = hp.classification_metrics(labels, said)
    assert got["confusion_matrix"] == sk.confusion_matrix(labels, said).tolist()
    assert got["recall"] == pytest.approx(sk.recall_score(labels, said))
    assert got["precision"] == pytest.approx(sk.precision_score(labels, said))
    assert got["f1"] == pytest.approx(sk.f1_score(labels, said))
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(labels, said))
    fpr = said[labels == 0].mean()
    assert got["false_positive_rate"] == pytest.approx(fpr)
    assert got == hp.classification_metrics(labels, said.astype(int).tolist())


def test_classification_metrics_without_a_denominator():
    good = hp.classification_metrics([0, 0], [0, 1])
    assert good["confusion_matrix"] == [[1, 1], [0, 0]]
    assert good["recall"] is None and good["f1"] is None and good["precision"] == 0
    bad = hp.classification_metrics([1, 1], [0, 0])
    assert bad["false_positive_rate"] is None and bad["precision"] is None
    assert bad["recall"] == bad["f1"] == bad["accuracy"] == 0
    assert hp.classification_metrics([-1], [1])["accuracy"] is None


@pytest.mark.parametrize("seed", range(5))
def test_oracle_beats_every_other_threshold(seed):
    labels, scores = sample(seed, shift=[1.5, 0, -1, 0.3, 3][seed])
    got = hp.oracle_threshold(labels, scores)
    candidates = np.append(np.unique(scores), -np.inf)
    figures = [hp.classification_metrics(labels, scores > t) for t in candidates]
    best = max(f["recall"] - f["false_positive_rate"] for f in figures)
    assert got["recall"] - got["false_positive_rate"] == pytest.approx(best, abs=1e-12)
    assert got["f1_optimal"]["f1"] == pytest.approx(max(f["f1"] for f in figures))
    assert "uses the test labels" in got["rule"]
    for part in (got, got["f1_optimal"]):
        again = hp.classification_metrics(labels, scores > part["threshold"])
        assert again.items() <= part.items()


def test_oracle_threshold_lies_midway():
    assert hp.oracle_threshold([0, 0, 1, 1], [1, 2, 5, 6])["threshold"] == 3.5
    low = np.nextafter(np.float32(1), np.float32(2))
    scores = np.array([low, np.nextafter(low, np.float32(2))])  # nothing in between
    got = hp.oracle_threshold([0, 1], scores)
    assert (scores > got["threshold"]).tolist() == [False, True]


# ------------------------------------------------------------------ pixel level


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_auroc_and_average_precision_agree_with_sklearn(seed, decimals):
    maps, masks = pixels(seed, decimals)
    truth, scores = flat(masks), flat(maps)
    expected = sk.roc_auc_score(truth, scores)
    assert hp.pixel_auroc(maps, masks) == pytest.approx(expected, abs=1e-12)
    expected = sk.average_precision_score(truth, scores)
    got = hp.pixel_average_precision(maps, masks)
    assert got == pytest.approx(expected, abs=1e-12)


def brute_force_aupro(maps, masks, max_fpr):
    """Every threshold in turn, regions by SciPy, trapezoids, interpolated end."""
    regions = []
    for scores, mask in zip(maps, masks, strict=True):
        label, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [scores[label == i] for i in range(1, count + 1)]
    normal = np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)])
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(flat(maps))[::-1]:
        fpr.append(np.mean(normal >= threshold))
        pro.append(np.mean([np.mean(region >= threshold) for region in regions]))
    fpr, pro = np.array(fpr), np.array(pro)
    inside = fpr <= max_fpr
    end = np.interp(max_fpr, fpr, pro)
    x, y = np.append(fpr[inside], max_fpr), np.append(pro[inside], end)
    return np.trapezoid(y, x) / max_fpr


@pytest.mark.parametrize("decimals", [0, 1, 8])
@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_aupro_equals_brute_force(seed, max_fpr, decimals):
    maps, masks = pixels(seed, decimals)
    expected = brute_force_aupro(maps, masks, max_fpr)
    assert hp.aupro(maps, masks, max_fpr) == pytest.approx(expected, abs=1e-12)


def test_aupro_known_values():
    mask = np.zeros((8, 8), dtype=bool)
    mask[0, 0] = mask[1, 1] = True  # one region: corners touch
    mask[4:8, 4:8] = True
    perfect = [mask.astype(np.float32)]
    assert hp.aupro(perfect, [mask]) == 1
    assert hp.pixel_auroc(perfect, [mask]) == 1
    assert hp.pixel_average_precision(perfect, [mask]) == 1
    small_only = perfect[0].copy()
    small_only[4:, 4:] = -1  # the large region is found last of all
    assert hp.aupro([small_only], [mask]) == pytest.approx(0.5)
    flat_map = [np.zeros((8, 8))]  # one threshold: the diagonal
    assert hp.aupro(flat_map, [mask]) == pytest.approx(0.15)
    assert hp.pixel_auroc(flat_map, [mask]) == pytest.approx(0.5)


def test_aupro_counts_false_alarms_on_good_images():
    maps, masks = pixels(0)
    quiet = [*maps, np.full((20, 20), -99.0)], [*masks, np.zeros((20, 20), bool)]
    loud = [*maps, np.full((20, 20), 99.0)], [*masks, np.zeros((20, 20), bool)]
    assert hp.aupro(*quiet) > hp.aupro(maps, masks) > hp.aupro(*loud)


def brute_force_aupimo(maps, masks, low, high, steps=20_000):
    """Walk the FPR axis; at each rate take the lowest threshold that keeps to it."""
    normal = [m for m, k in zip(maps, masks, strict=True) if not k.any()]
    thresholds = np.append(np.unique(flat(maps)), np.inf)
    fpr = np.array([np.mean([(n >= t).mean() for n in normal]) for t in thresholds])
    edges = np.linspace(np.log(low), np.log(high), steps + 1)
    rates = np.exp((edges[1:] + edges[:-1]) / 2)
    chosen = thresholds[[np.flatnonzero(fpr <= rate)[0] for rate in rates]]
    bad = [m[k] for m, k in zip(maps, masks, strict=True) if k.any()]
    return np.mean([np.mean(scores[:, None] >= chosen) for scores in bad])


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_aupimo_equals_brute_force(seed, decimals):
    maps, masks = pixels(seed, decimals)
    expected = brute_force_aupimo(maps, masks, 0.02, 0.3)
    got = hp.aupimo(maps, masks, fpr_range=(0.02, 0.3))
    assert got == pytest.approx(expected, abs=2e-4)


def test_aupimo_known_values():
    mask = np.zeros((400, 400), dtype=bool)
    mask[:10, :10] = True
    good = np.random.default_rng(0).random((400, 400))
    masks = [mask, np.zeros_like(mask)]
    assert hp.aupimo([mask * 2.0, good], masks) == 1
    assert hp.aupimo([mask * 0.5, good], masks) == 0
    half = mask * 0.5
    half[:5] *= 4
    assert hp.aupimo([half, good], masks) == pytest.approx(0.5)
    false_alarm = good + 9 * mask  # 100 pixels of 160 000: an FPR beyond the range
    assert hp.aupimo([mask * 2.0, false_alarm], masks) == 0


def test_pixel_metrics_undefined_are_none(recwarn):
    maps = [np.random.default_rng(0).random((4, 4)) for _ in range(2)]
    good, bad = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    functions = hp.pixel_auroc, hp.pixel_average_precision, hp.aupro, hp.aupimo
    for function in functions:
        assert function([], []) is None
        assert function(maps, [good, good]) is None
        assert function(maps, [bad, bad]) is None
    assert hp.aupimo(maps, [good, bad]) is None  # 16 pixels cannot show an FPR of 1e-5
    assert not recwarn.list


def test_float32_maps_and_integer_masks_do_not_change_the_result():
    maps, masks = pixels(1)
    maps = [m.astype(np.float32) for m in maps]
    for function in (hp.pixel_auroc, hp.pixel_average_precision, hp.aupro):
        wide = [m.astype(np.float64) for m in maps]
        expected = function(wide, masks)
        got = function(maps, [k.astype(np.uint8) * 255 for k in masks])
        assert got == expected and isinstance(got, float)
