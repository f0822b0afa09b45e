"""The stages, on the sample data in little."""

from operator import attrgetter

import numpy as np
import pytest

import helpers as hp
import make_sample_data
from anomaly.errors import InputError
from anomaly.features import PROJECTION
from anomaly.settings import Settings


def test_stages_know_the_precision(tiny_settings):
    full, low = (
        hp.detect(tiny_settings(precision=p)).test_scores
        for p in ("float32", "bfloat16")
    )
    assert not np.array_equal(full, low)
    np.testing.assert_allclose(full, low, rtol=0.05)


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
    picks, scores = hp.steadiness(tiny_settings(category="hazelnut"))
    for name, row in scores.items():
        change = np.abs(row / scores["none"] - 1).mean()
        assert change < 0.35, (name, change)
