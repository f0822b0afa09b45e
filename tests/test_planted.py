"""Planted defects: exact masks, seeds, and that they fall on the product."""

import numpy as np
import pytest

from anomaly.planted import KINDS, Defect, draw_plan, plant, product

texture = np.random.default_rng(0).integers(90, 200, (128, 128, 3)).astype(np.uint8)
y, x = np.mgrid[:128, :128]
disc = (x - 70) ** 2 + (y - 60) ** 2 < 40**2
apple = np.where(disc[..., None], [170, 90, 60], [20, 20, 25]).astype(np.uint8)


def defect(kind="spot", size=20.0, contrast=0.6, seed=3):
    return Defect(0, kind, size, contrast, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_outside_the_mask_is_as_before(kind):
    planted = plant(texture, defect(kind))
    assert planted.mask.any() and planted.mask.mean() < 0.1
    assert (planted.image[~planted.mask] == texture[~planted.mask]).all()
    assert (planted.image[planted.mask] != texture[planted.mask]).any(axis=1).all()
    assert planted.image.dtype == np.uint8 and planted.image.shape == texture.shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_plants_the_same_and_another_does_not(kind):
    once, twice = plant(texture, defect(kind)), plant(texture, defect(kind))
    assert (once.image == twice.image).all() and once.place == twice.place
    assert once.place != plant(texture, defect(kind, seed=4)).place


@pytest.mark.parametrize("size", [3, 8, 21])
def test_a_spot_has_the_area_of_its_disc(size):
    flat = np.full((128, 128, 3), 160, np.uint8)
    spot = plant(flat, defect(size=size), margin=20)
    cover = (160 - spot.image[..., 0].astype(float)).sum() / (0.6 * 160)
    assert cover == pytest.approx(np.pi / 4 * size**2, rel=0.1)
    rows, columns = spot.mask.nonzero()
    middle = (columns.mean() + 0.5) / 128, (rows.mean() + 0.5) / 128
    assert middle == pytest.approx(spot.place, abs=1 / 128)


@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_defect_changes_more(kind):
    areas = [plant(texture, defect(kind, size)).mask.sum() for size in (8, 16, 32)]
    assert areas == sorted(areas) and areas[0] < areas[2]


def test_a_stronger_defect_differs_more():
    weak, strong = (
        plant(texture, defect(contrast=c)).image.astype(int) for c in (0.2, 0.6)
    )
    assert abs(strong - texture).sum() > 2 * abs(weak - texture).sum()


def test_the_product_is_found_on_a_plain_background_only():
    found = product(apple)
    assert (found & disc).sum() / (found | disc).sum() > 0.95
    assert product(texture).all()
    inner = product(texture, margin=5)
    assert inner[5:-5, 5:-5].all() and inner.sum() == 118**2


def test_defects_fall_on_the_product():
    for seed in range(20):
        planted = plant(apple, defect(seed=seed))
        column, row = (int(128 * share) for share in planted.place)
        assert product(apple)[row, column]
        middle = np.hypot(column - 70, row - 60)
        assert planted.depth == pytest.approx(1 - middle / 40, abs=0.08)


def test_an_image_of_one_colour_is_all_product():
    black = np.zeros((64, 64, 3), np.uint8)
    assert product(black).all()
    assert plant(black, defect(size=9)).mask.any()  # light on dark


def test_a_plan_spreads_sizes_and_sources_evenly():
    plan = draw_plan("stain", range(7), (3.0, 36.0), [0.3, 0.6], 70, seed=1)
    sizes = np.log(np.sort([row.size for row in plan]) / 3) / np.log(12)
    assert np.abs(sizes - (np.arange(70) + 0.5) / 70).max() < 1 / 70
    assert (np.bincount([row.source for row in plan]) == 10).all()
    assert [row.contrast for row in plan].count(0.3) == 35
    assert plan == draw_plan("stain", range(7), (3.0, 36.0), [0.3, 0.6], 70, seed=1)
    assert plan != draw_plan("stain", range(7), (3.0, 36.0), [0.3, 0.6], 70, seed=2)
