"""The measurements. Each takes settings and returns {row: (seconds, images)}."""

import re
import subprocess
import sys
import time
from dataclasses import asdict

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.spatial.distance import mahalanobis

import helpers
from anomaly.backbones import BACKBONES
from anomaly.dataset import load_dataset
from anomaly.features import patch_features, project
from anomaly.files import ROOT, write_file, write_image
from anomaly.gaussian import cross_validated_scores, fit_gaussian
from anomaly.machine import pick_device, readers
from anomaly.network import Trunk, load_trunk
from anomaly.report.pictures import heatmap_panel
from anomaly.report.style import encode
from anomaly.scores import WHOLE, anomaly_map, anomaly_maps

BATCH = 32  # images on which scoring from the backbone's features is timed
SUBSET = 3  # images on which the assignment's procedure is timed


def clock(work):
    """Seconds that work() takes, an accelerator's included, and its result."""
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def read_all(settings):
    dataset = load_dataset(settings.data, settings.category)
    size = (settings.image_size,) * 2
    with readers() as pool:
        read = pool.map(lambda path: dataset.read(path, size), dataset.images)
        return np.stack(list(read))


def decode(settings):
    seconds, images = clock(lambda: read_all(settings))
    return {"decode": (seconds, len(images))}


@torch.inference_mode()
def forward(settings):
    """The cut network as the library has it: the project folds batch normalisation."""
    backbone = BACKBONES[settings.backbone]
    stages = backbone.stages(backbone.build(settings.image_size))
    normal = backbone.mean, backbone.std
    trunk = Trunk(settings.backbone, stages, backbone.layers, *normal).eval()
    device, images = pick_device(settings.device), read_all(settings)
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).split(settings.batch_size)
    trunk.to(device)
    seconds, _ = clock(lambda: [trunk(x.to(device)) and None for x in batches])
    return {"forward": (seconds, len(images))}


def fit_and_score(settings):
    seconds, found = clock(lambda: helpers.detect(settings))
    images = len(found.normal) + len(found.bad) + len(found.test)
    return {"fit_and_score": (seconds, images)}


def backbone_features(settings, part, count):
    """Of the first images of a part, as the network gives them: (n, h, w, D)."""
    dataset = load_dataset(settings.data, settings.category)
    size = (settings.image_size,) * 2
    images = [dataset.read(path, size) for path in getattr(dataset, part)[:count]]
    return patch_features(load_trunk(**settings.network), np.stack(images))


def statistics(settings):
    """From features in memory."""
    features, which = helpers.extract_features(settings), settings.covariance
    good, x = features.good, backbone_features(settings, "test", BATCH)
    folds, _ = clock(lambda: cross_validated_scores(good, covariance=which))
    fitted, gaussian = clock(lambda: fit_gaussian(good, which))

    def score():
        scores = gaussian.score(project(x)).cpu().numpy()
        windows = [WHOLE] * len(scores)
        return anomaly_maps(scores, windows, settings.image_size, settings.sigma)

    total = len(features.half["test"])
    scored = clock(score)[0] * total / len(x)
    return {"fit": (folds + fitted, len(good)), "scoring": (scored, total)}


def heat_maps(settings):
    """As notebook 4 draws them."""
    detection = helpers.detect(settings)
    scale = detection.scale

    def draw(index):
        path = detection.dataset.test[index]
        image = detection.dataset.read(path, at_most=4 * settings.image_size)
        panel = heatmap_panel(image, detection.map(index), scale)
        write_image(settings.output / f"{path.stem}.png", panel)

    def work():
        with readers() as pool:
            return list(pool.map(draw, range(len(detection.test))))

    seconds, drawn = clock(work)
    return {"heat_maps": (seconds, len(drawn))}


def assignment(settings):
    """The assignment's procedure on the backbone's features, scaled from a subset."""
    features, size = helpers.extract_features(settings), (settings.image_size,) * 2
    dataset = load_dataset(settings.data, settings.category)
    good = backbone_features(settings, "train_good", BATCH).cpu().numpy()
    test = backbone_features(settings, "test", SUBSET).cpu().numpy()
    few, paths = features.half["test"][:SUBSET].float().numpy(), dataset.test[:SUBSET]

    def cov(x):
        return np.cov(x.reshape(-1, x.shape[-1]), rowvar=False)

    def invert(covariance):
        return np.linalg.inv(covariance + 1e-3 * np.eye(len(covariance)))

    def score(patches, mean, inverse):
        scores = [[mahalanobis(x, mean, inverse) for x in row] for row in patches]
        return anomaly_map(scores, size, settings.sigma)

    def draw(path, scores):
        image = dataset.read(path, size)
        figure, axes = plt.subplots(1, 3, figsize=(12, 4))
        axes[0].imshow(image)
        figure.colorbar(axes[1].imshow(scores, cmap="jet"), ax=axes[1])
        axes[2].imshow(image)
        axes[2].imshow(scores, cmap="jet", alpha=0.5)
        write_file(settings.output / f"{path.stem}.png", encode(figure)[1])

    plt.switch_backend("agg")
    summed, covariance = clock(lambda: cov(good))
    inverted, inverse = clock(lambda: invert(covariance))
    mean = good.mean(axis=(0, 1, 2))
    scored, maps = clock(lambda: [score(x, mean, inverse) for x in test])
    projected = few.mean(axis=(0, 1, 2)), invert(cov(few))
    projected, _ = clock(lambda: [score(x, *projected) for x in few])
    drawn, _ = clock(lambda: [*map(draw, paths, maps)])
    count, total = len(dataset.train_good), len(dataset.test)
    scale = total / len(paths)
    return {
        "scipy_fit": (summed * count / len(good) + inverted, count),
        "scipy_scoring": (scored * scale, total),
        "scipy_projected": (projected * scale, total),
        "matplotlib": (drawn * scale, total),
    }


def whole_run(settings):
    """main.py with its imports, kernel and PDF."""
    return {"whole_run": run_main(settings)[0]}


def second_run(settings):
    whole, stages = run_main(settings)
    return {"second_run": whole, "second_stages": stages}


def run_main(settings):
    command = [sys.executable, str(ROOT / "main.py")]
    for name, value in asdict(settings).items():
        command += ["-p", name, str(value)]
    options = {"check": True, "stdout": subprocess.PIPE, "text": True}
    seconds, done = clock(lambda: subprocess.run(command, **options))
    stages = float(re.search(r"features and scores +([\d.]+) s", done.stdout)[1])
    images = len(load_dataset(settings.data, settings.category).images)
    return (seconds, images), (stages, images)


TASKS = (decode, forward, fit_and_score, statistics, heat_maps, assignment)
TASKS = {task.__name__: task for task in (*TASKS, whole_run, second_run)}
