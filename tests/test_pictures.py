"""Pictures: heat maps on one colour scale, outlines, overlays."""

import numpy as np

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
