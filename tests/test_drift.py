"""Drift: silent on the training's day, heard on another, at its stated level."""

import numpy as np
import pytest

from anomaly.doubts import DRIFT_LEVEL
from anomaly.drift import can_tell, drift, drift_line
from anomaly.model import Normals


def day(rng, n, shift=0.0, place=0, light=0.0):
    """Scores (n,), and places (whole pixels) and lights (n, 4)."""
    where = rng.integers(-1, 2, (n, 2)) + place
    lights = rng.normal([20, 200], 3, (n, 2)) + light
    return rng.normal(10 + shift, 1, n), np.hstack([where, lights])


def normals(rng, n=100):
    scores, seen = day(rng, n)
    return Normals(scores, scores, seen, n)


def test_level():
    """Days without drift: at most one in a hundred is called one."""
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(400):
        p = drift(normals(rng, 60), *day(rng, 50))
        called += min(p.values()) < DRIFT_LEVEL
    assert called <= 400 * DRIFT_LEVEL + 3 * np.sqrt(400 * DRIFT_LEVEL)


@pytest.mark.parametrize(
    "change, what",
    [
        ({"shift": 3}, "scores"),
        ({"place": 3}, "place"),
        ({"place": -3}, "place"),
        ({"light": 25}, "light"),
        ({"light": -25}, "light"),
    ],
)
def test_another_day_is_named(change, what):
    rng = np.random.default_rng(1)
    p = drift(normals(rng), *day(rng, 50, **change))
    assert p[what] < DRIFT_LEVEL
    assert all(p[other] >= DRIFT_LEVEL for other in p if other != what)
    assert f"drift: {what} (p = " in drift_line(p)
    assert len(drift_line(p).splitlines()) == 1


def test_a_minority_of_defects_is_no_drift():
    rng = np.random.default_rng(2)
    scores, seen = day(rng, 60)
    scores[:24] += 50
    assert drift_line(drift(normals(rng), scores, seen)) == ""


def test_too_few():
    rng = np.random.default_rng(3)
    assert drift(normals(rng), *day(rng, 2, shift=99)) is None
    assert "too few" in drift_line(None)
    assert not can_tell(100, 0)
    fewest = min(count for count in range(1, 50) if can_tell(100, count))
    assert drift(normals(rng), *day(rng, fewest, shift=99))["scores"] < DRIFT_LEVEL


def test_lower_scores_are_no_drift():
    rng = np.random.default_rng(4)
    assert drift(normals(rng), *day(rng, 50, shift=-5))["scores"] == 1
