"""The exporters: two files or none, by main.py and by nbconvert alike."""

import errno
import os

import nbformat
import numpy as np
import pytest
from nbconvert.exporters import get_exporter

from anomaly.errors import InputError
from anomaly.files import ROOT
from anomaly.report import exporters
from anomaly.report.exporters import HTMLReport, PDFReport, export_report
from anomaly.report.markdown import ExportError
from anomaly.report.show import outputs

SECTIONS = {
    "title": "# A report\n\nOn nuts.",
    "results": '## Results\n\nSee [the map](#fig-map).\n\n![A map.](figure:map "Red")',
}


def cell(*found):
    outputs = [nbformat.v4.new_output("display_data", d, metadata=m) for d, m in found]
    return nbformat.v4.new_code_cell(outputs=outputs)


@pytest.fixture
def executed(tmp_path):
    """A folder with an executed report of two sections, and an output of neither."""
    figures = {"map": lambda: np.full((40, 60, 3), 128, np.uint8)}
    other = {"text/markdown": "not of the report"}, {}
    cells = [cell(*outputs(SECTIONS, s, figures, "zh"), other) for s in SECTIONS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(notebook, tmp_path / "06_report.ipynb")
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_failing_export_changes_nothing(executed, monkeypatch):
    (executed / "report.html").write_text("old")

    def fail(*args, **kwargs):
        raise RuntimeError("no\nspace left")

    with monkeypatch.context() as patch:
        patch.setattr(exporters.typst, "compile", fail)
        with pytest.raises(ExportError, match="no space left") as error:
            export_report([executed], executed, "en")
    assert "\n" not in str(error.value)
    assert names(executed) == ["06_report.ipynb", "report.html"]
    assert (executed / "report.html").read_text() == "old"

    (executed / "report.pdf").write_text("old")
    export_report([executed], executed, "en", pdf=False)
    assert names(executed) == ["06_report.ipynb", "report.html"]
    assert (executed / "report.html").read_text(encoding="utf-8") != "old"


def test_full_disk_leaves_the_files_before(executed, monkeypatch):
    (executed / "report.html").write_text("old")

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="the report cannot be written.*free some"):
        export_report([executed], executed, "en", pdf=False)
    assert names(executed) == ["06_report.ipynb", "report.html"]
    assert (executed / "report.html").read_text() == "old"


def test_notebook_without_a_report_is_refused(tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "06_report.ipynb")
    with pytest.raises(ExportError, match="run it first"):
        export_report([tmp_path], tmp_path, "en")


def test_only_the_report_enters(executed):
    text, _ = HTMLReport().from_filename(str(executed / "06_report.ipynb"))
    assert "Results" in text and "not of the report" not in text


@pytest.mark.parametrize("kind, lang", [("html", "en"), ("html", "zh"), ("pdf", "zh")])
def test_nbconvert_writes_the_same_bytes(executed, kind, lang):
    """The language is the one that the notebook was executed in, if none is named."""
    export_report([executed], executed, lang)
    exporter = {"html": HTMLReport, "pdf": PDFReport}[kind]
    options = {} if lang == "zh" else {"lang": lang}
    path = str(executed / "06_report.ipynb")
    content, resources = exporter(**options).from_filename(path)
    content = content.encode() if kind == "html" else content
    assert resources["output_extension"] == f".{kind}"
    assert content == (executed / f"report.{kind}").read_bytes()


@pytest.mark.parametrize("kind, exporter", [("html", HTMLReport), ("pdf", PDFReport)])
def test_the_project_registers_its_exporters(kind, exporter):
    registered = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    name, target = f"anomaly-{kind}", f"anomaly.report.exporters:{exporter.__name__}"
    assert f'{name} = "{target}"' in registered
    assert get_exporter(name) is exporter  # as `jupyter nbconvert --to` finds it
