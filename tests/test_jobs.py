"""Categories side by side: in processes here, and on a Dask cluster."""

import json
import os
import socket
import subprocess
import sys

import pytest

import main
from anomaly.files import ROOT
from anomaly.report import run as runner

TIMES = {"seconds", "peak_rss_mb", "settings"}  # settings: of the output's place


def run(tiny, out, *options):
    """The runner on both categories; its console."""
    values = {"dataset_path": tiny, "visualization_dir": out, "image_size": 64}
    values |= {"backbone": "efficientnet_lite2", "device": "cpu"}
    command = [sys.executable, str(ROOT / "main.py"), "--no-pdf", *options]
    for name, value in values.items():
        command += ["-p", name, str(value)]
    cache = {"ANOMALY_CACHE": str(out.with_name(out.name + "-cache"))}
    threads = {"OMP_NUM_THREADS": "1"}  # as each gets side by side on two cores
    return subprocess.run(
        command, env=os.environ | cache | threads, capture_output=True, text=True
    )


def outputs(out):
    """{name: content} of both categories, without times."""
    found = {}
    for path in sorted(out.glob("*/**/*.*")):
        name = path.relative_to(out).as_posix()
        if path.suffix in (".csv", ".png"):
            found[name] = path.read_bytes()
        elif path.suffix == ".json":
            metrics = json.loads(path.read_text(encoding="utf-8"))
            found[name] = {key: metrics[key] for key in metrics.keys() - TIMES}
    return found


@pytest.fixture(scope="module")
def serial(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("serial") / "out"
    done = run(tiny, out)
    assert (done.returncode, done.stderr) == (0, "")
    return outputs(out)


@pytest.mark.slow
def test_jobs_give_the_same_bytes(tiny, tmp_path, serial):
    done = run(tiny, tmp_path / "out", "--jobs", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()[-2:]] == [
        "hazelnut",
        "zipper",
    ]
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    assert len(serial) == 2 * (7 + 1 + 2)  # heat maps, summary, scores and metrics
    assert outputs(tmp_path / "out") == serial


@pytest.mark.slow
def test_dask_gives_the_same_bytes(tiny, tmp_path, serial, cold_cache):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        done = run(tiny, tmp_path / "out", "--dask", address)
    assert (done.returncode, done.stderr) == (0, "")
    assert outputs(tmp_path / "out") == serial


@pytest.mark.parametrize(
    "address, listens",
    [
        ("nonsense", False),
        ("tcp://127.0.0.1:{port}", False),
        ("tcp://127.0.0.1:{port}", True),  # takes the connection, and is silent
    ],
)
def test_no_scheduler_is_one_line(address, listens, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(runner, "DASK_SECONDS", 1)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()
        address = address.format(port=server.getsockname()[1])
        arguments = ["--dask", address, "-p", "visualization_dir", str(tmp_path)]
        assert main.main(arguments) == 2
    expected = f"error: --dask {address}: no scheduler answers there within 1 s\n"
    assert capsys.readouterr().err == expected


def test_dask_without_its_package_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main.main(["--dask", "x:1", "-p", "visualization_dir", str(tmp_path)]) == 2
    expected = "error: --dask needs a package: pip install distributed\n"
    assert capsys.readouterr().err == expected


def test_jobs_and_dask_are_one_or_the_other(capsys):
    assert main.main(["--jobs", "2", "--dask", "x:1"]) == 2
    assert "not allowed with argument --jobs" in capsys.readouterr().err
