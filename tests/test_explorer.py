"""Notebook 7: what it draws and says, its widgets moved by hand, and its speed."""

import json
import re
import time
from types import SimpleNamespace

import jupyter_client
import numpy as np
import pytest

import figures as fg
import helpers as hp

NORMAL = np.float32([3, 1, 2, 5, 4])


def test_passing_and_threshold_are_inverse():
    for count in range(len(NORMAL) + 1):
        assert fg.passing(NORMAL, fg.threshold_at(NORMAL, count)) == count
    for threshold in fg.thresholds(NORMAL, NORMAL):
        assert fg.threshold_at(NORMAL, fg.passing(NORMAL, threshold)) == threshold


def test_equal_scores_pass_together():
    assert fg.passing([1, 2, 2, 3], fg.threshold_at([1, 2, 2, 3], 2)) == 3


def test_thresholds_make_every_decision_once():
    scores = np.float32([2, 2.5, 7, 7])
    steps = fg.thresholds(NORMAL, scores)
    assert (np.diff(steps) > 0).all()
    everything = np.concatenate([NORMAL, scores])
    decisions = {tuple(everything > step) for step in steps}
    assert len(decisions) == len(steps) == len(set(everything)) + 1
    assert {(True,) * 9, (False,) * 9} <= decisions


@pytest.mark.parametrize("scores", [[2.0, 9.0], [-5.0], [3.0]])
def test_limits_leave_room_for_every_score(scores):
    both = [*NORMAL, *scores]
    low, high = fg.score_limits(NORMAL, scores)
    assert low < min(both) and high > max(both)
    low, high = fg.score_limits([1.0, 1.0], [1.0])  # all the same
    assert low < 1 < high


def strip(threshold=2.5, chosen=0, lang="en", is_bad=(0, 1, -1)):
    scores = np.float32([2, 6, 4])
    marks = NORMAL, scores, np.array(is_bad), threshold, chosen, 600
    return fg.score_strip(*marks, lang=lang)


def count(picture, colour):
    return (picture == colour).all(axis=2).sum()


def test_strip_tints_what_lies_above_the_threshold():
    tint = (251, 227, 212)
    tinted = [count(strip(threshold), tint) for threshold in (-9, 2, 4, 6, 99)]
    assert tinted == sorted(tinted, reverse=True) and tinted[0] > 3 * tinted[3]
    assert tinted[-1] < 100  # the line stays at the right end


@pytest.mark.parametrize("chosen, row", [(0, 40), (1, 66), (2, 53)])
def test_strip_rings_the_chosen_image_in_its_row(chosen, row):
    """Good above, bad below, what has no label between them."""
    others = [strip(chosen=other) for other in {0, 1, 2} - {chosen}]
    black = [(picture == 0).all(axis=2) for picture in (strip(chosen=chosen), *others)]
    ring = black[0] & ~black[1] & ~black[2]
    rows = np.flatnonzero(ring.any(axis=1))
    assert abs(rows.min() + rows.max() - 2 * row) <= 2


def test_chinese_is_drawn_without_boxes():
    """Each character has its own shape; a font without them draws one box for all."""
    assert (strip(lang="zh") != strip(lang="en")).any()
    shapes = set()
    for character in "测试正常异":
        blank = np.full((20, 20, 3), 255, np.uint8)
        drawn = fg._written(blank, [(2, 0, character)], "zh")
        assert (drawn < 128).sum() > 20
        shapes.add(drawn.tobytes())
    assert len(shapes) == 5


def view(**changes):
    metrics = hp.classification_metrics([0, 0, 1, 1], [0, 1, 1, 1])
    base = {"name": "a.png", "is_bad": 1, "score": 3.0, "threshold": 2.0}
    return {**base, "passing": 4, "normal": 5, **metrics, **changes}


def text_of(html):
    return re.sub(r"<[^>]*>", " ", html)


def test_decisions_are_told():
    told = text_of(fg.decisions_html([view()]))
    for part in ("4/5 of train/good", "3 &gt; 2", "label bad", "50.0%", "100.0%"):
        assert part in told
    assert "(a)" not in told
    two = text_of(fg.decisions_html([view(), view(threshold=3.0)], "zh"))
    assert "(a)" in two and "(b)" in two and "3 ≤ 3" in two and "放行" in two


def test_decisions_escape_names_and_know_no_labels():
    name = '<script>alert("x")</script>&.png'
    nobody = hp.classification_metrics([-1, -1], [0, 1])
    html = fg.decisions_html([view(name=name, is_bad=-1, **nobody)])
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "label –" in html and "false-positive rate <b>–</b>" in html


