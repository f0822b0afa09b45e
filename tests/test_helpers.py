"""The stages, on the sample data in little."""

from collections import Counter
from dataclasses import replace
from operator import attrgetter

import numpy as np
import pytest
import torch

import helpers as hp
import make_sample_data
from anomaly import images
from anomaly.errors import InputError
from anomaly.features import PROJECTION
from anomaly.gaussian import Gaussian
from anomaly.images import read_image
from anomaly.scores import WHOLE, anomaly_maps, map_scale
from anomaly.settings import Settings


def test_stages_know_the_precision(tiny_settings, monkeypatch):
    monkeypatch.setattr("anomaly.settings.has_bfloat16", lambda device: True)
    full, low = (
        hp.detect(tiny_settings(precision=p)).test for p in ("float32", "bfloat16")
    )
    assert not np.array_equal(full, low)
    np.testing.assert_allclose(full, low, rtol=0.1)


def test_features_and_gaussian_are_not_copied_before_they_are_used(tiny_settings):
    features = hp.extract_features(tiny_settings())
    for part in ("good", "bad", "test"):
        assert features.half[part].dtype == torch.float16
        assert getattr(features, part).dtype == torch.float32
        assert torch.equal(getattr(features, part), features.half[part].float())
    again = hp.fit(tiny_settings())
    array = again.root.numpy()
    assert np.shares_memory(Gaussian.of("cpu", **again.arrays()).root.numpy(), array)


FITS = ("fit_gaussian", "cross_validated_scores", "memory_bank_scores", "stream")


def counted(work, calls):
    def call(*arguments, **options):
        calls.append(work.__name__)
        return work(*arguments, **options)

    return call


@pytest.mark.parametrize(
    "change",
    [{"sigma": 1.0}, {"colormap": "magma"}, {"max_fpr": 0.2}, {"lang": "zh"}],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_drawing_fits_nothing_again(tiny_settings, monkeypatch, change):
    calls = []
    for name in FITS:
        monkeypatch.setattr(hp, name, counted(getattr(hp, name), calls))
    scored = counted(hp.Model.patch_scores, calls)
    monkeypatch.setattr(hp.Model, "patch_scores", scored)
    first = hp.evaluate(tiny_settings(visualization_dir="elsewhere"))
    calls.clear()
    changed = tiny_settings(**change)
    assert hp.detect(changed).map(0).shape == (64, 64)
    assert hp.evaluate(changed)["auroc"] == first["auroc"]
    assert not calls


@pytest.mark.parametrize("name", ["no-such.pth", ".", "~/no-such.pth"])
def test_weights_that_are_no_file(name, tiny_settings):
    wrong = tiny_settings(weights=name, backbone="resnet18")
    for stage in (attrgetter("network"), hp.detect, hp.extract_features):
        with pytest.raises(InputError, match="^weights='.*there is no file"):
            stage(wrong)


def test_a_category_without_train_bad_is_projected_alike(tmp_path):
    make_sample_data.make(
        tmp_path, image_size=64, train_good=3, train_bad=0, test_good=2, test_bad=1
    )
    settings = Settings(
        dataset_path=str(tmp_path), image_size=64, backbone="efficientnet_lite2"
    )
    detection = hp.detect(settings)
    assert detection.bad.shape[0] == 0
    assert detection.embedding.shape == (3, PROJECTION)


def test_scores_stay_on_another_day(tiny_settings):
    """Shifted by 2 %, an aligned product scores about as before."""
    picks, scores = hp.steadiness(tiny_settings(image_score=0.02))
    for name, row in scores.items():
        change = np.abs(row / scores["none"] - 1).mean()
        assert change < 0.35, (name, change)


def test_normal_maps_lie_where_their_windows_lay(tiny_settings):
    """The scale compares maps of one kind: as if the normal images were tested."""
    detection = hp.detect(tiny_settings(sigma=2.0))
    normal, windows = detection.normal, detection.windows["good"]
    assert windows.shape == (len(normal), 4)
    swapped = replace(
        detection, test=normal, windows={**detection.windows, "test": windows}
    )
    maps = np.stack([swapped.map(i) for i in range(len(normal))])
    assert detection.scale == map_scale(maps)
    unmoved = anomaly_maps(normal, [WHOLE] * len(normal), 64, 2.0)
    assert detection.scale != map_scale(unmoved)


def test_windows_of_every_part_are_told(tiny_settings):
    detection = hp.detect(tiny_settings())
    parts = {"good": detection.normal, "bad": detection.bad, "test": detection.test}
    assert detection.windows.keys() == parts.keys()
    for part, patches in parts.items():
        assert detection.windows[part].shape == (len(patches), 4)


def test_the_model_scores_an_image_as_the_evaluation_did(tiny_settings):
    detection, model = hp.detect(tiny_settings()), hp.fit_model(tiny_settings())
    for i, path in enumerate(detection.dataset.test[:2]):
        score, heat = model.score(read_image(path))
        assert score == pytest.approx(detection.test_scores[i], rel=1e-3)
        np.testing.assert_allclose(heat, detection.map(i), rtol=1e-2, atol=1e-2)
    assert model.threshold == detection.threshold and model.scale == detection.scale


def test_no_stage_before_the_evaluation_reads_labels(tiny_settings, monkeypatch):
    def never(*_):
        raise AssertionError("labels are read")

    for name in ("read_labels", "all_problems", "truth_fingerprint"):
        monkeypatch.setattr(hp, name, never)
    for stage in (hp.extract_features, hp.fit, hp.detect, hp.steadiness, hp.fit_model):
        stage(tiny_settings())
    hp.ablation_scores(tiny_settings())
    with pytest.raises(AssertionError, match="labels are read"):
        hp.evaluate(tiny_settings())


def test_no_image_is_decoded_more_than_three_times(
    tiny_settings, cold_cache, monkeypatch
):
    """For the network, for copies and for other days; a mask twice, by two readers."""
    decoded, as_rgb = Counter(), images._rgb

    def counting(image, path):
        decoded[path] += 1
        return as_rgb(image, path)

    monkeypatch.setattr(images, "_rgb", counting)
    metrics = hp.evaluate(tiny_settings())
    assert metrics["aupro"] is not None
    dataset = hp.detect(tiny_settings()).dataset
    assert set(dataset.images) < set(decoded)
    assert max(decoded.values()) <= 3
