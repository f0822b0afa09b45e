"""Language, fonts, colours, and pictures as bytes: what all figures share.

Blue circles are good, orange triangles are bad (Okabe and Ito's palette): no
distinction rests on colour alone.
"""

import importlib.util
import io
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path

import cv2
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager

from anomaly.errors import InputError
from anomaly.languages import speaker  # noqa: F401  (for those who draw)

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"
CLASSES = ((0, "o", "", BLUE), (1, "^", "///", ORANGE))  # label, marker, hatch, colour
CJK_FONTS = ("SimHei", "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB")
CJK_FONTS += ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC")
CJK_FONTS += ("Noto Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei")


@cache
def cjk_font() -> tuple[str, Path] | None:
    """Family and file of a Chinese font: the system's, else zhplot's, else None."""
    known = {font.name: font.fname for font in font_manager.fontManager.ttflist}
    for name in CJK_FONTS:
        if name in known:
            return name, Path(known[name])
    spec = importlib.util.find_spec("zhplot")
    if spec is None:
        return None
    path = Path(spec.origin).parent / "fonts" / "NotoSansSC-Regular.ttf"
    font_manager.fontManager.addfont(path)
    return font_manager.FontProperties(fname=path).get_name(), path


@contextmanager
def figure_style(lang: str = "en"):
    """The project's matplotlib style; InputError for zh without a Chinese font."""
    font = cjk_font()
    if lang == "zh" and font is None:
        raise InputError("lang='zh' needs a Chinese font: pip install zhplot")
    names = ["DejaVu Sans", *font[:1]] if font else ["DejaVu Sans"]
    style = {
        "font.family": names[::-1] if lang == "zh" else names,
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.unicode_minus": False,  # SimHei has no U+2212
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
        "figure.facecolor": "white",
        "savefig.dpi": 160,
        "hatch.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8,
    }
    with matplotlib.rc_context(style):
        yield


def styled(plot):
    """A plot drawn in the project's style, in the language of its `lang`."""

    @wraps(plot)
    def draw(*args, lang="en", **kwargs):
        with figure_style(lang):
            return plot(*args, lang=lang, **kwargs)

    return draw


def encode(picture) -> tuple[str, bytes]:
    """MIME type and bytes: a figure as PNG (and closed), an RGB array as JPEG."""
    if isinstance(picture, np.ndarray):
        bgr = np.ascontiguousarray(picture[..., ::-1])
        quality = [cv2.IMWRITE_JPEG_QUALITY, 88]
        return "image/jpeg", cv2.imencode(".jpg", bgr, quality)[1].tobytes()
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=160)
    plt.close(picture)
    return "image/png", buffer.getvalue()
