"""Plots, each a matplotlib figure, in English or Chinese (`lang`).

scores and is_bad are (T,); is_bad is 0 or 1, anything else is left out.
"""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.ticker import MaxNLocator
from sklearn.decomposition import PCA
from sklearn.metrics import roc_curve

from anomaly.intervals import roc_band
from anomaly.report.style import BLUE, CLASSES, GREY, ORANGE, speaker, styled


def _names(say):
    return [say("good", "正常"), say("bad", "异常")]


def _draw_scores(axes, scores, is_bad, threshold, normal, lang):
    say = speaker(lang)
    known = scores[(is_bad == 0) | (is_bad == 1)]
    bins = np.histogram_bin_edges(np.concatenate([known, normal, [threshold]]), 36)
    draw = partial(sns.histplot, bins=bins.tolist(), ax=axes)
    for (label, _, hatch, colour), name in zip(CLASSES, _names(say), strict=True):
        chosen = scores[is_bad == label]
        look = {"color": colour, "hatch": hatch, "alpha": 0.65, "edgecolor": "white"}
        draw(x=chosen, **look, label=f"{name} ({len(chosen)})")
    if len(normal):
        weights = np.full(len(normal), max((is_bad == 0).sum(), 1) / len(normal))
        label = f"{say('train/good, held out', 'train/good（留出）')} ({len(normal)})"
        look = {"element": "step", "fill": False, "color": GREY, "linewidth": 1}
        draw(x=normal, weights=weights, **look, label=label)
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
    cells = zip(matrix.flat, share.flat, strict=True)
    texts = np.reshape([f"{count}\n{part:.1%}" for count, part in cells], (2, 2))
    look = {"cmap": "Blues", "vmin": 0, "vmax": 1.3, "cbar": False, "square": True}
    ticks = {"xticklabels": _names(say), "yticklabels": _names(say)}
    sns.heatmap(share, annot=texts, fmt="", **look, **ticks, ax=axes)
    axes.set(xlabel=say("decision", "判定"), ylabel=say("label", "标签"))
    axes.tick_params(length=0)


def _draw_pca(axes, embedding, is_bad, lang, scores=None):
    say, known = speaker(lang), (is_bad == 0) | (is_bad == 1)
    pca = PCA(2, svd_solver="full").fit(embedding)
    x, y = pca.transform(embedding)[known].T
    names = _names(say)
    kinds = np.array(names)[is_bad[known]]
    _, markers, _, palette = zip(*CLASSES, strict=True)
    look = {"style": kinds, "style_order": names, "markers": markers, "s": 30}
    if scores is None:
        look |= {"hue": kinds, "hue_order": names, "palette": palette}
    else:
        norm = plt.Normalize(scores.min(), scores.max())
        look |= {"hue": scores[known], "hue_norm": norm, "palette": "cividis"}
        look |= {"legend": False, "edgecolor": GREY}
        bar = plt.cm.ScalarMappable(norm, "cividis")
        axes.figure.colorbar(bar, ax=axes, label=say("anomaly score", "异常分数"))
    sns.scatterplot(x=x, y=y, **look, linewidth=0.5, ax=axes)
    names = [say(f"component {i}", f"第 {i} 主成分") for i in (1, 2)]
    shares = zip(names, pca.explained_variance_ratio_, strict=True)
    xlabel, ylabel = (f"{name} ({share:.0%})" for name, share in shares)
    axes.set(xlabel=xlabel, ylabel=ylabel)


@styled
def plot_scores(scores, is_bad, threshold, normal=(), *, lang="en"):
    """Histogram of test scores; `normal`: held-out scores of train/good."""
    figure, axes = plt.subplots(figsize=(6.5, 2.9))
    _draw_scores(axes, scores, is_bad, threshold, np.asarray(normal), lang)
    return figure


@styled
def plot_roc(scores, is_bad, threshold, *, lang="en", seed=0):
    """ROC curve with its pointwise 95 % band and the threshold's working point."""
    figure, axes = plt.subplots(figsize=(3.9, 3.5))
    _draw_roc(axes, scores, is_bad, threshold, lang, seed)
    return figure


@styled
def plot_confusion(matrix, *, lang="en"):
    """Confusion matrix [[tn, fp], [fn, tp]] with the share of each row."""
    figure, axes = plt.subplots(figsize=(2.7, 2.5))
    _draw_confusion(axes, matrix, lang)
    return figure


@styled
def plot_pca(embedding, is_bad, scores, *, lang="en"):
    """The images' features (T, D) on two principal components, by label and score."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 2.9))
    _draw_pca(left, embedding, is_bad, lang)
    _draw_pca(right, embedding, is_bad, lang, scores)
    return figure


@styled
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


@styled
def plot_comparison(runs, *, lang="en"):
    """ROC curves of several categories, and their AUROC with intervals.

    runs: {category: (scores, is_bad, auroc, (low, high))}.
    """
    size = (6.5, 3 + 0.15 * max(len(runs) - 4, 0))
    figure, (left, right) = plt.subplots(1, 2, figsize=size)
    colours = sns.color_palette("colorblind")
    for row, (name, (scores, is_bad, auroc, interval)) in enumerate(runs.items()):
        known = (is_bad == 0) | (is_bad == 1)
        fpr, tpr, _ = roc_curve(is_bad[known], scores[known], drop_intermediate=False)
        look = {
            "color": colours[row % len(colours)],
            "ls": ("-", "--", "-.", ":")[row % 4],
        }
        left.plot(fpr, tpr, **look, label=name)
        right.plot(interval, [row, row], **look, lw=2)
        right.plot(auroc, row, "D", color=look["color"], clip_on=False)
    _draw_chance(left, lang)
    right.set_yticks(range(len(runs)), list(runs))
    right.set(xlabel="AUROC", ylim=(len(runs) - 0.5, -0.5))
    return figure


@styled
def labelled_grid(rows, names, titles=(), *, lang="en", inches=1.75):
    """Rows of RGB images (None: a gap), each after its name, below the titles.

    Drawn to an RGB picture: photographs are smaller as JPEG than a figure as PNG.
    """
    columns = max(len(row) for row in rows)
    size = (inches * columns + 0.3, inches * len(rows) + 0.3 * bool(titles))
    figure, axes = plt.subplots(len(rows), columns, figsize=size, dpi=110)
    axes = np.reshape(axes, (len(rows), columns))
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for line, row, name in zip(axes, rows, names, strict=True):
        line[0].set_ylabel(name)
        for axis, image in zip(line, row, strict=False):
            if image is not None:
                axis.imshow(image)
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title)
    figure.canvas.draw()
    picture = np.array(figure.canvas.buffer_rgba())[..., :3]
    plt.close(figure)
    return picture
