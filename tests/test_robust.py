"""Odd but legal data give whole results; what is wrong ends in one line, exit 2."""

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

import helpers as hp
import main
from anomaly.cache import cache_folder
from anomaly.errors import InputError
from anomaly.files import ROOT, write_image
from anomaly.images import read_image
from anomaly.labels import LABEL_FILE

resource = pytest.importorskip("resource")  # not on Windows


@pytest.fixture
def data(tiny, tmp_path):
    shutil.copytree(tiny / "hazelnut", tmp_path / "data/hazelnut")
    shutil.copy(tiny / LABEL_FILE, tmp_path / "data")
    return tmp_path / "data"


def files(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def visible(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def keep(count):
    def thin(root):
        for path in sorted((root / "hazelnut/train/good").iterdir())[count:]:
            path.unlink()

    return thin


def relabel(change):
    def write(root):
        path = root / LABEL_FILE
        entries = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(change(entries)), encoding="utf-8")

    return write


def only(label):
    return relabel(lambda old: {k: v for k, v in old.items() if v["label"] == label})


def repaint(paint):
    def write(root):
        for i, path in enumerate(sorted(root.glob("hazelnut/t*/**/*.png"))):
            write_image(path, paint(i, read_image(path)))
        shutil.rmtree(root / "hazelnut/ground_truth")

    return write


def sized(i, image):
    return np.ascontiguousarray(image[: 64 - 7 * (i % 5), : 64 - 11 * (i % 4)])


UNDEFINED = {"auroc", "average_precision", "oracle"}
LEGAL = {  # how the data are changed, and the figures that are null then
    "2 training images": (keep(2), set()),
    "5 training images": (keep(5), set()),
    "no label file": (lambda root: (root / LABEL_FILE).unlink(), UNDEFINED),
    "no label": (relabel(lambda old: {}), UNDEFINED),
    "good labels alone": (only("good"), UNDEFINED),
    "bad labels alone": (only("bad"), UNDEFINED),
    "some labels": (relabel(lambda old: dict(list(old.items())[:5])), set()),
    "constant images": (repaint(lambda i, image: np.full_like(image, 90 + i)), set()),
    "black and white": (repaint(lambda i, image: image * 0 + i % 2 * 255), set()),
    "mixed sizes": (repaint(sized), set()),
    "1 x 1": (repaint(lambda i, image: image[:1, :1]), set()),
    "no train/bad": (lambda root: shutil.rmtree(root / "hazelnut/train/bad"), set()),
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal_data(data, tmp_path, tiny_settings, name):
    change, null = LEGAL[name]
    change(data)
    before = files(data)
    out = tmp_path / "out"
    settings = tiny_settings(dataset_path=str(data), visualization_dir=str(out))
    metrics = hp.save_evaluation(settings)
    assert {key for key in UNDEFINED if metrics[key] is None} == null
    assert null <= set(metrics["null_reasons"])
    text = (out / "hazelnut/metrics.json").read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(json.dumps(metrics))
    with (out / "hazelnut/scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["filename"] for row in rows] == sorted(row["filename"] for row in rows)
    assert len(rows) == 7 and all(np.isfinite(float(row["score"])) for row in rows)
    assert sum(row["label"] == "" for row in rows) == metrics["n_test_unlabelled"]
    assert visible(out) == ["metrics.json", "scores.csv"]
    assert files(data) == before


def cut(path):
    def write(root):
        whole = (root / path).read_bytes()
        (root / path).write_bytes(whole[: len(whole) // 2])

    return write


def nothing(root):
    pass


WRONG = {  # how the data are changed, parameters, what the line says
    "1 training image": (keep(1), {}, "train/good: one picture is too few"),
    "category": (nothing, {"category": "hazelnuts"}, "did you mean 'hazelnut'?"),
    "layer": (nothing, {"layers": "stage3,layer9"}, "has no layer9; it has stem"),
    "weights": (nothing, {"weights": "/no/w.pth"}, "there is no file /no/w.pth"),
    "cut test image": (cut("hazelnut/test/001.png"), {}, "test/001.png: cannot be"),
    "cut training image": (cut("hazelnut/train/good/002.png"), {}, "good/002.png: ca"),
    "cut labels": (cut(LABEL_FILE), {}, "labels.json: not JSON"),
    "label": (
        relabel(lambda old: old | {"hazelnut/test/001.png": {"label": "fine"}}),
        {},
        "entry 'hazelnut/test/001.png': needs \"label\"",
    ),
}


def arguments(settings, **parameters):
    """The command line of these settings."""
    values = {
        "dataset_path": settings.dataset_path,
        "category": "hazelnut",
        "image_size": 64,
        "device": "cpu",
        "backbone": "efficientnet_lite2",
        "visualization_dir": settings.visualization_dir,
        **parameters,
    }
    return [text for k, v in values.items() for text in ("-p", k, str(v))]


def run(capsys, settings, **parameters):
    """Exit status and the one line on stderr."""
    status = main.main(arguments(settings, **parameters))
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    return status, line


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line(data, tmp_path, tiny_settings, capsys, name):
    change, parameters, said = WRONG[name]
    change(data)
    before = files(data)
    out = tmp_path / "out"
    settings = tiny_settings(dataset_path=str(data), visualization_dir=str(out))
    status, line = run(capsys, settings, **parameters)
    assert status == 2 and said in line
    assert visible(out) == ["error.log"]
    assert "InputError" in (out / "error.log").read_text(encoding="utf-8")
    assert files(data) == before


@pytest.mark.parametrize("place", ["out", "out/hazelnut"])
def test_a_file_in_the_way_is_told_before_the_work(
    tmp_path, tiny_settings, capsys, monkeypatch, place
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    monkeypatch.setattr(hp, "detect", None)  # not reached
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(b"mine")
    settings = tiny_settings(visualization_dir=str(tmp_path / "out"))
    status, line = run(capsys, settings)
    assert status == 2 and str(tmp_path / "out/hazelnut") in line
    assert "choose another folder" in line
    assert (tmp_path / place).read_bytes() == b"mine"


@pytest.mark.slow
@pytest.mark.parametrize("size, logs", [(20_000, ["error.log"]), (1, [])])
def test_full_disk(tmp_path, tiny_settings, size, logs):
    """In a process of its own, none of whose files may grow beyond a size."""
    (tmp_path / "temp").mkdir()
    settings = tiny_settings(visualization_dir=str(tmp_path / "out"))
    places = {"ANOMALY_CACHE": tmp_path / "cold", "TMPDIR": tmp_path / "temp"}
    places["JOBLIB_MULTIPROCESSING"] = 0  # its semaphores are files
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", *arguments(settings)],
        env=os.environ | {name: str(place) for name, place in places.items()},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        capture_output=True,
        text=True,
    )
    line = done.stderr
    assert line.startswith("error: ") and line.count("\n") == 1
    assert done.returncode == 2 and "(File too large); free some space" in line
    assert visible(tmp_path) == logs


def test_full_disk_leaves_the_outputs_before(tmp_path, tiny_settings, monkeypatch):
    settings = tiny_settings(visualization_dir=str(tmp_path))
    hp.save_evaluation(settings)
    before = files(tmp_path)
    replace = os.replace

    def full(source, target):
        if "metrics" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="metrics.json.*No space left.*free some"):
        hp.save_evaluation(settings)
    assert files(tmp_path) == before


def outcome(settings):
    """scores.csv and metrics.json without times; the next run starts cold."""
    hp.save_evaluation(settings)
    text = (settings.output / "metrics.json").read_text(encoding="utf-8")
    values = {
        k: v for k, v in json.loads(text).items() if k not in ("seconds", "peak_rss_mb")
    }
    shutil.rmtree(cache_folder())
    cache_folder.cache_clear()
    return (settings.output / "scores.csv").read_bytes(), json.dumps(values)


@pytest.mark.slow
def test_the_order_of_files_on_disk_is_no_matter(
    data, tmp_path, tiny_settings, cold_cache
):
    settings = tiny_settings(
        dataset_path=str(data), visualization_dir=str(tmp_path / "out")
    )
    first = outcome(settings)
    again = outcome(settings)
    paths = [p.relative_to(data) for p in data.rglob("*") if p.is_file()]
    data.rename(tmp_path / "old")
    for i in np.random.default_rng(0).permutation(len(paths)):
        (data / paths[i]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "old" / paths[i], data / paths[i])
    assert first == again == outcome(settings)


@pytest.mark.slow
def test_batch_size_is_no_matter(tiny_settings, cold_cache):
    runs = []
    for size in (1, 3, 16):
        settings = tiny_settings(dataset_path="", image_size=256, batch_size=size)
        detection = hp.detect(settings)
        runs.append(np.concatenate([detection.normal_scores, detection.test_scores]))
        cache_folder.cache_clear()
        for path in cache_folder().iterdir():
            path.unlink()
    for other in runs[1:]:
        np.testing.assert_allclose(runs[0], other, rtol=1e-5)


def test_wide_resnet_without_network_is_one_line(offline, tiny, tmp_path, capsys):
    arguments = ["-p", "backbone", "wide_resnet50_2", "-p", "dataset_path", str(tiny)]
    arguments += ["-p", "visualization_dir", str(tmp_path / "out"), "--no-pdf"]
    start = time.monotonic()
    assert main.main(arguments) == 2
    assert time.monotonic() - start < 20
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "wide_resnet50_2: its weights are neither cached nor" in err
    assert "weights=" in err and "backbone=auto" in err
    assert "Traceback" in (tmp_path / "out" / "error.log").read_text()


@pytest.mark.slow
def test_wide_resnet_behind_a_dead_resolver(tiny, tmp_path):
    """The real thing in a process of its own: it ends in time and leaves nothing."""
    code = f"""
import socket, sys, time
socket.getaddrinfo = lambda *args, **more: time.sleep(60)
import main
print(time.monotonic())
status = main.main({["-p", "backbone", "wide_resnet50_2", "-p", "category", "zipper"]}
    + ["-p", "dataset_path", {str(tiny)!r}, "-p", "visualization_dir", "{tmp_path}"])
print(time.monotonic())
sys.exit(status)
"""
    environment = {**os.environ, "TORCH_HOME": str(tmp_path / "torch")}
    environment = {k: v for k, v in environment.items() if "proxy" not in k.lower()}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    first, *_, last = done.stdout.split("\n")[:-1]
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert float(last) - float(first) < 20
    assert not list((tmp_path / "torch" / "hub" / "checkpoints").iterdir())
