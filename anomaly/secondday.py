"""What a second day costs, and what some new normal images give back."""

import numpy as np

from anomaly.baselines import PERTURBATIONS
from anomaly.metrics import auroc, classification_metrics
from anomaly.scores import conformal_threshold


def second_day(model, refit, new, test, is_bad, counts=(10, 20, 40), draws=200, seed=0):
    """Rows of the worst other day: its threshold, one of k new normals, refitted.

    model: a `Model` that was fitted neither to the paths `new`, of normal images, nor
    to `test`, whose is_bad (T,) says which are; refit(change, paths) is the `Model` of
    its normal images and of those, changed. The worst of PERTURBATIONS is the one with
    the highest false-positive rate. Rates of k are means over `draws` of k of the new.
    """
    rate = model.settings.max_fpr
    rows = {name: scores_on(model, name, test) for name in PERTURBATIONS}

    def figures(scores, threshold):
        found = classification_metrics(is_bad, scores > threshold.value)
        return {
            "auroc": auroc(is_bad, scores),
            "promised_fpr": threshold.promised_fpr,
            **{name: found[name] for name in ("false_positive_rate", "recall")},
        }

    before = {name: figures(row, model.threshold) for name, row in rows.items()}
    worst = max(before, key=lambda name: before[name]["false_positive_rate"])
    table = [{"day": worst, "threshold": "before", **before[worst]}]
    normal, rng = scores_on(model, worst, new), np.random.default_rng(seed)
    for k in (k for k in counts if k <= len(new)):
        picks = [rng.choice(len(new), k, replace=False) for _ in range(draws)]
        found = [
            figures(rows[worst], conformal_threshold(normal[pick], rate))
            for pick in picks
        ]
        mean = {name: float(np.mean([f[name] for f in found])) for name in found[0]}
        table.append({"day": worst, "threshold": f"{k} new normals", **mean})
    again = refit(PERTURBATIONS[worst], new)
    last = figures(scores_on(again, worst, test), again.threshold)
    return [*table, {"day": worst, "threshold": f"refitted with {len(new)}", **last}]


def scores_on(model, day, paths):
    """Image scores (n,) of what one of PERTURBATIONS makes of images."""
    change = PERTURBATIONS[day]
    return model.image_scores(
        model.patch_scores(paths, day, lambda path: change(model.framing.read(path)))
    )
