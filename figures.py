"""Figures of the notebooks and the report, and the prose of the report.

Plots return a matplotlib figure, pictures (grids, heat maps) return uint8 RGB arrays
composed by OpenCV; `show` displays either with caption and alt text. Blue circles are
good, orange triangles are bad (Okabe and Ito's palette): no distinction rests on
colour alone. Every plot takes `lang`, en or zh.
"""

import base64
import html
import importlib.util
import io
import re
import textwrap
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path

import cv2
import jinja2
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from IPython.display import Markdown, display
from markupsafe import Markup
from matplotlib import font_manager
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont
from sklearn.decomposition import PCA
from sklearn.metrics import roc_curve

from helpers import ROOT, InputError, roc_band

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"
CLASSES = ((0, "o", "", BLUE), (1, "^", "///", ORANGE))  # label, marker, hatch, colour
CJK_FONTS = ("SimHei", "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB")
CJK_FONTS += ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC")
CJK_FONTS += ("Noto Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei")

# ------------------------------------------------------------------------- style


def speaker(lang: str) -> Callable[[str, str], str]:
    """`say(english, chinese)`, which returns the one that `lang` asks for."""
    return lambda english, chinese: chinese if lang == "zh" else english


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


def _styled(plot):
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


def show(picture, caption: str, alt: str, **metadata) -> None:
    """Display a figure or an RGB array above its caption (Markdown).

    Caption and alt text travel in the output's metadata, where the report finds them.
    """
    mime, content = encode(picture)
    bundle = {mime: base64.b64encode(content).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"caption": caption, "alt": alt, **metadata})
    display(Markdown(f"*{caption}*"))


# ------------------------------------------------------------------------- plots
# scores and is_bad are (T,); is_bad is 0 or 1, anything else is left out.


def _draw_scores(axes, scores, is_bad, threshold, normal, lang):
    say = speaker(lang)
    known = scores[(is_bad == 0) | (is_bad == 1)]
    bins = np.histogram_bin_edges(np.concatenate([known, normal, [threshold]]), 36)
    names = say("good", "正常"), say("bad", "异常")
    for label, _, hatch, colour in CLASSES:
        chosen = scores[is_bad == label]
        look = {"color": colour, "hatch": hatch, "alpha": 0.65, "edgecolor": "white"}
        axes.hist(chosen, bins, **look, label=f"{names[label]} ({len(chosen)})")
    if len(normal):
        weights = np.full(len(normal), max((is_bad == 0).sum(), 1) / len(normal))
        label = say("train/good, held out", "train/good（留出）")
        look = {"histtype": "step", "color": GREY, "label": f"{label} ({len(normal)})"}
        axes.hist(normal, bins, weights=weights, **look)
    label = f"{say('threshold', '阈值')} {threshold:.4g}"
    axes.axvline(threshold, color="black", ls="--", lw=1, label=label)
    axes.set_xlabel(say("anomaly score", "异常分数"))
    axes.set_ylabel(say("images", "图像数"))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper right")


def _draw_chance(axes, lang):
    say = speaker(lang)
    axes.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1, label=say("chance", "随机"))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xlabel(say("false-positive rate", "假阳性率"))
    axes.set_ylabel(say("true-positive rate", "真阳性率"))
    axes.legend(loc="lower right")


def _draw_roc(axes, scores, is_bad, threshold, lang, seed):
    say, known = speaker(lang), (is_bad == 0) | (is_bad == 1)
    scores, is_bad = scores[known], is_bad[known]
    fpr, tpr, _ = roc_curve(is_bad, scores, drop_intermediate=False)
    grid = np.linspace(0, 1, 201)
    band = roc_band(is_bad, scores, grid, seed=seed)
    label = say("95 % interval", "95% 置信带")
    axes.fill_between(grid, *band, color=BLUE, alpha=0.2, lw=0, label=label)
    label = f"AUROC {np.trapezoid(tpr, fpr):.3f}"
    axes.plot(fpr, tpr, color=BLUE, lw=1.8, label=label)
    over = scores > threshold
    point = over[is_bad == 0].mean(), over[is_bad == 1].mean()
    label = say("at the threshold", "阈值处")
    axes.plot(*point, "D", color=ORANGE, label=label, clip_on=False, zorder=3)
    _draw_chance(axes, lang)


