"""What several test files share: a stage cache of the session's own, tiny data."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # kernels share few cores

import helpers as hp
import make_sample_data

TINY = {"backbone": "efficientnet_lite2", "image_size": 64, "device": "cpu"}


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """No test reads or fills the project's stage cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALY_CACHE", str(tmp_path_factory.mktemp("cache")))
        hp.cache_folder.cache_clear()
        yield
    hp.cache_folder.cache_clear()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The sample data set in little; not to be changed by tests."""
    root = tmp_path_factory.mktemp("tiny")
    counts = {"train_good": 8, "train_bad": 2, "test_good": 4, "test_bad": 3}
    make_sample_data.make(root, image_size=64, **counts)
    return root


@pytest.fixture(scope="session")
def tiny_settings(tiny):
    def settings(**changes) -> hp.Settings:
        return hp.Settings(**{**TINY, "dataset_path": str(tiny), **changes})

    return settings


@pytest.fixture
def cold_cache(tmp_path, monkeypatch) -> Path:
    """An empty stage cache for this test alone."""
    monkeypatch.setenv("ANOMALY_CACHE", str(tmp_path / "cold"))
    hp.cache_folder.cache_clear()
    yield tmp_path / "cold"
    hp.cache_folder.cache_clear()
