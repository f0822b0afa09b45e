"""Labels and masks of the test images: the truth, for the evaluation alone."""

import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from anomaly.dataset import Dataset
from anomaly.errors import CONTROLS, InputError, one_line
from anomaly.files import fingerprint, stamp
from anomaly.images import by_stem, image_shape, list_images
from anomaly.images import entries as folder_entries
from anomaly.masks import checked_mask, read_mask
from anomaly.names import nfc, some
from anomaly.roi import share_inside

LABEL_FILE = "image_anomaly_labels.json"


@dataclass(frozen=True)
class Labels:
    """Ground truth aligned with `Dataset.test`."""

    is_bad: np.ndarray  # (T,) int8: 0 good, 1 bad, -1 unlabelled
    defect: list[str]  # "" where not named
    masks: list[Path | None]
    problems: list[str]  # warnings, one line each


def read_labels(dataset: Dataset) -> Labels:
    """Read the labels of the test images; for evaluation only.

    Without a label file nothing is labelled; a wrong one raises InputError.
    """
    path, base = dataset.root / LABEL_FILE, nfc(f"{dataset.category}/test/")
    folder = dataset.root / dataset.category / "ground_truth"
    masks = by_stem(list_images(folder, optional=True))
    there = os.path.lexists(path)
    entries = parse_labels(path) if there else {}
    keys = [nfc(base + p.name) for p in dataset.test]
    ours = [k for k in entries if k.count("/") < 2 or k.startswith(base)]
    known, stems = set(keys), [nfc(p.stem) for p in dataset.test]
    missing = [k for k in keys if k not in entries]
    named = {
        "label without an image": [k for k in ours if k not in known],
        "image without a label": missing,
        "mask without an image": [p.name for s, p in masks.items() if s not in stems],
    }
    problems = [f"{what}: {some(names)}" for what, names in named.items() if names]
    if not there:
        problems.insert(0, f"{path}: not found{misnamed(dataset)}")
    if missing and entries:
        strays = [k for k in entries if k not in known]
        problems.append(likely_cause(missing, strays, dataset))
    if any(p.stem.endswith("_mask") for s, p in masks.items() if s not in stems):
        problems.append("a mask has its image's name: 001.png, not 001_mask.png")
    found = [entries.get(key, (-1, "")) for key in keys]
    return Labels(
        is_bad=np.array([is_bad for is_bad, _ in found], dtype=np.int8),
        defect=[defect for _, defect in found],
        masks=[masks.get(stem) for stem in stems],
        problems=[one_line(p) for p in problems if p],
    )


CAUSES = {  # what may be odd about a label's key, and the key without it
    "in another case": str.casefold,
    "with blanks or %20": lambda key: unquote(key).replace(" ", ""),
    "with another number of zeros": lambda key: re.sub(r"(?<!\d)0+(?=\d)", "", key),
    "with another ending": lambda key: key[: -len(Path(key).suffix) or None],
    "below another folder": lambda key: "/".join(key.split("/")[-3:]),
    "without the category, or with another": lambda k: "/".join(k.split("/")[-2:]),
    "without the folder test": lambda key: key.replace("/test/", "/", 1),
    "by the name alone": lambda key: key.split("/")[-1],
}


def likely_cause(missing: list[str], strays: list[str], dataset: Dataset) -> str:
    """Why the keys of images have no label, by those of labels without an image."""
    others = {key.split("/")[0] for key in strays if key.count("/") == 2}
    others = {o for o in others if os.path.isdir(dataset.root / o / "test")}
    strays = [k for k in strays if k.split("/")[0] not in others - {dataset.category}]
    for words, plain in CAUSES.items():
        wanted = {plain(key): key for key in missing}
        for key in strays:
            if (fits := wanted.get(plain(key))) is not None:
                return f"label keys {words}? {key!r} should be {fits!r}"
    if not strays and others:
        return f"the label file has labels of {some(sorted(others))}, not of these"
    return ""


