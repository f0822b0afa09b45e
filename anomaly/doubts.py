"""Reasons to mistrust a promise: what may break it, found without a label.

Too few different normal images, strange ones among them, look-alikes, and test images
that were not taken like the normal ones: each is a figure, and a sentence.
"""

import numpy as np
from scipy.stats import betabinom

from anomaly.languages import speaker
from anomaly.likeness import group_scores
from anomaly.scores import enough

DRIFT_LEVEL = 0.01  # how often a set without drift may be called one


def drift_test(normal, test, share=0.2):
    """p-value (one-sided) of: all test scores lie above the normal ones.

    normal (n,) are out of sample; no label is read. Exact if at least `share` of the
    test images are good and exchangeable with the normal ones: of B = share * T good
    ones, the number below the j-th of n normal scores is beta-binomial (B, j, n + 1 -
    j), and defects can only add to it. Four j, Bonferroni.
    """
    n, B = len(normal), int(np.ceil(share * len(test)))
    j = np.ceil(n * np.array([0.25, 0.5, 0.75, 0.95])).astype(int)
    below = np.searchsorted(np.sort(test), np.sort(normal)[j - 1], side="right")
    return float(min(1.0, 4 * betabinom.cdf(below, B, j, n + 1 - j).min()))


def strangeness(scores):
    """Modified z-scores (N,) of scores (Iglewicz & Hoaglin 1993)."""
    away = scores - np.median(scores)
    return away / max(1.4826 * np.median(np.abs(away)), 0.01)


def strange_normals(scores, limit=5.0):
    """Indices of normal images whose out-of-sample score is far out, strangest first.

    Nothing is left out for it: to drop high scores breaks the threshold's promise.
    """
    z = strangeness(scores)
    order = np.argsort(-z, kind="stable")
    return order[z[order] > limit]


def doubts(paths, groups, normal, test):
    """The figures: for metrics.json, and for `sentences`.

    paths (N) of normal images, their `groups` (N,) of look-alikes and out-of-sample
    scores normal (N,); test (T,), scores whose labels nobody knows.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    z = strangeness(normal)
    return {
        "n_groups": len(members),
        "look_alikes": [
            [paths[i].name for i in group] for group in members if len(group) > 1
        ],
        "strange_normals": [
            {"name": paths[i].name, "score": float(normal[i]), "z": float(z[i])}
            for i in strange_normals(normal)
        ],
        "drift_p": drift_test(group_scores(normal, groups), test),
    }


def sentences(doubts, threshold, max_fpr, lang="en"):
    """What a person should know before trusting `threshold`, a `Threshold`."""
    say, told = speaker(lang), []
    alike, strange = doubts["look_alikes"], doubts["strange_normals"]
    if alike:
        count, most = sum(map(len, alike)), max(alike, key=len)
        names = ", ".join(most[:4]) + ", …" * (len(most) > 4)
        told.append(
            say(
                f"{count} normal images look alike in {len(alike)} groups ({names}): "
                f"each group counts once, so that {doubts['n_groups']} images count.",
                f"{count} 张正常图像在 {len(alike)} 组中彼此相似（{names}）："
                f"每组只计一次，共计 {doubts['n_groups']} 张。",
            )
        )
    if threshold.promised_fpr > max_fpr:
        told.append(
            say(
                f"Only {threshold.n} different normal images: at most 1 false alarm in "
                f"{threshold.n + 1} can be promised, {max_fpr:g} takes "
                f"{enough(max_fpr)}. The threshold is the highest of their scores, so "
                "defects may be missed.",
                f"仅有 {threshold.n} 张不同的正常图像：最多只能保证 "
                f"{threshold.n + 1} 张中误报 1 张，"
                f"要保证 {max_fpr:g} 需要 {enough(max_fpr)} 张。"
                "阈值取其最高分，可能漏检。",
            )
        )
    for row in strange[:3]:
        ruling = row["score"] >= threshold.value
        told.append(
            say(
                f"{row['name']} in train/good is far from all other normal images "
                f"(score {row['score']:.4g}, z = {row['z']:.1f})"
                + (" and lifts the threshold" if ruling else "")
                + ": is it normal? Nothing was left out.",
                f"train/good 中的 {row['name']} 与其他正常图像相差很大"
                f"（分数 {row['score']:.4g}，z = {row['z']:.1f}）"
                + ("，并抬高了阈值" if ruling else "")
                + "：它确实正常吗？未剔除任何图像。",
            )
        )
    if doubts["drift_p"] < DRIFT_LEVEL:
        told.append(
            say(
                "The test images look different from the training images (all of their "
                f"scores lie higher, p = {doubts['drift_p']:.2g}, unless fewer than a "
                "fifth are good): the promised false-positive rate may not hold.",
                "测试图像与训练图像的拍摄条件似乎不同（全部分数偏高，"
                f"p = {doubts['drift_p']:.2g}，除非正常图像不足五分之一）："
                "所保证的假阳性率可能不成立。",
            )
        )
    return told
