"""Light and place: within the normal range nothing changes, beyond it it comes back."""

import cv2
import numpy as np
import pytest

from anomaly.framing import fit_framing, with_margin

SIZE = 72
MARGIN = 2  # pixels, of 72


def scene(x=0, y=0, gain=1.0):
    """A blot on a gradient, (76, 76, 3), moved by (x, y) and lit by `gain`."""
    rows, columns = np.mgrid[:76, :76] - 38.0
    blot = 120 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 200)
    grey = 60 + blot + 20 * ((columns - x) // 6 % 2)
    return np.uint8(np.clip(grey * gain, 0, 255))[..., None].repeat(3, axis=2)


@pytest.fixture(scope="module")
def framing():
    places = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (0, 0)]
    lights = np.linspace(0.97, 1.03, len(places))
    images = [scene(x, y, gain) for (x, y), gain in zip(places, lights, strict=True)]
    return fit_framing(images, SIZE)


def test_within_the_range_an_image_is_cut_and_no_more(framing):
    assert with_margin(SIZE) == (76, 76)
    image = scene()
    window, place = framing.apply(image)
    np.testing.assert_array_equal(window, image[MARGIN:-MARGIN, MARGIN:-MARGIN])
    np.testing.assert_allclose(place, [2 / 76, 2 / 76, 72 / 76, 72 / 76])


@pytest.mark.parametrize("move", [(2, 0), (0, 2), (-2, 2), (3, -3)])
def test_the_window_follows_the_product(framing, move):
    window, (left, top, *_) = framing.apply(scene(*move))
    still = framing.apply(scene())[0].astype(int)
    unmoved = scene(*move)[MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert abs(window - still).mean() < 0.6 * abs(unmoved - still).mean()
    assert np.sign(np.round([left * 76 - 2, top * 76 - 2])).tolist() == [
        np.sign(m) for m in move
    ]


@pytest.mark.parametrize("gain", [0.7, 0.9, 1.1, 1.15])
def test_light_comes_back_to_the_edge_of_its_range(framing, gain):
    window, _ = framing.apply(scene(gain=gain))
    dark, bright = np.percentile(window, [1, 99])
    low, high = framing.light
    assert low[0] - 1 <= dark <= high[0] + 1 and low[1] - 1 <= bright <= high[1] + 1
    still = framing.apply(scene())[0].astype(int)
    assert abs(window - still).mean() < 9


def test_a_flat_image_stays_where_it_is():
    flat = [np.full((76, 76, 3), value, np.uint8) for value in (99, 100, 101)]
    framing = fit_framing(flat, SIZE)
    for value in (0, 100, 255):
        image = np.full((76, 76, 3), value, np.uint8)
        window, place = framing.apply(image)
        assert np.ptp(window) == 0 and 99 <= window[0, 0, 0] <= 101
        assert place[0] == place[1] == 2 / 76


def test_a_product_without_a_usual_place_is_not_moved():
    rng = np.random.default_rng(0)
    shape = (40, 76, 76, 3)
    noise = [cv2.GaussianBlur(i, (0, 0), 2) for i in rng.integers(0, 255, shape, "u1")]
    framing = fit_framing(noise, SIZE)
    moved = [framing.apply(image)[1][:2] * 76 - 2 for image in noise]
    assert np.abs(moved).mean() < 1.5


def test_any_size_of_image_gives_a_window(framing):
    for shape in ((1, 1, 3), (76, 40, 3), (500, 300, 3)):
        window, place = framing.apply(np.full(shape, 120, np.uint8))
        assert window.shape == (SIZE, SIZE, 3) and window.dtype == np.uint8
        assert (place >= 0).all() and (place[:2] + place[2:] <= 1).all()
