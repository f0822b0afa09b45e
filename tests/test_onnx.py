"""The ONNX graph says what PyTorch says, alone and in batches; needs its packages."""

import json

import numpy as np
import pytest
from samples import refusal

import helpers as hp
from anomaly import onnx
from anomaly.images import read_image
from anomaly.scores import anomaly_map


def test_spread_is_the_map():
    patches = np.random.default_rng(0).random((8, 12), np.float32)
    expected = anomaly_map(patches, (96, 96), 4.0)
    found = onnx.spread(8, 96, 4.0) @ patches @ onnx.spread(12, 96, 4.0).T
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    said = "m.onnx: onnx and onnxscript not installed: pip install onnx onnxscript"
    refusal(onnx.save_onnx, tmp_path / "m.onnx", None, names=said)


@pytest.mark.parametrize(
    "changes",
    [
        {"covariance": "global"},
        {"covariance": "position", "image_score": "max"},
        {"covariance": "shrunk", "image_score": 0.1},
        {"covariance": "shrunk", "image_score": "scan"},
    ],
)
def test_the_graph_says_what_pytorch_says(tiny_settings, tmp_path, changes):
    """To 1e-4: features are rounded to half precision, where a last bit may flip."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = hp.fit_model(tiny_settings(category="zipper", **changes))
    onnx.save_onnx(tmp_path / "m.onnx", model)
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"))
    paths = hp.detect(model.settings).dataset.test[:4]
    windows = np.stack([model.framing.apply(read_image(path))[0] for path in paths])
    distances = model._score(windows)[1]
    size = (model.framing.size,) * 2
    maps = [anomaly_map(d, size, model.settings.sigma) for d in distances]
    expected = distances, model.image_scores(distances), np.stack(maps)
    for batch in (1, 4):
        parts = [
            session.run(None, {"window": windows[i : i + batch]})
            for i in range(0, 4, batch)
        ]
        for found, wanted in zip(zip(*parts, strict=True), expected, strict=True):
            gap = np.abs(np.concatenate(found) - wanted).max()
            assert gap <= 1e-4 * np.abs(wanted).max()
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["threshold"]) == model.threshold.value
    assert json.loads(said["image_size"]) == 64
