"""Image anomaly detection with a Gaussian of pretrained features: the whole story.

A backbone trained on ImageNet turns every image into a grid of patch features. From
normal images alone we learn their Gaussian distribution; the Mahalanobis distance of a
patch says how unusual it is, and the distances of an image are its anomaly map.

    settings -> features -> Gaussian -> detection -> evaluation

Each arrow is a *stage*: a function of the settings and the images, computed once and
kept on disk, so that every notebook runs alone and none waits for what another has
done. A stage calls rooms of the package `anomaly`, which take arrays and plain values;
`help("anomaly")` is their floor plan.

References
    Rippel, Mertens, Merhof: Modeling the distribution of normal data in pre-trained
        deep features for anomaly detection, ICPR 2020.
    Defard, Setkov, Loesch, Audigier: PaDiM, ICPR workshops 2021.
    Friedman: Regularized discriminant analysis, JASA 84, 1989.
    Bergmann, Fauser, Sattlegger, Steger: MVTec AD, CVPR 2019.
"""

import json
import time
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, wraps

import cv2
import numpy as np
import torch

from anomaly import evaluation, machine, scores
from anomaly.baselines import PERTURBATIONS, memory_bank_scores
from anomaly.cache import code, kept
from anomaly.dataset import Dataset, load_dataset
from anomaly.duplicates import duplicate_names
from anomaly.errors import InputError
from anomaly.features import Features, project, stream
from anomaly.files import sha256, write_file
from anomaly.framing import fit_framing, with_margin
from anomaly.gaussian import Gaussian, PatchSums, cross_validated_scores, fit_gaussian
from anomaly.labels import all_problems, read_labels, truth_fingerprint
from anomaly.model import Model
from anomaly.network import load_trunk
from anomaly.scores import conformal_threshold, image_scores
from anomaly.settings import Settings, resolve_backbone

EXTRACTED_BY = ("image_size", "precision", "backbone", "layers", "keeps_whole")
FITTED_BY = (*EXTRACTED_BY, "covariance")
SCORED_BY = (*FITTED_BY, "image_score", "max_fpr", "seed")
EVALUATED_BY = tuple(field.name for field in fields(Settings))


def stage(*names, gives=None, reads_labels=False):
    """Make compute(settings, dataset, **more) a stage: look_up(settings, **more).

    Its result is kept under all that it depends on: the settings `names`, `more`, the
    images, the code. It is handed out as gives(settings, dataset, **result).
    """

    def decorate(compute):
        @wraps(compute)
        def look_up(settings, **more):
            settings = resolve_backbone(settings)
            dataset = load_dataset(settings.data, settings.category)
            key = {
                "settings": {name: getattr(settings, name) for name in names} | more,
                "weights": sha256(settings.weights_file) if settings.weights else "",
                "device": machine.pick_device(settings.device).type,
                "data": dataset.fingerprint(),
                "truth": truth_fingerprint(dataset) if reads_labels else "",
                "code": code(),
                "versions": machine.versions(),
            }
            arguments = {"settings": settings, "dataset": dataset} | more
            result = kept(compute.__name__, key, lambda: compute(**arguments))
            return gives(settings, dataset, **result) if gives else result

        return look_up

    return decorate


def on_device(kind):
    """Hand out what a stage has kept as `kind`, with its arrays on the device."""
    return lambda settings, _, **arrays: kind.of(settings.device, **arrays)


def begin(namespace):
    """A notebook's settings, checked, from its parameters: begin(globals())."""
    settings = Settings.of(namespace)
    load_dataset(settings.data, settings.category)  # a wrong category is said here
    machine.warn_of_another_copy()
    return settings


# ----------------------------------------------------- features: notebooks 1 and 2


