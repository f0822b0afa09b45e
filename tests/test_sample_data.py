"""The sample data: reproducible, in the course's layout, with exact masks."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import make_sample_data as sample
from anomaly.errors import InputError
from anomaly.files import ROOT
from anomaly.labels import LABEL_FILE as LABELS
from sample_data import dataset
from sample_data.picture import CATEGORIES, DEFECTS, VISIBLE, render
from sample_data.plan import Plan

TINY = {
    "image_size": 64,
    "train_good": 3,
    "train_bad": 2,
    "test_good": 3,
    "test_bad": 4,
}
COMMITTED = {"train/good": 60, "train/bad": 10, "test": 40, "ground_truth": 16}


def read(path: Path) -> np.ndarray:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def snapshot(root: Path) -> dict[str, bytes]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files}


def expected_names(counts: dict[str, int], bad: set[str]) -> set[str]:
    names = {
        f"{folder}/{i + 1:03d}.png"
        for folder, count in counts.items()
        if folder != "ground_truth"
        for i in range(count)
    }
    return names | {f"ground_truth/{Path(name).name}" for name in bad}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("tiny")
    sample.make(out, **TINY)
    return out


def check_layout(root: Path, counts: dict[str, int], size: int) -> None:
    labels = json.loads((root / LABELS).read_text(encoding="utf-8"))
    for category in CATEGORIES:
        mine = {k: v for k, v in labels.items() if v["original_category"] == category}
        tests = {f"{category}/test/{i + 1:03d}.png" for i in range(counts["test"])}
        assert set(mine) == tests
        bad = {name for name, entry in mine.items() if entry["label"] == "bad"}
        assert len(bad) == counts["ground_truth"]
        for name, entry in mine.items():
            if name in bad:
                assert entry["defect"] in DEFECTS[category]
            else:
                assert entry == {"original_category": category, "label": "good"}
        folder = root / category
        files = {p.relative_to(folder).as_posix() for p in folder.rglob("*.png")}
        assert files == expected_names(counts, bad)
        shape = (size, size, 3) if category == "hazelnut" else (size, size)
        for name in files:
            pixels = read(folder / name)
            assert pixels.dtype == np.uint8
            if name.startswith("ground_truth"):
                assert pixels.shape == (size, size)
                assert set(np.unique(pixels)) == {0, 255}
            else:
                assert pixels.shape == shape
        # Good and bad are mixed, not one after the other.
        order = [mine[name]["label"] for name in sorted(mine)]
        assert order != sorted(order) and order != sorted(order, reverse=True)


def test_tiny_layout(tiny):
    counts = {"train/good": 3, "train/bad": 2, "test": 7, "ground_truth": 4}
    check_layout(tiny, counts, 64)


def test_committed_layout():
    check_layout(ROOT, COMMITTED, 256)


def test_same_seed_same_bytes(tiny, tmp_path):
    sample.make(tmp_path, **TINY)
    assert snapshot(tmp_path) == snapshot(tiny)


def test_another_seed_other_pictures(tiny, tmp_path):
    sample.make(tmp_path, seed=1, **TINY)
    first, second = snapshot(tiny), snapshot(tmp_path)
    name = "hazelnut/train/good/001.png"
    assert first[name] != second[name]


def test_every_committed_picture_is_its_own():
    for category in CATEGORIES:
        pictures = [
            path
            for part in ("train/good", "train/bad", "test")
            for path in sorted((ROOT / category / part).glob("*.png"))
        ]
        digests = {hashlib.sha256(read(path).tobytes()).digest() for path in pictures}
        assert len(digests) == len(pictures) == 110


@pytest.mark.parametrize("category", CATEGORIES)
def test_committed_data_are_what_the_tool_makes(category):
    plan = list(Plan().scenes(category))
    for i in (0, 65, 80, 99):  # train/good, train/bad, test good, test bad
        name, key, kind, level = plan[i]
        image, mask = render(category, key, 256, kind, level)
        stored = read(ROOT / category / name)
        stored = stored if stored.ndim == 2 else stored[..., ::-1]
        # Another CPU may round the last bit of a sine differently.
        off = np.abs(image.astype(int) - stored)
        assert (off > 1).mean() < 1e-3
        if kind and name.startswith("test/"):
            truth = read(ROOT / category / "ground_truth" / Path(name).name)
            assert (mask != truth).mean() < 1e-3


@pytest.mark.parametrize(
    ("category", "kind"), [(c, k) for c in CATEGORIES for k in DEFECTS[c]]
)
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_mask_is_where_the_defect_shows(category, kind, level):
    key = (5, CATEGORIES.index(category), 3, 0)
    bad, mask = render(category, key, 128, kind, level)
    good, empty = render(category, key, 128)
    assert not empty.any()
    change = np.abs(bad.astype(int) - good)
    change = change if change.ndim == 2 else change.max(axis=2)
    # One grey level for the rounding of two 8-bit pictures with the same grain.
    assert (change[mask == 0] <= VISIBLE + 1).all()
    assert (change[mask == 255] > VISIBLE - 1).mean() > 0.3
    assert 0 < (mask == 255).mean() < 0.25


def test_more_pictures_leave_the_first_ones_alone(tiny, tmp_path):
    sample.make(tmp_path, **{**TINY, "train_good": 5})
    name = "zipper/train/good/003.png"
    assert (tmp_path / name).read_bytes() == (tiny / name).read_bytes()


def test_remaking_one_category_keeps_the_other(tmp_path):
    sample.make(tmp_path, **TINY)
    before = snapshot(tmp_path)
    sample.make(tmp_path, ["zipper"], **{**TINY, "seed": 3, "test_bad": 1})
    after = snapshot(tmp_path)
    nuts = {k for k in before if k.startswith("hazelnut/")}
    assert {k: after[k] for k in nuts} == {k: before[k] for k in nuts}
    assert "zipper/test/005.png" not in after  # one of the older, larger set
    labels = json.loads(after[LABELS])
    assert sum(k.startswith("hazelnut/") for k in labels) == 7
    assert sum(k.startswith("zipper/") for k in labels) == 4


@pytest.mark.parametrize("name", ["zipper/notes.txt", "zipper/train/good/photo.png"])
def test_foreign_files_stop_it(tmp_path, capsys, name):
    foreign = tmp_path / name
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes())
    before = snapshot(tmp_path)
    assert sample.main(["--out", str(tmp_path), "--image-size", "64"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and foreign.name in error
    assert snapshot(tmp_path) == before


def test_a_failure_leaves_nothing_behind(tiny, tmp_path, monkeypatch):
    sample.make(tmp_path, **TINY)
    calls = []

    def fail(*args):
        calls.append(args)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return render(*args)

    monkeypatch.setattr(dataset, "render", fail)
    with pytest.raises(KeyboardInterrupt):
        sample.make(tmp_path, **{**TINY, "seed": 1})
    assert snapshot(tmp_path) == snapshot(tiny)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--train-good", "0"),
        ("--test-bad", "-1"),
        ("--image-size", "8"),
        ("--seed", "-1"),
    ],
)
def test_bad_options_end_in_one_line(tmp_path, capsys, option, value):
    assert sample.main(["--out", str(tmp_path / "new"), option, value]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_label_file_is_left_alone(tmp_path, text):
    (tmp_path / LABELS).write_text(text)
    with pytest.raises(InputError, match=LABELS):
        sample.make(tmp_path, **TINY)
    assert snapshot(tmp_path) == {LABELS: text.encode()}
