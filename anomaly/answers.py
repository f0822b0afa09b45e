"""Answers written down: a line on the console, JSON and CSV in full, as they come."""

import csv
import json
from contextlib import contextmanager

from anomaly.errors import InputError, one_line
from anomaly.files import whole_file

NUMBERS = ("score", "threshold", "p_value", "promised_fpr", "map_threshold")
NUMBERS += ("regions_share",)
COLUMNS = ("path", "decision", *NUMBERS, "regions", "boxes", "error")


def decision(answer):
    return "bad" if answer.is_bad else "good"


def line(answer, threshold):
    """An answer on one line; `threshold` is the `Threshold` of the score."""
    return (
        f"{one_line(answer.path.name)}  score {answer.score:.4g}  "
        f"threshold {threshold.value:.4g}  {decision(answer)}  "
        f"p {answer.p_value:.2g}  regions {len(answer.regions)}"
    )


def about(model):
    """What all answers of a model share: thresholds, and what they promise."""
    settings = model.settings
    names = ("category", "backbone", "covariance", "image_score", "image_size")
    return {
        **{name: getattr(settings, name) for name in names},
        "max_fpr": settings.max_fpr,
        "data_sha256": model.data_sha256,
        "n_normal": model.normals.count,
        "threshold": model.threshold.value,
        "promised_fpr": model.threshold.promised_fpr,
        "threshold_rule": model.threshold.rule,
        "map_threshold": model.map_threshold.value,
        "map_promised_fpr": model.map_threshold.promised_fpr,
    }


def in_full(answer):
    """An answer as it stands in JSON; pixels are those of the original image."""
    path = one_line(str(answer[0].absolute()))
    if isinstance(answer[1], InputError):
        return {"path": path, "error": str(answer[1])}
    regions = [
        region._asdict() | {"contour": region.contour.tolist()}
        for region in answer.regions
    ]
    return {
        "path": path,
        "decision": decision(answer),
        "score": answer.score,
        "p_value": answer.p_value,
        "size": answer.shape[::-1],  # width, height
        "regions": regions,
    }


@contextmanager
def json_file(path, model):
    """write(answer), for many; what is put into `end` follows them.

    In place of an `Answer` stands (path, `InputError`) if there is none. The file is
    whole, or absent.
    """
    separator, end = "\n  ", {}
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(f'{{"model": {_json(about(model))},\n "images": [')

        def write(answer):
            nonlocal separator
            file.write(separator + _json(in_full(answer)))
            separator = ",\n  "

        yield write, end
        file.write("\n ]")
        for name, value in end.items():
            file.write(f",\n {_json(name)}: {_json(value)}")
        file.write("\n}\n")


@contextmanager
def csv_file(path, model):
    """As `json_file`, a row for each image; a box is left,top,width,height."""
    shared = about(model)
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
        table.writeheader()

        def write(answer):
            row = in_full(answer)
            if "regions" in row:
                found, row = row["regions"], shared | row
                boxes = [",".join(map(str, region["box"])) for region in found]
                row |= {"regions": len(found), "boxes": " ".join(boxes)}
                row["regions_share"] = sum(region["share"] for region in found)
                row |= {name: f"{row[name]:.6g}" for name in NUMBERS}
            table.writerow(row)

        yield write, {}


def _json(value):
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