@pytest.mark.parametrize(
    "allows, installed, attended",
    [(True, True, True), (False, True, False), (True, False, False)],
)
def test_attended_needs_a_person_and_widgets(monkeypatch, allows, installed, attended):
    assert not fg.attended()  # no kernel here
    request = {"content": {"allow_stdin": allows}}
    kernel = SimpleNamespace(get_parent=lambda: request)
    monkeypatch.setattr(fg, "get_ipython", lambda: SimpleNamespace(kernel=kernel))
    found = object() if installed else None
    monkeypatch.setattr(fg.importlib.util, "find_spec", lambda name: found)
    assert fg.attended() == attended


def test_attended_by_who_can_answer():
    """JupyterLab allows input, papermill and nbconvert do not."""
    manager = jupyter_client.KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=hp.ROOT)
    client = manager.blocking_client()
    answers = []
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        code = "import figures; print(figures.attended())"
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


@pytest.fixture(scope="module")
def notebook(tiny_settings, tmp_path_factory):
    """The variables of notebook 7 after it has run in this process."""
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fg, "display", lambda *_, **__: None)
        patch.setattr("IPython.display.display", lambda what: shown.append(what))
        path = hp.ROOT / "notebooks" / "07_explorer.ipynb"
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        settings = tiny_settings(visualization_dir=str(tmp_path_factory.mktemp("out")))
        names = {"__name__": "notebook"}
        exec(code[0], names)
        names.update(vars(settings))
        for source in code[1:]:
            exec(source, names)
    yield {**names, "shown": shown}
    assert not settings.output.exists()  # it writes nothing


@pytest.fixture
def widgets(notebook):
    """The explorer's widgets as they are displayed: controls, picture, text."""
    notebook["explore"]()
    *controls, picture, text = notebook["shown"][-1].children
    names = "index", "step", "passing", "alpha", "sigma", "covariance"
    found = dict(zip(names, controls, strict=True))
    return {**found, "picture": picture, "text": text}


def state(widgets):
    values = {name: widget.value for name, widget in widgets.items()}
    return values | {"picture": bytes(values["picture"])}


def test_static_view_without_anybody(notebook):
    assert len(notebook["views"]) == 3
    low, conformal, high = notebook["thresholds"]
    assert low < conformal < high
    html = notebook["shown"][0].data
    assert html == fg.decisions_html(notebook["views"])


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
def test_a_moved_widget_moves_what_depends_on_it(notebook, widgets, name, value, also):
    before = state(widgets)
    widgets[name].value = value
    after = state(widgets)
    changed = {key for key in after if after[key] != before[key]}
    assert {name} | also <= changed | {"step"}
    assert changed <= {name, "step", "passing"} | also
    assert after["picture"].startswith(b"\xff\xd8\xff")
    detection, _ = notebook["fitted"](after["covariance"])
    scores = detection.test_scores
    normal, steps = notebook["stops"](after["covariance"])
    threshold = steps[after["step"]]
    assert after["passing"] == fg.passing(normal, threshold)
    is_bad = notebook["labels"].is_bad
    metrics = hp.classification_metrics(is_bad, scores > threshold)
    told = text_of(after["text"])
    for row in metrics["confusion_matrix"]:
        assert re.search(r"\s+".join(map(str, row)), told)
    assert f"{metrics['false_positive_rate']:.1%}" in told
    assert notebook["dataset"].test[after["index"]].name in told


def test_back_to_the_same_view(widgets):
    before = state(widgets)
    for name, value in (("step", 2), ("sigma", 0.0), ("covariance", "global")):
        widgets[name].value = value
    widgets["covariance"].value, widgets["sigma"].value = "shrunk", 4.0
    assert state(widgets) == before


def test_sliders_stop_at_the_ends(widgets):
    for name in ("step", "passing"):
        slider = widgets[name]
        slider.value = slider.min
        assert widgets["passing"].value == 0
        slider.value = slider.max
        assert widgets["passing"].value == widgets["passing"].max


def test_a_view_takes_less_than_a_tenth_of_a_second(notebook):
    """Five milliseconds on an idle machine; the median, for one that is not."""
    picture, facts = notebook["picture"], notebook["facts"]
    seconds = []
    for threshold in np.linspace(1, 50, 9):
        start = time.perf_counter()
        fg.encode(picture(0, threshold))
        fg.decisions_html([facts(0, threshold)])
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.1
