"""What the explorer shows of one test image at one threshold.

Drawn in a few milliseconds, so that it can follow a slider; `widgets` holds those.
"""

import html
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from anomaly.images import read_image
from anomaly.metrics import classification_metrics
from anomaly.report.pictures import heatmap_panel, written
from anomaly.report.style import speaker
from anomaly.scores import anomaly_map


@dataclass(frozen=True)
class Views:
    """All that the explorer can show: pure functions of what its controls say.

    learned(covariance) has what a detection has: normal_scores (N,), test_scores (T,),
    test (T, h, w), windows, scale, threshold. Nothing is kept of a view.
    """

    learned: Callable
    paths: list  # of the test images (T,)
    is_bad: np.ndarray  # (T,): 0 good, 1 bad, -1 unlabelled
    defect: list  # (T,) names
    size: int  # of the anomaly map
    colormap: str = "jet"
    lang: str = "en"
    read: Callable = lru_cache(maxsize=32)(read_image)

    def facts(self, index, threshold, covariance):
        """What this threshold decides on one test image, and on all."""
        learned = self.learned(covariance)
        normal, scores = learned.normal_scores, learned.test_scores
        return {
            **{"name": self.paths[index].name, "is_bad": int(self.is_bad[index])},
            **{"score": scores[index], "threshold": threshold},
            **{"passing": passing(normal, threshold), "normal": len(normal)},
            **classification_metrics(self.is_bad, scores > threshold),
        }

    def picture(self, index, threshold, covariance, sigma, alpha=0.5):
        """Original, heat map, overlay; below, all scores beside the threshold: RGB."""
        learned, size = self.learned(covariance), (self.size, self.size)
        window = learned.windows["test"][index]
        heat = anomaly_map(learned.test[index], size, sigma, window)
        look = {"colormap": self.colormap, "alpha": alpha, "height": 256}
        panel = heatmap_panel(
            self.read(self.paths[index]), heat, learned.scale, **look
        )
        marks = learned.normal_scores, learned.test_scores, self.is_bad, threshold
        strip = score_strip(*marks, index, panel.shape[1], lang=self.lang)
        return np.vstack([panel, strip])

    def scores(self, covariance):
        """Normal scores (N,), test scores (T,), and the covariance's own threshold."""
        learned = self.learned(covariance)
        return learned.normal_scores, learned.test_scores, learned.threshold.value

    def names(self, covariance):
        """[("027 · cut · 53.6 · missed", index)] of the test images, highest first."""
        _, scores, threshold = self.scores(covariance)
        say = speaker(self.lang)
        good, unknown = say("good", "正常"), say("no label", "无标签")
        names = []
        for i in np.argsort(-scores, kind="stable").tolist():
            label = int(self.is_bad[i])
            kind = (
                self.defect[i] or {0: good, 1: say("bad", "异常"), -1: unknown}[label]
            )
            what = outcome(label, scores[i] > threshold, self.lang)
            names.append(
                (f"{self.paths[i].stem} · {kind} · {scores[i]:.4g} · {what}", i)
            )
        return names


def outcome(is_bad, is_over, lang="en") -> str:
    """What a threshold makes of an image with this label, over it or not."""
    say = speaker(lang)
    over = {0: say("false alarm", "误报"), 1: say("found", "检出")}
    under = {0: say("passed", "放行"), 1: say("missed", "漏检")}
    if is_over:
        return over.get(is_bad, say("called bad", "判为异常"))
    return under.get(is_bad, say("called good", "判为正常"))


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
    return written(strip, texts, lang=lang)


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
