"""Which scenes the data set shows: how many of each kind, and in what order."""

from dataclasses import dataclass

import numpy as np

from anomaly.errors import InputError
from sample_data.picture import CATEGORIES, DEFECTS

PARTS = ("train/good", "train/bad", "test/good", "test/bad")


@dataclass(frozen=True)
class Plan:
    """How large a data set is. Raises InputError for what cannot be."""

    seed: int = 0
    image_size: int = 256
    train_good: int = 60
    train_bad: int = 10
    test_good: int = 24
    test_bad: int = 16

    def __post_init__(self):
        if min(self.counts) < 0 or self.train_good < 1:
            raise InputError("counts must be at least 0, --train-good at least 1")
        if not 32 <= self.image_size <= 2048:
            raise InputError(f"image size {self.image_size}: choose 32 to 2048")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: choose 0 or more")

    @property
    def counts(self):
        return self.train_good, self.train_bad, self.test_good, self.test_bad

    def scenes(self, category):
        """Yield (path below the category, scene key, defect kind or "", level)."""
        number, kinds = CATEGORIES.index(category), DEFECTS[category]
        order = np.random.default_rng([self.seed, number, 9])
        order = order.permutation(self.test_good + self.test_bad)
        for part, count in enumerate(self.counts):
            for i in range(count):
                kind, level = "", 1.0
                if part % 2:
                    rounds, turn = divmod(i, len(kinds))
                    kind = kinds[turn]
                    # Walk through the levels, starting elsewhere for every kind.
                    level = ((3 * rounds + 2 * turn + 2) % 5) / 4
                name = f"{PARTS[part]}/{i + 1:03d}.png"
                if part >= 2:  # good and bad share the folder, shuffled
                    place = order[i + (self.test_good if part == 3 else 0)]
                    name = f"test/{place + 1:03d}.png"
                yield name, (self.seed, number, part, i), kind, level
