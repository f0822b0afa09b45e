"""The notebooks as files, each alone, and the whole chain on a tiny data set."""

import csv
import json
import subprocess
import sys
from dataclasses import fields

import nbformat
import papermill
import pytest

import helpers as hp
import main

NOTEBOOKS = sorted((hp.ROOT / "notebooks").glob("*.ipynb"))
KEYS = """category backbone covariance image_score image_size n_train_good n_test_good
n_test_bad auroc auroc_ci95 average_precision threshold threshold_rule
false_positive_rate recall precision f1 accuracy confusion_matrix oracle pixel_auroc
aupro pixel_average_precision seconds peak_rss_mb settings versions data_sha256"""


def parameters(data, out, **more):
    common = {"image_size": 64, "backbone": "efficientnet_lite2"}
    return {
        "dataset_path": str(data),
        "visualization_dir": str(out),
        **common,
        **more,
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_source_is_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    found = papermill.inspect_notebook(path)
    assert set(found) == {field.name for field in fields(hp.Settings)}
    for field in fields(hp.Settings):
        assert eval(found[field.name]["default"], {}) == field.default


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_alone_from_another_directory(path, tiny, tmp_path):
    command = [sys.executable, "-m", "papermill", str(path), "out.ipynb"]
    for name, value in parameters(tiny, tmp_path, category="zipper").items():
        command += ["-p", name, str(value)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_whole_chain(tiny, tmp_path, capsys):
    arguments = []
    for name, value in parameters(tiny, tmp_path, lang="zh").items():
        arguments += ["-p", name, str(value)]
    assert main.main(arguments) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in out[-2:]] == ["hazelnut", "zipper"]
    for suffix in ("html", "pdf"):
        assert (tmp_path / f"report.{suffix}").stat().st_size > 1000
    for category in ("hazelnut", "zipper"):
        folder = tmp_path / category
        assert len(list(folder.glob("0[1-6]_*.ipynb"))) == 6
        assert len(list((folder / "heatmaps").glob("heatmap_*.png"))) == 7
        assert (folder / "summary" / "performance_summary.png").is_file()
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert set(KEYS.split()) <= set(metrics)
        with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["filename", "label", "score", "prediction", "defect"]
        labels = [int(row["label"] == "bad") for row in rows]
        scores = [float(row["score"]) for row in rows]
        assert hp.auroc(labels, scores) == pytest.approx(metrics["auroc"])
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]  # nothing half-written


def test_labels_do_not_reach_scores_or_threshold(tiny, monkeypatch, tmp_path):
    settings = hp.Settings(**parameters(tiny, tmp_path))
    before = hp.detect(settings)
    path = tiny / hp.LABEL_FILE
    text = path.read_text(encoding="utf-8")
    entries = json.loads(text)
    turned = {"good": "bad", "bad": "good"}
    for entry in entries.values():
        entry["label"] = turned[entry["label"]]
    try:
        path.write_text(json.dumps(entries), encoding="utf-8")
        monkeypatch.setenv("ANOMALY_CACHE", str(tmp_path / "cache"))
        hp.cache_folder.cache_clear()
        after = hp.detect(settings)
    finally:
        monkeypatch.undo()
        hp.cache_folder.cache_clear()
        path.write_text(text, encoding="utf-8")
    assert (before.test == after.test).all()
    assert (before.normal == after.normal).all()
    assert before.threshold == after.threshold
