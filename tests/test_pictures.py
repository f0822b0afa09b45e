"""Pictures: heat maps on one colour scale, outlines, overlays."""

import numpy as np
import pytest

from anomaly.report.pictures import heatmap_panel
from anomaly.scores import map_scale


def test_heat_map_colours():
    image = np.full((40, 80, 3), 100, np.uint8)
    values = np.zeros((64, 64), np.float32)
    values[:, 32:] = 10
    panel = heatmap_panel(image, values, (0, 10), "jet")
    assert panel.shape[0] == 64 and panel.dtype == np.uint8
    cold, hot = panel[32, 128 + 4 + 10], panel[32, 128 + 4 + 120]  # RGB
    assert cold[2] > 100 > cold[0] and hot[0] > 100 > hot[2]
    assert (panel[32, :128] == 100).all()  # the original, in the image's shape
    calm = heatmap_panel(image, values, (10, 30), "jet")
    assert (calm[32, 142] == cold).all()  # below the scale is as cold as its low end
    mask = np.zeros((40, 80), bool)
    mask[15:25, 30:50] = True
    outlined = heatmap_panel(image, values, (0, 10), mask=mask)
    assert (outlined[:, :128] == 255).all(axis=2).any()
    low, high = map_scale(np.random.default_rng(0).normal(size=(20, 32, 32)))
    assert abs(low) < 0.1 and abs(high - 2 * 2.576) < 0.3


@pytest.mark.parametrize("colormap", ["jet", "cividis", "inferno"])
def test_the_contour_is_where_the_map_exceeds_it(colormap):
    """Black and white by turns, on the original and the overlay, on any colour."""
    image = np.full((40, 40, 3), 100, np.uint8)
    values = np.zeros((64, 64), np.float32)
    values[20:40, 10:50] = 10
    plain = heatmap_panel(image, values, (0, 10), colormap)
    drawn = heatmap_panel(image, values, (0, 10), colormap, contour=5)
    changed = (plain != drawn).any(axis=2)
    tones = drawn[changed].max(axis=1), drawn[changed].min(axis=1)
    assert set(tones[0]) == set(tones[1]) == {0, 255}
    for left in (0, 2 * 68):  # original, overlay
        rows, columns = np.nonzero(changed[:, left : left + 64])
        assert (rows.min(), rows.max()) == (20, 40)
        assert (columns.min(), columns.max()) == (10, 50)
        assert not changed[23:38, left + 13 : left + 47].any()
    assert not changed[:, 68:132].any()  # the heat map itself
    calm = heatmap_panel(image, values, (0, 10), colormap, contour=10)
    assert (calm == plain).all()  # nothing is above it