@stage(*EXTRACTED_BY, gives=on_device(Features))
def extract_features(settings, dataset):
    """Every image, framed, through the network; what is kept is a projection.

    The assignment's Gaussian needs the whole features: it is fitted and scored on the
    way. With covariance `global` they are kept whole.
    """
    start, side = time.perf_counter(), settings.image_size
    trunk = load_trunk(**settings.network)
    sources = {"good": dataset.read_normal(with_margin(side))}
    sources |= {"bad": dataset.train_bad, "test": dataset.test}
    framing = fit_framing(sources["good"], side, dataset.full_scale)
    sums = PatchSums()
    half, windows, assignment, whole = {}, {}, [], None
    for part in ("good", "bad", "test"):
        what = f"{settings.category} {'train/' * (part != 'test')}{part}"
        blocks, places = [], [np.zeros((0, 4))]
        for x, place in stream(trunk, framing, sources.pop(part), what):  # (B, h, w, D)
            if part == "good":
                sums.add(x)
            if part == "test":
                whole = whole or sums.gaussian()
                assignment.append(whole.score(x).cpu().numpy())
            x = x if settings.keeps_whole else project(x)
            blocks.append(x.half().cpu().numpy())
            places.append(place)
        half[part] = np.concatenate(blocks or [half["good"][:0]])  # no train/bad
        windows[part] = np.concatenate(places)
    return {
        **{"half": half, "windows": windows, "assignment": np.concatenate(assignment)},
        **{"layers": trunk.taps, "framing": framing},
        "seconds": time.perf_counter() - start,
    }


# ------------------------------------------------------------- Gaussian: notebook 3


@stage(*FITTED_BY, gives=on_device(Gaussian))
def fit(settings, dataset):
    """The `Gaussian` of all normal training images."""
    return fit_gaussian(extract_features(settings).good, settings.covariance).arrays()


# -------------------------------------------- scores, threshold and maps: notebook 4


@dataclass(frozen=True)
class Detection:
    """What is known before the evaluation; no test label has been read."""

    settings: Settings  # with the backbone resolved
    dataset: Dataset
    layers: tuple
    normal: np.ndarray  # (N, h, w) patch distances of train/good, out of sample
    bad: np.ndarray  # (B, h, w) of train/bad
    test: np.ndarray  # (T, h, w)
    windows: dict  # (N, 4) of each part, cf. `Framing.apply`
    embedding: np.ndarray  # (T, D) mean patch of each test image
    threshold: scores.Threshold
    data_sha256: str
    seconds: dict
    peak_rss_mb: float

    @property
    def normal_scores(self):
        return image_scores(self.normal, self.settings.image_score)  # (N,)

    @property
    def test_scores(self):
        return image_scores(self.test, self.settings.image_score)  # (T,)

    @cached_property
    def scale(self):
        """The (low, high) of all colours of the category, from normal images."""
        size, sigma = self.settings.image_size, self.settings.sigma
        windows = self.windows["good"]
        return scores.map_scale(scores.anomaly_maps(self.normal, windows, size, sigma))

    def map(self, index, shape=None):
        """The anomaly map of a test image, (image_size, image_size), or of `shape`."""
        size, sigma = (self.settings.image_size,) * 2, self.settings.sigma
        window = self.windows["test"][index]
        smooth = scores.anomaly_map(self.test[index], size, sigma, window)
        return smooth if shape is None else cv2.resize(smooth, shape[::-1])


@stage(*SCORED_BY, gives=Detection)
def detect(settings, dataset):
    """Fit the Gaussian to train/good and score every image, reading no labels."""
    if len(dataset.train_good) < 2:
        folder = settings.data / settings.category / "train" / "good"
        raise InputError(f"{folder}: one image is too few to learn from; add more")
    features, start = extract_features(settings), time.perf_counter()
    normal = cross_validated_scores(features.good, covariance=settings.covariance)
    gaussian, fitted = fit(settings), time.perf_counter()
    bad, test = gaussian.score(features.bad), gaussian.score(features.test)
    seconds = {"fit": fitted - start, "score": time.perf_counter() - fitted}
    normal, bad, test = (x.cpu().numpy() for x in (normal, bad, test))
    normal_scores = image_scores(normal, settings.image_score)
    return {
        "layers": features.layers,
        **{"normal": normal, "bad": bad, "test": test, "windows": features.windows},
        "embedding": features.test.mean(dim=(1, 2)).cpu().numpy(),
        "threshold": conformal_threshold(normal_scores, settings.max_fpr),
        "data_sha256": dataset.fingerprint(),
        "seconds": {"features": features.seconds, **seconds},
        "peak_rss_mb": machine.peak_rss_mb(),
    }


