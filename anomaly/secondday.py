"""What another day costs, and what some new normal images give back."""

import numpy as np
import torch

from anomaly.languages import speaker
from anomaly.limits import out_of_sample
from anomaly.metrics import auroc
from anomaly.scores import conformal_threshold, image_scores, usual_means

APART = -1  # fold of the bad images: no model is fitted without it


def recovery(
    good,
    changed,
    bad,
    fold,
    covariance,
    image_score,
    max_fpr,
    counts=(10, 20, 40),
    draws=200,
    seed=0,
    lang="en",
):
    """[{threshold, promised, auroc, fpr, found}]: another day, and two ways back.

    Features (N, h, w, D) of different normal images, `changed` of the same on the other
    day, `bad` (B, h, w, D) of others on that day; fold (N,). Rows: the threshold of the
    first day; that of k new normal images, mean over `draws` of k, features and
    covariance as they were; all fitted again, with half as many new ones. Every normal
    image is scored by the model of the other folds, and judged where it has not helped.
    """
    N, rng, say = len(good), np.random.default_rng(seed), speaker(lang)
    parts = torch.cat([good, changed, bad])
    folds = np.concatenate([fold, fold, np.full(len(bad), APART)])
    part = np.repeat(["good", "changed", "bad"], [N, N, len(bad)])

    def scores(fits):
        patches = out_of_sample(parts, folds, fits, covariance)
        return image_scores(patches, image_score, usual_means(patches[fits]))

    def row(name, values, known, judged):
        threshold = conformal_threshold(values[known], max_fpr)
        normal, found = values[judged], values[part == "bad"]
        label = np.repeat([0, 1], [len(normal), len(found)])
        return {
            **{"threshold": name, "promised": threshold.promised_fpr},
            "auroc": auroc(label, np.concatenate([normal, found])),
            "fpr": float((normal > threshold.value).mean()),
            "found": float((found > threshold.value).mean()) if len(found) else None,
        }

    first_day, that_day = part == "good", part == "changed"
    before = scores(first_day)
    table = [row(say("before", "原阈值"), before, first_day, that_day)]
    for k in (k for k in counts if k < N):
        rows = []
        for _ in range(draws):
            new = N + rng.permutation(N)
            name = say(f"{k} new", f"{k} 张新图像")
            rows.append(row(name, before, new[:k], new[k:]))
        table.append(rows[0] | _mean(rows))
    new = N + rng.permutation(N)
    fits = first_day.copy()
    fits[new[: N // 2]] = True
    name = say(f"refitted, {N // 2} new", f"加入 {N // 2} 张重新拟合")
    return [*table, row(name, scores(fits), fits, new[N // 2 :])]


def _mean(rows):
    """Their mean figures; what one lacks, all lack."""
    names = [name for name, value in rows[0].items() if isinstance(value, float)]
    return {name: float(np.mean([row[name] for row in rows])) for name in names}
