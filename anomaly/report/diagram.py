"""The method as boxes and arrows."""

import textwrap

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from anomaly.report.style import GREY, speaker, styled


@styled
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
