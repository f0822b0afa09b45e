"""The same picture twice in a data set."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from anomaly.dataset import Dataset
from anomaly.files import stamp
from anomaly.images import read_image
from anomaly.likeness import near_copies, thumbnail


def find_duplicates(dataset: Dataset) -> list[tuple[Path, Path, str]]:
    """Pictures in two of train/good, train/bad and test, or twice in the first.

    Returns (earlier, later, "identical" | "near"), one per later picture at most: the
    same pixels, or the same picture resized, re-encoded or in other light. A picture
    that is in two parts makes results look better than they are; one that is twice in
    train/good counts once (cf. `likeness`).
    """
    folders = (dataset.train_good, dataset.train_bad, dataset.test)
    paths = [path for folder in folders for path in folder]
    part = np.repeat(np.arange(3), [len(folder) for folder in folders])
    white = dataset.full_scale
    with ThreadPoolExecutor() as pool:
        both = pool.map(lambda p: _digest_and_thumbnail(p, white, *stamp(p)), paths)
        digests, thumbs = zip(*both, strict=True)
    digests, thumbs = np.array(digests), np.stack(thumbs)  # (n,), (n, 96 * 96)

    # alone, 0.98 serves sets so small that their mean is the picture itself
    near, pairs = near_copies(thumbs) | (thumbs @ thumbs.T > 0.98), []
    for j in range(len(paths)):
        earlier = (part < part[j]) | ((part == 0) & (np.arange(len(paths)) < j))
        for kind, match in (("identical", digests == digests[j]), ("near", near[j])):
            if (match := match & earlier).any():
                pairs.append((paths[np.argmax(match)], paths[j], kind))
                break
    return pairs


def leaks(dataset: Dataset) -> list[list[str]]:
    """Pictures in more than one part, named as in the label file, for metrics.json."""
    return [
        [*(path.relative_to(dataset.root).as_posix() for path in (first, second)), kind]
        for first, second, kind in find_duplicates(dataset)
        if first.parent != second.parent
    ]


@cache  # notebooks 1 and 5 ask
def _digest_and_thumbnail(path: Path, full_scale, *stamp) -> tuple[str, np.ndarray]:
    image = read_image(path, full_scale=full_scale)
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    return digest, thumbnail(image)
