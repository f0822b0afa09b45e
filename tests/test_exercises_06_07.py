"""What notebooks 6 and 7 ask the reader to try, tried; the answers hold."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import helpers as hp
from anomaly.files import ROOT
from anomaly.labels import LABEL_FILE, read_labels
from anomaly.report.explorer import Views, threshold_at, thresholds
from anomaly.scores import anomaly_map, conformal_threshold


def run(name, settings, monkeypatch):
    """The variables of a notebook that has run in this process."""
    for room in ("lesson", "show", "widgets"):
        monkeypatch.setattr(f"anomaly.report.{room}.display", lambda *_, **__: None)
    cells = json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    names = {"__name__": "notebook"}
    exec(code[0], names)
    names.update(vars(settings))
    for source in code[1:]:
        exec(source, names)
    return names


def test_6_a_report_without_labels(tiny, tiny_settings, tmp_path, monkeypatch):
    shutil.copytree(tiny, tmp_path / "data")
    path = tmp_path / "data" / LABEL_FILE
    entries = json.loads(path.read_text(encoding="utf-8"))
    kept = {k: v for k, v in entries.items() if not k.startswith("hazelnut/")}
    path.write_text(json.dumps(kept), encoding="utf-8")
    whole = run("06_report.ipynb", tiny_settings(), monkeypatch)
    without = tiny_settings(dataset_path=str(tmp_path / "data"))
    without = run("06_report.ipynb", without, monkeypatch)
    for name in ("scores", "roc", "confusion", "pca"):
        assert f"(figure:{name} " in whole["prose"]["results"]
        assert f"(figure:{name} " not in "".join(without["prose"].values())
    assert "*Table:" in whole["prose"]["results"]
    assert "*Table:" not in without["prose"]["results"]
    assert "no ROC curve and no AUROC exist" in without["prose"]["summary"]
    np.testing.assert_array_equal(whole["scores"], without["scores"])
    assert whole["threshold"] == without["threshold"]
    maps = (names["detection"].map(0) for names in (whole, without))
    np.testing.assert_array_equal(*maps)


@pytest.fixture
def views(tiny_settings):
    settings = tiny_settings(max_fpr=0.3)
    detection = hp.detect(settings)
    labels = read_labels(detection.dataset)
    given = detection.dataset.test, labels.is_bad, labels.defect, settings.image_size
    return Views(lambda covariance: detection, *given)


def test_7_1_the_first_missed_image_of_the_list_is_the_closest():
    is_bad = np.array([1, 0, 1, 1, 0, 1])
    learned = SimpleNamespace(
        normal_scores=np.arange(5.0),
        test_scores=np.array([3.0, 1, 9, 4.5, 6, 2]),
        threshold=SimpleNamespace(value=5.0),
    )
    paths = [SimpleNamespace(stem=str(i)) for i in range(6)]
    views = Views(lambda covariance: learned, paths, is_bad, [""] * 6, 64)
    missed = [i for name, i in views.names("shrunk") if name.endswith("missed")]
    distances = 5 - learned.test_scores[missed]
    assert len(missed) == 3 and (np.diff(distances) > 0).all()


def test_7_2_smoothing_changes_the_picture_and_no_decision(views):
    _, _, threshold = views.scores("shrunk")
    rough, calm = (views.picture(0, threshold, "shrunk", sigma) for sigma in (0, 32))
    assert (rough != calm).any()
    spread = [np.ptp(views.learned("").test[0])]
    spread += [np.ptp(anomaly_map(views.learned("").test[0], (64, 64), 32))]
    assert spread[1] < spread[0]
    assert views.facts(0, threshold, "shrunk") == views.facts(0, threshold, "shrunk")
    assert "sigma" not in Views.facts.__code__.co_varnames


def test_7_3_all_normal_images_pass(views):
    normal, scores, conformal = views.scores("shrunk")
    highest = threshold_at(normal, len(normal))
    assert highest == normal.max() >= conformal
    promise = conformal_threshold(normal, 1 / (len(normal) + 1))
    assert promise.value == pytest.approx(highest)
    assert highest in thresholds(normal, scores)  # the slider stops there
    before, after = (views.facts(0, t, "shrunk") for t in (conformal, highest))
    for rate in ("false_positive_rate", "recall"):
        assert after[rate] <= before[rate]
