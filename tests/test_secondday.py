"""The table of a second day: the worst, and what new normal images give back."""

import numpy as np
import pytest

import helpers as hp
from anomaly.baselines import PERTURBATIONS
from anomaly.labels import read_labels
from anomaly.secondday import scores_on, second_day


def test_rows(tiny_settings):
    settings, asked = tiny_settings(category="zipper", max_fpr=0.3), []
    model, dataset = hp.fit_model(settings), hp.detect(settings).dataset
    is_bad = read_labels(dataset).is_bad

    def refit(change, paths):
        asked.append((change, paths))
        return model

    new = dataset.train_good
    rows = second_day(model, refit, new, dataset.test, is_bad, counts=(4, 8, 99))
    names = ["before", "4 new normals", "8 new normals", "refitted with 8"]
    assert [row["threshold"] for row in rows] == names  # 99 are not there
    (day,) = {row["day"] for row in rows}
    assert asked == [(PERTURBATIONS[day], new)]
    scores = scores_on(model, day, dataset.test)
    flagged = scores > model.threshold.value
    assert rows[0]["false_positive_rate"] == flagged[is_bad == 0].mean()
    assert rows[0]["recall"] == flagged[is_bad == 1].mean()
    assert len({row["auroc"] for row in rows}) == 1  # the scores are the same
    for name in PERTURBATIONS:  # none is worse
        others = scores_on(model, name, dataset.test)[is_bad == 0]
        worst = rows[0]["false_positive_rate"]
        assert np.mean(others > model.threshold.value) <= worst
    all_new = np.sort(scores_on(model, day, new))[::-1]
    expected = scores[is_bad == 0] > all_new[1]  # 2 of 9 may exceed it
    assert rows[2]["promised_fpr"] == pytest.approx(2 / 9)
    assert rows[2]["false_positive_rate"] == pytest.approx(expected.mean())
