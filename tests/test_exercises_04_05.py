"""The answers of notebooks 04 and 05: make the change that is asked for, and look."""

import json
import shutil

import numpy as np
import pytest

import helpers as hp
from anomaly.evaluation import looks_swapped
from anomaly.intervals import bootstrap_interval
from anomaly.labels import LABEL_FILE, read_labels
from anomaly.metrics import auroc, classification_metrics


@pytest.fixture(scope="module")
def small(tiny_settings, tmp_path_factory):
    """Settings for 256 patches an image: shares of them are more than one."""

    def settings(**changes):
        out = tmp_path_factory.mktemp("report")
        return tiny_settings(image_size=128, visualization_dir=str(out), **changes)

    return settings


# ------------------------------------------------------------------- notebook 04


def test_the_maximum_spreads_the_normal_scores(small):
    def spread(image_score):
        scores = hp.detect(small(image_score=image_score)).normal_scores
        return scores.std() / np.median(scores)

    assert spread("max") > spread(0.02)


def test_the_maximum_raises_every_score(small):
    highest, mean = (hp.detect(small(image_score=s)) for s in ("max", 0.02))
    assert (highest.test_scores >= mean.test_scores).all()


def test_sigma_lowers_the_peak_and_the_scale_but_no_score(small):
    none, wide = (hp.detect(small(sigma=float(sigma))) for sigma in (0, 16))
    top = int(none.test_scores.argmax())
    assert none.map(top).max() > wide.map(top).max()
    assert none.scale[1] > wide.scale[1]
    assert (none.test_scores == wide.test_scores).all()
    assert (none.normal_scores == wide.normal_scores).all()


# ------------------------------------------------------------------- notebook 05


def test_the_assignment_on_its_own_is_the_first_row(small):
    metrics = hp.evaluate(small(covariance="global", image_score="max"))
    assert metrics["auroc"] == pytest.approx(metrics["ablation"][0]["auroc"], abs=0.1)
    assert metrics["delong_p"] is None or metrics["delong_p"] > 0.3


def test_a_lower_rate_raises_the_threshold_and_no_rate(small):
    def decision(max_fpr):
        detection = hp.detect(small(max_fpr=max_fpr))
        is_bad = read_labels(detection.dataset).is_bad
        over = detection.test_scores > detection.threshold.value
        figures = classification_metrics(is_bad, over)
        return detection.threshold, figures, auroc(is_bad, detection.test_scores)

    (strict, low, area), (loose, high, same) = decision(0.01), decision(0.4)
    assert strict.value > loose.value
    assert strict.promised_fpr > 0.01  # of so few images
    assert low["false_positive_rate"] <= high["false_positive_rate"]
    assert low["recall"] <= high["recall"]
    assert area == same


def test_swapped_labels_turn_the_auroc_and_nothing_else(small, tiny, tmp_path):
    copy = shutil.copytree(tiny, tmp_path / "copy")
    entries = json.loads((copy / LABEL_FILE).read_text(encoding="utf-8"))
    for entry in entries.values():
        entry["label"] = {"good": "bad", "bad": "good"}[entry["label"]]
    (copy / LABEL_FILE).write_text(json.dumps(entries), encoding="utf-8")

    before, after = hp.detect(small()), hp.detect(small(dataset_path=str(copy)))
    assert (before.test_scores == after.test_scores).all()
    assert before.threshold == after.threshold
    right, turned = (read_labels(d.dataset).is_bad for d in (before, after))
    area = auroc(right, before.test_scores)
    assert auroc(turned, after.test_scores) == pytest.approx(1 - area)
    if bootstrap_interval("auroc", right, before.test_scores)[0] > 0.5:
        assert looks_swapped(bootstrap_interval("auroc", turned, after.test_scores))