def fit_model(settings):
    """The `Model` that scores new images, from what the stages have learned."""
    detection = detect(settings)
    settings = detection.settings
    framing, trunk = extract_features(settings).framing, load_trunk(**settings.network)
    learned = {"threshold": detection.threshold, "scale": detection.scale}
    chosen = {"image_score": settings.image_score, "sigma": settings.sigma}
    return Model(trunk, framing, fit(settings), **learned, **chosen)


# -------------------------- evaluation: notebook 5; here labels are read, not before


@stage(*SCORED_BY)
def steadiness(settings, dataset, limit=16):
    """Scores on other days: which test images, {day: (n,)}. Reads no labels.

    At most `limit` test images, evenly spread, are perturbed.
    """
    picks = np.linspace(0, len(dataset.test) - 1, min(limit, len(dataset.test)))
    picks, features = picks.astype(int).tolist(), extract_features(settings)
    images = [dataset.read(dataset.test[i]) for i in picks]
    pairs = [(change, image) for change in PERTURBATIONS.values() for image in images]
    trunk, gaussian = load_trunk(**settings.network), fit(settings)
    batches = stream(trunk, features.framing, pairs, "other days", lambda p: p[0](p[1]))
    patches = [gaussian.score(features.test[picks])]
    for x, _ in batches:
        patches.append(gaussian.score(x if settings.keeps_whole else project(x)))
    rows = image_scores(torch.cat(patches).cpu().numpy(), settings.image_score)
    days = ("none", *PERTURBATIONS)
    return picks, dict(zip(days, rows.reshape(len(days), -1), strict=True))


def ablation_scores(settings):
    """Test scores (T,) from the assignment's method to the default, idea by idea."""
    features, share = extract_features(settings), settings.image_score
    patches = {"top share": features.assignment}
    for covariance in ("position", "shrunk"):
        row = replace(settings, covariance=covariance)
        patches[covariance] = fit(row).score(extract_features(row).test).cpu().numpy()
    share = Settings.image_score if share == "max" else share
    bank = memory_bank_scores(features.good, features.test, seed=settings.seed)
    rows = {"assignment": image_scores(features.assignment, "max")}
    rows |= {name: image_scores(x, share) for name, x in patches.items()}
    return rows | {"memory bank": bank}


@stage(*EVALUATED_BY, reads_labels=True)
def evaluate(settings, dataset):
    """The figures of metrics.json; what the labels or masks do not allow is None."""
    detection, labels = detect(settings), read_labels(dataset)
    is_bad, values, seed = labels.is_bad, detection.test_scores, settings.seed
    rows, (picks, days) = ablation_scores(settings), steadiness(settings)
    names = ("covariance", "image_score", "image_size")
    return {
        "category": settings.category,
        "backbone": settings.backbone,
        "layers": list(detection.layers),
        **{name: getattr(settings, name) for name in names},
        "n_train_good": len(dataset.train_good),
        "n_train_bad": len(dataset.train_bad),
        **evaluation.counts(is_bad),
        **evaluation.ranking(is_bad, values, seed),
        **evaluation.decision(is_bad, values, detection.threshold),
        "per_defect": evaluation.per_defect(labels.defect, is_bad, values),
        **evaluation.pixel_figures(dataset.test, detection.map, labels),
        **evaluation.comparison(is_bad, values, rows, seed),
        "steadiness": evaluation.other_days(is_bad[picks], days, detection.threshold),
        "null_reasons": evaluation.null_reasons(is_bad, any(labels.masks)),
        "problems": all_problems(dataset, labels),
        "duplicates": duplicate_names(dataset),
        "seconds": detection.seconds,
        "peak_rss_mb": detection.peak_rss_mb,
        "settings": asdict(settings),
        "versions": machine.versions(),
        "data_sha256": detection.data_sha256,
    }


def save_evaluation(settings):
    """Evaluate, and write scores.csv and metrics.json; returns the metrics."""
    metrics, detection = evaluate(settings), detect(settings)
    test, labels = detection.dataset.test, read_labels(detection.dataset)
    values, threshold = detection.test_scores, detection.threshold
    table = evaluation.scores_csv(test, labels, values, threshold)
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    write_file(settings.output / "scores.csv", table.encode())
    write_file(settings.output / "metrics.json", (text + "\n").encode())
    return metrics
