"""One report over several categories: a notebook made of theirs."""

import csv
import json
import re
from pathlib import Path

import numpy as np
from nbformat import NotebookNode, v4

from anomaly.report.markdown import report_outputs
from anomaly.report.plots import plot_comparison
from anomaly.report.prose import render_prose
from anomaly.report.show import outputs

FIRST, LAST = ("task", "method"), ("limits", "references")  # the same for all


def joint(notebooks: list[NotebookNode], comparison: list[NotebookNode]):
    """A notebook of several: the comparison's outputs, then category by category.

    What all share is told once, before and after them.
    """
    first, *_ = reports = [_renamed(nb, f"{i}-") for i, nb in enumerate(notebooks, 1)]
    parts = [*comparison, *_only(first, FIRST)]
    for report in reports:
        own = [o for o in report if o not in _only(report, FIRST + LAST)]
        for output in own:
            if "text/markdown" in output.data:
                text = re.sub("^# .*?(: |：)", "# ", output.data["text/markdown"])
                text = re.sub("^#", "##", text, flags=re.MULTILINE)
                output.data["text/markdown"] = text
        parts += own
    parts += _only(first, LAST)
    return v4.new_notebook(cells=[v4.new_code_cell(outputs=parts)])


def _renamed(notebook, prefix):
    """Its outputs, with names of sections and figures that no other notebook has."""
    renamed = []
    for output in report_outputs(notebook):
        data, metadata = dict(output.data), dict(output.metadata)
        for name in metadata.keys() & {"section", "figure"}:
            metadata[name] = prefix + metadata[name]
        if "text/markdown" in data:
            text = "".join(data["text/markdown"])
            data["text/markdown"] = text.replace("](#fig-", f"](#fig-{prefix}")
        renamed.append(v4.new_output("display_data", data, metadata=metadata))
    return renamed


def _only(report, names):
    return [o for o in report if o.metadata.section.partition("-")[2] in names]


def compare(folders: list[Path], lang: str) -> list[NotebookNode]:
    """Outputs that compare categories, from their metrics.json and scores.csv."""
    runs, curves = [], {}
    for folder in folders:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        runs.append(metrics)
        if metrics["auroc"] is not None:
            scores, is_bad = read_scores(folder / "scores.csv")
            interval = metrics["auroc_ci95"]
            curves[metrics["category"]] = scores, is_bad, metrics["auroc"], interval
    sections = render_prose("comparison", lang, runs=runs)
    figures = {"comparison": lambda: plot_comparison(curves, lang=lang)}
    return [
        v4.new_output("display_data", data, metadata=metadata)
        for name in sections
        for data, metadata in outputs(sections, name, figures, lang)
    ]


def read_scores(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Scores (T,) and labels (T,) of scores.csv: 0 good, 1 bad, -1 unlabelled."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [{"good": 0, "bad": 1}.get(row["label"], -1) for row in rows]
    return np.array([float(row["score"]) for row in rows]), np.array(labels)
