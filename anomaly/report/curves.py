"""Plots of notebook 08: how many images, how small a defect, how clean a folder."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullLocator, ScalarFormatter

from anomaly.limits import chance_band
from anomaly.report.style import BLUE, GREY, ORANGE, speaker, styled


def _plain(axis, ticks):
    """A logarithmic axis with these numbers at its ticks."""
    axis.set_major_locator(plt.FixedLocator(list(ticks)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(ScalarFormatter())


@styled
def plot_learning(points, max_fpr, *, lang="en"):
    """[Point] of `learning_curve`: AUROC, and false alarms beside the promise."""
    say, sizes = speaker(lang), sorted({p.n for p in points})
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 2.8))
    rows = [[p for p in points if p.n == n] for n in sizes]
    rates = [[p.false_alarms / max(p.held_out, 1) for p in row] for row in rows]
    areas = [[p.auroc for p in row if p.auroc is not None] for row in rows]
    bands = [chance_band(row[0].n, max(row[0].held_out, 1), max_fpr) for row in rows]
    label = say("chance alone, 90 %", "仅由偶然所致，90%")
    right.fill_between(sizes, *np.transpose(bands), color=GREY, alpha=0.2, label=label)
    promise = [row[0].promised for row in rows]
    right.plot(sizes, promise, "k--", lw=1, label=say("promised", "所保证"))
    for axes, values in ((left, areas), (right, rates)):
        if not all(values):
            axes.text(0.5, 0.5, say("no bad image", "没有异常图像"), ha="center")
            continue
        for n, row in zip(sizes, values, strict=True):
            axes.plot([n] * len(row), row, "o", color=BLUE, ms=4, alpha=0.4, mew=0)
        mean = say("mean of the subsets", "各子集的均值")
        axes.plot(sizes, [np.mean(row) for row in values], color=BLUE, label=mean)
    left.set_ylabel("AUROC")
    right.set_ylabel(say("false-positive rate, held out", "假阳性率（留出）"))
    for axes in (left, right):
        axes.set_xscale("log")
        _plain(axes.xaxis, sizes)
        axes.set_xlabel(say("normal images learned from", "用于学习的正常图像数"))
        axes.legend(loc="lower right" if axes is left else "upper right")
    return figure


@styled
def plot_sensitivity(image, response, depths, *, lang="en"):
    """Chance of a find over size, and the smallest size found, by place.

    image (H, W, 3), below the maps; `response` of `sensitivity_map`, `depths` that of
    `by_depth`.
    """
    say = speaker(lang)
    low, high = response.sizes
    figure, axes = plt.subplots(
        1, 3, figsize=(6.5, 2.7), width_ratios=(1.1, 1, 1), layout="constrained"
    )
    sizes = np.geomspace(low, high, 60)
    names = say("middle", "中部"), say("border", "边缘")
    for level, name, colour, line in zip(
        depths.level, names, (BLUE, ORANGE), ("-", "--"), strict=True
    ):
        chance = depths._replace(level=level).chance(sizes)
        axes[0].plot(sizes, chance, line, color=colour, label=name)
    axes[0].set_xscale("log")
    ticks = np.unique(np.floor(np.geomspace(low, high, 5)))
    ticks = ticks[ticks >= low]
    _plain(axes[0].xaxis, ticks)
    axes[0].set(ylim=(-0.02, 1.02), ylabel=say("chance of a find", "发现的概率"))
    axes[0].set_xlabel(say("size, pixels", "大小（像素）"))
    axes[0].legend(loc="lower right")
    norm = plt.matplotlib.colors.LogNorm(low, high)
    colours = plt.get_cmap("cividis_r").with_extremes(over="black")
    grid = round(len(response.level) ** 0.5)
    titles = say("found 1 time of 2", "2 次中发现 1 次")
    titles = titles, say("found 9 times of 10", "10 次中发现 9 次")
    for panel, chance, title in zip(axes[1:], (0.5, 0.9), titles, strict=True):
        smallest = response.smallest(chance)
        smallest = np.where(np.isinf(smallest), 10 * high, smallest)
        grey = image.mean(axis=2)
        pale = 100 + 155 * (grey - grey.min()) / max(np.ptp(grey), 1)
        look = {"extent": (0, 1, 1, 0)}
        panel.imshow(pale, cmap="gray", vmin=0, vmax=255, **look)
        look |= {"norm": norm, "cmap": colours, "alpha": 0.75}
        shown = panel.imshow(smallest.reshape(grid, grid), **look)
        panel.set_title(title)
        panel.set_axis_off()
    bar = figure.colorbar(shown, ax=axes[1:], extend="max", shrink=0.8, pad=0.02)
    _plain(bar.ax.yaxis, ticks)
    bar.set_label(say("smallest size, pixels", "最小大小（像素）"))
    return figure


@styled
def plot_mixtures(mixtures, *, lang="en"):
    """[Mixture]: what bad images among the normal ones cost, and what a look mends."""
    say = speaker(lang)
    figure, axes = plt.subplots(1, 3, figsize=(6.5, 2.5), sharex=True)
    shares = [100 * m.share for m in mixtures]
    labels = "AUROC", say("defects found", "检出率"), say("false alarms", "误报率")
    kept = [(m.auroc, m.found, m.false_alarms) for m in mixtures]
    cleaned = [m.trimmed or row for m, row in zip(mixtures, kept, strict=True)]
    for panel, label, before, after in zip(
        axes, labels, zip(*kept, strict=True), zip(*cleaned, strict=True), strict=True
    ):
        panel.plot(shares, before, "o-", color=BLUE, ms=4, label=say("as is", "原样"))
        name = say("after a look", "查看之后")
        panel.plot(shares, after, "^--", color=ORANGE, ms=4, label=name)
        panel.set_title(label)
        panel.set_xlabel(say("bad ones hidden, %", "混入的异常图像（%）"))
        panel.set_ylim(-0.02, 1.02)
    axes[0].set_ylim(min(0.5, *(row[0] for row in kept + cleaned)) - 0.02, 1.02)
    axes[2].set_ylim(-0.005, max(0.2, *(row[2] for row in kept + cleaned)) + 0.02)
    axes[0].legend(loc="lower left")
    return figure


@styled
def plot_found(response, bins, *, lang="en"):
    """Predicted chance of a find, and what was found of real defects, by size.

    bins: [(size, share, (low, high))] of the test images' masks.
    """
    say = speaker(lang)
    figure, axes = plt.subplots(figsize=(4.2, 2.8))
    ends = [size for size, *_ in bins] + list(response.sizes)
    sizes = np.geomspace(min(ends), max(ends), 80)
    label = say("predicted, planted spots", "预测（植入的斑点）")
    axes.plot(sizes, response.chance(sizes), color=BLUE, label=label)
    for i, (size, share, (low, high)) in enumerate(bins):
        label = say("measured, 95 % interval", "实测，95% 区间") if not i else None
        axes.plot([size, size], [low, high], color=ORANGE, lw=1)
        axes.plot(size, share, "^", color=ORANGE, label=label)
    axes.set_xscale("log")
    _plain(axes.xaxis, np.unique(np.rint(np.geomspace(sizes[0], sizes[-1], 6))))
    axes.set_yticks([0, 0.5, 1])
    axes.set(ylim=(-0.03, 1.25), ylabel=say("share found", "检出比例"))
    axes.set_xlabel(say("size of the defect, pixels", "缺陷大小（像素）"))
    axes.legend(loc="upper left")
    return figure
