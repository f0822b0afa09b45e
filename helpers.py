"""Image anomaly detection with a Gaussian of pretrained features: the whole story.

A backbone trained on ImageNet turns every image into a grid of patch features. From
normal images alone we learn their Gaussian distribution; the Mahalanobis distance of a
patch says how unusual it is, and the distances of an image are its anomaly map
(Rippel, Mertens & Merhof, ICPR 2020; PaDiM: Defard et al., ICPR workshops 2021).

    settings -> features -> Gaussian -> detection -> evaluation

Each arrow is a *stage*: a function of the settings and the images, computed once and
kept on disk, so that every notebook runs alone and none waits for what another has
done. A stage calls rooms of the package `anomaly`, which take arrays and plain values;
`help("anomaly")` is their floor plan.
"""

import time
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial, wraps

import numpy as np

from anomaly import doubts, evaluation, likeness, machine, roi, scores
from anomaly.baselines import PERTURBATIONS, memory_bank_scores
from anomaly.cache import kept
from anomaly.dataset import Dataset, load_dataset
from anomaly.duplicates import leaks
from anomaly.errors import InputError
from anomaly.features import Features, project, stream
from anomaly.files import sha256, write_file
from anomaly.framing import fit_framing, with_margin
from anomaly.gaussian import Gaussian, PatchSums, cross_validated_scores, fit_gaussian
from anomaly.labels import all_problems, read_labels, truth_fingerprint
from anomaly.model import Model, normals_of
from anomaly.network import load_trunk
from anomaly.settings import Settings, resolve_backbone

EXTRACTED_BY = ("image_size", "precision", "backbone", "layers", "keeps_whole")
FITTED_BY = (*EXTRACTED_BY, "covariance")


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
            }
            job = partial(compute, settings, dataset, **more)
            result = kept(compute.__name__, key, job)
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
    thumbs = np.stack([*map(likeness.thumbnail, sources["good"])])
    framing = fit_framing(sources["good"], side, dataset.full_scale, dataset.roi)
    half, windows, assignment, sums, whole = {}, {}, [], PatchSums(), None
    for part in ("good", "bad", "test"):
        what = f"{settings.category} {'train/' * (part != 'test')}{part}"
        blocks, places = [], [np.zeros((0, 4))]
        for x, place in stream(trunk, framing, sources.pop(part), what):  # (B, h, w, D)
            x = roi.only_inside(x, dataset.roi, with_margin(side), side)
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
    groups = likeness.look_alikes(half["good"], thumbs)
    return {
        **{"half": half, "windows": windows, "assignment": np.concatenate(assignment)},
        **{"groups": groups, "layers": trunk.taps},
        **{"framing": framing, "seconds": time.perf_counter() - start},
    }


# ------------------------------------------------------------- Gaussian: notebook 3


@stage(*FITTED_BY, gives=on_device(Gaussian))
def fit(settings, dataset):
    """The `Gaussian` of all normal training images."""
    good = extract_features(settings).narrow("good")
    return fit_gaussian(good, settings.covariance).arrays()


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
    groups: np.ndarray  # (N,) which normal images look alike
    embedding: np.ndarray  # (T, D) mean patch of each test image
    data_sha256: str
    cost: dict  # seconds and memory

    def image_scores(self, patches):
        """Image scores (N,) of patch distances (N, h, w)."""
        return scores.image_scores(patches, self.settings.image_score, self.usual)

    @cached_property
    def usual(self):
        return scores.usual_means(self.normal)  # (2, K)

    @property
    def normal_scores(self):
        return self.image_scores(self.normal)  # (N,)

    @property
    def test_scores(self):
        return self.image_scores(self.test)  # (T,)

    @property
    def threshold(self):
        """A `Threshold`; normal images that look alike count once."""
        highest = likeness.group_scores(self.normal_scores, self.groups)  # (K,)
        rate, count = self.settings.max_fpr, len(self.normal)
        return scores.conformal_threshold(highest, rate, count)

    @property
    def doubts(self):
        """Figures of what may break the threshold's promise."""
        both = self.normal_scores, self.test_scores
        return doubts.doubts(self.dataset.train_good, self.groups, *both)

    @cached_property
    def scale(self):
        """The (low, high) of all colours of the category, from normal images."""
        known = self.normal, self.windows["good"], self.settings.image_size
        maps = scores.anomaly_maps(*known, self.settings.sigma, outside=np.nan)
        return scores.map_scale(maps)

    def map(self, index, shape=None, outside=0.0):
        """The anomaly map of a test image, (image_size, image_size), or of `shape`."""
        size, sigma = (self.settings.image_size,) * 2, self.settings.sigma
        patches, window = self.test[index], self.windows["test"][index]
        smooth = scores.anomaly_map(patches, size, sigma, window, outside)
        return scores.enlarged(smooth, shape or size)


