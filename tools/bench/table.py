"""What benchmark.json and benchmark.md say."""

import platform
from statistics import median

import joblib
import torch

from anomaly.machine import pick_device, versions
from bench.tasks import BATCH, SUBSET

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
    "floor_light": "**floor** of {light}",
    "whole_run_light": "`main.py`, cold, with PDF, with {light} ²",
    "scipy_fit": "assignment: `np.cov` and `np.linalg.inv` ¹",
    "scipy_scoring": "assignment: `mahalanobis` per patch, to maps ¹",
    "scipy_projected": "– the same on projected features ¹",
    "matplotlib": "assignment: a matplotlib figure per image ¹",
}
LIGHT = "efficientnet_lite2"  # what runs where no other weights can be had


def add(found, first, second):
    """Runs of the sum of two rows, pair by pair."""
    return [
        (a[0] + b[0], a[1], max(a[2], b[2]))
        for a, b in zip(found[first], found[second], strict=False)
    ]


def summarise(found, settings, weights):
    """What benchmark.json holds; found = {row: [(seconds, images, peak memory)]}."""
    found = {
        **found,
        "floor": add(found, "decode", "forward"),
        "floor_light": add(found, "decode", "forward_light"),
    }
    middle = {name: [*map(median, zip(*f, strict=True))] for name, f in found.items()}
    seconds = {name: values[0] for name, values in middle.items()}
    names = [*ROWS, *(name for name in found if " images, " in name)]
    keys = ("seconds", "images", "peak_rss_mb", "ms_per_image", "over_floor", "runs")
    floor, device = seconds["floor"], pick_device(settings.device)
    cuda = {"gpu": torch.cuda.get_device_name()} if device.type == "cuda" else {}
    rows = []
    for name in names:
        its_floor = seconds["floor_light"] if name.endswith("_light") else floor
        per_image = 1000 * seconds[name] / middle[name][1]
        rows.append((*middle[name], per_image, seconds[name] / its_floor))
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
            **versions(),
        },
        "floor_s": floor,
        "ratios": {
            "fit_and_score": seconds["fit_and_score"] / floor,
            "whole_run": seconds["whole_run"] / floor,
            "whole_run_light": seconds["whole_run_light"] / seconds["floor_light"],
            "second_run": seconds["second_run"] / seconds["whole_run"],
            "scipy_over_ours_scoring": seconds["scipy_scoring"] / seconds["scoring"],
        },
        "peak_rss_mb": {name: middle[name][2] for name in names},
        "rows": [
            {"row": name, "what": ROWS.get(name, name).format(light=f"`{LIGHT}`")}
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
With `{light}`: {whole_run_light:.2f} × its floor.
Second run: {second_run:.2f} × the first.
SciPy's loop: {scipy_over_ours_scoring:.1f} × our scoring.

Medians. Memory is that of the process, for `main.py` of the largest of its processes.
The floor is in float32.
¹ Timed on at most {batch}, the assignment's per image on {subset}, and scaled to all.
The assignment's features are the backbone's, unprojected. ² Over its own floor.
"""
ROW = "| {what} | {seconds:.2f} | {images:.0f} | {ms_per_image:.2f} | "
ROW += "{over_floor:.3f} | {peak_rss_mb:.0f} | {runs} |"


def table(result):
    """benchmark.md."""
    rows = "\n".join(ROW.format(**row) for row in result["rows"])
    machine = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    changed = {"rows": rows, "machine": machine, "subset": SUBSET, "batch": BATCH}
    return TABLE.format(**result | result["ratios"] | changed | {"light": LIGHT})