def _draw_confusion(axes, matrix, lang):
    say, matrix = speaker(lang), np.asarray(matrix)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1.3)
    for (row, column), part in np.ndenumerate(share):
        look = {"color": "white" if part > 0.6 else "black", "ha": "center"}
        text = f"{matrix[row, column]}\n{part:.1%}"
        axes.text(column, row, text, va="center", **look)
    names = [say("good", "正常"), say("bad", "异常")]
    axes.set_xticks([0, 1], names)
    axes.set_yticks([0, 1], names, rotation=90, va="center")
    axes.set_xlabel(say("decision", "判定"))
    axes.set_ylabel(say("label", "标签"))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _draw_pca(axes, embedding, is_bad, lang, scores=None):
    say = speaker(lang)
    pca = PCA(2, svd_solver="full").fit(embedding)
    points = pca.transform(embedding)
    names = say("good", "正常"), say("bad", "异常")
    for label, marker, _, colour in CLASSES:
        chosen = is_bad == label
        look = {"color": colour, "edgecolor": "white"}
        if scores is not None:
            limits = {"vmin": scores.min(), "vmax": scores.max()}
            look = {"c": scores[chosen], "cmap": "cividis", "edgecolor": GREY} | limits
        look |= {"s": 30, "marker": marker, "linewidth": 0.5}
        drawn = axes.scatter(*points[chosen].T, **look, label=names[label])
    if scores is not None:
        axes.figure.colorbar(drawn, ax=axes, label=say("anomaly score", "异常分数"))
    names = [say(f"component {i}", f"第 {i} 主成分") for i in (1, 2)]
    parts = [
        f"{n} ({r:.0%})"
        for n, r in zip(names, pca.explained_variance_ratio_, strict=True)
    ]
    axes.set(xlabel=parts[0], ylabel=parts[1])
    axes.legend(markerscale=0.9)


@_styled
def plot_scores(scores, is_bad, threshold, normal=(), *, lang="en"):
    """Histogram of test scores; `normal`: held-out scores of train/good."""
    figure, axes = plt.subplots(figsize=(6.5, 2.9))
    _draw_scores(axes, scores, is_bad, threshold, np.asarray(normal), lang)
    return figure


@_styled
def plot_roc(scores, is_bad, threshold, *, lang="en", seed=0):
    """ROC curve with its pointwise 95 % band and the threshold's working point."""
    figure, axes = plt.subplots(figsize=(3.9, 3.5))
    _draw_roc(axes, scores, is_bad, threshold, lang, seed)
    return figure


@_styled
def plot_confusion(matrix, *, lang="en"):
    """Confusion matrix [[tn, fp], [fn, tp]] with the share of each row."""
    figure, axes = plt.subplots(figsize=(2.7, 2.5))
    _draw_confusion(axes, matrix, lang)
    return figure


@_styled
def plot_pca(embedding, is_bad, scores, *, lang="en"):
    """The images' features (T, D) on two principal components, by label and score."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 2.9))
    _draw_pca(left, embedding, is_bad, lang)
    _draw_pca(right, embedding, is_bad, lang, scores)
    return figure


@_styled
def performance_summary(embedding, scores, is_bad, threshold, *, lang="en", seed=0):
    """The assignment's four panels: PCA by label and by score, ROC, confusion."""
    say, known = speaker(lang), (is_bad == 0) | (is_bad == 1)
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(8.5, 7.2))
    _draw_pca(a, embedding, is_bad, lang)
    _draw_pca(b, embedding, is_bad, lang, scores)
    _draw_roc(c, scores, is_bad, threshold, lang, seed)
    matrix = np.zeros((2, 2), int)
    np.add.at(matrix, (is_bad[known], np.int8(scores[known] > threshold)), 1)
    _draw_confusion(d, matrix, lang)
    a.set_title(say("PCA, by label", "PCA（按标签）"))
    b.set_title(say("PCA, by score", "PCA（按分数）"))
    c.set_title(say("ROC curve", "ROC 曲线"))
    d.set_title(say("Confusion matrix", "混淆矩阵"))
    return figure


