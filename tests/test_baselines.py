"""The memory bank against brute force, and what other days do to an image."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from anomaly.baselines import PERTURBATIONS, memory_bank_scores


@pytest.mark.parametrize("size", [7, 10_000])
def test_memory_bank_is_the_furthest_nearest_neighbour(size):
    rng = np.random.default_rng(0)
    good, test = rng.normal(size=(5, 3, 4, 6)), rng.normal(size=(3, 3, 4, 6))
    bank = good.reshape(-1, 6)
    count = min(size, len(bank))
    bank = bank[np.random.default_rng(1).choice(len(bank), count, replace=False)]
    expected = [cdist(image.reshape(-1, 6), bank).min(1).max() for image in test]
    got = memory_bank_scores(*map(torch.from_numpy, (good, test)), 1, size)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_another_day_is_an_image_slightly_changed(name):
    blocks = np.random.default_rng(0).integers(20, 200, (4, 5, 3))
    image = np.kron(blocks, np.ones((64, 64, 1))).astype(np.uint8)
    other = PERTURBATIONS[name](image)
    assert other.shape == image.shape and other.dtype == np.uint8
    change = np.abs(other.astype(float) - image).mean()
    assert 0 < change < 20
