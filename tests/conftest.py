"""What several test files share: a stage cache of the session's own, tiny data."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # kernels share few cores

import make_sample_data
from anomaly.backbones import BACKBONES, best_backbone
from anomaly.cache import cache_folder
from anomaly.settings import Settings

TINY = {"backbone": "efficientnet_lite2", "image_size": 64, "device": "cpu"}


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """No test reads or fills the project's stage cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALY_CACHE", str(tmp_path_factory.mktemp("cache")))
        cache_folder.cache_clear()
        yield
    cache_folder.cache_clear()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The sample data set in little; not to be changed by tests."""
    root = tmp_path_factory.mktemp("tiny")
    counts = {"train_good": 8, "train_bad": 2, "test_good": 4, "test_bad": 3}
    make_sample_data.make(root, image_size=64, **counts)
    return root


@pytest.fixture(scope="session")
def tiny_settings(tiny):
    def settings(**changes) -> Settings:
        return Settings(**{**TINY, "dataset_path": str(tiny), **changes})

    return settings


@pytest.fixture
def cold_cache(tmp_path, monkeypatch) -> Path:
    """An empty stage cache for this test alone."""
    monkeypatch.setenv("ANOMALY_CACHE", str(tmp_path / "cold"))
    cache_folder.cache_clear()
    yield tmp_path / "cold"
    cache_folder.cache_clear()


@pytest.fixture(scope="session")
def state():
    """Random weights of resnet18; not to be changed by tests."""
    torch.manual_seed(0)
    return BACKBONES["resnet18"].build(64).state_dict()


@pytest.fixture
def save(tmp_path):
    """save(content) writes bytes, or what PyTorch saves; it returns the path."""

    def save(content, name="weights.pth"):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        return str(path)

    return save


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def offline(torch_home, monkeypatch):
    """No weights cached, and every connection refused; the count of attempts."""
    attempts = []

    def refuse(url, timeout):
        attempts.append(url)
        raise OSError("no network")

    monkeypatch.setattr("anomaly.weights.urlopen", refuse)
    best_backbone.cache_clear()
    yield attempts
    best_backbone.cache_clear()


@pytest.fixture
def cores():
    """cores(n) lets PyTorch compute on so many, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