@stage(*FITTED_BY, gives=Detection)
def detect(settings, dataset):
    """Fit the Gaussian to train/good and score every image, reading no labels."""
    features, start = extract_features(settings), time.perf_counter()
    if not features.groups.any():
        where = settings.data / settings.category / "train" / "good"
        raise InputError(f"{where}: one picture is too few to learn from; add more")
    good, fold = features.narrow("good"), likeness.folds_by_likeness(features.groups)
    d = {"normal": cross_validated_scores(good, fold, covariance=settings.covariance)}
    gaussian, fitted = fit(settings), time.perf_counter()
    d |= {part: gaussian.score(features.narrow(part)) for part in ("bad", "test")}
    seconds = {"features": features.seconds, "fit": fitted - start}
    seconds["score"] = time.perf_counter() - fitted
    return {
        **{part: distances.cpu().numpy() for part, distances in d.items()},
        **{"layers": features.layers, "groups": features.groups},
        **{"windows": features.windows, "data_sha256": dataset.fingerprint()},
        "embedding": features.test.nanmean(dim=(1, 2)).cpu().numpy(),
        "cost": {"seconds": seconds, "peak_rss_mb": machine.peak_rss_mb()},
    }


def fit_model(settings):
    """The `Model` that scores new images, from what the stages have learned."""
    detection = detect(settings)
    settings, framing = detection.settings, extract_features(settings).framing
    known = detection.normal, detection.windows["good"], detection.groups, framing.seen
    normals = normals_of(settings, *known, detection.usual)
    learned = fit(settings), detection.usual, detection.scale, normals
    trunk, data = load_trunk(**settings.network), detection.data_sha256
    return Model(settings, trunk, framing, *learned, data)


# -------------------------- evaluation: notebook 5; here labels are read, not before


@stage(*FITTED_BY, "image_score")
def steadiness(settings, dataset, limit=16):
    """Scores on other days: which test images, {day: (n,)}. Reads no labels.

    At most `limit` test images, evenly spread, are perturbed.
    """
    picks = np.linspace(0, len(dataset.test) - 1, min(limit, len(dataset.test)))
    picks, side = picks.astype(int).tolist(), 4 * settings.image_size
    images = [dataset.read(dataset.test[i], at_most=side) for i in picks]
    pairs = [(change, image) for change in PERTURBATIONS.values() for image in images]
    model, detection = fit_model(settings), detect(settings)
    patches = model.patch_scores(pairs, "other days", lambda pair: pair[0](pair[1]))
    rows = detection.image_scores(patches).reshape(len(PERTURBATIONS), -1)
    changed = dict(zip(PERTURBATIONS, rows, strict=True))
    return picks, {"none": detection.test_scores[picks], **changed}


@stage(*FITTED_BY, "image_score", "seed")
def ablation_scores(settings, dataset):
    """Test scores (T,) from the assignment's method to the default, idea by idea."""
    features, share = extract_features(settings), 0.02
    rows = {"assignment": scores.image_scores(features.assignment, "max")}
    rows["top share"] = scores.image_scores(features.assignment, share)
    for covariance in ("position", "shrunk"):
        row = replace(settings, covariance=covariance)
        patches = fit(row).score(extract_features(row).test).cpu().numpy()
        rows[covariance] = scores.image_scores(patches, share)
    if settings.image_score == "scan":
        rows["scan"] = detect(settings).test_scores
    good, test = features.half["good"], features.half["test"]
    return rows | {"memory bank": memory_bank_scores(good, test, settings.seed)}


@stage(*(field.name for field in fields(Settings)), reads_labels=True)
def evaluate(settings, dataset):
    """The figures of metrics.json; what the labels or masks do not allow is None."""
    detection, labels = detect(settings), read_labels(dataset)
    is_bad, values, seed = labels.is_bad, detection.test_scores, settings.seed
    rows, (picks, days) = ablation_scores(settings), steadiness(settings)
    places = dataset.test, partial(detection.map, outside=np.nan), labels
    return {
        **{name: getattr(settings, name) for name in evaluation.SUBJECT},
        "layers": list(detection.layers),
        **evaluation.counts(dataset.train_good, dataset.train_bad, is_bad),
        **evaluation.ranking(is_bad, values, seed),
        **evaluation.decision(is_bad, values, detection.threshold),
        **detection.doubts,
        "per_defect": evaluation.per_defect(labels.defect, is_bad, values),
        **evaluation.pixel_figures(*places),
        **evaluation.region_figures(*places, fit_model(settings).map_threshold),
        **evaluation.comparison(is_bad, values, rows, seed),
        "steadiness": evaluation.other_days(is_bad[picks], days, detection.threshold),
        "null_reasons": evaluation.null_reasons(is_bad, any(labels.masks)),
        "problems": all_problems(dataset, labels),
        "duplicates": leaks(dataset),
        **detection.cost,
        "settings": asdict(settings),
        "versions": machine.versions(),
        "data_sha256": detection.data_sha256,
    }


def save_evaluation(settings):
    """Evaluate, and write scores.csv and metrics.json; returns the metrics."""
    metrics, detection = evaluate(settings), detect(settings)
    found = read_labels(detection.dataset), detection.test_scores, detection.threshold
    table = evaluation.scores_csv(detection.dataset.test, *found)
    write_file(settings.output / "scores.csv", table)
    write_file(settings.output / "metrics.json", evaluation.as_json(metrics))
    return metrics
