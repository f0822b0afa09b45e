"""Data sets of any size, and weights that take as long as the right ones."""

import json
import shutil
from dataclasses import replace

import torch

from anomaly.backbones import AUTO_SECONDS, BACKBONES
from anomaly.labels import LABEL_FILE, read_labels


def copy_images(dataset, root, fit, test):
    """A data set of so many images of this one, repeated where it has fewer."""
    labels, entries = read_labels(dataset), {}
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
    if dataset.roi:
        shutil.copy(dataset.roi, root / dataset.category)
    (root / LABEL_FILE).write_text(json.dumps(entries), encoding="utf-8")
    return str(root)


def with_weights(settings, folder):
    """The settings with weights that are here, else random ones; which they are."""
    try:
        if not settings.weights:
            BACKBONES[settings.backbone].weights(AUTO_SECONDS)
        return settings, settings.weights or "ImageNet"
    except OSError:
        torch.manual_seed(0)
        network = BACKBONES[settings.backbone].build(settings.image_size)
        torch.save(network.state_dict(), folder / "random.pth")
        return replace(settings, weights=str(folder / "random.pth")), "random"
