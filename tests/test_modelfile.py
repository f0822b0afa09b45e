"""A model in one file: the same to the bit, or refused by name, whatever is in it.

`ANOMALY_FUZZ=2000 pytest tests/test_modelfile.py` sets the number of mutations.
"""

import json
import os
import random

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from samples import refusal

import helpers as hp
from anomaly import modelfile
from anomaly.errors import InputError
from anomaly.gaussian import COVARIANCES
from anomaly.images import read_image
from anomaly.modelfile import load_model, pack, read_model_file, save_model, unpack

COUNT = int(os.environ.get("ANOMALY_FUZZ", 200))


@pytest.fixture(scope="module")
def model(tiny_settings):
    return hp.fit_model(tiny_settings(category="zipper", image_size=32))


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "zipper.safetensors"
    save_model(path, model)
    return path


def test_triangles():
    root = np.tril(np.random.default_rng(0).normal(size=(5, 7, 7)))
    packed = pack(root)
    assert packed.shape == (5, 28)
    assert packed[2].tolist() == root[2][np.tril_indices(7)].tolist()
    assert unpack(packed, 7).tobytes() == root.tobytes()
    assert unpack(pack(root[:0]), 7).shape == (0, 7, 7)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("image_score", ["max", "scan", 0.1])
def test_the_same_to_the_bit(tiny_settings, tmp_path, covariance, image_score):
    changes = {"covariance": covariance, "image_score": image_score}
    model = hp.fit_model(tiny_settings(category="zipper", **changes))
    save_model(tmp_path / "m.safetensors", model)
    again = load_model(tmp_path / "m.safetensors", device="cpu")
    for name, part in vars(model.gaussian).items():
        assert torch.equal(part, getattr(again.gaussian, name))
    assert again.threshold == model.threshold
    assert again.map_threshold == model.map_threshold
    assert again.scale == model.scale and again.data_sha256 == model.data_sha256
    test = hp.detect(model.settings).dataset.test
    for old, new in zip(model.answers(test), again.answers(test), strict=True):
        assert (old.score, old.p_value) == (new.score, new.p_value)
        assert old.heat.tobytes() == new.heat.tobytes()
        assert [r.box for r in old.regions] == [r.box for r in new.regions]


def test_what_is_in_it(model, path):
    """Nothing of this machine: no folder; no image but the mean of all."""
    about, arrays = read_model_file(path)
    assert about["settings"]["layers"] == ",".join(model.trunk.taps)
    assert not set(about["settings"]) & set(modelfile.MACHINE)
    assert str(model.settings.data) not in json.dumps(about)
    pixels = {name for name, array in arrays.items() if array.dtype == np.uint8}
    assert pixels == {"template"}


def test_what_may_differ(path):
    assert load_model(path, max_fpr=0.3).threshold.promised_fpr == pytest.approx(2 / 9)
    refusal(lambda: load_model(path, sigma=2.0), names=f"sigma: fixed by {path}")
    refusal(lambda: load_model(path, max_fpr=2.0), names="max_fpr")


def rewritten(path, target, change):
    """The file with its metadata changed, its digest right for them."""
    arrays = load(path.read_bytes())
    about, _ = read_model_file(path)
    change(about, arrays)
    text = json.dumps(about, sort_keys=True)
    digest = modelfile._digest(text, arrays)
    target.write_bytes(save(arrays, {"model": text, "sha256": digest}))
    return target


def other_root(about, arrays):
    arrays["root"] = arrays["root"][:, :-1].copy()


def other_type(about, arrays):
    arrays["mean"] = arrays["mean"].astype(np.float64)


def too_fine(about, arrays):
    arrays["mean"] = np.zeros((40, 4, arrays["mean"].shape[2]), np.float32)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda about, _: about.update(version="0.9"), "saved by version 0.9"),
        (lambda about, _: about.update(weights_sha256="0" * 64), "other weights"),
        (lambda about, _: about["settings"].update(backbone="vgg"), "backbone='vgg'"),
        (lambda about, _: about["settings"].update(backbone="resnet18"), "resnet18"),
        (lambda about, _: about["settings"].update(more=1), "damaged"),
        (lambda about, _: about.update(scale=[1.0]), "damaged"),
        (lambda about, _: about.update(scale=["a", "b"]), "damaged"),
        (lambda about, _: about.update(settings=[]), "damaged"),
        (lambda _, arrays: arrays.pop("root"), "damaged"),
        (lambda _, arrays: arrays.update(more=np.zeros(3)), "damaged"),
        (other_root, "damaged"),
        (other_type, "damaged"),
        (too_fine, "damaged"),
    ],
)
def test_another_is_refused_by_name(path, tmp_path, offline, change, said):
    target = rewritten(path, tmp_path / "other.safetensors", change)
    message = refusal(load_model, target, names=said)
    assert "other.safetensors" in message or said == "resnet18"  # no weights at hand


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 4000, b"PK\x03\x04" * 99])
def test_what_is_no_model(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    refusal(load_model, tmp_path / "m.safetensors", names="m.safetensors: damaged")
    refusal(load_model, tmp_path / "none", names="none: cannot be read")
    refusal(load_model, tmp_path, names=str(tmp_path))


def test_pickle_is_not_read(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "m.safetensors")
    refusal(load_model, tmp_path / "m.safetensors", names="damaged")


def test_whole_or_absent(model, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    refusal(save_model, tmp_path / "m.safetensors", model, names="No space left")
    assert not list(tmp_path.iterdir())


def test_mutated_files_are_refused(path, tmp_path):
    """Flipped, cut, repeated, overwritten: each is one line, and nothing is run."""
    content, target = path.read_bytes(), tmp_path / "mutated.safetensors"
    header = 8 + int.from_bytes(content[:8], "little")
    rng = random.Random(0)
    for _ in range(COUNT):
        data = bytearray(content)
        place = rng.randrange(rng.choice([16, header, len(data)]))
        kind = rng.choice(["flip", "cut", "repeat", "overwrite", "number"])
        if kind == "flip":
            data[place] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del data[place : place + rng.choice([1, 8, len(data)])]
        elif kind == "repeat":
            data[place:place] = data[place : place + rng.choice([1, 8, 999])]
        elif kind == "overwrite":
            data[place : place + 4] = rng.randbytes(4)
        else:  # a number in the header becomes another
            digits = [i for i in range(8, header) if chr(data[i]).isdigit()]
            data[rng.choice(digits)] = rng.choice(b"0123456789")
        if data == content:
            continue
        target.write_bytes(data)
        try:
            read_model_file(target)
        except InputError as error:
            assert str(target) in str(error) and len(str(error).splitlines()) == 1
        else:
            # what JSON ignores, or a digit of nothing that counts
            assert _same(target, path), kind


def _same(one, other):
    first, second = read_model_file(one), read_model_file(other)
    arrays = [{k: v.tobytes() for k, v in x[1].items()} for x in (first, second)]
    return first[0] == second[0] and arrays[0] == arrays[1]


def test_recalibrated_threshold_is_conformal(model, tiny):
    """From the scores of new images alone; the model stays what it was."""
    paths = sorted((tiny / "zipper" / "test").iterdir())
    again = model.recalibrated(paths)
    expected = [answer.score for answer in model.answers(paths)]
    assert again.threshold.value == pytest.approx(max(expected))
    assert again.threshold.n == len(again.normals.scores) <= len(paths)
    assert again.gaussian is model.gaussian and again.framing is model.framing
    looks = [model.framing.look(read_image(path))[2] for path in paths]
    assert all(row.tolist() in np.array(looks).tolist() for row in again.normals.seen)
