"""The run's parts: kernels, logs, cores shared by categories side by side."""

import os
import tempfile
import threading
import time
from pathlib import Path

import joblib
import nbformat
import psutil
import pytest
import torch

from anomaly.report.run import (
    FIRST,
    LAST,
    LIMITS,
    NOTEBOOKS,
    execute,
    lanes,
    shared_kernel,
    side_by_side,
    side_by_side_in,
    write_log,
)


def logged(path):
    try:
        raise ValueError("榛 \ud800")
    except ValueError:
        return write_log(path)


def test_log_holds_the_traceback_and_goes_elsewhere_if_need_be(tmp_path, monkeypatch):
    temp, wanted = tmp_path / "temp", tmp_path / "out" / "error.log"
    temp.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temp))
    assert logged(wanted) == wanted
    assert wanted.read_text(encoding="utf-8").endswith("ValueError: 榛 \\ud800\n")
    other = logged(wanted / "below a file.log")
    assert other.parent == temp
    assert other.read_text(encoding="utf-8").startswith("Traceback")


def test_all_notebooks_are_run_in_order():
    stems = [path.stem for path in NOTEBOOKS]
    assert [stem[:2] for stem in stems] == [f"{i:02d}" for i in range(1, 8)]
    assert "06_report" in stems  # what the exporters read
    assert sorted(FIRST + LAST) == [*(stem[:2] for stem in stems), LIMITS.stem[:2]]


def test_an_executed_copy_knows_neither_clock_nor_machine(tmp_path):
    parameters = nbformat.v4.new_code_cell("lang = 'en'")
    parameters.metadata["tags"] = ["parameters"]
    language = {"language_info": {"name": "python"}}
    source = nbformat.v4.new_notebook(cells=[parameters], metadata=language)
    nbformat.write(source, tmp_path / "source.ipynb")
    copies = []
    for name in ("first.ipynb", "second.ipynb"):
        with shared_kernel() as manager:
            values = {"lang": "en"}
            execute(tmp_path / "source.ipynb", tmp_path / name, values, manager)
        copies.append((tmp_path / name).read_text(encoding="utf-8"))
    assert copies[0] == copies[1]
    for word in (str(tmp_path), str(Path.home()), "papermill", "_time", "duration"):
        assert word not in copies[0]


def test_a_notebook_sees_nothing_of_the_one_before(tmp_path):
    """They share a kernel, for its imports, and no variable."""
    script = "import os, sys\nseen = sorted(n for n in globals() if n[0] != '_')\n"
    script += (
        "print(seen, 'colorsys' in sys.modules, os.getpid())\nimport colorsys\nx = 1"
    )
    cell = nbformat.v4.new_code_cell(script)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbformat.write(notebook, tmp_path / "source.ipynb")
    with shared_kernel() as manager:
        for name in ("first", "second"):
            target = tmp_path / f"{name}.ipynb"
            execute(tmp_path / "source.ipynb", target, {}, manager)
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


@pytest.fixture
def endless(tmp_path):
    """A notebook that waits for ever, and says so."""
    script = f"import pathlib, time\npathlib.Path({str(tmp_path / 'on')!r}).touch()\n"
    cell = nbformat.v4.new_code_cell(script + "time.sleep(1000)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "endless.ipynb")
    return tmp_path / "endless.ipynb"


@pytest.mark.parametrize("cores, share", [(1, ["1"]), (2, ["1"] * 2), (5, ["2"] * 2)])
def test_kernels_share_the_cores_and_every_notebook_is_run_once(cores, share):
    seen, met = [], {}
    both = threading.Barrier(len(share), timeout=60)

    def work(path, kernel):
        if kernel not in met:
            met[kernel] = kernel.kernel_spec.env["OMP_NUM_THREADS"]
            both.wait()  # they are side by side
        seen.append(path)

    with lanes(cores) as found:
        side_by_side_in(found, work, range(7))
        side_by_side_in(found, work, [])
    assert sorted(seen) == [*range(7)] and [*met.values()] == share


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_one_lane_ends_the_other(endless, tmp_path, error):
    kernels, started = [], tmp_path / "on"

    def work(path, kernel):
        if path == endless:
            kernels.append(kernel)
            execute(path, tmp_path / "out.ipynb", {}, kernel)
        while not started.exists():
            time.sleep(0.05)
        kernels.append(psutil.Process(kernels[0].provisioner.pid))
        raise error

    start = time.monotonic()
    with lanes(2) as found, pytest.raises(error):
        side_by_side_in(found, work, [endless, "fails", endless])
    assert time.monotonic() - start < 60
    assert not kernels[1].is_running() and not (tmp_path / "out.ipynb").exists()


@pytest.mark.parametrize("cores, jobs", [(8, 2), (8, 3), (2, 3), (None, 2)])
def test_jobs_share_the_cores(cores, jobs, monkeypatch):
    for name in [name for name in os.environ if name.endswith("_NUM_THREADS")]:
        monkeypatch.delenv(name)
    if cores:
        monkeypatch.setattr("joblib._parallel_backends.cpu_count", lambda: cores)
    share = max((cores or joblib.cpu_count()) // jobs, 1)
    with side_by_side(jobs, None) as parallel:
        told = parallel(
            joblib.delayed(os.getenv)("OMP_NUM_THREADS") for _ in range(jobs)
        )
        taken = parallel(joblib.delayed(torch.get_num_threads)() for _ in range(jobs))
    assert told == [str(share)] * jobs
    # torch takes no more than the machine has
    assert taken == [min(share, joblib.cpu_count())] * jobs
