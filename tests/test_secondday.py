"""Another day on made-up features, where it is known what must come out."""

import numpy as np
import pytest
import torch

from anomaly.gaussian import cross_validated_scores, fit_gaussian
from anomaly.metrics import auroc
from anomaly.scores import conformal_threshold, image_scores
from anomaly.secondday import recovery

OPTIONS = {"covariance": "shrunk", "image_score": "max", "max_fpr": 0.1}
N = 40


@pytest.fixture(scope="module")
def days():
    """good, changed, bad: on the other day every patch is 4 deviations off."""
    rng = torch.Generator().manual_seed(0)
    good = torch.randn(N, 2, 2, 8, generator=rng)
    changed = good + 0.5 * torch.randn(good.shape, generator=rng)
    changed[..., 0] += 4
    bad = 0.8 * torch.randn(12, 2, 2, 8, generator=rng)
    bad[:, 0, 0, 0] += 4
    bad[:, 0, 0, 1] += 4.5
    return good, changed, bad


@pytest.fixture(scope="module")
def table(days):
    return recovery(*days, np.arange(N) % 5, draws=50, **OPTIONS)


def test_rows(table):
    names = ["before", "10 new", "20 new", "refitted, 20 new"]  # 40 leave none to judge
    assert [row["threshold"] for row in table] == names
    assert table[0]["promised"] == pytest.approx(4 / 41)
    assert table[1]["promised"] == pytest.approx(1 / 11)
    assert table[2]["promised"] == pytest.approx(2 / 21)
    assert table[3]["promised"] == pytest.approx(6 / 61)


def test_before_is_what_the_stages_say(days, table):
    good, changed, bad = days
    scored = image_scores(cross_validated_scores(good).numpy(), "max")
    value = conformal_threshold(scored, OPTIONS["max_fpr"]).value
    found = image_scores(fit_gaussian(good).score(bad).numpy(), "max")
    assert table[0]["found"] == (found > value).mean()
    normal = np.empty(N)
    for k in range(5):
        model = fit_gaussian(good[torch.arange(N) % 5 != k])
        normal[k::5] = image_scores(model.score(changed[k::5]).numpy(), "max")
    assert table[0]["fpr"] == (normal > value).mean()
    label = np.repeat([0, 1], [N, len(bad)])
    assert table[0]["auroc"] == auroc(label, np.concatenate([normal, found]))


def test_new_normals_keep_the_promise_and_a_refit_finds_again(table):
    before, few, more, refitted = table
    assert before["fpr"] > 0.9 and before["found"] == 1
    for row in (few, more):  # exchangeable: the promise holds on average
        assert row["fpr"] == pytest.approx(row["promised"], abs=0.04)
    assert more["found"] < 0.3  # these models find this day stranger than the defect
    assert refitted["fpr"] <= 0.3 and refitted["found"] > 2 * more["found"]
    assert refitted["auroc"] > before["auroc"]


def test_without_a_bad_image(days):
    good, changed, bad = days
    rows = recovery(good, changed, bad[:0], np.arange(N) % 5, draws=5, **OPTIONS)
    assert {row["auroc"] for row in rows} == {row["found"] for row in rows} == {None}
    assert [row["fpr"] for row in rows][1] < 0.5
