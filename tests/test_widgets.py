"""The explorer's widgets, moved by hand."""

import re
from types import SimpleNamespace

import jupyter_client
import numpy as np
import pytest

from anomaly.files import ROOT, write_image
from anomaly.metrics import classification_metrics
from anomaly.report import widgets
from anomaly.report.explorer import Views, outcome, passing, thresholds
from anomaly.scores import conformal_threshold

IMAGES, IS_BAD = list("abcdefg"), np.array([0, 0, 1, 0, 1, 1, -1])
DEFECT = ["", "", "cut", "", "", "hole", ""]
SIZE = {"global": 1, "position": 50, "shrunk": 10}  # of each covariance's scores


def learned(covariance):
    """What a detection has, made of random numbers."""
    size = SIZE[covariance]
    rng = np.random.default_rng(size)
    normal = size * rng.uniform(1, 2, 8)
    return SimpleNamespace(
        normal_scores=normal,
        test_scores=size * (rng.uniform(1, 2, 7) + (IS_BAD == 1)),
        test=size * rng.uniform(size=(7, 8, 8)),
        windows={"test": np.float64([[0, 0, 1, 1]] * 7)},
        scale=(0, size),
        threshold=conformal_threshold(normal, 0.2),
    )


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{name}.png" for name in IMAGES]
    for index, path in enumerate(paths):
        write_image(path, np.full((64, 64, 3), 20 * index, np.uint8))
    return Views(learned, paths, IS_BAD, DEFECT, 64)


def shown(views, monkeypatch, is_attended):
    """Data and, if there are any, widgets of what `explore` displays."""
    bundles, boxes, linked = [], [], widgets._linked
    monkeypatch.setattr(widgets, "attended", lambda: is_attended)
    monkeypatch.setattr(widgets, "display", lambda data, **_: bundles.append(data))
    monkeypatch.setattr(
        widgets, "_linked", lambda *a: boxes.append(linked(*a)) or boxes[-1]
    )
    widgets.explore(views, "shrunk", index=0, sigma=4.0)
    return bundles, boxes


@pytest.fixture
def explored(views, monkeypatch):
    """The widgets as they are displayed: controls, picture, text."""
    _, [box] = shown(views, monkeypatch, True)
    *controls, seen, text = box.children
    names = "index", "step", "passing", "alpha", "sigma", "covariance"
    found = dict(zip(names, controls, strict=True))
    return {**found, "picture": seen, "text": text}


def test_without_a_kernel_the_first_view_stands_still(views, monkeypatch):
    [bundle], [box] = shown(views, monkeypatch, True)
    assert bundle[widgets.WIDGET]["model_id"] == box.model_id
    assert "<img " in bundle["text/html"] and "false-positive" in bundle["text/html"]
    assert "VBox" not in bundle["text/plain"]
    (picture, text), boxes = shown(views, monkeypatch, False)
    assert "image/jpeg" in picture and "false-positive" in text["text/html"]
    assert not boxes and widgets.WIDGET not in {*picture, *text}


def test_images_are_listed_by_score_with_what_becomes_of_them(views):
    names = views.names("shrunk")
    _, scores, threshold = views.scores("shrunk")
    assert [i for _, i in names] == np.argsort(-scores).tolist()
    for name, i in names:
        stem, kind, score, what = name.split(" · ")
        assert stem == IMAGES[i] and float(score) == pytest.approx(scores[i], 1e-3)
        assert kind == (DEFECT[i] or {0: "good", 1: "bad", -1: "no label"}[IS_BAD[i]])
        assert what == outcome(IS_BAD[i], scores[i] > threshold)
    assert outcome(1, False) == "missed" and outcome(0, True, "zh") == "误报"


def test_the_old_picture_is_dim_while_a_covariance_is_computed(explored):
    told = []
    explored["text"].observe(lambda change: told.append(change["new"]), "value")
    explored["covariance"].value = "global"
    assert "anomaly-seen { opacity" in told[0] and "<progress>" in told[0]
    assert (
        "<style>" not in told[-1] and "anomaly-seen" in explored["picture"]._dom_classes
    )


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
    now = learned(after["covariance"])
    normal, scores = now.normal_scores, now.test_scores
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
