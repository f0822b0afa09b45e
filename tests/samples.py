"""What several test files make: images, folders, labels, scores."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anomaly.dataset import load_dataset
from anomaly.errors import InputError
from anomaly.features import patch_features
from anomaly.labels import LABEL_FILE, Labels, read_labels
from anomaly.network import load_trunk

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RGB[..., 0]
noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)


def encode(array, suffix: str) -> bytes:
    """Encode by OpenCV, so that what Pillow reads was not written by Pillow."""
    array = array[..., ::-1] if array.ndim == 3 else array
    return cv2.imencode(suffix, array)[1].tobytes()


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(call, *args, names: str = "") -> str:
    """The message of the InputError that `call` must raise."""
    with pytest.raises(InputError) as caught:
        call(*args)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert names in message
    return message


def tree(root: Path, **folders) -> Path:
    """Lay out category c: good="2" images in train/good, and so on."""
    folders = {"train/good": 2, "test": 2} | folders
    for number, (folder, count) in enumerate(folders.items()):
        (root / "c" / folder).mkdir(parents=True)
        for i in range(count):
            image = np.random.default_rng([number, i]).integers(0, 256, (9, 9, 3))
            data = encode(image.astype(np.uint8), ".png")
            (root / "c" / folder / f"{i:03}.png").write_bytes(data)
    return root


def label(root: Path, entries) -> Labels:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    (root / LABEL_FILE).write_bytes(text)
    return read_labels(load_dataset(root, "c"))


def sample(seed, good=40, bad=70, shift=1.5, decimals=1):
    """Labels and scores; one decimal makes plenty of ties within and across classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], [good, bad]))
    return labels, np.round(rng.normal(size=good + bad) + shift * labels, decimals)


def small_trunk(name="resnet18", **options):
    return load_trunk(name, **{"image_size": 64, "device": "cpu", **options})


def features(trunk):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    return patch_features(trunk, images)
