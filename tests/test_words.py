"""Tables in two languages, and paths as a reader sees them."""

from pathlib import Path

import pytest

from anomaly.files import ROOT
from anomaly.report import lesson


@pytest.fixture
def shown(monkeypatch):
    """The bundles that are displayed."""
    bundles = []
    monkeypatch.setattr(lesson, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def test_a_table_is_translated_where_there_are_words(shown):
    rows = [{"method": "assignment", "AUROC": 0.5}, {"method": "mine", "AUROC": None}]
    for lang in ("en", "zh"):
        lesson.table(rows, "ablation", lang)
    english, chinese = (bundle["text/html"] for bundle in shown)
    assert "assignment" in english and "作业方法" in chinese
    assert "mine" in chinese and "method" not in chinese.replace("th.method", "")
    assert all("–" in text for bundle in shown for text in bundle.values())


def test_figures_stand_under_their_heads(shown):
    lesson.table([{"method": "a", "AUROC": 0.5}], "ablation")
    html = shown[0]["text/html"]
    assert "th.col1" in html and "th.col0" not in html


def test_a_path_is_shown_below_the_project():
    assert lesson.place(ROOT / "report" / "zipper") == "report/zipper"
    assert lesson.place(Path("/elsewhere/zipper")).endswith("/elsewhere/zipper")
