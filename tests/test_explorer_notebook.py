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
        patch.setattr("anomaly.report.show.display", lambda *_, **__: None)
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
    assert len(notebook["views"]) == 3
    low, conformal, high = notebook["thresholds"]
    assert low < conformal < high
    html = notebook["shown"][0].data
    assert html == decisions_html(notebook["views"])


def test_a_view_takes_less_than_a_tenth_of_a_second(notebook):
    """Five milliseconds on an idle machine; the median, for one that is not."""
    picture, facts = notebook["picture"], notebook["facts"]
    seconds = []
    for threshold in np.linspace(1, 50, 9):
        start = time.perf_counter()
        encode(picture(0, threshold))
        decisions_html([facts(0, threshold)])
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.1