@_styled
def plot_comparison(runs, *, lang="en"):
    """ROC curves of several categories, and their AUROC with intervals.

    runs: {category: (scores, is_bad, auroc, (low, high))}.
    """
    size = (6.5, 3 + 0.15 * max(len(runs) - 4, 0))
    figure, (left, right) = plt.subplots(1, 2, figsize=size)
    colours = [BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "black"]
    for row, (name, (scores, is_bad, auroc, interval)) in enumerate(runs.items()):
        known = (is_bad == 0) | (is_bad == 1)
        fpr, tpr, _ = roc_curve(is_bad[known], scores[known], drop_intermediate=False)
        look = {"color": colours[row % 7], "ls": ("-", "--", "-.", ":")[row % 4]}
        left.plot(fpr, tpr, **look, label=name)
        right.plot(interval, [row, row], **look, lw=2)
        right.plot(auroc, row, "D", color=look["color"], clip_on=False)
    _draw_chance(left, lang)
    right.set_yticks(range(len(runs)), list(runs))
    right.set(xlabel="AUROC", ylim=(len(runs) - 0.5, -0.5))
    return figure


@_styled
def plot_pipeline(backbone, layers, size, *, lang="en"):
    """The method as boxes and arrows, from the image to decision and map."""
    say = speaker(lang)
    taps = f"{backbone}\n{textwrap.fill(', '.join(layers), 20)}"
    blue, orange, grey = "#DCEBF5", "#FBE3D4", "#EEEEEE"
    # box: x, y, width, colour, text
    boxes = [
        (10, 34, 16, grey, say("image", "图像") + f"\n{size} × {size}"),
        (35, 34, 26, blue, say("frozen backbone", "冻结的骨干网络") + "\n" + taps),
        (65, 34, 26, blue, say("patch features", "图块特征") + "\n$h × w × D$"),
        (65, 10, 26, orange, say("Gaussian", "高斯模型") + "\n$μ,\\ Σ$"),
        (96, 34, 28, blue, say("Mahalanobis\ndistances", "马氏距离") + "\n$h × w$"),
        (
            96,
            10,
            28,
            grey,
            say("score > threshold?\nyes: defective", "分数高于阈值\n则判为异常"),
        ),
        (127, 34, 26, grey, say("anomaly map:\nwhere it is", "异常热图：\n缺陷位置")),
    ]
    figure, axes = plt.subplots(figsize=(6.5, 2.1))
    axes.set(xlim=(0, 142), ylim=(0, 45))
    axes.axis("off")
    for x, y, width, colour, text in boxes:
        corner, look = (
            (x - width / 2, y - 8),
            {"boxstyle": "round,pad=0,rounding_size=2"},
        )
        box = FancyBboxPatch(corner, width, 16, fc=colour, ec=GREY, lw=0.8, **look)
        axes.add_patch(box)
        axes.text(x, y, text, ha="center", va="center", fontsize=7, linespacing=1.3)
    arrow = {
        "arrowstyle": "-|>",
        "color": "black",
        "lw": 0.9,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    arrows = [((18, 34), (22, 34)), ((48, 34), (52, 34)), ((78, 34), (82, 34))]
    arrows += [((110, 34), (114, 34)), ((65, 26), (65, 18)), ((96, 26), (96, 18))]
    arrows += [((78, 14), (84, 26))]
    for start, end in arrows:
        axes.annotate("", end, start, arrowprops=arrow)
    note = say("train/good only", "仅用 train/good")
    axes.text(63.5, 22, note, ha="right", va="center", fontsize=7)
    return figure


# ---------------------------------------------------------------------- pictures


def stretch(values) -> np.ndarray:
    """A map (h, w) of any range as a grey RGB picture (h, w, 3), black to white."""
    low, high = np.min(values), np.max(values)
    grey = np.uint8(255 * (values - low) / max(high - low, 1e-12))
    return np.repeat(grey[..., None], 3, axis=2)


def sample_grid(images, columns=6, size=128, gap=4) -> np.ndarray:
    """RGB images of any size as a grid of squares, row by row."""
    rows, cell = -(-len(images) // columns), size + gap
    grid = np.full((rows * cell - gap, columns * cell - gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        y, x = index // columns * cell, index % columns * cell
        method = cv2.INTER_AREA if min(image.shape[:2]) > size else cv2.INTER_NEAREST
        square = cv2.resize(image, (size, size), interpolation=method)
        grid[y : y + size, x : x + size] = square
    return grid


def map_scale(normal_maps) -> tuple[float, float]:
    """The (low, high) of a category's colours, anchored on maps of normal images.

    normal_maps: (N, h, w). Low is their median, the middle of the scale their 99.5 %
    quantile: normal pixels stay in the cold half, what is warm is rare among them.
    """
    sample = normal_maps[:, ::2, ::2]  # smooth maps: a quarter of the pixels does
    low, edge = np.quantile(sample, [0.5, 0.995])
    return float(low), float(low + 2 * max(edge - low, 1e-6))


def colour(values, scale, colormap="jet") -> np.ndarray:
    """Values (h, w) on a colour scale (low, high) as an RGB picture (h, w, 3)."""
    low, high = scale
    level = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    table = getattr(cv2, f"COLORMAP_{colormap.upper()}")
    bgr = cv2.applyColorMap(np.uint8(np.rint(255 * level)), table)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def heatmap_panel(
    image,
    anomaly_map,
    scale,
    colormap="jet",
    mask=None,
    alpha=0.5,
    per_image=False,
    height=None,
) -> np.ndarray:
    """Original | heat map | overlay | colour bar, as one RGB picture.

    image (H, W, 3) uint8 RGB; anomaly_map (h, w); scale: (low, high), cf. `map_scale`,
    or the map's own range if `per_image`. The panel is `height` pixels high, the map's
    h by default, and keeps the image's shape. The outline of `mask` (bool) is drawn.
    """
    height = height or len(anomaly_map)
    ratio = np.clip(image.shape[1] / image.shape[0], 0.25, 4)
    size = (max(round(height * ratio), 1), height)
    low, high = (anomaly_map.min(), anomaly_map.max()) if per_image else scale
    heat = colour(cv2.resize(anomaly_map, size), (low, high), colormap)
    original = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    overlay = cv2.addWeighted(original, 1 - alpha, heat, alpha, 0)
    if mask is not None:
        small = cv2.resize(np.uint8(mask), size, interpolation=cv2.INTER_NEAREST)
        small = cv2.dilate(small, np.ones((7, 7), np.uint8))  # clear of the defect
        outline, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for picture in (original, overlay):
            cv2.drawContours(picture, outline, -1, (0, 0, 0), 3)
            cv2.drawContours(picture, outline, -1, (255, 255, 255), 1)
    unit = max(height / 256, 0.85)
    bar = np.full((height, round(66 * unit) + 1, 3), 255, np.uint8)
    ramp = np.linspace(1, 0, height)[:, None]
    bar[:, : round(16 * unit)] = colour(ramp, (0, 1), colormap)
    for share in (0, 0.5, 1):
        y = round(height * (0.965 - 0.93 * share))
        place = (round(21 * unit), y + round(5 * unit))
        text, font = f"{low + share * (high - low):.3g}", cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(bar, text, place, font, 0.45 * unit, (0, 0, 0), 1, cv2.LINE_AA)
    gap = np.full((height, 4, 3), 255, np.uint8)
    return np.hstack([original, gap, heat, gap, overlay, gap, bar])


def gallery(panels, gap=6) -> np.ndarray:
    """Panels (RGB) one below the other, lettered a, b, c …"""
    width, rows = max(panel.shape[1] for panel in panels), []
    for index, panel in enumerate(panels):
        row = np.full((len(panel) + gap, width, 3), 255, np.uint8)
        row[gap:, : panel.shape[1]] = panel
        row[gap : gap + 22, :20] = 255
        place, font = (5, gap + 15), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(row, chr(97 + index), place, font, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
        rows.append(row)
    return np.vstack(rows)[gap:]


# ---------------------------------------------------------------------- explorer
# What notebook 7 shows of one test image at one threshold, drawn in a few
# milliseconds, so that it can follow a slider.


def attended() -> bool:
    """Does somebody sit at the front end, with widgets to move?

    papermill and nbconvert say with every cell that nobody would answer `input()`.
    """
    shell = get_ipython()
    if shell is None or importlib.util.find_spec("ipywidgets") is None:
        return False
    request = shell.kernel.get_parent() if hasattr(shell, "kernel") else {}
    return request.get("content", {}).get("allow_stdin", False)


def score_strip(normal, scores, is_bad, threshold, chosen, width, *, lang="en"):
    """All scores as marks on one axis: an RGB picture (96, width, 3).

    Rows, top to bottom: normal (N,), out-of-sample scores of train/good; then the good
    and the bad of the test scores (T,), is_bad as in the plots. Tinted is what lies
    above the threshold; test image `chosen` has a ring.
    """
    say, left = speaker(lang), 130
    low, high = score_limits(normal, scores)

    def place(values):
        x = left + (width - left - 1) * (np.asarray(values) - low) / (high - low)
        return np.clip(np.rint(x), left, width - 1).astype(int)

    strip = np.full((96, width, 3), 255, np.uint8)
    line = int(place(threshold))
    strip[:78, line:] = (251, 227, 212)
    blue, orange = ((0, 114, 178), (213, 94, 0))
    for x in place(normal):
        cv2.line(strip, (x, 8), (x, 22), (120, 120, 120), 1)
    for x in place(scores[is_bad == 0]):
        cv2.circle(strip, (x, 40), 5, blue, 1, cv2.LINE_AA)
    for x in place(scores[is_bad == 1]):
        corners = np.array([(x - 5, 70), (x + 5, 70), (x, 60)], np.int32)
        cv2.polylines(strip, [corners], True, orange, 1, cv2.LINE_AA)
    cv2.line(strip, (line, 0), (line, 78), (0, 0, 0), 1)
    row = {0: 40, 1: 66}.get(int(is_bad[chosen]), 53)
    ring = (int(place(scores[chosen])), row)
    cv2.circle(strip, ring, 10, (0, 0, 0), 2, cv2.LINE_AA)
    names = (
        "train/good",
        say("test, good", "测试：正常"),
        say("test, bad", "测试：异常"),
    )
    texts = [(0, y, name) for y, name in zip((7, 32, 57), names, strict=True)]
    texts.append((min(line + 4, width - 60), 80, f"{threshold:.4g}"))
    return _written(strip, texts, lang)


def _written(picture, texts, lang):
    """The picture with texts [(x, y, text)], Chinese too, which OpenCV lacks."""
    font = cjk_font()[1] if lang == "zh" else font_manager.findfont("DejaVu Sans")
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for x, y, text in texts:
        draw.text((x, y), text, "black", _font(font, 13))
    return np.array(image)


_font = cache(ImageFont.truetype)


def score_limits(normal, scores) -> tuple[float, float]:
    """(low, high) that leave a little room on both sides of all scores."""
    both = np.concatenate([normal, scores])
    room = 0.03 * max(np.ptp(both), 1e-6)
    return float(both.min() - room), float(both.max() + room)


def thresholds(normal, scores) -> np.ndarray:
    """All thresholds that differ in a decision (K,): each score, and one below all."""
    steps = np.unique(np.concatenate([normal, scores]))
    return np.concatenate([np.nextafter(steps[:1], -np.inf), steps])


def passing(normal, threshold) -> int:
    """How many of the normal scores (N,) a threshold lets pass."""
    return int((np.asarray(normal) <= threshold).sum())


def threshold_at(normal, count) -> float:
    """The lowest threshold that lets `count` of the normal scores (N,) pass.

    Of equal scores all pass. Else it is the inverse of `passing`.
    """
    ordered = np.sort(normal)
    return float(ordered[count - 1] if count else np.nextafter(ordered[0], -np.inf))


def decisions_html(views, lang="en") -> str:
    """Decision, confusion matrix and rates of views, side by side, as HTML.

    views: [{"name", "is_bad", "score", "threshold", "passing", "normal",
    **classification_metrics}] with file name, label and score of one image, and how
    many of how many normal training images pass.
    """
    say = speaker(lang)
    names = {0: say("good", "正常"), 1: say("bad", "异常"), -1: "–"}
    good, bad, blocks = names[0], names[1], []
    for index, view in enumerate(views):
        letter = f"({chr(97 + index)}) " if len(views) > 1 else ""
        is_over = view["score"] > view["threshold"]
        sign, decision = ("&gt;", bad) if is_over else ("≤", good)
        lines = [
            f"{letter}{say('threshold', '阈值')} <b>{view['threshold']:.4g}</b>, "
            + say("passes {}/{} of train/good", "放行 train/good 中的 {}/{}").format(
                view["passing"], view["normal"]
            ),
            f"{html.escape(view['name'])}: {view['score']:.4g} {sign} "
            f"{view['threshold']:.4g}, {say('decision', '判定')} <b>{decision}</b>, "
            f"{say('label', '标签')} {names[view['is_bad']]}",
            _confusion_html(view["confusion_matrix"], good, bad, say),
            say("false-positive rate", "假阳性率")
            + f" <b>{_percent(view['false_positive_rate'])}</b>, "
            + say("recall", "召回率")
            + f" <b>{_percent(view['recall'])}</b>",
        ]
        blocks.append(f"<div>{''.join(f'<div>{line}</div>' for line in lines)}</div>")
    look = "display:flex;flex-wrap:wrap;gap:8px 24px;line-height:1.5"
    return f'<div style="{look}">{"".join(blocks)}</div>'


def _percent(rate):
    return "–" if rate is None else f"{rate:.1%}"


def _confusion_html(matrix, good, bad, say):
    def cell(text, look=""):
        return f'<td style="padding:2px 14px;text-align:center;{look}">{text}</td>'

    rows = cell(say("label ↓, decision →", "标签 ↓，判定 →")) + cell(good) + cell(bad)
    for name, row in zip((good, bad), matrix, strict=True):
        shares = [count / max(sum(row), 1) for count in row]
        looks = [f"background:rgba(0,114,178,{0.5 * share:.2f})" for share in shares]
        counts = "".join(map(cell, row, looks))
        rows += f"</tr><tr>{cell(name)}{counts}"
    return f'<table style="margin:4px 0"><tr>{rows}</tr></table>'


# ------------------------------------------------------------------------- prose
# Jinja2 templates of Markdown in notebooks/06_report/; a line ![caption](figure:name
# "alt text") stands for a figure, <!-- name --> begins a section.

FIGURE = re.compile(r'^!\[(.*)\]\(figure:([\w-]+) "(.*)"\)$', re.MULTILINE)


def escape(value) -> str:
    """Text as Markdown that shows it literally, in pandoc and in JupyterLab."""
    text = re.sub(r"\s+", " ", str(value))
    return re.sub(r"[!-,/:-@[-`{-~]", lambda char: f"&#{ord(char[0])};", text)


def render_prose(name: str, lang: str, **values) -> dict[str, str]:
    """Sections {section: Markdown} of notebooks/06_report/{name}.{lang}.md.j2.

    Every inserted value is escaped, so that no name in the data can be markup; None
    becomes a dash.
    """

    def finalize(value):
        if isinstance(value, Markup):
            return value
        return Markup("–" if value is None else escape(value))

    def form(text):  # a filter that passes None on
        return lambda value, *digits: (
            None if value is None else Markup(text(value, *digits))
        )

    sign = speaker(lang)("\u00a0%", "%")
    environment = jinja2.Environment(
        autoescape=True,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": form(lambda x: f"{x:.4g}"),
        "fixed": form(lambda x, digits: f"{x:.{digits}f}"),
        "signed": form(lambda x, digits: f"{x:+.{digits}f}".replace("-", "−")),
        "percent": form(lambda x: f"{100 * x:.1f}".removesuffix(".0") + sign),
        "interval": form(lambda pair: f"{pair[0]:.3f}–{pair[1]:.3f}"),
        "chunks": form(lambda text: " ".join(re.findall(".{1,8}", escape(text)))),
    }
    path = ROOT / "notebooks" / "06_report" / f"{name}.{lang}.md.j2"
    # trim_blocks is for lines of tags alone: a tag that ends a line of text keeps it
    text = re.sub(
        r"^.*%\}$",
        lambda line: line[0] + "\n" * bool(re.sub(r"\{%.*?%\}", "", line[0]).strip()),
        path.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    text = environment.from_string(text).render(values)
    parts = re.split(r"^<!-- (\w+) -->$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))


def tell(sections: dict[str, str], section: str, figures: dict) -> None:
    """Display a section: its text, and figures[name]() where it names a figure."""
    parts = FIGURE.split(sections[section])  # text, caption, name, alt, text, …
    for index in range(0, len(parts), 4):
        if parts[index].strip():
            display(Markdown(parts[index].strip()), metadata={"section": section})
        if index + 1 < len(parts):
            caption, name, alt = parts[index + 1 : index + 4]
            alt = html.unescape(alt)
            show(figures[name](), caption, alt, section=section, figure=name)
