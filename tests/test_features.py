"""Patches: layers on one grid, the projection, batches that memory can hold."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anomaly.errors import InputError
from anomaly.features import (
    join_layers,
    patch_features,
    progress,
    semi_orthogonal,
)
from anomaly.network import Trunk


def test_layers_are_joined_on_the_first_grid():
    fine, coarse = torch.randn(2, 4, 6, 4), torch.randn(2, 6, 3, 2)
    joined = join_layers([fine, coarse], (48, 32))  # (2, 6, 4, 10)
    assert joined.shape == (2, 6, 4, 10)
    assert torch.equal(joined[..., :4], fine.permute(0, 2, 3, 1))
    up = torch.nn.Upsample(size=(6, 4), mode="bilinear")(coarse)
    assert torch.allclose(joined[..., 4:], up.permute(0, 2, 3, 1))


def test_finer_layers_are_averaged_to_a_patch_per_stride():
    fine, coarse = torch.randn(2, 4, 12, 8), torch.randn(2, 6, 3, 2)
    joined = join_layers([fine, coarse], (48, 32))  # (2, 6, 4, 10)
    mean = fine.reshape(2, 4, 6, 2, 4, 2).mean((3, 5))
    assert torch.allclose(joined[..., :4], mean.permute(0, 2, 3, 1), atol=1e-6)


def test_projection_is_orthonormal_and_reproducible():
    q = semi_orthogonal(10, 6)
    assert torch.allclose(q.T @ q, torch.eye(6), atol=1e-6)
    semi_orthogonal.cache_clear()
    assert torch.equal(q, semi_orthogonal(10, 6))


def small_memory(most):
    """A trunk on a device that holds `most` images at once, and what it was given."""
    given = []

    def forward(images):
        given.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [images[:, :, ::8, ::8].float()]

    class Small:
        limit, chunk = Trunk.limit, None
        mean = torch.zeros(1)

        def __call__(self, images):
            return forward(images)

    return Small(), given


def test_batch_is_halved_when_memory_runs_out(capsys):
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
    trunk, given = small_memory(3)
    first, second = (patch_features(trunk, images) for _ in range(2))
    assert torch.equal(first, patch_features(small_memory(10)[0], images))
    assert torch.equal(first, second)
    assert given == [10, 5] + 2 * [2, 2, 2, 2, 2]  # and stays so
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "memory of cpu is full: batches of 5 from here on"
    assert lines[1] == "memory of cpu is full: batches of 2 from here on"


def test_memory_too_small_for_one_image():
    trunk, given = small_memory(0)
    with pytest.raises(InputError, match="smaller image_size"):
        patch_features(trunk, np.zeros((4, 16, 16, 3), np.uint8))
    assert given == [4, 2, 1]


def test_other_faults_of_the_network_are_not_taken_for_memory():
    def broken(images):
        raise RuntimeError("shapes")

    parts = {"limit": 4, "chunk": None, "mean": torch.zeros(1), "__call__": None}
    trunk = type("Broken", (), parts)
    trunk.__call__ = lambda self, images: broken(images)
    with pytest.raises(RuntimeError, match="shapes"):
        patch_features(trunk(), np.zeros((4, 16, 16, 3), np.uint8))


@pytest.fixture
def in_the_lab(monkeypatch):
    """What a kernel of JupyterLab displays: [text, text, …] of one output."""
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/02_feature_extraction.ipynb")
    told = []

    def display(data, raw, display_id):
        told.append(data)
        return SimpleNamespace(update=lambda data, raw: told.append(data))

    monkeypatch.setattr("anomaly.features.display", display)
    return told


def test_a_bar_in_the_lab_is_text_and_ends_as_one_line(in_the_lab, capsys):
    batches = [[1, 2], [3, 4], [5]]
    assert list(progress(batches, "zipper test", 5)) == batches
    assert all(set(data) == {"text/plain"} for data in in_the_lab)  # no widget
    first, *bars, last = [data["text/plain"] for data in in_the_lab]
    assert first == "zipper test: 0 of 5 images"
    assert [bar.count("█") for bar in bars] == [12, 24, 30]
    assert last == "zipper test: 5 images in 0 s"
    assert capsys.readouterr() == ("", "")


def test_no_bar_where_nobody_sees_it(monkeypatch, capsys):
    """papermill, nbconvert, a pipe."""
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setattr("anomaly.features.display", None)
    assert list(progress([[1], [2]], "zipper test", 2)) == [[1], [2]]
    assert capsys.readouterr() == ("", "")
    assert list(progress([], "zipper test", 0)) == []
