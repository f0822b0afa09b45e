"""The explorer's widgets, moved by hand."""

import re
from types import SimpleNamespace

import jupyter_client
import numpy as np
import pytest

from anomaly.files import ROOT
from anomaly.metrics import classification_metrics
from anomaly.report import widgets
from anomaly.report.explorer import passing, score_strip, thresholds
from anomaly.report.pictures import heatmap_panel
from anomaly.scores import anomaly_map, conformal_threshold

IMAGES, IS_BAD = list("abcdefg"), np.array([0, 0, 1, 0, 1, 1, -1])
SIZE = {"global": 1, "position": 50, "shrunk": 10}  # of each covariance's scores


def scores_of(covariance):
    rng = np.random.default_rng(SIZE[covariance])
    normal = SIZE[covariance] * rng.uniform(1, 2, 8)
    scores = SIZE[covariance] * (rng.uniform(1, 2, 7) + (IS_BAD == 1))
    return normal, scores, conformal_threshold(normal, 0.2).threshold


def picture(index, threshold, covariance, sigma, alpha):
    patches = SIZE[covariance] * np.random.default_rng(index).uniform(size=(8, 8))
    heat = anomaly_map(patches, (64, 64), sigma)
    image = np.full((64, 64, 3), 20 * index, np.uint8)
    panel = heatmap_panel(image, heat, (0, SIZE[covariance]), alpha=alpha, height=256)
    normal, scores, _ = scores_of(covariance)
    strip = score_strip(normal, scores, IS_BAD, threshold, index, panel.shape[1])
    return np.vstack([panel, strip])


def facts(index, threshold, covariance):
    normal, scores, _ = scores_of(covariance)
    return {
        "name": IMAGES[index],
        "is_bad": int(IS_BAD[index]),
        "score": scores[index],
        "threshold": threshold,
        "passing": passing(normal, threshold),
        "normal": len(normal),
        **classification_metrics(IS_BAD, scores > threshold),
    }


@pytest.fixture
def explored(monkeypatch):
    """The widgets as they are displayed: controls, picture, text."""
    shown = []
    monkeypatch.setattr(widgets, "display", shown.append)
    what = picture, facts, scores_of, IMAGES, "shrunk"
    widgets.explore(*what, sigma=4.0, lang="en")
    *controls, seen, text = shown[0].children
    names = "index", "step", "passing", "alpha", "sigma", "covariance"
    found = dict(zip(names, controls, strict=True))
    return {**found, "picture": seen, "text": text}


def state(explored):
    values = {name: widget.value for name, widget in explored.items()}
    return values | {"picture": bytes(values["picture"])}


@pytest.mark.parametrize(
    "name, value, also",
    [
        ("index", 1, {"picture", "text"}),
        ("step", 0, {"passing", "picture", "text"}),
        ("passing", 3, {"step", "picture", "text"}),
        ("alpha", 0.0, {"picture"}),
        ("sigma", 12.0, {"picture"}),
        ("covariance", "position", {"step", "picture", "text"}),
    ],
)
def test_a_moved_widget_moves_what_depends_on_it(explored, name, value, also):
    before = state(explored)
    explored[name].value = value
    after = state(explored)
    changed = {key for key in after if after[key] != before[key]}
    assert {name} | also <= changed | {"step"}
    assert changed <= {name, "step", "passing"} | also
    assert after["picture"].startswith(b"\xff\xd8\xff")
    normal, scores, _ = scores_of(after["covariance"])
    threshold = thresholds(normal, scores)[after["step"]]
    assert after["passing"] == passing(normal, threshold)
    metrics = classification_metrics(IS_BAD, scores > threshold)
    told = re.sub(r"<[^>]*>", " ", after["text"])
    for row in metrics["confusion_matrix"]:
        assert re.search(r"\s+".join(map(str, row)), told)
    assert f"{metrics['false_positive_rate']:.1%}" in told
    assert IMAGES[after["index"]] in told


def test_back_to_the_same_view(explored):
    before = state(explored)
    for name, value in (("step", 2), ("sigma", 0.0), ("covariance", "global")):
        explored[name].value = value
    explored["covariance"].value, explored["sigma"].value = "shrunk", 4.0
    assert state(explored) == before


def test_sliders_stop_at_the_ends(explored):
    for name in ("step", "passing"):
        slider = explored[name]
        slider.value = slider.min
        assert explored["passing"].value == 0
        slider.value = slider.max
        assert explored["passing"].value == explored["passing"].max


@pytest.mark.parametrize(
    "allows, installed, attended",
    [(True, True, True), (False, True, False), (True, False, False)],
)
def test_attended_needs_a_person_and_widgets(monkeypatch, allows, installed, attended):
    assert not widgets.attended()  # no kernel here
    request = {"content": {"allow_stdin": allows}}
    kernel = SimpleNamespace(get_parent=lambda: request)
    monkeypatch.setattr(widgets, "get_ipython", lambda: SimpleNamespace(kernel=kernel))
    found = object() if installed else None
    monkeypatch.setattr(widgets.importlib.util, "find_spec", lambda name: found)
    assert widgets.attended() == attended


def test_attended_by_who_can_answer():
    """JupyterLab allows input, papermill and nbconvert do not."""
    manager = jupyter_client.KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=ROOT)
    client = manager.blocking_client()
    answers = []
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        code = "from anomaly.report.widgets import attended; print(attended())"
        for allow in (True, False):
            client.execute_interactive(
                code,
                allow_stdin=allow,
                timeout=120,
                stdin_hook=lambda _: None,
                output_hook=lambda message: answers.append(message["content"]),
            )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert [a["text"] for a in answers if "text" in a] == ["True\n", "False\n"]
