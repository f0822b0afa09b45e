"""Measure time, memory and growth against the floor: decoding and the bare network.

    python tools/benchmark.py [DATASET_PATH] [--backbone NAME] [--runs N] [--large]

Every run of a row is a process of its own, timed after its imports. The rows take
turns, so that a noisy machine hits all of them. Where the ImageNet weights are not at
hand random ones serve, since they take as long. Needs Linux or macOS.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import joblib
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.spatial.distance import mahalanobis

import helpers as hp
from anomaly.report.pictures import heatmap_panel
from anomaly.report.style import encode
from anomaly.scores import map_scale

SHARED = Path(os.environ.get("ANOMALY_SHARED", hp.ROOT.parent / "shared"))
LONG = 120  # seconds, after which a row is not run again
COUNTS, QUICK = (50, 100, 200), (4, 8)  # images to fit
LARGE = 391, 512  # images to fit, pixels
SUBSET = 3  # images on which the assignment's procedure is timed
BATCH = 32  # images on which scoring from the backbone's features is timed
ROWS = {
    "decode": "decode",
    "forward": "bare forward pass",
    "floor": "**floor**: decode + bare forward pass",
    "fit_and_score": "fit and score, from files",
    "fit": "– fit and cross-validation, from features",
    "scoring": "– test images, from the backbone's features to anomaly maps ¹",
    "fit_and_score_low": "fit and score with `precision` bfloat16",
    "heat_maps": "heat-map figures",
    "whole_run": "`main.py`, cold, with PDF",
    "whole_run_low": "– with `precision` bfloat16",
    "second_run": "`main.py` again, nothing changed",
    "second_stages": "– its stages",
    "scipy_fit": "assignment: `np.cov` and `np.linalg.inv` ¹",
    "scipy_scoring": "assignment: `mahalanobis` per patch, to maps ¹",
    "scipy_projected": "– the same on projected features ¹",
    "matplotlib": "assignment: a matplotlib figure per image ¹",
}

# -------------------------------------------------------------------- measurements
# Each takes settings and returns {row: (seconds, images)}.


def clock(work):
    """Seconds that work() takes, an accelerator's included, and its result."""
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def read_all(settings):
    dataset = hp.load_dataset(settings.data, settings.category)
    paths = dataset.train_good + dataset.train_bad + dataset.test
    with ThreadPoolExecutor() as pool:
        size = (settings.image_size,) * 2
        return np.stack([*pool.map(lambda path: hp.read_image(path, size), paths)])


def decode(settings):
    seconds, images = clock(lambda: read_all(settings))
    return {"decode": (seconds, len(images))}


@torch.inference_mode()
def forward(settings):
    """The cut network as the library has it: helpers fold the batch normalisation."""
    backbone = hp.BACKBONES[settings.backbone]
    stages = backbone.stages(backbone.build(settings.image_size))
    normal = backbone.mean, backbone.std
    trunk = hp.Trunk(settings.backbone, stages, backbone.layers, *normal).eval()
    device, images = hp.pick_device(settings.device), read_all(settings)
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).split(settings.batch_size)
    trunk.to(device)
    seconds, _ = clock(lambda: [trunk(x.to(device)) and None for x in batches])
    return {"forward": (seconds, len(images))}


def fit_and_score(settings):
    seconds, found = clock(lambda: hp.detect(settings))
    images = len(found.normal) + len(found.bad) + len(found.test)
    return {"fit_and_score": (seconds, images)}


def backbone_features(settings, part, count):
    """Of the first images of a part, as the network gives them: (n, h, w, D)."""
    dataset = hp.load_dataset(settings.data, settings.category)
    size = (settings.image_size,) * 2
    images = [hp.read_image(path, size) for path in getattr(dataset, part)[:count]]
    return hp.patch_features(hp.load_trunk(settings), np.stack(images))


def statistics(settings):
    """From features in memory."""
    features, which = hp.extract_features(settings), settings.covariance
    good, x = features.good, backbone_features(settings, "test", BATCH)
    folds, _ = clock(lambda: hp.cross_validated_scores(good, covariance=which))
    fitted, gaussian = clock(lambda: hp.fit_gaussian(good, which))

    def score():
        scores = gaussian.score(hp.project(x, settings)).cpu().numpy()
        return hp.anomaly_maps(scores, settings.image_size, settings.sigma)

    total = len(features.test)
    scored = clock(score)[0] * total / len(x)
    return {"fit": (folds + fitted, len(good)), "scoring": (scored, total)}


def heat_maps(settings):
    """As notebook 04 draws them."""
    detection = hp.detect(settings)
    sigma = settings.sigma
    normal = hp.anomaly_maps(detection.normal, settings.image_size, sigma)
    scale = map_scale(normal)

    def draw(index):
        path = detection.dataset.test[index]
        panel = heatmap_panel(hp.read_image(path), detection.map(index), scale)
        hp.write_image(settings.output / f"{path.stem}.png", panel)

    def work():
        with ThreadPoolExecutor() as pool:
            return list(pool.map(draw, range(len(detection.test))))

    seconds, drawn = clock(work)
    return {"heat_maps": (seconds, len(drawn))}


