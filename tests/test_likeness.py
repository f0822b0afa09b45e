"""Groups of look-alikes: found, kept together, counted once."""

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from anomaly.likeness import (
    descriptors,
    folds_by_likeness,
    group_scores,
    likeness_groups,
    look_alikes,
    near_copies,
    thumbnail,
)
from anomaly.scores import conformal_threshold

RNG = np.random.default_rng


def independent(n, dim=12, seed=0):
    return RNG(seed).normal(size=(n, dim))


def same_partition(one, two):
    return len(set(zip(one, two, strict=True))) == len(set(one)) == len(set(two))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [12, 60, 200])
def test_independent_images_are_all_different(n, seed):
    groups = likeness_groups(independent(n, seed=seed))
    assert len(set(groups)) >= 0.97 * n


@pytest.mark.parametrize("times", [2, 3, 5])
@pytest.mark.parametrize("jitter", [0, 0.02])
def test_bursts_are_groups(times, jitter):
    z = np.repeat(independent(40), times, axis=0)
    z = z + jitter * RNG(1).normal(size=z.shape)
    assert same_partition(likeness_groups(z), np.repeat(np.arange(40), times))


def test_exact_copies_are_one_group_however_many():
    z = np.repeat(independent(6), 30, axis=0)
    assert same_partition(likeness_groups(z), np.repeat(np.arange(6), 30))


def test_variants_of_a_product_are_no_groups():
    centres = 20 * independent(4, seed=1)
    z = np.concatenate(
        [centre + independent(40, seed=i) for i, centre in enumerate(centres)]
    )
    assert len(set(likeness_groups(z))) >= 0.95 * len(z)


def test_the_order_of_images_is_no_matter():
    z = np.concatenate([np.repeat(independent(20), 2, axis=0), independent(30, seed=2)])
    z += 0.01 * RNG(3).normal(size=z.shape)
    order = RNG(0).permutation(len(z))
    assert same_partition(likeness_groups(z)[order], likeness_groups(z[order]))


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_a_handful_is_grouped_by_equality_alone(n):
    z = independent(n)
    assert len(set(likeness_groups(z))) == n
    assert len(set(likeness_groups(np.concatenate([z, z[:1]])))) == n


def test_known_copies_are_linked():
    copies = np.zeros((30, 30), bool)
    copies[3, 7] = copies[7, 3] = True
    groups = likeness_groups(independent(30), copies)
    assert groups[3] == groups[7] and len(set(groups)) == 29


@pytest.mark.parametrize("n", [1, 4, 5, 23])
def test_without_look_alikes_folds_are_i_mod_k(n):
    assert (folds_by_likeness(np.arange(n), 5) == np.arange(n) % 5).all()


def test_groups_stay_whole_and_folds_are_even():
    groups = np.repeat(np.arange(30), RNG(0).integers(1, 6, 30))
    fold = folds_by_likeness(groups, 5)
    assert all(len(set(fold[groups == g])) == 1 for g in range(30))
    assert np.ptp(np.bincount(fold)) <= 5


def test_the_highest_of_a_group_counts():
    groups = np.array([0, 1, 0, 2, 1])
    assert group_scores([1, 5, 3, -2, 4], groups).tolist() == [3, 5, -2]


def test_descriptors_are_white_and_of_any_grid():
    features = torch.from_numpy(RNG(0).normal(size=(50, 9, 11, 6))).float()
    z = descriptors(features, grid=4)
    assert z.shape == (50, 4 * 4 * 6)
    flat = z.reshape(-1, 6)
    assert np.allclose(flat.T @ flat / len(flat), np.eye(6), atol=0.02)
    assert descriptors(features[:, :2, :3], grid=8).shape == (50, 2 * 2 * 6)
    assert np.isfinite(descriptors(torch.ones(12, 3, 3, 4))).all()


def texture(seed, size=270):
    noise = RNG(seed).integers(0, 256, (size // 6, size // 6, 3), np.uint8)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)


def changed(image, how):
    if how == "JPEG":
        return cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_COLOR)
    if how == "noise":
        return np.uint8(np.clip(image + RNG(0).normal(0, 2, image.shape), 0, 255))
    return image.copy()


@pytest.mark.parametrize("how", ["same", "JPEG", "noise"])
def test_copies_are_seen_in_thumbnails(how):
    images = [texture(seed) for seed in range(12)]
    thumbs = np.stack(
        [thumbnail(i) for i in images + [changed(i, how) for i in images]]
    )
    found = near_copies(thumbs, level=0.98)
    assert (
        found == np.eye(24, dtype=bool) | np.roll(np.eye(24, dtype=bool), 12, 0)
    ).all()


def test_look_alikes_from_features_and_thumbnails():
    images = [texture(seed) for seed in range(15)]
    thumbs = np.stack([thumbnail(i) for i in images + images[:3]])
    features = RNG(0).normal(size=(18, 4, 4, 8)).astype(np.float16)
    groups = look_alikes(features, thumbs)
    assert same_partition(groups, [*range(15), 0, 1, 2])


def scored(z, fold):
    """Distance to the nearest image of another fold: what a twin makes too small."""
    far = np.linalg.norm(z[:, None] - z, axis=-1)
    far[fold[:, None] == fold] = np.inf
    return far.min(axis=1)


def test_the_promise_holds_where_every_image_is_there_twice():
    """And does not where folds take no heed of it: the fault that this room mends."""
    false = {"plain": 0, "likeness": 0}
    for seed in range(20):
        z = np.repeat(independent(60, seed=seed), 2, axis=0)
        z = z + 0.02 * RNG(seed).normal(size=z.shape)
        new = independent(50, seed=1000 + seed)
        fresh = np.linalg.norm(new[:, None] - z, axis=-1).min(axis=1)
        plain = scored(z, np.arange(len(z)) % 5)
        false["plain"] += (fresh > conformal_threshold(plain, 0.05).value).sum()
        groups = likeness_groups(z)
        kept = group_scores(scored(z, folds_by_likeness(groups)), groups)
        false["likeness"] += (fresh > conformal_threshold(kept, 0.05).value).sum()
    assert false["plain"] > 0.5 * 1000
    assert binomtest(int(false["likeness"]), 1000, 0.05, "greater").pvalue > 0.01
