"""Kill -9 and Ctrl-C at any moment: the same command again gives the same outputs.

As a script it works on a category, whole (`work`) or killed at random (`kill`).
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import psutil
import pytest

import helpers as hp
from anomaly.cache import cache_folder
from anomaly.files import PART, ROOT, write_image
from anomaly.images import read_image
from anomaly.labels import LABEL_FILE
from anomaly.report.pictures import heatmap_panel
from anomaly.settings import Settings

KILLS = int(os.environ.get("ANOMALY_KILLS", 24))
TIMES = {"seconds", "peak_rss_mb"}
SINGLE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
SINGLE["PYTHONPATH"] = str(ROOT)
NAMES = ["<script>x.png", '#read("x").png', "$x$_*a*.png", "坚果 🌰.png", "a b.PNG"]
CATEGORY = "<b>榛 子 🌰"


def work(settings):
    """What the notebooks compute and write, without their kernels."""
    detection = hp.detect(settings)
    look = {"contour": hp.fit_model(settings).map_threshold.value}
    for index, path in enumerate(detection.dataset.test):
        anomaly = detection.map(index)
        image, scale = read_image(path), detection.scale
        panel = heatmap_panel(image, anomaly, scale, settings.colormap, **look)
        name = f"heatmap_{path.stem}.png"
        write_image(settings.output / "heatmaps" / name, panel)
    hp.save_evaluation(settings)


def outputs(settings):
    """{name: bytes} of what a reader sees: no hidden file, metrics without times."""
    found = {}
    for path in sorted(settings.output.rglob("[!.]*.[cjp]*")):  # csv, json, png
        content = path.read_bytes()
        if path.name == "metrics.json":
            metrics = json.loads(content)
            content = {key: metrics[key] for key in metrics.keys() - TIMES}
        if path.suffix in (".csv", ".json") or path.parent.name == "heatmaps":
            found[path.relative_to(settings.output).as_posix()] = content
    return found


def child(settings, delay):
    """Work in a fork, killed after `delay` seconds; its exit status, None if killed."""
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            work(settings)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + delay
    while time.monotonic() < end:
        if (done := os.waitpid(pid, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(done[1])
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def kill(settings, count):
    """Kill `count` runs; every run that comes to its end starts another cold one."""
    rng, kills, wholes = random.Random(0), 0, 0

    def clear():
        shutil.rmtree(settings.output, ignore_errors=True)
        shutil.rmtree(os.environ["ANOMALY_CACHE"], ignore_errors=True)
        os.mkdir(os.environ["ANOMALY_CACHE"])

    cache_folder()  # before the forks
    start = time.monotonic()
    assert child(settings, 600) == 0
    whole = time.monotonic() - start
    expected = outputs(settings)
    assert {"scores.csv", "metrics.json"} < set(expected)
    clear()
    while kills < count or wholes == 0:
        left = kills < count
        status = child(settings, rng.uniform(0, whole) if left else 600)
        seen = outputs(settings)
        if status is None:
            kills += 1
            assert seen.items() <= expected.items(), "a torn or stale file"
        else:
            assert status == 0 and seen == expected
            wholes += 1
            if left:
                clear()
    assert child(settings, 600) == 0 and outputs(settings) == expected
    print(json.dumps({"kills": kills, "wholes": wholes, "files": len(expected)}))


if __name__ == "__main__":
    values = Settings(**json.loads(sys.argv[2]))
    work(values) if sys.argv[1] == "work" else kill(values, int(sys.argv[1]))


def script(what, settings, cache):
    """Run this file on the settings."""
    text = json.dumps(asdict(settings))
    done = subprocess.run(
        [sys.executable, __file__, str(what), text],
        env={**os.environ, **SINGLE, "ANOMALY_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments(tiny_settings, tmp_path):
    out = script(
        KILLS,
        tiny_settings(visualization_dir=str(tmp_path / "out")),
        tmp_path / "cache",
    )
    report = json.loads(out.splitlines()[-1])
    assert report["kills"] == KILLS and report["files"] == 2 + 7
    print(report)


@pytest.fixture(scope="module")
def weird(tiny, tmp_path_factory):
    """Ill-natured names, one of them unlabelled, a link, sizes mixed."""
    root = tmp_path_factory.mktemp("weird") / "数据 🌰 a'b"
    shutil.copytree(tiny / "hazelnut", root / CATEGORY)
    shutil.rmtree(root / CATEGORY / "ground_truth")
    test = root / CATEGORY / "test"
    labels = {}
    for i, path in enumerate(sorted(test.iterdir())):
        if i < len(NAMES):
            path = path.rename(test / NAMES[i])
        if i:  # the first is unlabelled
            entry = {"label": "bad", "defect": NAMES[0]} if i % 2 else {"label": "good"}
            labels[f"{CATEGORY}/test/{path.name}"] = entry
    image = read_image(test / NAMES[1])
    write_image(test / NAMES[1], image[:40])
    good = sorted((root / CATEGORY / "train/good").iterdir())
    shutil.move(good[0], root / "elsewhere.png")
    good[0].symlink_to(root / "elsewhere.png")
    text = json.dumps(labels, ensure_ascii=False)
    (root / LABEL_FILE).write_text(text, encoding="utf-8")
    for path in root.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield root
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755)


def state(root):
    """Every file of the data, to be left as it is."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [(path, path.stat().st_mtime_ns, path.read_bytes()) for path in files]


