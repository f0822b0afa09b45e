"""The sensitivity map of made-up detectors whose answer is known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.special import expit

from anomaly.gaussian import cross_validated_scores
from anomaly.planted import Defect
from anomaly.sensitivity import (
    by_depth,
    fit_trials,
    sensitivity_map,
    sentence,
    smallest_sizes,
    trial_scores,
)

SLOPE = 5.0
rng = np.random.default_rng(0)


def trials(count, half):
    """places (n, 2), sizes (n,), found (n,) of a detector with P(half(places)) = ½."""
    places = rng.random((count, 2))
    sizes = np.exp(rng.uniform(np.log(3), np.log(36), count))
    chance = expit(SLOPE * np.log(sizes / half(places)))
    return places, sizes, rng.random(count) < chance


def test_the_map_of_a_known_detector():
    """Blind from left to right: half are found at 6 pixels left, at 18 right."""

    def half(places):
        return 6 + 12 * places[:, 0]

    response = sensitivity_map(*trials(3000, half), grid=8, width=0.1)
    ticks = (np.arange(8) + 0.5) / 8
    x = np.tile(ticks, 8)
    assert response.slope == pytest.approx(SLOPE, rel=0.15)
    true = 6 + 12 * x
    assert np.median(np.abs(response.smallest(0.5) / true - 1)) < 0.08
    assert np.abs(response.smallest(0.5) / true - 1).max() < 0.3
    nine = true * np.exp(np.log(9) / SLOPE)
    known = nine < 30
    assert np.median(np.abs(response.smallest(0.9)[known] / nine[known] - 1)) < 0.1


def test_as_many_trials_as_the_notebook_has():
    """320 tell 6 pixels from 18, each within a quarter."""
    places, sizes, found = trials(320, lambda p: np.where(p[:, 0] < 0.5, 6, 18))
    response = sensitivity_map(places, sizes, found, grid=4, width=0.1)
    smallest = response.smallest(0.5).reshape(4, 4)
    assert np.median(smallest[:, 0]) == pytest.approx(6, rel=0.25)
    assert np.median(smallest[:, -1]) == pytest.approx(18, rel=0.25)


def test_places_without_trials_have_no_answer():
    places, sizes, found = trials(600, lambda p: np.full(len(p), 9))
    places = places * [0.5, 1]
    response = sensitivity_map(places, sizes, found, grid=8)
    level = response.level.reshape(8, 8)
    assert np.isnan(level[:, 6:]).all() and not np.isnan(level[:, :4]).any()


@pytest.mark.parametrize("always", [True, False])
def test_a_detector_that_finds_all_or_nothing(always):
    sizes = np.geomspace(3, 36, 100)
    response = fit_trials(sizes, np.full(100, always))
    assert response.smallest(0.9) == (3.0 if always else np.inf)
    assert (response.chance(20) > 0.9) == always


def test_weights_choose_the_trials():
    places, sizes, found = trials(2000, lambda p: np.where(p[:, 0] < 0.5, 5, 15))
    left = (places[:, 0] < 0.5).astype(float)
    response = fit_trials(sizes, found, np.stack([left, 1 - left]))
    assert response.smallest(0.5) == pytest.approx([5, 15], rel=0.15)


def test_the_sentence_says_what_the_detector_does():
    depth = rng.random(4000)
    sizes = np.exp(rng.uniform(np.log(3), np.log(36), 4000))
    half = np.where(depth > 0.5, 6.0, 10.0)
    found = rng.random(4000) < expit(SLOPE * np.log(sizes / half))
    response = by_depth(depth, sizes, found)
    english, chinese = sentence(response, 256), sentence(response, 256, "zh")
    # .9 at 6 * 9 ** (1 / 5) = 9.3, where the border has nearly ½
    assert english.startswith("A dark spot of")
    assert "in the middle is found 9 times of 10" in english
    assert "at the border 5 times of 10" in english
    size = int(english.split()[4])
    assert size in (9, 10, 11) and f" {size} 像素" in chinese and "5 次" in chinese
    assert f"{size / 256:.1%}" in english and f"{size / 256:.1%}" in chinese


def test_the_sentence_of_a_blind_detector():
    depth, sizes = rng.random(400), np.tile(np.geomspace(3, 36, 40), 10)
    response = by_depth(depth, sizes, np.zeros(400, bool))
    assert sentence(response, 256).startswith("Even a dark spot of 36 pixels")
    assert "0 times of 10" in sentence(response, 256)
    few = by_depth(np.zeros(400), sizes, np.zeros(400, bool))
    assert "Too few" in sentence(few, 256)


def test_kinds_and_strengths_have_a_row_each():
    plan, found = [], []
    for kind, half in (("spot", 6), ("blur", 60)):
        for contrast in (0.3, 0.6):
            for size in np.exp(rng.uniform(np.log(3), np.log(36), 400)):
                plan.append(Defect(0, kind, size, contrast, 0))
                chance = expit(SLOPE * np.log(size / half * contrast / 0.6))
                found.append(rng.random() < chance)
    rows = smallest_sizes(plan, np.array(found), [0.3, 0.6])
    assert [(r["kind"], r["contrast"]) for r in rows] == [
        *(("spot", 0.3), ("spot", 0.6), ("blur", 0.3), ("blur", 0.6))
    ]
    assert [rows[0]["half"], rows[1]["half"]] == pytest.approx([12, 6], rel=0.2)
    assert rows[1]["half"] < rows[1]["nine"] and rows[3]["nine"] is None


@dataclass(frozen=True)
class Stub:
    """A model whose patch features are the image's own numbers."""

    gaussian: object = None

    def patch_scores(self, images, what):
        return self.gaussian.score(torch.stack(images)).numpy()


def test_trials_are_scored_out_of_sample_and_in_their_order():
    good = torch.randn(9, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    fold = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    plan = [(5, "a"), (0, "b"), (8, "c"), (1, "d"), (0, "e")]

    def draw(row):
        return good[row[0]], row[1]

    scores, drawn = trial_scores(Stub(), good, fold, plan, draw, "shrunk")
    expected = cross_validated_scores(good, fold)[[5, 0, 8, 1, 0]]
    assert scores == pytest.approx(expected.numpy(), rel=1e-4)
    assert [name for (name,) in drawn] == list("abcde")
