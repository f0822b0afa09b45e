"""Which images go to training and to test, and in what order; by a seed."""

import hashlib
from collections import Counter

from anomaly.errors import InputError
from mvtec.layout import Category, Sample


def shuffled(samples: list[Sample], seed: int, name: str) -> list[Sample]:
    """Seeded order that hangs on names alone, on any machine and Python version."""

    def key(sample: Sample) -> bytes:
        text = f"{seed}/{name}/{sample.kind}/{sample.name}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    return sorted(samples, key=key)


def split(category: Category, train_bad: int, seed: int):
    """Choose `train_bad` defects for training, in turn from every kind.

    Returns (train_bad, test), lists of samples; test is in its final order.
    """
    if train_bad >= len(category.bad):
        raise InputError(
            f"--train-bad {train_bad}: {category.name} has {len(category.bad)} defect "
            "images, and at least one must stay in test"
        )
    rank, turns = Counter(), []
    for sample in shuffled(category.bad, seed, category.name):
        turns.append((rank[sample.kind], sample))
        rank[sample.kind] += 1
    turns.sort(key=lambda turn: turn[0])
    chosen = [sample for _, sample in turns[:train_bad]]
    rest = [sample for _, sample in turns[train_bad:]]
    return chosen, shuffled(category.good + rest, seed, category.name)
