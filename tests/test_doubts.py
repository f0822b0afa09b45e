"""What may break a promise: found without a label, and said."""

from pathlib import Path

import numpy as np
import pytest

from anomaly.doubts import doubts, drift_test, sentences, strange_normals, strangeness
from anomaly.scores import conformal_threshold

RNG = np.random.default_rng


def test_drift_holds_its_level_even_if_most_are_defective():
    """A fifth good and alike, all others far above: the least favourable case."""
    fired = 0
    for seed in range(600):
        rng = RNG(seed)
        test = np.concatenate([rng.normal(size=20), rng.normal(50, 1, 80)])
        fired += drift_test(rng.normal(size=100), test) < 0.01
    assert fired <= 12  # 6 expected at most; 13 or more have a chance of 1 %


def test_drift_is_found_and_calm_sets_are_silent():
    rng = RNG(0)
    normal = rng.normal(size=150)
    assert drift_test(normal, rng.normal(size=80)) == 1
    assert drift_test(normal, rng.normal(3, 1, 80)) < 1e-6
    assert drift_test(normal, rng.normal(-3, 1, 80)) == 1  # lower scores break nothing


@pytest.mark.parametrize("n", [2, 3, 19])
def test_drift_of_a_handful_is_a_p_value(n):
    assert 0 < drift_test(RNG(0).normal(size=n), RNG(1).normal(size=3)) <= 1


def test_an_intruder_is_strange_and_a_clean_set_is_not():
    scores = RNG(0).normal(size=60)
    assert len(strange_normals(scores)) == 0
    scores[17], scores[3] = 12, 20
    assert strange_normals(scores).tolist() == [3, 17]
    assert strangeness(scores).argmax() == 3


def test_equal_scores_are_not_strange():
    assert len(strange_normals(np.ones(10))) == 0


def told(normal, groups, test, max_fpr=0.05, lang="en"):
    paths = [Path(f"{i:03d}.png") for i in range(len(normal))]
    figures = doubts(paths, np.asarray(groups), np.asarray(normal), np.asarray(test))
    threshold = conformal_threshold(normal, max_fpr)
    return figures, sentences(figures, threshold, max_fpr, lang)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_nothing_to_say_of_a_calm_set(lang):
    rng = RNG(0)
    figures, said = told(rng.normal(size=60), range(60), rng.normal(size=30), lang=lang)
    assert said == [] and figures["n_groups"] == 60
    assert figures["look_alikes"] == figures["strange_normals"] == []


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_each_doubt_is_one_sentence_that_names_it(lang):
    rng = RNG(0)
    normal, groups = rng.normal(size=12), [0, 0, 0, *range(1, 10)]
    normal[5] = 40
    figures, said = told(normal, groups, rng.normal(60, 1, 40), lang=lang)
    assert len(said) == 4
    alike, few, strange, drift = said
    assert "000.png" in alike and "10" in alike
    assert "19" in few and "0.05" in few
    assert "005.png" in strange and "40" in strange
    assert f"{figures['drift_p']:.2g}" in drift
    assert all(("。" in one) == (lang == "zh") for one in said)
    assert not any("\n" in one for one in said)
