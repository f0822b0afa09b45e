"""Every figure over pixels against sklearn or a brute-force computation."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics as sk

from anomaly import pixels as room
from anomaly.pixels import PixelCounts


def counted(maps, masks):
    """The counts of these, each distinct score on a level of its own."""
    first = np.float32(1).view(np.int32)
    values = np.unique(flat(maps)) if maps else np.zeros(1)
    ranks = [np.searchsorted(values, m).astype(np.int32) for m in maps]
    floats = np.int32([first, first + len(values)]).view(np.float32)
    counts = PixelCounts(*floats)
    for rank, mask in zip(ranks, masks, strict=True):
        counts.add((first + rank).view(np.float32), mask)
    assert counts.shift == 0
    return counts


def pixel_auroc(maps, masks):
    return room.pixel_auroc(counted(maps, masks))


def pixel_average_precision(maps, masks):
    return room.pixel_average_precision(counted(maps, masks))


def aupro(maps, masks, max_fpr=0.3):
    return room.aupro(counted(maps, masks), max_fpr)


def aupimo(maps, masks, fpr_range=(1e-5, 1e-4)):
    return room.aupimo(counted(maps, masks), fpr_range)


def pixels(seed, decimals=1):
    """Tiny maps of several sizes with ties, the last three normal."""
    rng = np.random.default_rng(seed)
    sizes = [(6, 7), (5, 9), (8, 8), (4, 6), (7, 7), (6, 6), (5, 5)]
    masks = [rng.random(size) < 0.25 for size in sizes]
    for mask in masks[-3:]:
        mask[:] = False
    maps = [np.round(rng.normal(size=m.shape) + m, decimals) for m in masks]
    return maps, masks


def flat(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_auroc_and_average_precision_agree_with_sklearn(seed, decimals):
    maps, masks = pixels(seed, decimals)
    truth, scores = flat(masks), flat(maps)
    expected = sk.roc_auc_score(truth, scores)
    assert pixel_auroc(maps, masks) == pytest.approx(expected, abs=1e-12)
    expected = sk.average_precision_score(truth, scores)
    got = pixel_average_precision(maps, masks)
    assert got == pytest.approx(expected, abs=1e-12)


def brute_force_aupro(maps, masks, max_fpr):
    """Every threshold in turn, regions by SciPy, trapezoids, interpolated end."""
    regions = []
    for scores, mask in zip(maps, masks, strict=True):
        label, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [scores[label == i] for i in range(1, count + 1)]
    normal = np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)])
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(flat(maps))[::-1]:
        fpr.append(np.mean(normal >= threshold))
        pro.append(np.mean([np.mean(region >= threshold) for region in regions]))
    fpr, pro = np.array(fpr), np.array(pro)
    inside = fpr <= max_fpr
    end = np.interp(max_fpr, fpr, pro)
    x, y = np.append(fpr[inside], max_fpr), np.append(pro[inside], end)
    return np.trapezoid(y, x) / max_fpr


@pytest.mark.parametrize("decimals", [0, 1, 8])
@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_aupro_equals_brute_force(seed, max_fpr, decimals):
    maps, masks = pixels(seed, decimals)
    expected = brute_force_aupro(maps, masks, max_fpr)
    assert aupro(maps, masks, max_fpr) == pytest.approx(expected, abs=1e-12)


def test_aupro_known_values():
    mask = np.zeros((8, 8), dtype=bool)
    mask[0, 0] = mask[1, 1] = True  # one region: corners touch
    mask[4:8, 4:8] = True
    perfect = [mask.astype(np.float32)]
    assert aupro(perfect, [mask]) == 1
    assert pixel_auroc(perfect, [mask]) == 1
    assert pixel_average_precision(perfect, [mask]) == 1
    small_only = perfect[0].copy()
    small_only[4:, 4:] = -1  # the large region is found last of all
    assert aupro([small_only], [mask]) == pytest.approx(0.5)
    flat_map = [np.zeros((8, 8))]  # one threshold: the diagonal
    assert aupro(flat_map, [mask]) == pytest.approx(0.15)
    assert pixel_auroc(flat_map, [mask]) == pytest.approx(0.5)


def test_aupro_counts_false_alarms_on_good_images():
    maps, masks = pixels(0)
    quiet = [*maps, np.full((20, 20), -99.0)], [*masks, np.zeros((20, 20), bool)]
    loud = [*maps, np.full((20, 20), 99.0)], [*masks, np.zeros((20, 20), bool)]
    assert aupro(*quiet) > aupro(maps, masks) > aupro(*loud)


def brute_force_aupimo(maps, masks, low, high, steps=20_000):
    """Walk the FPR axis; at each rate take the lowest threshold that keeps to it."""
    normal = [m for m, k in zip(maps, masks, strict=True) if not k.any()]
    thresholds = np.append(np.unique(flat(maps)), np.inf)
    fpr = np.array([np.mean([(n >= t).mean() for n in normal]) for t in thresholds])
    edges = np.linspace(np.log(low), np.log(high), steps + 1)
    rates = np.exp((edges[1:] + edges[:-1]) / 2)
    chosen = thresholds[[np.flatnonzero(fpr <= rate)[0] for rate in rates]]
    bad = [m[k] for m, k in zip(maps, masks, strict=True) if k.any()]
    return np.mean([np.mean(scores[:, None] >= chosen) for scores in bad])


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_aupimo_equals_brute_force(seed, decimals):
    maps, masks = pixels(seed, decimals)
    expected = brute_force_aupimo(maps, masks, 0.02, 0.3)
    got = aupimo(maps, masks, fpr_range=(0.02, 0.3))
    assert got == pytest.approx(expected, abs=2e-4)


def test_aupimo_known_values():
    mask = np.zeros((400, 400), dtype=bool)
    mask[:10, :10] = True
    good = np.random.default_rng(0).random((400, 400))
    masks = [mask, np.zeros_like(mask)]
    assert aupimo([mask * 2.0, good], masks) == 1
    assert aupimo([mask * 0.5, good], masks) == 0
    half = mask * 0.5
    half[:5] *= 4
    assert aupimo([half, good], masks) == pytest.approx(0.5)
    false_alarm = good + 9 * mask  # 100 pixels of 160 000: an FPR beyond the range
    assert aupimo([mask * 2.0, false_alarm], masks) == 0


def test_pixel_metrics_undefined_are_none(recwarn):
    maps = [np.random.default_rng(0).random((4, 4)) for _ in range(2)]
    good, bad = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    functions = pixel_auroc, pixel_average_precision, aupro, aupimo
    for function in functions:
        assert function([], []) is None
        assert function(maps, [good, good]) is None
        assert function(maps, [bad, bad]) is None
    assert aupimo(maps, [good, bad]) is None  # 16 pixels cannot show an FPR of 1e-5
    assert not recwarn.list


def photographs(seed, tail):
    """Smooth maps of (256, 320) pixels: 5 bad, 6 normal, few scores the same."""
    rng, maps, masks = np.random.default_rng(seed), [], []
    for i in range(11):
        mask = np.zeros((256, 320), bool)
        if i < 5:
            y, x, r = rng.integers(20, 200), rng.integers(20, 260), rng.integers(4, 30)
            mask[y : y + r, x : x + 2 * r] = mask[3:9, 3:9] = True
        noise = rng.normal(size=mask.shape)
        noise = ndimage.gaussian_filter(noise, 3) * 10 + 6 * mask * rng.random()
        maps.append(np.float32(20 * np.exp(tail * noise)))
        masks.append(mask)
    return maps, masks


@pytest.mark.parametrize("low", [0, None], ids=["low is zero", "low is the lowest"])
@pytest.mark.parametrize("tail", [0.1, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_levels_change_no_figure_by_more_than_1e_4(seed, tail, low):
    maps, masks = photographs(seed, tail)
    exact = counted(maps, masks)
    counts = PixelCounts(np.min(maps) if low is None else low, np.max(maps))
    for scores, mask in zip(maps, masks, strict=True):
        counts.add(scores, mask)
    assert counts.shift > 0
    for figure in (room.pixel_auroc, room.aupro, room.pixel_average_precision):
        assert figure(counts) == pytest.approx(figure(exact), abs=1e-4)
    for span in ((1e-5, 1e-4), (1e-3, 1e-1)):
        got, expected = (room.aupimo(c, span) for c in (counts, exact))
        assert 0 < expected < 1 and got == pytest.approx(expected, abs=1e-4)


def test_scores_of_any_size_have_a_level():
    counts = PixelCounts(0, 1e6)
    mask = np.arange(6) > 3
    counts.add(np.array([0, -0.0, 1e-30, 5, 1e6, 1.0000001e6]), mask)
    assert counts.normal.sum() == 4 and counts.bad[counts.bad > 0].tolist() == [2]
    assert room.pixel_auroc(counts) == 1


def test_memory_does_not_follow_the_number_of_pixels():
    """Counts of 12 megapixels, a megapixel at a time."""
    mask = np.zeros((3000, 4000), bool)
    scores = np.full(mask.shape, 3, np.float32)
    counts = PixelCounts(1, 9)
    tracemalloc.start()
    counts.add(scores, mask)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6 and counts.normal.sum() == mask.size


def test_float64_maps_and_integer_masks_do_not_change_the_result():
    maps, masks = photographs(1, 0.1)
    one, two = PixelCounts(0, 1000), PixelCounts(0, 1000)
    for scores, mask in zip(maps, masks, strict=True):
        one.add(scores, mask)
        two.add(scores.astype(np.float64), mask.astype(np.uint8) * 255)
    for figure in (room.pixel_auroc, room.pixel_average_precision, room.aupro):
        assert figure(one) == figure(two) and isinstance(figure(one), float)
