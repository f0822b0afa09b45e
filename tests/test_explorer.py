"""The explorer: what it draws and says of one image at one threshold."""

import re

import numpy as np
import pytest

from anomaly.metrics import classification_metrics
from anomaly.report.explorer import (
    decisions_html,
    passing,
    score_limits,
    score_strip,
    threshold_at,
    thresholds,
    written,
)

NORMAL = np.float32([3, 1, 2, 5, 4])


def test_passing_and_threshold_are_inverse():
    for count in range(len(NORMAL) + 1):
        assert passing(NORMAL, threshold_at(NORMAL, count)) == count
    for threshold in thresholds(NORMAL, NORMAL):
        assert threshold_at(NORMAL, passing(NORMAL, threshold)) == threshold


def test_equal_scores_pass_together():
    assert passing([1, 2, 2, 3], threshold_at([1, 2, 2, 3], 2)) == 3


def test_thresholds_make_every_decision_once():
    scores = np.float32([2, 2.5, 7, 7])
    steps = thresholds(NORMAL, scores)
    assert (np.diff(steps) > 0).all()
    everything = np.concatenate([NORMAL, scores])
    decisions = {tuple(everything > step) for step in steps}
    assert len(decisions) == len(steps) == len(set(everything)) + 1
    assert {(True,) * 9, (False,) * 9} <= decisions


@pytest.mark.parametrize("scores", [[2.0, 9.0], [-5.0], [3.0]])
def test_limits_leave_room_for_every_score(scores):
    both = [*NORMAL, *scores]
    low, high = score_limits(NORMAL, scores)
    assert low < min(both) and high > max(both)
    low, high = score_limits([1.0, 1.0], [1.0])  # all the same
    assert low < 1 < high


def strip(threshold=2.5, chosen=0, lang="en", is_bad=(0, 1, -1)):
    scores = np.float32([2, 6, 4])
    marks = NORMAL, scores, np.array(is_bad), threshold, chosen, 600
    return score_strip(*marks, lang=lang)


def count(picture, colour):
    return (picture == colour).all(axis=2).sum()


def test_strip_tints_what_lies_above_the_threshold():
    tint = (251, 227, 212)
    tinted = [count(strip(threshold), tint) for threshold in (-9, 2, 4, 6, 99)]
    assert tinted == sorted(tinted, reverse=True) and tinted[0] > 3 * tinted[3]
    assert tinted[-1] < 100  # the line stays at the right end


@pytest.mark.parametrize("chosen, row", [(0, 40), (1, 66), (2, 53)])
def test_strip_rings_the_chosen_image_in_its_row(chosen, row):
    """Good above, bad below, what has no label between them."""
    others = [strip(chosen=other) for other in {0, 1, 2} - {chosen}]
    black = [(picture == 0).all(axis=2) for picture in (strip(chosen=chosen), *others)]
    ring = black[0] & ~black[1] & ~black[2]
    rows = np.flatnonzero(ring.any(axis=1))
    assert abs(rows.min() + rows.max() - 2 * row) <= 2


def test_chinese_is_drawn_without_boxes():
    """Each character has its own shape; a font without them draws one box for all."""
    assert (strip(lang="zh") != strip(lang="en")).any()
    shapes = set()
    for character in "测试正常异":
        blank = np.full((20, 20, 3), 255, np.uint8)
        drawn = written(blank, [(2, 0, character)], lang="zh")
        assert (drawn < 128).sum() > 20
        shapes.add(drawn.tobytes())
    assert len(shapes) == 5


def view(**changes):
    metrics = classification_metrics([0, 0, 1, 1], [0, 1, 1, 1])
    base = {"name": "a.png", "is_bad": 1, "score": 3.0, "threshold": 2.0}
    return {**base, "passing": 4, "normal": 5, **metrics, **changes}


def text_of(html):
    return re.sub(r"<[^>]*>", " ", html)


def test_decisions_are_told():
    told = text_of(decisions_html([view()]))
    for part in ("4/5 of train/good", "3 &gt; 2", "label bad", "50.0%", "100.0%"):
        assert part in told
    assert "(a)" not in told
    two = text_of(decisions_html([view(), view(threshold=3.0)], "zh"))
    assert "(a)" in two and "(b)" in two and "3 ≤ 3" in two and "放行" in two


def test_decisions_escape_names_and_know_no_labels():
    name = '<script>alert("x")</script>&.png'
    nobody = classification_metrics([-1, -1], [0, 1])
    html = decisions_html([view(name=name, is_bad=-1, **nobody)])
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "label –" in html and "false-positive rate <b>–</b>" in html
