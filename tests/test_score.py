"""tools/score.py: new images against a model, as a user would run it."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

import helpers as hp
import score
from anomaly.baselines import PERTURBATIONS
from anomaly.files import ROOT, write_image
from anomaly.gaussian import COVARIANCES
from anomaly.images import read_image
from anomaly.modelfile import load_model

LINE = re.compile(r"(.+?)  score (\S+)  threshold (\S+)  (good|bad)  p (\S+)  .*")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def arguments(tiny_settings, out):
    """Those of the tiny data set."""
    settings, texts = tiny_settings(visualization_dir=str(out)), []
    for name in ("dataset_path", "image_size", "backbone", "visualization_dir"):
        texts += ["-p", name, str(getattr(settings, name))]
    return texts


@pytest.fixture(scope="module")
def saved(arguments, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "zipper.safetensors"
    assert (
        score.main(["--save", str(path), *arguments, "-p", "category", "zipper"]) == 0
    )
    return path


def run(capsys, *arguments):
    status = score.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, [m.groups() for m in map(LINE.fullmatch, out.splitlines()) if m], err


def panel(path):
    image = cv2.imread(str(path))
    assert image is not None and image.std() > 0
    return image


def expected_status(rows):
    return 3 if any(row[3] == "bad" for row in rows) else 0


@pytest.mark.parametrize("category", ["hazelnut", "zipper"])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_scores_are_those_of_the_evaluation(
    capsys, arguments, tiny, tiny_settings, tmp_path, category, covariance
):
    changes = {"category": category, "covariance": covariance}
    detection = hp.detect(tiny_settings(**changes))
    more = [text for pair in changes.items() for text in ("-p", *pair)]
    file = tmp_path / "answers.json"
    folder = tiny / category / "test"
    status, rows, err = run(capsys, folder, *arguments, *more, "--json", file)
    assert (status, err) == (expected_status(rows), "")
    assert [row[0] for row in rows] == [path.name for path in detection.dataset.test]
    threshold = detection.threshold.value
    for row, expected in zip(rows, detection.test_scores, strict=True):
        assert float(row[1]) == pytest.approx(expected, rel=1e-3)  # four digits
        assert float(row[2]) == pytest.approx(threshold, rel=1e-3)
        assert (row[3] == "bad") == (expected > threshold)
    values = [image["score"] for image in json.loads(file.read_text())["images"]]
    assert values == pytest.approx(detection.test_scores, rel=1e-4)


def test_one_image_of_any_shape(capsys, arguments, tmp_path, out):
    path = tmp_path / "zwei Nüsse 榛子.png"
    write_image(path, np.random.default_rng(0).integers(0, 256, (40, 90, 3), "u1"))
    status, rows, _ = run(capsys, path, *arguments)
    assert status == 3 and [row[0] for row in rows] == [path.name]
    assert rows[0][3] == "bad"
    heat = read_image(out / "hazelnut" / "scored" / f"heatmap_{path.stem}.png")
    assert len(heat) == 64 and heat.shape[1] > 3 * 64 * 90 / 40


def test_equal_names_do_not_overwrite_each_other(capsys, arguments, tiny, tmp_path):
    good, bad = sorted((tiny / "hazelnut" / "test").iterdir())[:2]
    for folder, source in (("a", good), ("b", bad)):
        (tmp_path / folder).mkdir()
        shutil.copy(source, tmp_path / folder / "one.png")
    shutil.copy(good, tmp_path / "a" / "ONE_2.PNG")
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "a" / "one.png"]
    status, rows, _ = run(capsys, *folders, "--out", tmp_path / "out", *arguments)
    assert status == expected_status(rows)
    assert [row[0] for row in rows] == ["ONE_2.PNG", "one.png", "one.png"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"heatmap_{n}.png" for n in ("ONE_2", "one", "one_3")}
    first, second = (
        panel(tmp_path / "out" / f"heatmap_one{n}.png") for n in ("", "_3")
    )
    assert (first != second).any()


def broken(folder):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return folder / "broken.png"


def test_a_foreign_file_does_not_stop_the_others(capsys, saved, tiny, tmp_path):
    folder = shutil.copytree(tiny / "zipper" / "test", tmp_path / "day")
    (folder / "IMG_1.HEIC").write_bytes(b"heic")
    (folder / "broken.png").symlink_to(tmp_path / "none.png")
    table = tmp_path / "a.csv"
    more = ["--model", saved, "--csv", table, "--out", tmp_path / "heat"]
    status, rows, err = run(capsys, folder, *more)
    assert status == 2 and len(rows) == 7
    assert err.count("\n") == 2 and "IMG_1.HEIC: convert" in err
    assert "broken.png: not a file" in err
    with table.open(newline="") as file:
        errors = [row["error"] for row in csv.DictReader(file)]
    assert len(errors) == 9 and sum(map(bool, errors)) == 2
    (tmp_path / "empty").mkdir()  # what another folder holds does not excuse it
    status, rows, err = run(capsys, folder, tmp_path / "empty", *more)
    assert (status, rows) == (2, []) and "no image here" in err


def empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def phone(folder):
    (folder / "phone").mkdir()
    (folder / "phone" / "IMG_1.HEIC").write_bytes(b"heic")
    return folder / "phone"


@pytest.mark.parametrize(
    "make, more, said",
    [
        (broken, "", "broken.png"),
        (empty, "", "no image here"),
        (phone, "", "IMG_1.HEIC: convert"),
        (lambda folder: folder / "none.png", "", "none.png: no such file"),
        (broken, "-p categry zipper", "unknown parameter 'categry'"),
        (broken, "-p category nut", "category 'nut'"),
        (broken, "-p sigma -1", "sigma"),
        (broken, "--what", "--what (see --help)"),
        (broken, "--save model.pth", "model.pth: name it *.safetensors or *.onnx"),
        (broken, "--model none.safetensors", "none.safetensors: cannot be read"),
        (broken, "--recalibrate none", "none: not a readable folder"),
    ],
)
def test_refused_in_one_line(capsys, arguments, tmp_path, make, more, said):
    status, rows, err = run(capsys, make(tmp_path), *arguments, *more.split())
    assert (status, rows) == (2, [])
    assert err.startswith("score: ") and err.count("\n") == 1 and said in err


def test_nothing_to_do(capsys, arguments):
    status, _, err = run(capsys, *arguments)
    assert status == 2 and "name images, or --save FILE" in err


def test_an_unreadable_image_does_not_stop_the_others(capsys, saved, tiny, tmp_path):
    """Named on stderr and in the files; the status says that something was amiss."""
    shutil.copytree(tiny / "zipper" / "test", tmp_path / "day")
    broken(tmp_path / "day")
    files = tmp_path / "a.json", tmp_path / "a.csv"
    more = ["--json", files[0], "--csv", files[1], "--out", tmp_path]
    status, rows, err = run(capsys, tmp_path / "day", "--model", saved, *more)
    assert status == 2 and len(rows) == 7
    assert err.count("\n") == 1 and "broken.png: cannot be read" in err
    answers = json.loads(files[0].read_text())["images"]
    assert [a["path"] for a in answers if "error" in a] == [
        str(tmp_path / "day" / "broken.png")
    ]
    with files[1].open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(answers) == 8
    assert sum(row["error"] != "" for row in table) == 1


def test_answers_in_full(capsys, saved, tiny, tmp_path):
    """Regions lie where the threshold of the map says, p-values where the ranks do."""
    model, file = load_model(saved, max_fpr=0.3), tmp_path / "answers.json"
    folder = shutil.copytree(tiny / "zipper" / "test", tmp_path / "day")
    noise = np.random.default_rng(0).integers(0, 256, (40, 90, 3), "u1")
    write_image(folder / "noise.png", noise)
    table = tmp_path / "answers.csv"
    more = ["--json", file, "--csv", table, "--out", tmp_path / "heat"]
    more += ["-p", "max_fpr", "0.3"]  # free to differ from the file's
    status, rows, _ = run(capsys, folder, "--model", saved, *more)
    said = json.loads(file.read_text())
    assert said["model"]["threshold"] == model.threshold.value
    assert said["model"]["promised_fpr"] == model.threshold.promised_fpr
    assert said["model"]["map_threshold"] == model.map_threshold.value
    assert said["drift_p"] is None or set(said["drift_p"]) == {
        *("scores", "place", "light")
    }
    with table.open(newline="") as lines:
        written = list(csv.DictReader(lines))
    paths, shown = sorted(folder.iterdir()), 0
    for path, row, answer, line in zip(
        paths, rows, said["images"], written, strict=True
    ):
        assert answer["path"] == line["path"] == str(path.absolute())
        assert (answer["decision"] == "bad") == (
            answer["score"] > model.threshold.value
        )
        assert (answer["decision"] == "bad") == (
            answer["p_value"] <= model.threshold.promised_fpr
        )
        normal = model.normals.scores
        rank = (1 + sum(normal >= answer["score"])) / (1 + len(normal))
        assert answer["p_value"] == rank == pytest.approx(float(row[4]), rel=0.1)
        assert int(line["regions"]) == len(answer["regions"])
        assert len(line["boxes"].split()) == len(answer["regions"])
        for region in answer["regions"]:
            shown += 1
            x, y, width, height = region["box"]
            contour = np.array(region["contour"])
            assert contour.min(0).tolist() == [x, y]
            assert (contour.max(0) - [x, y] + 1).tolist() == [width, height]
            assert region["peak"] > model.map_threshold.value
            assert region["share"] == region["area"] / math.prod(answer["size"])
    assert shown
    assert status == expected_status(rows)


def test_out_that_is_no_folder(capsys, arguments, tiny, tmp_path):
    (tmp_path / "file").write_text("")
    image = next((tiny / "hazelnut" / "test").iterdir())
    status, _, err = run(capsys, image, *arguments, "--out", tmp_path / "file" / "x")
    assert status == 2 and err.count("\n") == 1 and "file" in err


def test_fitted_once_and_fast(capsys, arguments, tiny, cold_cache, monkeypatch):
    """A second call takes the model from the cache; a further image is quick."""
    images = sorted((tiny / "hazelnut" / "test").iterdir())
    _, first, _ = run(capsys, images[0], *arguments)
    monkeypatch.setattr(hp, "fit_gaussian", None)
    monkeypatch.setattr(hp, "fit_framing", None)
    seconds = []
    for count in (1, len(images)):
        start = time.perf_counter()
        status, rows, _ = run(capsys, *images[:count], *arguments)
        seconds.append(time.perf_counter() - start)
        assert status == expected_status(rows) and rows[0] == first[0]
    assert seconds[1] - seconds[0] < len(images) - 1


def test_a_model_file_needs_no_data_set(saved, tiny, tiny_settings, tmp_path):
    """Without one, another process, other cores, other company: the same scores."""
    shutil.copytree(tiny / "zipper" / "test", tmp_path / "photos")
    for path in sorted((tmp_path / "photos").iterdir())[1:3]:
        path.unlink()
    shutil.copy(saved, tmp_path / "zipper.safetensors")
    command = [sys.executable, ROOT / "tools" / "score.py", "photos"]
    command += ["--model", "zipper.safetensors", "--out", "o", "--csv", "a.csv"]
    place = ["-p", "dataset_path", "nowhere"]
    done = subprocess.run(
        [*command, *place],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 3), done.stderr
    assert done.stdout.splitlines()[-1] == "heat maps in o"
    panel(tmp_path / "o" / "heatmap_001.png")
    with (tmp_path / "a.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    detection = hp.detect(tiny_settings(category="zipper"))
    left = np.delete(detection.test_scores, [1, 2])
    assert [row["score"] for row in table] == [f"{value:.6g}" for value in left]
    bad = left > detection.threshold.value
    assert [row["decision"] == "bad" for row in table] == bad.tolist()


def other_day(folder, images, name):
    folder.mkdir()
    for i, path in enumerate(images):
        write_image(folder / f"{i:02}.png", PERTURBATIONS[name](read_image(path)))
    return folder


def test_recalibrated(capsys, saved, tiny, tmp_path):
    """New normal images give a new threshold, and nothing else."""
    images = sorted((tiny / "zipper" / "train" / "good").iterdir())
    folder = other_day(tmp_path / "day", images, "blurred")
    new = tmp_path / "new.safetensors"
    status, _, err = run(
        capsys, "--model", saved, "--recalibrate", folder, "--save", new
    )
    assert (status, err) == (0, "")
    before, after = load_model(saved), load_model(new)
    assert after.normals.count == len(images)
    assert after.threshold.value != before.threshold.value
    assert (after.gaussian.root == before.gaussian.root).all()
    assert after.scale == before.scale
    _, rows, _ = run(capsys, folder, "--model", new, "--out", tmp_path / "o")
    highest = max(float(row[1]) for row in rows)
    assert highest == pytest.approx(after.threshold.value, rel=1e-3)
    assert all(row[3] == "good" for row in rows)


def test_refitted(capsys, arguments, saved, tiny, tmp_path):
    """The data set's normal images and new ones; the model says how many."""
    images = sorted((tiny / "zipper" / "train" / "good").iterdir())
    folder = other_day(tmp_path / "day", images[:3], "10 % darker")
    data = ["-p", "dataset_path", str(tiny)]
    status, _, err = run(
        capsys,
        "--model",
        saved,
        *data,
        "--refit",
        folder,
        "--save",
        tmp_path / "n.safetensors",
    )
    assert (status, err) == (0, "")
    before, after = load_model(saved), load_model(tmp_path / "n.safetensors")
    assert after.normals.count == before.normals.count + 3
    assert after.data_sha256 != before.data_sha256
    assert len(after.framing.seen) == len(images) + 3
