"""The command line: its parameters, what went wrong in one line, summary."""

import errno

import pytest
from papermill.exceptions import PapermillExecutionError

import main
from anomaly.errors import InputError
from anomaly.report import run as runner


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
        (InputError("a.png: no"), "a.png: no", 2),
        (in_notebook("InputError", "a.png: no"), "a.png: no", 2),
        (in_notebook("ValueError", "odd"), "ValueError: odd", 1),
        (ZeroDivisionError("odd"), "ZeroDivisionError: odd", 1),
        (OSError(errno.EIO, "gone"), "OSError: [Errno 5] gone", 1),
    ],
)
def test_explain(error, message, status):
    assert main.explain(error) == (message, status)


@pytest.mark.parametrize("log", [True, False])
def test_a_fault_is_one_line_that_names_the_log(tmp_path, monkeypatch, capsys, log):
    def fail(*arguments):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(main, "run", fail)
    if not log:  # no disk takes it
        monkeypatch.setattr(runner, "write_file", lambda *_: fail_to_write())
    assert main.main(["-p", "visualization_dir", str(tmp_path)]) == 1
    where = f" (details: {tmp_path / 'error.log'})" if log else ""
    assert capsys.readouterr().err == f"error: RuntimeError: two\\nlines{where}\n"
    assert (tmp_path / "error.log").exists() == log


def fail_to_write():
    raise InputError("full")


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