def misnamed(dataset: Dataset) -> str:
    """A hint at files that may be meant as label file."""
    folders = (dataset.root, dataset.root / dataset.category)
    found = [p for folder in folders for p in folder_entries(folder)]
    near = [str(p) for p in found if "label" in p.name.lower() and p.is_file()]
    return f"; is it {near[0]}? move or rename it" if near else ""


def parse_labels(path: Path) -> dict[str, tuple[int, str]]:
    """{"category/test/name": (is_bad, defect)}; no key is ever opened as a path."""

    def unique(pairs: list[tuple]) -> dict:
        entries = {}
        for key, value in pairs:
            key = nfc(key.replace("\\", "/").removeprefix("./"))
            if key in entries:
                raise InputError(f"{path}: {key!r} is there twice; remove one")
            entries[key] = value
        return entries

    try:
        text = path.read_bytes().decode("utf-8-sig")
        raw = json.loads(text, object_pairs_hook=unique)
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", error)
        raise InputError(f"{path}: not JSON in UTF-8 ({reason}); repair it") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must be one object: image name to label")
    entries = {}
    for key, entry in raw.items():
        where = f"{path}: entry {key!r}:"
        if key.startswith("/") or ".." in key.split("/") or key[1:2] == ":":
            raise InputError(
                f"{where} must be a path inside dataset_path: category/test/name"
            )
        label = entry.get("label") if isinstance(entry, dict) else None
        if label not in ("good", "bad"):
            shown = repr(label if isinstance(entry, dict) else entry)[:60]
            raise InputError(f'{where} needs "label": "good" or "bad", not {shown}')
        defect = entry.get("defect") or ""
        if not isinstance(defect, str) or CONTROLS.search(defect):
            raise InputError(f'{where} "defect" must be a name on one line')
        entries[key] = (int(label == "bad"), defect)
    return entries


def all_problems(dataset: Dataset, labels: Labels) -> list[str]:
    """Warnings on labels, masks and images, one line each."""
    return labels.problems + check_masks(dataset, labels) + dataset.remarks()


def check_masks(dataset: Dataset, labels: Labels) -> list[str]:
    """Warnings on masks that contradict the labels; InputError for a wrong size."""
    problems, odd = [], {}
    rows = zip(dataset.test, labels.masks, labels.is_bad, strict=True)
    for image, mask, is_bad in rows:
        if mask is None:
            if is_bad == 1 and any(labels.masks):
                problems.append(f"bad image without a mask: {image}")
            continue
        marked, strange = _facts(mask, image_shape(image), *stamp(mask))
        if is_bad == 0 and marked:
            problems.append(f"mask marks a defect on a good image: {mask}")
        if is_bad == 1 and not marked:
            problems.append(f"mask of a bad image is empty: {mask}")
        if marked and dataset.roi and not _in_region(mask, image, dataset.roi):
            strange = [*strange, f"nothing to find, outside of {dataset.roi.name}"]
        for what in strange if marked else ():
            odd.setdefault(what, []).append(mask.name)
    problems += [f"{what}: {some(names)}" for what, names in odd.items()]
    return [one_line(p) for p in problems]


@cache  # notebook 5 asks, and the evaluation
def _facts(mask, shape, *stamp) -> tuple[bool, list[str]]:
    marked, strange = checked_mask(mask, shape)
    return bool(marked.any()), strange


def _in_region(mask, image, roi) -> bool:
    marked = read_mask(mask, image_shape(image))
    return bool(marked[share_inside(roi, marked.shape) > 0].any())


def truth_fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the label file and of all masks, of what there is of them."""
    masks = list_images(dataset.root / dataset.category / "ground_truth", optional=True)
    labels = dataset.root / LABEL_FILE
    return fingerprint(dataset.root, masks + [labels] * os.path.lexists(labels))
