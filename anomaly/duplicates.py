"""The same picture in more than one part of a data set."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from anomaly.dataset import Dataset
from anomaly.files import stamp
from anomaly.images import read_image, to_grey


def find_duplicates(dataset: Dataset) -> list[tuple[Path, Path, str]]:
    """Pictures that occur in more than one of train/good, train/bad and test.

    Compares grey thumbnails without their low frequencies (light) and without the
    mean of all (aligned products look alike). The cosine between two photos stays
    below 0.88 even for zippers, that of a resized, re-encoded or brightened copy
    above 0.95.

    Returns (earlier, later, "identical" | "near"), one per later picture at most.
    """
    folders = (dataset.train_good, dataset.train_bad, dataset.test)
    paths = [path for folder in folders for path in folder]
    origin = np.repeat(np.arange(3), [len(folder) for folder in folders])
    white = dataset.full_scale
    with ThreadPoolExecutor() as pool:
        both = pool.map(lambda p: _digest_and_thumbnail(p, white, *stamp(p)), paths)
        digests, thumbs = zip(*both, strict=True)
    digests, thumbs = np.array(digests), np.stack(thumbs)  # (n,), (n, 96 * 96)

    alike = thumbs @ thumbs.T
    rest = thumbs - thumbs.mean(axis=0)
    rest /= np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-6)
    # alone, 0.98 serves sets so small that their mean is the picture itself
    near = (alike > 0.98) | ((alike > 0.9) & (rest @ rest.T > 0.92))
    pairs = []
    for j in range(len(paths)):
        for kind, match in (("identical", digests == digests[j]), ("near", near[j])):
            if (match := match & (origin < origin[j])).any():
                pairs.append((paths[np.argmax(match)], paths[j], kind))
                break
    return pairs


def duplicate_names(dataset: Dataset) -> list[list[str]]:
    """`find_duplicates` with paths as in the label file, for metrics.json."""
    return [
        [*(path.relative_to(dataset.root).as_posix() for path in pair), kind]
        for *pair, kind in find_duplicates(dataset)
    ]


@cache  # notebooks 1 and 5 ask
def _digest_and_thumbnail(path: Path, full_scale, *stamp) -> tuple[str, np.ndarray]:
    image = read_image(path, full_scale=full_scale)
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    thumb = cv2.resize(to_grey(image), (96, 96), interpolation=cv2.INTER_AREA).astype(
        np.float32
    )
    thumb -= cv2.GaussianBlur(thumb, (0, 0), 4)
    return digest, thumb.ravel() / max(np.linalg.norm(thumb), 24)  # flat: near zero
