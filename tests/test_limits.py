"""How many images, bad ones among them; and notebook 08 on the tiny data set."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from anomaly.files import ROOT
from anomaly.forecast import found_by_size, predicted_and_measured
from anomaly.gaussian import cross_validated_scores
from anomaly.intervals import share_interval
from anomaly.limits import (
    Point,
    chance_band,
    contaminate,
    flat_from,
    learning_curve,
    out_of_sample,
    sizes_up_to,
    summary,
)
from anomaly.report.contents import limits_of
from anomaly.scores import conformal_threshold, enough, image_scores, usual_means

OPTIONS = {"covariance": "shrunk", "image_score": "scan", "max_fpr": 0.05}


def patches(count, seed=0, shift=0.0):
    x = torch.randn(count, 4, 4, 6, generator=torch.Generator().manual_seed(seed))
    x[:, 1, 2] += shift
    return x


def odd(count, far=9.0):
    """Patches with a defect each, of its own place and kind."""
    x, generator = patches(count, 1), np.random.default_rng(1)
    for image in x:
        way = torch.from_numpy(generator.standard_normal(6)).float()
        image[tuple(generator.integers(4, size=2))] += far * way / way.norm()
    return x


# ------------------------------------------------------ how many images are needed


def test_sizes_double_up_to_four_fifths():
    assert sizes_up_to(60) == [2, 4, 8, 16, 32, 48]
    assert sizes_up_to(8) == [2, 4, 6]
    assert sizes_up_to(2) == [2]
    assert sizes_up_to(320)[-3:] == [64, 128, 256]
    for n in range(2, 200):
        sizes = sizes_up_to(n)
        assert sizes == sorted(set(sizes)) and sizes[-1] <= n


def test_subsets_are_nested_seeded_and_leave_the_rest(monkeypatch):
    seen = []

    def record(known, others, bad, **_):
        seen.append((known[:, 0, 0, 0].tolist(), others[:, 0, 0, 0].tolist()))
        return len(seen)

    monkeypatch.setattr("anomaly.limits._point", record)
    good = patches(12)
    sizes = [2, 4, 8]
    learning_curve(good, good[:1], sizes, draws=3, seed=7)
    first = list(seen)
    for known, others in first:
        assert sorted(known + others) == sorted(good[:, 0, 0, 0].tolist())
    for draw in range(3):
        two, four, eight = (known for known, _ in first[3 * draw : 3 * draw + 3])
        assert [len(two), len(four), len(eight)] == sizes
        assert four[:2] == two and eight[:4] == four
    assert len({tuple(known) for known, _ in first}) == 9  # draws differ
    seen.clear()
    learning_curve(good, good[:1], sizes, draws=3, seed=7)
    assert seen == first
    seen.clear()
    learning_curve(good, good[:1], sizes, draws=3, seed=8)
    assert seen != first


def test_more_images_help_and_the_promise_is_kept():
    points = learning_curve(patches(60), patches(20, 1, 3.0), [4, 48], **OPTIONS)
    rows = summary(points)
    assert [row["n"] for row in rows] == [4, 48]
    assert rows[1]["auroc"] > rows[0]["auroc"] and rows[1]["auroc"] > 0.9
    assert rows[0]["lowest"] <= rows[0]["auroc"] <= rows[0]["highest"]
    assert rows[0]["promised"] == pytest.approx(1 / 5)
    assert rows[1]["promised"] == pytest.approx(2 / 49)
    assert rows[1]["fpr"] < 0.2
    assert {p.held_out for p in points} == {56, 12}


def test_without_bad_images_the_false_alarms_are_told():
    good = patches(10)
    [row] = summary(learning_curve(good, good[:0], [8], draws=2, **OPTIONS))
    assert row["auroc"] is None and row["found"] is None and row["fpr"] is not None
    assert flat_from([row]) is None


def test_where_the_curve_flattens():
    curve = [
        {"n": n, "auroc": a}
        for n, a in ((2, 0.8), (4, 0.95), (8, 0.985), (16, 0.975), (32, 0.98))
    ]
    assert flat_from(curve) == 8
    assert flat_from(curve, tolerance=0.2) == 2
    assert flat_from(curve[:1]) == 2


def test_the_grey_band_holds_what_chance_does():
    """Thresholds from 19 scores, 10 more of the same kind: 90 % lie in the band."""
    draws = np.random.default_rng(0).random((4000, 29))
    rates = [
        (row[19:] > conformal_threshold(row[:19], 0.1).value).mean() for row in draws
    ]
    low, high = chance_band(19, 10, 0.1)
    assert np.mean((rates >= low) & (rates <= high)) >= 0.9
    assert low <= 0.1 <= high < 0.5


@pytest.mark.parametrize("hits, count", [(0, 9), (3, 9), (9, 9)])
def test_interval_of_a_share(hits, count):
    expected = binomtest(hits, count).proportion_ci()
    assert share_interval(hits, count) == pytest.approx((expected.low, expected.high))


def test_point_has_what_the_figure_needs():
    assert Point._fields[:4] == ("n", "auroc", "false_alarms", "held_out")


# -------------------------------------------------- a bad image among the good ones


def test_out_of_sample_is_cross_validation_where_all_fit():
    good, fold = patches(11), np.arange(11) % 5
    ours = out_of_sample(good, fold, np.ones(11, bool))
    assert ours == pytest.approx(cross_validated_scores(good, fold).numpy(), rel=1e-5)


def test_images_that_do_not_fit_change_nobody_else():
    good, fold = patches(14), np.arange(14) % 5
    fits = np.arange(14) < 11
    ours = out_of_sample(good, fold, fits)[:11]
    alone = cross_validated_scores(good[:11], fold[:11]).numpy()
    assert ours == pytest.approx(alone, rel=1e-5)


def test_hidden_images_are_named_and_lift_the_threshold():
    features = torch.cat([patches(40), odd(12)])
    is_bad, fold = np.arange(52) >= 40, np.arange(52) % 5
    none, two, four = contaminate(features, fold, is_bad, (0, 0.05, 0.1), **OPTIONS)
    assert [m.hidden for m in (none, two, four)] == [0, 2, 4]
    assert none.on_top == 0 and none.auroc > 0.95
    assert four.threshold > none.threshold and four.found < none.found
    assert four.on_top == 4 and four.named == four.listed >= 3
    assert four.trimmed[1] > four.found  # looked through, it finds the others again
    again = contaminate(features, fold, is_bad, (0, 0.05, 0.1), **OPTIONS)
    assert again == [none, two, four]


def test_some_bad_images_are_always_left_to_be_found():
    features = torch.cat([patches(20), odd(3)])
    is_bad, fold = np.arange(23) >= 20, np.arange(23) % 5
    rows = contaminate(features, fold, is_bad, (0, 0.05, 0.1, 0.5, 0.9), **OPTIONS)
    assert [row.hidden for row in rows] == [0, 1, 2]


# ------------------------------------------------------------- predicted, measured


def test_predicted_beside_measured():
    normal = np.linspace(0, 1, 39)
    threshold = conformal_threshold(normal, 0.05)
    truth = np.array([0, 0, 1, 1, -1])
    test = np.array([0.2, 2.0, 3.0, 0.1, 9.0])
    rows = predicted_and_measured(normal, np.array([2.0, 0.5]), truth, test, threshold)
    assert rows[0][1] == "≤ 0.050" and rows[0][2].startswith("0.500 [")
    assert rows[1][2].startswith("0.500 [")
    assert rows[2][1].startswith("0.500 [") and rows[2][2].startswith("0.500 [")
    rows = predicted_and_measured(
        normal, np.array([]), np.full(5, -1), test, threshold, lang="zh"
    )
    assert [row[2] for row in rows] == ["–"] * 3 and rows[0][0] == "假阳性率"


def test_found_by_size_goes_from_small_to_large():
    sizes = np.array([9.0, 1, 4, 2, 8, 5])
    bins = found_by_size(sizes, sizes > 3)
    assert [share for _, share, _ in bins] == [0, 1, 1]
    assert [size for size, *_ in bins] == sorted(size for size, *_ in bins)


# ---------------------------------------------------------- notebook 08, exercises


def test_exercise_a_lower_threshold_finds_no_less():
    normal = patches(30).norm(dim=-1).numpy()
    usual = usual_means(normal)
    scores = image_scores(patches(50, 1, 1.0).norm(dim=-1).numpy(), "scan", usual)
    of_normal = image_scores(normal, "scan", usual)
    strict, loose = (conformal_threshold(of_normal, rate).value for rate in (0.05, 0.2))
    assert set(np.flatnonzero(scores > strict)) <= set(np.flatnonzero(scores > loose))
    assert loose <= strict


def test_exercise_how_many_images_a_promise_takes():
    assert enough(0.02) == 49
    assert min(n for n in range(200) if n // 2 + n // 4 >= 49) == 66


@pytest.mark.slow
def test_the_notebook_writes_what_the_report_reads(tiny, tmp_path):
    command = [sys.executable, "-m", "papermill", "--cwd", str(ROOT / "notebooks")]
    command += [str(ROOT / "notebooks" / "08_limits.ipynb"), str(tmp_path / "o.ipynb")]
    parameters = {"dataset_path": tiny, "visualization_dir": tmp_path / "report"}
    parameters |= {"image_size": 64, "backbone": "efficientnet_lite2", "lang": "zh"}
    for name, value in parameters.items():
        command += ["-p", name, str(value)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / "report/hazelnut/limits.json").read_text(encoding="utf-8")
    told = json.loads(text)
    assert "像素" in told["sentence"]["zh"] and "pixels" in told["sentence"]["en"]
    assert len(told["smallest"]) == 10
    assert [row["n"] for row in told["curve"]] == [2, 4, 6]
    assert told["flat_from"] in (2, 4, 6)
    assert len(told["predicted_and_measured"]) == 3


def test_the_report_reads_limits_of_its_own_run_only(tmp_path):
    metrics = {"data_sha256": "a", "settings": {"image_size": 64, "lang": "zh"}}
    path = tmp_path / "limits.json"
    assert limits_of(path, metrics) is None
    told = {"data_sha256": "a", "settings": {"image_size": 64}}
    path.write_text(json.dumps(told), encoding="utf-8")
    assert limits_of(path, metrics) == told
    assert limits_of(path, metrics | {"data_sha256": "b"}) is None
    assert limits_of(path, metrics | {"settings": {"image_size": 128}}) is None


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_report_tells_of_it(lang):
    text = (ROOT / f"notebooks/06_report/report.{lang}.md.j2").read_text("utf-8")
    start = text.index("<!-- limits -->")
    assert "{% if limits %}" in text[start : start + 400]
    assert f"limits.sentence.{lang}" in text[start:]
