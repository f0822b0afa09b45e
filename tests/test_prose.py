"""Prose: what is inserted shows literally, and nothing else is changed."""

import pypandoc
import pytest

from anomaly.report.exporters import MARKDOWN
from anomaly.report.prose import escape

NASTY = '<script>alert(1)< $x_1$ *b* `c` [d](e) #read("f") @g é 榛子.png'


@pytest.mark.parametrize(
    "text",
    [
        NASTY,
        "a_b_ ~c~ ^d^ **e**",
        "$$x$$ \\alpha {f} | g",
        "![h](i) <!-- j -->",
        "1. k",
    ],
)
def test_escaped_text_shows_literally(text):
    markdown = f"x {escape(text)}"
    plain = pypandoc.convert_text(
        markdown, "plain", MARKDOWN, extra_args=["--wrap=none"]
    )
    assert plain.strip() == f"x {text}"
