"""The notebooks as files, each alone, and the whole chain on a tiny data set.

What a notebook must look like is asked of what is committed (`git add` is enough), so
that nobody's own outputs or choice of a category in JupyterLab make a test fail.
"""

import csv
import json
import re
import statistics
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import nbformat
import pytest

import helpers as hp
import main
from anomaly.cache import cache_folder
from anomaly.files import ROOT
from anomaly.labels import LABEL_FILE
from anomaly.metrics import auroc
from anomaly.report import run
from anomaly.report.run import INJECTED
from anomaly.report.translation import outdated, translated
from anomaly.settings import Settings

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
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


FIGURE = re.compile(r"^ *(show|tell|explore)\(", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)\)")
COPIES = [
    (ROOT / "report" / folder / path.name, path)
    for folder in ("hazelnut", "zipper", "zh/zipper")
    for path in run.NOTEBOOKS
]
REMEDY = "run `nbstripout --keep-id notebooks/*.ipynb`, or pre-commit, and add again"


def committed(path):
    """A text of git's index; of the folder where the project is no git checkout."""
    command = ["git", "-C", str(ROOT), "show", f":{path.relative_to(ROOT).as_posix()}"]
    found = subprocess.run(command, capture_output=True)
    if found.returncode == 0:
        return found.stdout.decode()
    return path.read_text(encoding="utf-8") if path.exists() else None


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def source(request):
    notebook = nbformat.reads(committed(request.param), as_version=4)
    notebook.path = request.param
    return notebook


def code_lines(cell):
    return len([line for line in cell.source.splitlines() if line.strip()])


def is_parameters(cell):
    return "parameters" in cell.metadata.get("tags", [])


def test_source_is_clean(source):
    path = source.pop("path")
    nbformat.validate(source)
    assert source.metadata.kernelspec.name == "python3"
    assert source.cells[0].cell_type == "markdown"
    ids = [cell.id for cell in source.cells]
    assert len(set(ids)) == len(ids)
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    has_run = [cell.id for cell in code if cell.outputs or cell.execution_count]
    assert not has_run, f"{path.name} holds outputs: {REMEDY}"
    [parameters] = [cell for cell in code if is_parameters(cell)]
    values = {}
    exec(parameters.source, values)
    names = [field.name for field in fields(Settings)]
    assert list(values.pop("__annotations__")) == [
        n for n in names if n != "image_score"
    ]
    assert set(values) - {"__builtins__"} == set(names)
    assert Settings.of(values) == Settings(), f"{path.name}: another default"


def test_the_first_screen_is_no_wall_of_code(source):
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    for cell in code[:2]:  # parameters, imports
        is_hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        assert is_hidden or code_lines(cell) <= 8
    assert is_parameters(code[0]) and code_lines(code[1]) <= 12
    lengths = [code_lines(cell) for cell in code[1:]]
    assert statistics.median(lengths) <= 8 and max(lengths) <= 20


def test_figures_stand_between_words(source):
    """One cell may prepare what the next one shows."""
    four = zip(*(source.cells[i:] for i in range(4)), strict=False)
    for earlier, before, cell, after in four:
        if cell.cell_type == "code" and FIGURE.search(cell.source):
            kinds = {before.cell_type, earlier.cell_type}
            assert "markdown" in kinds and after.cell_type == "markdown", cell.id


def test_every_cell_has_its_chinese(source, tmp_path, monkeypatch):
    chinese = source.path.parent / "zh" / f"{source.path.stem}.md"
    copy = tmp_path / "zh" / chinese.name
    copy.parent.mkdir()
    copy.write_text(committed(chinese) or "", encoding="utf-8")
    assert not outdated(source.cells, tmp_path / source.path.name)


def test_exercises_have_answers_and_links_lead_somewhere(source):
    prose = [c.source for c in source.cells if c.cell_type == "markdown"]
    last = prose[-1]
    assert "What we learned" in last and "**To try" in last
    assert "<details>" in last and "</details>" in last
    for link in LINK.findall("\n".join(prose)):
        if not link.startswith(("https://", "http://")):
            assert (source.path.parent / link).exists(), link
            # in report/{category} the executed copies lie side by side
            assert link in [path.name for path in NOTEBOOKS], link


@pytest.mark.parametrize(
    "copy, path", COPIES, ids=lambda path: f"{path.parent.name}-{path.stem[:2]}"
)
def test_a_rendered_copy_is_as_new_as_its_source(copy, path):
    name, text = copy.relative_to(ROOT).as_posix(), committed(copy)
    remedy = f"{name}: run `make report`"
    if "zh" in copy.parts:
        remedy = "python main.py -p category zipper -p lang zh -p visualization_dir"
        remedy = f"{name}: run `{remedy} report/zh`"
    assert text, f"{remedy} and add it"
    notebook = nbformat.reads(text, as_version=4)
    source = nbformat.reads(committed(path), as_version=4)
    if "zh" in copy.parts:
        translated(source.cells, path)
    told = [c for c in notebook.cells if INJECTED not in c.metadata.get("tags", [])]
    was, now = ({c.id: c.source for c in cells} for cells in (told, source.cells))
    assert was == now, f"{remedy}; it is older than {path.name}"
    code = [cell for cell in told if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), remedy
    for private in (str(ROOT), str(Path.home()) + "/", "/work/", "/tmp/", "C:\\\\"):
        assert private not in text, f"{name} holds a path of one machine, {private}"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_alone_from_another_directory(path, tiny, tmp_path):
    command = [sys.executable, "-m", "papermill", str(path), "out.ipynb"]
    for name, value in parameters(tiny, tmp_path, category="zipper").items():
        command += ["-p", name, str(value)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
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
        assert len(list(folder.glob("0[1-7]_*.ipynb"))) == 7
        assert len(list((folder / "heatmaps").glob("heatmap_*.png"))) == 7
        assert (folder / "summary" / "performance_summary.png").is_file()
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert set(KEYS.split()) <= set(metrics)
        with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["filename", "label", "score", "prediction", "defect"]
        labels = [int(row["label"] == "bad") for row in rows]
        scores = [float(row["score"]) for row in rows]
        assert auroc(labels, scores) == pytest.approx(metrics["auroc"])
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]  # nothing half-written


def test_labels_do_not_reach_scores_or_threshold(tiny, monkeypatch, tmp_path):
    settings = Settings(**parameters(tiny, tmp_path))
    before = hp.detect(settings)
    path = tiny / LABEL_FILE
    text = path.read_text(encoding="utf-8")
    entries = json.loads(text)
    turned = {"good": "bad", "bad": "good"}
    for entry in entries.values():
        entry["label"] = turned[entry["label"]]
    try:
        path.write_text(json.dumps(entries), encoding="utf-8")
        monkeypatch.setenv("ANOMALY_CACHE", str(tmp_path / "cache"))
        cache_folder.cache_clear()
        after = hp.detect(settings)
    finally:
        monkeypatch.undo()
        cache_folder.cache_clear()
        path.write_text(text, encoding="utf-8")
    assert (before.test == after.test).all()
    assert (before.normal == after.normal).all()
    assert before.threshold == after.threshold