def start(settings, cache):
    command = [sys.executable, str(ROOT / "main.py")]
    for name, value in asdict(settings).items():
        command += ["-p", name, str(value)]
    return subprocess.Popen(
        command,
        env={**os.environ, **SINGLE, "ANOMALY_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def hit(process, number, until, delay):
    """Signal the process group `delay` seconds after the line `until`; who is left."""
    for line in process.stdout if until else ():
        if until in line:
            break
    time.sleep(delay)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    error = process.communicate(timeout=60)[1]
    _, alive = psutil.wait_procs(family, timeout=20)  # kernels notice within seconds
    return error, alive


MOMENTS = [  # signal, after the line, seconds
    (signal.SIGINT, "", 0.3),
    (signal.SIGINT, "", 2.0),
    (signal.SIGINT, "backbone", 0.2),
    (signal.SIGKILL, "features", 1.0),
    (signal.SIGINT, "features", 3.0),
    (signal.SIGKILL, "01_", 0.1),
]


@pytest.mark.slow
def test_interrupted_and_killed_then_whole(weird, tiny_settings, tmp_path):
    settings = tiny_settings(
        dataset_path=str(weird),
        category=CATEGORY,
        visualization_dir=str(tmp_path / "out 图"),
    )
    before = state(weird)
    script("work", settings, tmp_path / "other")
    expected = outputs(settings)
    shutil.rmtree(settings.output)
    for number, until, delay in MOMENTS:
        process = start(settings, tmp_path / "cache")
        error, alive = hit(process, number, until, delay)
        assert not alive, (number, until)
        if number == signal.SIGINT:
            assert process.returncode == 130, error
            assert error == "error: interrupted; the same command goes on\n"
        assert outputs(settings).items() <= expected.items()

    process = start(settings, tmp_path / "cache")
    out, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    assert out.splitlines()[-1].startswith(f"{CATEGORY}: AUROC 0.")
    seen = outputs(settings)
    assert {name: seen[name] for name in expected} == expected
    assert len(list((settings.output / "heatmaps").glob("heatmap_*.png"))) == 7
    page = (settings.output / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<b>榛" not in page
    assert "&lt;script&gt;x.png" in page
    assert (settings.output / "report.pdf").read_bytes().startswith(b"%PDF")
    assert state(weird) == before


@pytest.mark.slow
def test_two_runs_at_once(tiny_settings, tmp_path):
    settings = tiny_settings(visualization_dir=str(tmp_path / "out"))
    text = json.dumps(asdict(settings))
    both = [
        subprocess.Popen(
            [sys.executable, __file__, "work", text],
            env={**os.environ, **SINGLE, "ANOMALY_CACHE": str(tmp_path / "cache")},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        error = process.communicate()[1]
        assert process.returncode == 0, error
    together = outputs(settings)
    shutil.rmtree(settings.output)
    script("work", settings, tmp_path / "alone")
    assert outputs(settings) == together
    assert not list(tmp_path.rglob(f"{PART}*"))
