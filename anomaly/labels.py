"""Labels and masks of the test images: the truth, for the evaluation alone."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anomaly.dataset import Dataset
from anomaly.errors import CONTROLS, InputError, one_line
from anomaly.files import fingerprint
from anomaly.images import by_stem, list_images, read_image, read_mask

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
    path, base = dataset.root / LABEL_FILE, f"{dataset.category}/test/"
    folder = dataset.root / dataset.category / "ground_truth"
    masks = by_stem(list_images(folder, optional=True))
    there = os.path.lexists(path)
    entries = parse_labels(path) if there else {}
    keys = [base + p.name for p in dataset.test]
    ours = [k for k in entries if k.count("/") < 2 or k.startswith(base)]
    known, stems = set(keys), {p.stem for p in dataset.test}
    named = {
        "label without an image": [k for k in ours if k not in known],
        "image without a label": [k for k in keys if k not in entries],
        "mask without an image": [p.name for s, p in masks.items() if s not in stems],
    }
    problems = [] if there else [f"{path}: not found"]
    for what, names in named.items():
        if names:
            more = f", … ({len(names)} in all)" if len(names) > 10 else ""
            problems.append(f"{what}: {', '.join(names[:10])}{more}")
    found = [entries.get(key, (-1, "")) for key in keys]
    return Labels(
        is_bad=np.array([is_bad for is_bad, _ in found], dtype=np.int8),
        defect=[defect for _, defect in found],
        masks=[masks.get(p.stem) for p in dataset.test],
        problems=[one_line(p) for p in problems],
    )


def parse_labels(path: Path) -> dict[str, tuple[int, str]]:
    """{"category/test/name": (is_bad, defect)}; no key is ever opened as a path."""

    def unique(pairs: list[tuple]) -> dict:
        entries = {}
        for key, value in pairs:
            key = key.replace("\\", "/").removeprefix("./")
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
            raise InputError(f"{where} must be a path inside dataset_path")
        label = entry.get("label") if isinstance(entry, dict) else None
        if label not in ("good", "bad"):
            raise InputError(f'{where} needs "label": "good" or "bad"')
        defect = entry.get("defect") or ""
        if not isinstance(defect, str) or CONTROLS.search(defect):
            raise InputError(f'{where} "defect" must be a name on one line')
        entries[key] = (int(label == "bad"), defect)
    return entries


def check_masks(dataset: Dataset, labels: Labels) -> list[str]:
    """Warnings on masks that contradict the labels; InputError for a wrong size."""
    problems = []
    rows = zip(dataset.test, labels.masks, labels.is_bad, strict=True)
    for image, mask, is_bad in rows:
        if mask is None:
            if is_bad == 1 and any(labels.masks):
                problems.append(f"bad image without a mask: {image}")
            continue
        marked = read_mask(mask, read_image(image).shape[:2]).any()
        if is_bad == 0 and marked:
            problems.append(f"mask marks a defect on a good image: {mask}")
        if is_bad == 1 and not marked:
            problems.append(f"mask of a bad image is empty: {mask}")
    return [one_line(p) for p in problems]


def truth_fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the label file and of all masks, of what there is of them."""
    masks = list_images(dataset.root / dataset.category / "ground_truth", optional=True)
    labels = dataset.root / LABEL_FILE
    return fingerprint(dataset.root, masks + [labels] * os.path.lexists(labels))
