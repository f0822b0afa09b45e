"""Figures of the evaluation that are judgements."""

import numpy as np
import pytest
from samples import sample

from anomaly.evaluation import looks_swapped, ranking


@pytest.mark.parametrize("interval, swapped", [((0.1, 0.49), True), (None, False)])
def test_an_interval_below_chance_looks_swapped(interval, swapped):
    assert looks_swapped(interval) is swapped


def test_swapped_labels_are_noticed_and_right_ones_are_not():
    is_bad, scores = sample(0)
    assert not looks_swapped(ranking(is_bad, scores)["auroc_ci95"])
    assert looks_swapped(ranking(1 - is_bad, scores)["auroc_ci95"])


def test_chance_does_not_look_swapped():
    is_bad, scores = sample(1, shift=0)
    assert not looks_swapped(ranking(is_bad, scores)["auroc_ci95"])
    assert not looks_swapped(ranking(np.full(3, -1), scores[:3])["auroc_ci95"])
