"""What the explorer shows of one test image at one threshold.

Drawn in a few milliseconds, so that it can follow a slider; `widgets` holds those.
"""

import html
from functools import cache

import cv2
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from anomaly.report.style import cjk_font, speaker


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
