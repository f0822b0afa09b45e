"""Plots: drawn in both languages, with every glyph."""

import io

import cv2
import numpy as np
import pytest

from anomaly.report.plots import performance_summary
from anomaly.report.style import encode


@pytest.mark.filterwarnings("error:.*[Gg]lyph.*missing")
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_performance_summary_has_all_glyphs(lang):
    rng = np.random.default_rng(0)
    is_bad = np.repeat([0, 1, -1], 10)
    scores = rng.normal(is_bad, 1)
    figure = performance_summary(
        rng.normal(size=(30, 5)), scores, is_bad, 0.5, lang=lang
    )
    mime, content = encode(figure)
    assert mime == "image/png"
    pixels = cv2.imdecode(np.frombuffer(io.BytesIO(content).read(), np.uint8), 1)
    assert pixels.shape[0] > 1000 and pixels.std() > 10
