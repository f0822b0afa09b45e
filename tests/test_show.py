"""Pictures as outputs: in JupyterLab with an alt text, elsewhere as they are."""

import numpy as np

from anomaly.report.show import outputs, picture_bundle

BLACK = np.zeros((8, 8, 3), np.uint8)


def test_the_lab_gets_an_alt_text(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    data, metadata = picture_bundle(BLACK, "a < b")
    assert set(data) == {"image/jpeg", "text/plain"}
    assert metadata["image/jpeg"]["alt"] == data["text/plain"] == "a < b"
    monkeypatch.setenv("JPY_SESSION_NAME", "a notebook")
    in_lab, _ = picture_bundle(BLACK, "a < b")
    assert in_lab["image/jpeg"] == data["image/jpeg"]  # what the exporters read
    assert in_lab["text/html"].startswith("<img src=")
    assert ' alt="a &lt; b"' in in_lab["text/html"]


def test_a_figure_has_its_width_everywhere(monkeypatch):
    from anomaly.report.plots import plot_confusion

    monkeypatch.setenv("JPY_SESSION_NAME", "a notebook")
    data, metadata = picture_bundle(plot_confusion([[3, 1], [0, 2]]), "a matrix")
    width = metadata["image/png"]["width"]
    assert f'width="{width}"' in data["text/html"] and 100 < width < 1000


def test_a_section_is_text_and_the_figures_it_names():
    sections = {"one": 'Text.\n\n![A caption.](figure:black "Black &amp; dark")\n\nEnd'}
    told = list(outputs(sections, "one", {"black": lambda: BLACK}, "en"))
    assert ["text/markdown" in data for data, _ in told] == [True, False, True]
    _, metadata = told[1]
    assert metadata["figure"] == "black" and metadata["alt"] == "Black & dark"
