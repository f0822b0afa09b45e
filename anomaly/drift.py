"""Is this still the day of the training? New images held against the normal ones.

The promise of a threshold holds for images taken like the normal images. Scores, place
and light of new images say whether they are; no label is read, and up to half of them
may be defective. No news is good news.
"""

import numpy as np

from anomaly.doubts import DRIFT_LEVEL, drift_test

GOOD_SHARE = 0.5  # of new images, at least: on a line defects are a minority


def drift(normals, scores, seen):
    """p-values {"scores", "place", "light"} of new images, or None if they are too few.

    normals as in `model.Normals`; scores (T,) and seen (T, 4) of the new images. Scores
    are tested for being higher, place and light for being elsewhere; all three are
    corrected for being three, so that one below DRIFT_LEVEL is drift at this level.
    """
    if not can_tell(len(normals.scores), len(scores)):
        return None
    sided = {"scores": [(normals.scores, scores)]}
    for what, at in (("place", (0, 1)), ("light", (2, 3))):
        pairs = [(normals.seen[:, i], seen[:, i]) for i in at]
        sided[what] = pairs + [(-old, -new) for old, new in pairs]
    return {
        what: min(1.0, 3 * len(pairs) * min(drift_test(*p, GOOD_SHARE) for p in pairs))
        for what, pairs in sided.items()
    }


def can_tell(n, count):
    """Can `count` new images, all beyond n normal ones, be called drift at all?"""
    return count > 0 and 12 * drift_test(np.zeros(n), np.ones(count), GOOD_SHARE) < (
        DRIFT_LEVEL
    )


def drift_line(p_values):
    """What to say of `drift`, in one line; empty where all is well."""
    if p_values is None:
        return f"drift: too few images to tell at the {DRIFT_LEVEL:.0%} level"
    low = [f"{k} (p = {p:.1g})" for k, p in p_values.items() if p < DRIFT_LEVEL]
    if not low:
        return ""
    return (
        f"drift: {', '.join(low)} unlike the normal images', unless most of these are "
        "defective; the promise may not hold: see --recalibrate"
    )