def assignment(settings):
    """The assignment's procedure on the backbone's features, scaled from a subset."""
    features, size = hp.extract_features(settings), (settings.image_size,) * 2
    dataset = hp.load_dataset(settings.data, settings.category)
    good = backbone_features(settings, "train_good", BATCH).cpu().numpy()
    test = backbone_features(settings, "test", SUBSET).cpu().numpy()
    few, paths = features.test[:SUBSET].cpu().numpy(), dataset.test[:SUBSET]

    def cov(x):
        return np.cov(x.reshape(-1, x.shape[-1]), rowvar=False)

    def invert(covariance):
        return np.linalg.inv(covariance + 1e-3 * np.eye(len(covariance)))

    def score(patches, mean, inverse):
        scores = [[mahalanobis(x, mean, inverse) for x in row] for row in patches]
        return hp.anomaly_map(scores, size, settings.sigma)

    def draw(path, scores):
        image = hp.read_image(path, size)
        figure, axes = plt.subplots(1, 3, figsize=(12, 4))
        axes[0].imshow(image)
        figure.colorbar(axes[1].imshow(scores, cmap="jet"), ax=axes[1])
        axes[2].imshow(image)
        axes[2].imshow(scores, cmap="jet", alpha=0.5)
        hp.write_file(settings.output / f"{path.stem}.png", encode(figure)[1])

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
    command = [sys.executable, str(hp.ROOT / "main.py")]
    for name, value in asdict(settings).items():
        command += ["-p", name, str(value)]
    options = {"check": True, "stdout": subprocess.PIPE, "text": True}
    seconds, done = clock(lambda: subprocess.run(command, **options))
    stages = float(re.search(r"features and scores +([\d.]+) s", done.stdout)[1])
    images = len(read_all(settings))
    return (seconds, images), (stages, images)


def answer(task, settings):
    """Print {row: (seconds, images)} and the peak memory in MB."""
    found = globals()[task](hp.Settings(**json.loads(settings)))
    runs_main = task in ("whole_run", "second_run")  # then the largest of its processes
    peak = hp.peak_rss_mb("CHILDREN" if runs_main else "SELF")
    print("\n" + json.dumps([found, peak]))


def ask(task, settings, work):
    """`answer` in a process of its own."""
    cache = work / ("main" if task in ("whole_run", "second_run") else "stages")
    if task in ("fit_and_score", "whole_run"):  # from a cold cache
        shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, __file__, "--task", task, json.dumps(asdict(settings))]
    environment = {**os.environ, "ANOMALY_CACHE": str(cache)}
    options = {"check": True, "stdout": subprocess.PIPE, "text": True}
    done = subprocess.run(command, env=environment, **options)
    return json.loads(done.stdout.splitlines()[-1])


# -------------------------------------------------------------------------- report


def copy_images(dataset, root, fit, test):
    """A data set of so many images of this one, repeated where it has fewer."""
    labels, entries = hp.read_labels(dataset), {}
    parts = {"train/good": (dataset.train_good, fit), "test": (dataset.test, test)}
    for part, (paths, count) in parts.items():
        folder = root / dataset.category / part
        folder.mkdir(parents=True)
        for i in range(count):
            source = i * len(paths) // count
            name = f"{i:04}{paths[source].suffix}"
            shutil.copyfile(paths[source], folder / name)
            if part == "test" and labels.is_bad[source] >= 0:
                label = ("good", "bad")[labels.is_bad[source]]
                entries[f"{dataset.category}/test/{name}"] = {"label": label}
    (root / hp.LABEL_FILE).write_text(json.dumps(entries), encoding="utf-8")
    return str(root)


def with_weights(settings, folder):
    """The settings with weights that are here, else random ones; which they are."""
    try:
        if not settings.weights:
            hp.BACKBONES[settings.backbone].weights(hp.AUTO_SECONDS)
        return settings, settings.weights or "ImageNet"
    except OSError:
        torch.manual_seed(0)
        network = hp.BACKBONES[settings.backbone].build(settings.image_size)
        torch.save(network.state_dict(), folder / "random.pth")
        return replace(settings, weights=str(folder / "random.pth")), "random"


