"""Measure time, memory and growth against the floor: decoding and the bare network.

    python tools/benchmark.py [DATASET_PATH] [--backbone NAME] [--runs N] [--large]

Every run of a row is a process of its own, timed after its imports. The rows take
turns, so that a noisy machine hits all of them; a slow one does not run again. Where
the ImageNet weights are not at hand random ones serve, since they take as long. Needs
Linux or macOS.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path

from anomaly.dataset import load_dataset
from anomaly.errors import InputError
from anomaly.files import ROOT, write_file
from anomaly.machine import peak_rss_mb
from anomaly.settings import Settings
from bench.data import copy_images, with_weights
from bench.table import LIGHT, summarise, table
from bench.tasks import TASKS

SHARED = Path(os.environ.get("ANOMALY_SHARED", ROOT.parent / "shared"))
LONG = 60  # seconds, after which a row is not run again
ONCE = ("assignment",)  # scaled from a few images: a second run tells no more
COUNTS, QUICK = (50, 100, 200), (4, 8)  # images to fit
LARGE = 391, 512  # images to fit, pixels
RUNS_MAIN = ("whole_run", "second_run")


def answer(task, settings):
    """Print {row: (seconds, images)} and the peak memory in MB."""
    found = TASKS[task](Settings(**json.loads(settings)))
    # of main.py, the largest of its processes
    peak = peak_rss_mb("CHILDREN" if task in RUNS_MAIN else "SELF")
    print("\n" + json.dumps([found, peak]))


def ask(task, settings, cache):
    """`answer` in a process of its own."""
    if task in ("fit_and_score", "whole_run"):  # from a cold cache
        shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, __file__, "--task", task, json.dumps(asdict(settings))]
    environment = {**os.environ, "ANOMALY_CACHE": str(cache)}
    options = {"check": True, "stdout": subprocess.PIPE, "text": True}
    done = subprocess.run(command, env=environment, **options)
    return json.loads(done.stdout.splitlines()[-1])


def plan(settings, work, counts, large):
    """The runs of a round: (task, settings, end or name of the row)."""
    steps = [(task, settings, "") for task in TASKS]
    low = replace(settings, precision="bfloat16")
    steps += [(task, low, f"{task}_low") for task in ("fit_and_score", "whole_run")]
    light = replace(settings, backbone=LIGHT, weights="")
    steps += [(task, light, f"{task}_light") for task in ("forward", "whole_run")]
    sizes = [(count, settings.image_size) for count in counts]
    sizes += [(counts[0], 2 * settings.image_size)] + [LARGE] * large
    dataset = load_dataset(settings.data, settings.category)
    for count, size in sizes:
        root = work / str(count)
        if not root.exists():
            copy_images(dataset, root, count, count // 4)
        grown = replace(settings, dataset_path=str(root), image_size=size)
        name = f"fit and score, {count} + {count // 4} images, {size} px"
        steps.append(("fit_and_score", grown, name))
    return steps


def measure(steps, work, runs):
    """{row: [(seconds, images, peak memory)]}, the rows taking turns."""
    found, done = defaultdict(list), set()
    for _ in range(runs):
        for step in [step for step in steps if step not in done]:
            task, settings, name = step
            kind = "main" if task in RUNS_MAIN else "stages"  # a cache of its own each
            kind += f"-{settings.backbone}-{settings.precision}"
            kind = "grown" if " images, " in name else kind
            parts, peak = ask(task, settings, work / kind)
            for row, (seconds, images) in parts.items():
                found[name or row].append((seconds, images, peak))
                print(f"{name or row}: {seconds:.2f} s", file=sys.stderr, flush=True)
                if seconds > LONG or task in ONCE or " images, " in name:
                    done.add(step)
    return found


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    course = SHARED / "data" / "course"
    data = str(course.resolve()) if course.is_dir() else ""
    parser.add_argument("dataset_path", nargs="?", default=data)
    parser.add_argument("--backbone", default="wide_resnet50_2")
    parser.add_argument("--weights", default="", help="a local weights file")
    parser.add_argument("--category", default="hazelnut")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few images, one run")
    parser.add_argument("--large", action="store_true", help="391 images of 512 px too")
    parser.add_argument("--out", default="report", help="folder of the table")
    return parser.parse_args(argv)


def main(argv=None):
    """Exit status: 0 done, 2 bad input (one line on stderr)."""
    options = parse(argv)
    names = ("dataset_path", "backbone", "weights", "category", "image_size")
    try:
        settings = Settings(**{name: getattr(options, name) for name in names})
        dataset = load_dataset(settings.data, settings.category)
        with tempfile.TemporaryDirectory(prefix="anomaly-benchmark-") as folder:
            work, data = Path(folder), str(settings.data)
            if options.quick:
                data = copy_images(dataset, work / "few", 6, 4)
            output = str(work / "report")
            settings = replace(settings, dataset_path=data, visualization_dir=output)
            settings, weights = with_weights(settings, work)
            counts, runs = (QUICK, 1) if options.quick else (COUNTS, options.runs)
            found = measure(plan(settings, work, counts, options.large), work, runs)
        result = summarise(found, settings, weights)
        out, text = ROOT / options.out, table(result)
        content = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        write_file(out / "benchmark.json", content.encode())
        write_file(out / "benchmark.md", text.encode())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--task"]:
        answer(*sys.argv[2:])
    else:
        sys.exit(main())
