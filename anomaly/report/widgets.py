"""The explorer's widgets: controls that move a picture and a text."""

import importlib.util
from functools import partial

import numpy as np
from IPython import get_ipython
from IPython.display import display

from anomaly.gaussian import COVARIANCES
from anomaly.report.explorer import decisions_html, passing, threshold_at, thresholds
from anomaly.report.style import encode, speaker


def attended() -> bool:
    """Does somebody sit at the front end, with widgets to move?

    papermill and nbconvert say with every cell that nobody would answer `input()`.
    """
    shell = get_ipython()
    if shell is None or importlib.util.find_spec("ipywidgets") is None:
        return False
    request = shell.kernel.get_parent() if hasattr(shell, "kernel") else {}
    return request.get("content", {}).get("allow_stdin", False)


def explore(picture, facts, scores_of, images, covariance, *, index=0, sigma, lang):
    """Display controls, picture and text, and keep them together.

    picture(index, threshold, covariance, sigma, alpha): an RGB array;
    facts(index, threshold, covariance): a view of `explorer.decisions_html`;
    scores_of(covariance): normal scores (N,), test scores (T,), the own threshold.
    images: a name for each test image (T,). index, covariance, sigma: the first view.
    """
    import ipywidgets

    say = speaker(lang)
    count = len(scores_of(covariance)[0])
    moved = _controls(say, images, index, count, covariance, sigma)
    seen = ipywidgets.Image(format="jpeg", layout={"align_self": "flex-start"})
    text = ipywidgets.HTML()

    def wait(_):
        text.value = say("One moment …", "请稍候……")

    def draw(_=None):
        index, step, _, alpha, sigma, covariance = (m.value for m in moved.values())
        threshold = float(_stops(scores_of, covariance)[step])
        seen.value = encode(picture(index, threshold, covariance, sigma, alpha))[1]
        text.value = decisions_html([facts(index, threshold, covariance)], lang)

    moved["covariance"].observe(wait, "value")
    _tie(scores_of, moved["step"], moved["passing"], moved["covariance"])
    for name in moved.keys() - {"passing"}:  # which moves the step
        moved[name].observe(draw, "value")
    draw()
    display(ipywidgets.VBox([*moved.values(), seen, text]))


def _stops(scores_of, covariance):
    """The thresholds that the slider stops at: from score to score."""
    normal, scores, _ = scores_of(covariance)
    return thresholds(normal, scores)


def _controls(say, images, index, count, covariance, sigma):
    """The widgets, by the name of what they move."""
    import ipywidgets

    look = {"layout": {"width": "480px"}, "style": {"description_width": "180px"}}
    choice = partial(ipywidgets.Dropdown, **look)
    step = partial(ipywidgets.IntSlider, **look)
    slider = partial(ipywidgets.FloatSlider, **look)
    names = [(name, i) for i, name in enumerate(images)]
    says = {
        "index": say("test image", "测试图像"),
        "step": say("threshold", "阈值"),
        "passing": say("normal images passed", "放行的正常图像"),
        "alpha": say("opacity", "不透明度"),
        "sigma": say("smoothing in pixels", "平滑（像素）"),
        "covariance": say("covariance", "协方差"),
    }
    widgets = {
        "index": choice(options=names, value=index),
        "step": step(readout=False),
        "passing": step(max=count),
        "alpha": slider(max=1, step=0.05, value=0.5),
        "sigma": slider(max=max(32, sigma), step=0.5, value=sigma),
        "covariance": choice(options=COVARIANCES, value=covariance),
    }
    for name, widget in widgets.items():
        widget.description = says[name]
    return widgets


def _tie(scores_of, step, passing_slider, covariance):
    """Keep threshold, count of normal images and covariance in step.

    Whoever of threshold and count is moved takes the other along; a new covariance,
    whose scores are of another size, starts from its own threshold.
    """

    def follow_step(_):
        normal = scores_of(covariance.value)[0]
        stops = _stops(scores_of, covariance.value)
        passing_slider.value = passing(normal, stops[step.value])

    def follow_passing(_):
        normal = scores_of(covariance.value)[0]
        stops = _stops(scores_of, covariance.value)
        if passing(normal, stops[step.value]) != passing_slider.value:
            threshold = threshold_at(normal, passing_slider.value)
            step.value = int(np.searchsorted(stops, threshold))

    def follow_covariance(_=None):
        stops = _stops(scores_of, covariance.value)
        step.max = len(stops) - 1
        step.value = int(np.searchsorted(stops, scores_of(covariance.value)[2]))

    step.observe(follow_step, "value")
    passing_slider.observe(follow_passing, "value")
    covariance.observe(follow_covariance, "value")
    follow_covariance()
