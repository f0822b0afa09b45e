"""The runner's parts: command line, explanation, log and summary."""

import errno

import nbformat
import psutil
import pytest
from papermill.exceptions import PapermillExecutionError

import helpers as hp
import main


@pytest.mark.parametrize(
    "line, parameters, no_pdf, jobs",
    [
        ("", {}, False, 1),
        ("--no-pdf --jobs 3", {}, True, 3),
        ("-p sigma -1 --jobs=2", {"sigma": -1}, False, 2),
        ("-p sigma 1 -p sigma 2", {"sigma": 2}, False, 1),  # the last one counts
        ("-p lang zh -p category 07", {"lang": "zh", "category": "07"}, False, 1),
    ],
)
def test_parse(line, parameters, no_pdf, jobs):
    found, options = main.parse(line.split())
    assert found == parameters
    assert (options.no_pdf, options.jobs) == (no_pdf, jobs)


def in_notebook(name, value):
    return PapermillExecutionError(3, 2, "cell", name, value, ["a long traceback"])


@pytest.mark.parametrize(
    "error, message, status",
    [
        (hp.InputError("a.png: no"), "a.png: no", 2),
        (in_notebook("InputError", "a.png: no"), "a.png: no", 2),
        (in_notebook("ValueError", "odd"), "ValueError: odd", 1),
        (ZeroDivisionError("odd"), "ZeroDivisionError: odd", 1),
        (OSError(errno.EIO, "gone"), "OSError: [Errno 5] gone", 1),
    ],
)
def test_explain(error, message, status):
    assert main.explain(error) == (message, status)


def logged(path):
    try:
        raise ValueError("榛 \ud800")
    except ValueError:
        return main.write_log(path)


def test_log_holds_the_traceback_and_goes_elsewhere_if_need_be(tmp_path, monkeypatch):
    temp, wanted = tmp_path / "temp", tmp_path / "out" / "error.log"
    temp.mkdir()
    monkeypatch.setattr(main.tempfile, "tempdir", str(temp))
    assert logged(wanted) == wanted
    assert wanted.read_text(encoding="utf-8").endswith("ValueError: 榛 \\ud800\n")
    other = logged(wanted / "below a file.log")
    assert other.parent == temp
    assert other.read_text(encoding="utf-8").startswith("Traceback")


@pytest.mark.parametrize("log", [True, False])
def test_a_fault_is_one_line_that_names_the_log(tmp_path, monkeypatch, capsys, log):
    def fail(*arguments):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(main, "run", fail)
    if not log:  # no disk takes it
        monkeypatch.setattr(hp, "write_file", lambda *_: fail_to_write())
    assert main.main(["-p", "visualization_dir", str(tmp_path)]) == 1
    where = f" (details: {tmp_path / 'error.log'})" if log else ""
    assert capsys.readouterr().err == f"error: RuntimeError: two\\nlines{where}\n"
    assert (tmp_path / "error.log").exists() == log


def fail_to_write():
    raise hp.InputError("full")


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "run", interrupt)
    assert main.main([]) == 130
    expected = "error: interrupted; the same command goes on\n"
    assert capsys.readouterr().err == expected


def test_a_log_of_an_earlier_failure_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(main, "run", lambda *_: None)
    (tmp_path / "error.log").write_bytes(b"old")
    assert main.main(["-p", "visualization_dir", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "auroc, interval, line",
    [
        (0.98765, [0.9, 1.0], "nut: AUROC 0.9877 [0.9000, 1.0000]"),
        (0.0, [0.0, 0.25], "nut: AUROC 0.0000 [0.0000, 0.2500]"),
        (None, None, "nut: AUROC not defined, one class or no labels"),
    ],
)
def test_summary(auroc, interval, line):
    metrics = {"category": "nut", "auroc": auroc, "auroc_ci95": interval}
    assert main.summary(metrics) == line


def test_the_report_comes_last_and_the_explorer_is_not_run():
    stems = [path.stem for path in main.NOTEBOOKS]
    assert [stem[:2] for stem in stems] == ["01", "02", "03", "04", "05", "06"]
    assert stems[-1] == "06_report"  # what `export` reads


def test_a_notebook_sees_nothing_of_the_one_before(tmp_path):
    """They share a kernel, for its imports, and no variable."""
    script = "import os, sys\nseen = sorted(n for n in globals() if n[0] != '_')\n"
    script += (
        "print(seen, 'colorsys' in sys.modules, os.getpid())\nimport colorsys\nx = 1"
    )
    cell = nbformat.v4.new_code_cell(script)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbformat.write(notebook, tmp_path / "source.ipynb")
    with main.shared_kernel() as manager:
        for name in ("first", "second"):
            target = tmp_path / f"{name}.ipynb"
            main.execute(tmp_path / "source.ipynb", target, {}, manager)
        process = psutil.Process(manager.provisioner.pid)
    assert not process.is_running()
    told = []
    for name in ("first", "second"):
        cell = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4).cells[0]
        assert cell.execution_count == 1
        told.append(cell.outputs[0].text.rsplit(maxsplit=2))
    (seen, loaded, pid), (seen_again, loaded_again, pid_again) = told
    assert seen == seen_again and "'x'" not in seen_again
    assert (loaded, loaded_again) == ("False", "True") and pid == pid_again
