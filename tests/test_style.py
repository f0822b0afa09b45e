"""Style: a Chinese font is found, or its remedy named."""

import importlib.util

import pytest

from anomaly.errors import InputError
from anomaly.report.style import cjk_font, figure_style, font_manager


def test_chinese_font_is_found_or_named(monkeypatch):
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    cjk_font.cache_clear()
    assert cjk_font()[1].name == "NotoSansSC-Regular.ttf"
    cjk_font.cache_clear()
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="zhplot"), figure_style("zh"):
        pass
    cjk_font.cache_clear()
