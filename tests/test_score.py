"""tools/score.py: new images against a fitted category, as a user would run it."""

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

LINE = re.compile(r"(.+?)  score (\S+)  threshold (\S+)  (good|bad)")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out")


@pytest.fixture
def arguments(tiny_settings, out):
    """Those of the tiny data set."""
    settings, texts = tiny_settings(visualization_dir=str(out)), []
    for name in ("dataset_path", "image_size", "backbone", "visualization_dir"):
        texts += ["-p", name, str(getattr(settings, name))]
    return texts


def run(capsys, *arguments):
    status = score.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, [m.groups() for m in map(LINE.fullmatch, out.splitlines()) if m], err


def panel(path):
    image = cv2.imread(str(path))
    assert image is not None and image.std() > 0
    return image


@pytest.mark.parametrize("category", ["hazelnut", "zipper"])
@pytest.mark.parametrize("covariance", hp.COVARIANCES)
def test_scores_are_those_of_the_evaluation(
    capsys, arguments, tiny, tiny_settings, category, covariance
):
    changes = {"category": category, "covariance": covariance}
    detection = hp.detect(tiny_settings(**changes))
    more = [text for pair in changes.items() for text in ("-p", *pair)]
    status, rows, err = run(capsys, tiny / category / "test", *arguments, *more)
    assert (status, err) == (0, "")
    assert [row[0] for row in rows] == [path.name for path in detection.dataset.test]
    threshold = detection.threshold.threshold
    for row, expected in zip(rows, detection.test_scores, strict=True):
        assert float(row[1]) == pytest.approx(expected, rel=1e-3)  # four digits
        assert float(row[2]) == pytest.approx(threshold, rel=1e-3)
        assert (row[3] == "bad") == (expected > threshold)
    settings = tiny_settings(**changes)
    found = list(score.score(detection.dataset.test, settings, out=tiny.parent / "x"))
    values = [value for _, value, _, _ in found]
    assert values == pytest.approx(detection.test_scores, rel=1e-4)


def test_one_image_of_any_shape(capsys, arguments, tmp_path, out):
    path = tmp_path / "zwei Nüsse 榛子.png"
    hp.write_image(path, np.random.default_rng(0).integers(0, 256, (40, 90, 3), "u1"))
    status, rows, _ = run(capsys, path, *arguments)
    assert status == 0 and [row[0] for row in rows] == [path.name]
    assert rows[0][3] == "bad"
    heat = hp.read_image(out / "hazelnut" / "scored" / f"heatmap_{path.stem}.png")
    assert len(heat) == 64 and heat.shape[1] > 3 * 64 * 90 / 40


def test_equal_names_do_not_overwrite_each_other(capsys, arguments, tiny, tmp_path):
    good, bad = sorted((tiny / "hazelnut" / "test").iterdir())[:2]
    for folder, source in (("a", good), ("b", bad)):
        (tmp_path / folder).mkdir()
        shutil.copy(source, tmp_path / folder / "one.png")
    shutil.copy(good, tmp_path / "a" / "ONE_2.PNG")
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "a" / "one.png"]
    status, rows, _ = run(capsys, *folders, "--out", tmp_path / "out", *arguments)
    assert status == 0
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
    ],
)
def test_refused_in_one_line(capsys, arguments, tmp_path, make, more, said):
    status, rows, err = run(capsys, make(tmp_path), *arguments, *more.split())
    assert (status, rows) == (2, [])
    assert err.startswith("score: ") and err.count("\n") == 1 and said in err


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
    monkeypatch.setattr(hp, "extract_features", None)
    seconds = []
    for count in (1, len(images)):
        start = time.perf_counter()
        status, rows, _ = run(capsys, *images[:count], *arguments)
        seconds.append(time.perf_counter() - start)
        assert status == 0 and rows[0] == first[0]
    assert seconds[1] - seconds[0] < len(images) - 1


def test_as_a_user_types_it(arguments, tiny, tmp_path):
    """From another folder, with a relative path."""
    shutil.copy(next((tiny / "hazelnut" / "test").iterdir()), tmp_path / "photo.png")
    command = [
        sys.executable,
        hp.ROOT / "tools" / "score.py",
        "photo.png",
        "--out",
        "o",
    ]
    done = subprocess.run(
        [*command, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heat maps in o"
    panel(tmp_path / "o" / "heatmap_photo.png")
