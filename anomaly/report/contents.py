"""What the report shows: which images, in which galleries, and facts for its prose."""

import json

import numpy as np

from anomaly.features import PROJECTION
from anomaly.gaussian import SHRINKAGE
from anomaly.images import read_image
from anomaly.report.pictures import gallery, sample_grid


def worth_showing(scores, is_bad, threshold, finds=6) -> dict[str, list]:
    """Indices {"find", "miss", "alarm"} of test images, highest score first.

    scores (T,); is_bad (T,): 1 bad, 0 good, -1 unlabelled. Every miss and false alarm
    is shown, and at most so many finds, among which are unlabelled images.
    """
    order, over = np.argsort(-scores, kind="stable"), scores > threshold
    return {
        "find": [i for i in order if over[i] and is_bad[i] != 0][:finds],
        "miss": [i for i in order if is_bad[i] == 1 and not over[i]],
        "alarm": [i for i in order if is_bad[i] == 0 and over[i]],
    }


def galleries(name, indices, panel, rows, count=3):
    """Test images in galleries of `count`: what draws them, and what they show.

    panel(index): the RGB picture of one image; rows[index]: what the prose says of it.
    Returns ({figure: function that draws it}, [{"figure", "rows"}]); the panels are
    drawn when a figure is.
    """
    figures, groups = {}, []
    for start in range(0, len(indices), count):
        part = indices[start : start + count]
        figure = f"{name}-{start // count + 1}"
        figures[figure] = lambda part=part: gallery([panel(i) for i in part])
        letters = zip("abcdefghi", part, strict=False)
        told = [{"letter": letter, **rows[i]} for letter, i in letters]
        groups.append({"figure": figure, "rows": told})
    return figures, groups


def samples(good, test, is_bad, defect, columns=6, read=read_image) -> np.ndarray:
    """Normal images, and below them defective test images of every kind: RGB.

    good, test: paths of train/good and of the test images (T,), for read(path); defect
    (T,) names.
    """
    spread = np.linspace(0, len(good) - 1, columns).astype(int)
    bad = [i for i in range(len(test)) if is_bad[i] == 1]
    first = {defect[i]: i for i in reversed(bad)}  # of every kind
    bad = list(dict.fromkeys([*sorted(first.values()), *bad]))[:columns]
    rows = [good[i] for i in np.unique(spread)], [test[i] for i in bad]
    grids = [sample_grid([read(p) for p in row], size=160) for row in rows if row]
    return np.vstack(grids)


def method_facts(covariance, image_score, dimension) -> dict:
    """For the prose: what has been done to patch features of this dimension."""
    is_global = covariance == "global"
    return {
        "dimension": dimension,
        "alpha": SHRINKAGE if covariance == "shrunk" else None,
        "projected": not is_global and dimension == PROJECTION,
        "is_assignment": is_global and image_score == "max",
    }


def limits_of(path, metrics):
    """What notebook 08 wrote to `path`; None if not there, or of another run."""
    if not path.exists():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    same = told["data_sha256"] == metrics["data_sha256"]
    chosen = metrics["settings"]
    same &= all(chosen[name] == value for name, value in told["settings"].items())
    return told if same else None
