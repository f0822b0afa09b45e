"""Copies between the parts of a data set are found, and nothing else."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from samples import encode, tree

from anomaly.dataset import load_dataset
from anomaly.duplicates import find_duplicates
from anomaly.files import ROOT
from anomaly.images import read_image
from anomaly.labels import read_labels

SHARED = Path(os.environ.get("ANOMALY_SHARED", ROOT.parent / "shared"))


def scene(seed: int) -> np.ndarray:
    """Aligned products: one common shape, and a texture of each one's own."""
    y, x = np.mgrid[:128, :128]
    shape = 60 * (np.hypot(x - 64, y - 64) < 40) + 40 * (x % 16 < 8)
    own = np.random.default_rng(seed).normal(0, 25, (32, 32))
    own = cv2.resize(own, (128, 128), interpolation=cv2.INTER_CUBIC)
    return np.repeat(
        np.clip(80 + shape + own, 0, 255).astype(np.uint8)[..., None], 3, 2
    )


def rescaled(array: np.ndarray, factor: float) -> np.ndarray:
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(array, None, fx=factor, fy=factor, interpolation=method)


COPIES = {
    "identical": ("identical", lambda a: encode(a, ".png")),
    "other format": ("identical", lambda a: encode(a, ".bmp")),
    "jpeg": ("near", lambda a: encode(a, ".jpg")),
    "half size": ("near", lambda a: encode(rescaled(a, 0.5), ".png")),
    "double": ("near", lambda a: encode(rescaled(a, 2), ".png")),
    "brighter": ("near", lambda a: encode(cv2.add(a, (30, 30, 30, 0)), ".png")),
    "contrast": ("near", lambda a: encode(cv2.convertScaleAbs(a, alpha=0.7), ".png")),
}


@pytest.mark.parametrize("count", [1, 2, 12])
@pytest.mark.parametrize("name", COPIES)
def test_duplicates_between_train_and_test_are_found(tmp_path, name, count):
    kind, copy = COPIES[name]
    root = tree(tmp_path, **{"train/good": 0, "test": 0})
    good, test = root / "c/train/good", root / "c/test"
    for i in range(count):
        (good / f"{i}.png").write_bytes(encode(scene(i), ".png"))
        if i:
            (test / f"{i}.png").write_bytes(encode(scene(100 + i), ".png"))
    (test / "copy.png").write_bytes(copy(scene(0)))
    found = find_duplicates(load_dataset(root, "c"))
    assert found == [(good / "0.png", test / "copy.png", kind)]


def test_a_noisy_copy_is_told_from_the_mean_of_all(tmp_path):
    root = tree(tmp_path, **{"train/good": 0, "test": 0})
    for i in range(12):
        data = encode(scene(i), ".png")
        (root / f"c/train/good/{i}.png").write_bytes(data)
    copy = scene(0) + np.random.default_rng(0).normal(0, 16, (128, 128, 3))
    copy = np.clip(copy, 0, 255).astype(np.uint8)
    (root / "c/test/copy.png").write_bytes(encode(copy, ".png"))
    ((earlier, _, kind),) = find_duplicates(load_dataset(root, "c"))
    assert (earlier.name, kind) == ("0.png", "near")


def test_flat_pictures_are_duplicates_only_if_identical(tmp_path):
    root = tree(tmp_path, **{"train/good": 0, "test": 0})
    for i in range(1, 4):
        data = encode(scene(i), ".png")
        (root / f"c/train/good/{i}.png").write_bytes(data)
    for name, value in {"train/good/0": 9, "test/0": 9, "test/1": 90}.items():
        flat = np.full((20, 20, 3), value, np.uint8)
        flat[5, 5] += 1  # the same speck of dust on the sensor
        data = encode(flat, ".png")
        (root / f"c/{name}.png").write_bytes(data)
    ((_, later, kind),) = find_duplicates(load_dataset(root, "c"))
    assert (later.name, kind) == ("0.png", "identical")


@pytest.mark.skipif(not (SHARED / "data/course").exists(), reason="no real images")
@pytest.mark.parametrize("category", ["hazelnut", "zipper"])
def test_real_photos_copies_and_no_others_are_duplicates(tmp_path, category):
    dataset = load_dataset(SHARED / "data/course", category)
    assert read_labels(dataset).problems == []
    expected = []
    for i, (kind, copy) in enumerate(COPIES.values()):
        original = dataset.train_good[20 * i]
        (tmp_path / f"{i}.png").write_bytes(copy(read_image(original)))
        expected.append((original, tmp_path / f"{i}.png", kind))
    dataset.test.extend(later for _, later, _ in expected)
    assert find_duplicates(dataset) == expected
