"""The explorer's widgets: controls that move a picture and a text."""

import importlib.util
from functools import partial

import numpy as np
from IPython import get_ipython
from IPython.display import display

from anomaly.gaussian import COVARIANCES
from anomaly.report.explorer import decisions_html, passing, threshold_at, thresholds
from anomaly.report.show import img, picture_bundle
from anomaly.report.style import encode, speaker

WIDGET = "application/vnd.jupyter.widget-view+json"
DIMMED = ".anomaly-seen { opacity: 0.3; }"


def attended() -> bool:
    """Does somebody sit at the front end, with widgets to move?

    papermill and nbconvert say with every cell that nobody would answer `input()`.
    """
    shell = get_ipython()
    if shell is None or importlib.util.find_spec("ipywidgets") is None:
        return False
    request = shell.kernel.get_parent() if hasattr(shell, "kernel") else {}
    return request.get("content", {}).get("allow_stdin", False)


def explore(views, covariance, *, index, sigma):
    """Display controls, picture and text, and keep them together.

    views: `explorer.Views`; index, covariance, sigma: what is seen first. Where nobody
    can move anything that first view alone is shown; so it is, too, where the notebook
    is opened again without its kernel, or exported.
    """
    first = float(views.scores(covariance)[2])
    picture = views.picture(index, first, covariance, sigma)
    text = decisions_html([views.facts(index, first, covariance)], views.lang)
    alt = speaker(views.lang)("the first view of the explorer", "浏览器的初始视图")
    bundle, size = picture_bundle(picture, alt)
    if not attended():
        display(bundle, raw=True, metadata={"alt": alt, **size})
        display({"text/html": text, "text/plain": alt}, raw=True)
        return
    box = _linked(views, covariance, index, sigma)
    still = img("image/jpeg", bundle["image/jpeg"], alt) + text
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    display({WIDGET: view, "text/html": still, "text/plain": alt}, raw=True)


def _linked(views, covariance, index, sigma):
    """The widgets in a box, each moving what depends on it."""
    import ipywidgets

    say = speaker(views.lang)
    count = len(views.scores(covariance)[0])
    moved = _controls(say, views.names(covariance), index, count, covariance, sigma)
    seen = ipywidgets.Image(format="jpeg", layout={"align_self": "flex-start"})
    seen.add_class("anomaly-seen")
    text = ipywidgets.HTML(layout={"min_height": "15em"})  # the page does not jump
    wait = say(
        "<b>One moment:</b> the Gaussian of this covariance is being computed, the "
        "first time for up to a minute. The picture is still the one before.",
        "<b>请稍候：</b>正在计算该协方差的高斯模型，首次可能需要一分钟。"
        "上图仍是先前的结果。",
    )

    def pause(_):
        text.value = f"<style>{DIMMED}</style><progress></progress><br>{wait}"

    def draw(_=None):
        index, step, _, alpha, sigma, covariance = (m.value for m in moved.values())
        if index is None:  # the list of images is being replaced
            return
        threshold = float(_stops(views, covariance)[step])
        picture = views.picture(index, threshold, covariance, sigma, alpha)
        seen.value = encode(picture)[1]
        facts = views.facts(index, threshold, covariance)
        text.value = decisions_html([facts], views.lang)

    moved["covariance"].observe(pause, "value")
    _tie(views, moved["step"], moved["passing"], moved["covariance"], moved["index"])
    for name in moved.keys() - {"passing"}:  # which moves the step
        moved[name].observe(draw, "value")
    draw()
    return ipywidgets.VBox([*moved.values(), seen, text])


def _stops(views, covariance):
    """The thresholds that the slider stops at: from score to score."""
    normal, scores, _ = views.scores(covariance)
    return thresholds(normal, scores)


def _controls(say, names, index, count, covariance, sigma):
    """The widgets, by the name of what they move."""
    import ipywidgets

    # half of a narrow window is enough, and no more than 480 pixels of a wide one
    layout = {"width": "auto", "max_width": "480px"}
    look = {"layout": layout, "style": {"description_width": "12em"}}
    choice = partial(ipywidgets.Dropdown, **look)
    step = partial(ipywidgets.IntSlider, **look)
    slider = partial(ipywidgets.FloatSlider, **look)
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


def _tie(views, step, passing_slider, covariance, index):
    """Keep threshold, count of normal images, covariance and list of images in step.

    Whoever of threshold and count is moved takes the other along; a new covariance,
    whose scores are of another size, starts from its own threshold.
    """

    def follow_step(_):
        normal = views.scores(covariance.value)[0]
        stops = _stops(views, covariance.value)
        passing_slider.value = passing(normal, stops[step.value])

    def follow_passing(_):
        normal = views.scores(covariance.value)[0]
        stops = _stops(views, covariance.value)
        if passing(normal, stops[step.value]) != passing_slider.value:
            threshold = threshold_at(normal, passing_slider.value)
            step.value = int(np.searchsorted(stops, threshold))

    def follow_covariance(_=None):
        stops = _stops(views, covariance.value)
        step.max = len(stops) - 1
        step.value = int(np.searchsorted(stops, views.scores(covariance.value)[2]))
        chosen = index.value
        index.value = None  # with one chosen, new options would choose the first
        index.options = views.names(covariance.value)
        index.value = chosen

    step.observe(follow_step, "value")
    passing_slider.observe(follow_passing, "value")
    covariance.observe(follow_covariance, "value")
    follow_covariance()