def measure(settings, work, counts, large, runs):
    """{row: [(seconds, images, peak memory)]}, the rows taking turns."""
    tasks = ("decode", "forward", "fit_and_score", "statistics", "heat_maps")
    tasks += ("assignment", "whole_run", "second_run")
    steps = [(task, settings, "") for task in tasks]
    low = replace(settings, precision="bfloat16")
    steps += [(task, low, f"{task}_low") for task in ("fit_and_score", "whole_run")]
    sizes = [(count, settings.image_size) for count in counts]
    sizes += [(counts[0], 2 * settings.image_size)] + [LARGE] * large
    dataset = hp.load_dataset(settings.data, settings.category)
    for count, size in sizes:
        root = work / str(count)
        if not root.exists():
            copy_images(dataset, root, count, count // 4)
        grown = replace(settings, dataset_path=str(root), image_size=size)
        name = f"fit and score, {count} + {count // 4} images, {size} px"
        steps.append(("fit_and_score", grown, name))
    found, slow = defaultdict(list), set()
    for _ in range(runs):
        for step in [step for step in steps if step not in slow]:
            parts, peak = ask(*step[:2], work)
            for row, (seconds, images) in parts.items():
                found[step[2] or row].append((seconds, images, peak))
                print(f"{step[2] or row}: {seconds:.2f} s", file=sys.stderr, flush=True)
                slow |= {step} if seconds > LONG else set()
    found["floor"] = [
        (a[0] + b[0], a[1], max(a[2], b[2]))
        for a, b in zip(found["decode"], found["forward"], strict=False)
    ]
    return found


def summarise(found, settings, weights):
    """What benchmark.json holds."""
    middle = {name: [*map(median, zip(*f, strict=True))] for name, f in found.items()}
    seconds = {name: values[0] for name, values in middle.items()}
    names = [*ROWS, *(name for name in found if name not in ROWS)]
    keys = ("seconds", "images", "peak_rss_mb", "ms_per_image", "over_floor", "runs")
    floor, device = seconds["floor"], hp.pick_device(settings.device)
    cuda = {"gpu": torch.cuda.get_device_name()} if device.type == "cuda" else {}
    rows = [
        (*middle[name], 1000 * seconds[name] / middle[name][1], seconds[name] / floor)
        for name in names
    ]
    return {
        "backbone": settings.backbone,
        "weights": weights,
        "category": settings.category,
        "image_size": settings.image_size,
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": joblib.cpu_count(),
            "torch threads": torch.get_num_threads(),
            "device": device.type,
            **cuda,
            **hp.versions(),
        },
        "floor_s": floor,
        "ratios": {
            "fit_and_score": seconds["fit_and_score"] / floor,
            "whole_run": seconds["whole_run"] / floor,
            "second_run": seconds["second_run"] / seconds["whole_run"],
            "scipy_over_ours_scoring": seconds["scipy_scoring"] / seconds["scoring"],
        },
        "peak_rss_mb": {name: middle[name][2] for name in names},
        "rows": [
            {"row": name, "what": ROWS.get(name, name)}
            | dict(zip(keys, (*row, len(found[name])), strict=True))
            for name, row in zip(names, rows, strict=True)
        ],
    }


TABLE = """\
`{backbone}` with {weights} weights, {category}, {image_size} px; {machine}

| | seconds | images | ms per image | × floor | peak MB | runs |
|---|---|---|---|---|---|---|
{rows}

Fit and score: {fit_and_score:.2f} × floor. Whole run: {whole_run:.2f} × floor.
Second run: {second_run:.2f} × the first.
SciPy's loop: {scipy_over_ours_scoring:.1f} × our scoring.

Medians. Memory is that of the process, for `main.py` of the largest of its processes.
The floor is in float32.
¹ Timed on at most {batch}, the assignment's per image on {subset}, and scaled to all.
The assignment's features are the backbone's, unprojected.
"""
ROW = "| {what} | {seconds:.2f} | {images:.0f} | {ms_per_image:.2f} | "
ROW += "{over_floor:.3f} | {peak_rss_mb:.0f} | {runs} |"


def table(result):
    """benchmark.md."""
    rows = "\n".join(ROW.format(**row) for row in result["rows"])
    machine = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    changed = {"rows": rows, "machine": machine, "subset": SUBSET, "batch": BATCH}
    return TABLE.format(**result | result["ratios"] | changed)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    course = SHARED / "data" / "course"
    data = str(course.resolve()) if course.is_dir() else ""
    parser.add_argument("dataset_path", nargs="?", default=data)
    parser.add_argument("--backbone", default="wide_resnet50_2")
    parser.add_argument("--weights", default="", help="a local weights file")
    parser.add_argument("--category", default="hazelnut")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few images, one run")
    parser.add_argument("--large", action="store_true", help="391 images of 512 px too")
    parser.add_argument("--out", default="report", help="folder of the table")
    return parser.parse_args(argv)


def main(argv=None):
    """Exit status: 0 done, 2 bad input (one line on stderr)."""
    options = parse(argv)
    names = ("dataset_path", "backbone", "weights", "category", "image_size")
    try:
        settings = hp.Settings(**{name: getattr(options, name) for name in names})
        dataset = hp.load_dataset(settings.data, settings.category)
        with tempfile.TemporaryDirectory(prefix="anomaly-benchmark-") as folder:
            work, data = Path(folder), str(settings.data)
            if options.quick:
                data = copy_images(dataset, work / "few", 6, 4)
            output = str(work / "report")
            settings = replace(settings, dataset_path=data, visualization_dir=output)
            settings, weights = with_weights(settings, work)
            counts, runs = (QUICK, 1) if options.quick else (COUNTS, options.runs)
            found = measure(settings, work, counts, options.large, runs)
        result = summarise(found, settings, weights)
        out, text = hp.ROOT / options.out, table(result)
        content = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        hp.write_file(out / "benchmark.json", content.encode())
        hp.write_file(out / "benchmark.md", text.encode())
    except hp.InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--task"]:
        answer(*sys.argv[2:])
    else:
        sys.exit(main())
