"""Notebook 7, run in this process: its static view, its widgets, its speed."""

import json
import time

import numpy as np
import pytest

from anomaly.files import ROOT
from anomaly.report.explorer import decisions_html
from anomaly.report.style import encode


@pytest.fixture(scope="module")
def notebook(tiny_settings, tmp_path_factory):
    """The variables of notebook 7 after it has run in this process."""
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        for room in ("lesson", "widgets"):
            patch.setattr(f"anomaly.report.{room}.display", lambda *_, **__: None)
        patch.setattr("IPython.display.display", lambda what: shown.append(what))
        path = ROOT / "notebooks" / "07_explorer.ipynb"
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


def test_static_view_without_anybody(notebook):
    assert len(notebook["facts"]) == 3
    low, conformal, high = notebook["thresholds"]
    assert low < conformal < high
    html = notebook["shown"][0].data
    assert html == decisions_html(notebook["facts"])


def test_a_view_takes_less_than_a_tenth_of_a_second(notebook):
    """Five milliseconds on an idle machine; the median, for one that is not."""
    views = notebook["views"]
    seconds = []
    for threshold in np.linspace(1, 50, 9):
        start = time.perf_counter()
        encode(views.picture(0, threshold, "shrunk", 4.0))
        decisions_html([views.facts(0, threshold, "shrunk")])
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.1
