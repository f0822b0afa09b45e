"""Print the README's table of promises: false-positive rate promised, and measured.

    python tools/promises.py [DATASET_PATH] [-p name value …]

Each category as it is, and with a training folder in which pictures occur more than
once: doubled as JPEG copies, doubled with noise, and as bursts of three frames. Beside
the folds by likeness stand plain ones, image i in fold i mod 5: what look-alikes do to
a promise is the difference. p is a binomial test of the measured rate against the
promised one, one-sided; a promise with p below 0.01 is broken.
"""

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import binomtest

import helpers as hp
from anomaly.cli import Parser, run, typed
from anomaly.dataset import categories, load_dataset
from anomaly.files import write_image
from anomaly.gaussian import cross_validated_scores
from anomaly.labels import LABEL_FILE, read_labels
from anomaly.metrics import classification_metrics
from anomaly.scores import conformal_threshold, image_scores, usual_means
from anomaly.settings import Settings

RNG = np.random.default_rng(0)


def jpeg(image):
    """The same picture, compressed."""
    code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return [image, cv2.imdecode(code, cv2.IMREAD_COLOR)]


def noise(image):
    """The same picture, read out once more by a noisy sensor."""
    noisy = image + RNG.normal(0, 2, image.shape)
    return [image, np.uint8(np.clip(np.rint(noisy), 0, 255))]


def burst(image):
    """Three frames of one product: moved by up to two pixels, with noise."""
    moves = [(0, 0), *RNG.integers(-2, 3, (2, 2))]
    return [noise(np.roll(image, move, (0, 1)))[-1] for move in moves]


VARIANTS = {"as it is": None, "JPEG twice": jpeg, "noise twice": noise, "burst": burst}


def varied(settings, variant, folder):
    """Settings of the same category with such pictures, in `folder`.

    Every frame is a training image; of each test image there is one, taken in turn, so
    that training and test images are still of one process.
    """
    source, labels = load_dataset(settings.data, settings.category), LABEL_FILE
    (folder / labels).symlink_to((settings.data / labels).resolve())
    if source.roi:
        shutil.copy(source.roi, folder / settings.category)
    for path in source.train_good:
        for number, image in enumerate(variant(source.read(path))):
            name = f"{path.stem}_{number}.png"
            write_image(folder / settings.category / "train" / "good" / name, image)
    for index, path in enumerate(source.test):
        frames = variant(source.read(path))
        target = folder / settings.category / "test" / path.name
        write_image(target, frames[index % len(frames)])
    return replace(settings, dataset_path=str(folder))


def decided(detection, patches, groups):
    """Promised and measured false-positive rate, p and recall of a threshold."""
    settings, usual = detection.settings, usual_means(patches)
    kinds = (
        image_scores(x, settings.image_score, usual) for x in (patches, detection.test)
    )
    normal, test = kinds
    if groups is not None:
        normal = hp.likeness.group_scores(normal, groups)
    threshold = conformal_threshold(normal, settings.max_fpr)
    is_bad = read_labels(detection.dataset).is_bad
    found = classification_metrics(is_bad, test > threshold.value)
    (good, false), _ = found["confusion_matrix"]
    test = binomtest(false, good + false, threshold.promised_fpr, "greater")
    rate, recall = found["false_positive_rate"], found["recall"]
    broken = " **broken**" if test.pvalue < 0.01 else ""
    return f"{threshold.promised_fpr:.3f} / {rate:.3f}{broken} / {recall:.3f}"


def row(settings, variant):
    """One line of the table."""
    detection = hp.detect(settings)
    good = hp.extract_features(settings).narrow("good")
    plain = cross_validated_scores(good, covariance=settings.covariance).cpu().numpy()
    cells = (
        f"{settings.category}, {variant}",
        f"{len(detection.normal)} → {detection.threshold.n}",
        decided(detection, plain, None),
        decided(detection, detection.normal, detection.groups),
    )
    return "| " + " | ".join(cells) + " |"


def print_table(options):
    """A row for each category and variant."""
    base = {"dataset_path": options.dataset_path, **typed(options.parameters)}
    print("| | images → different ones | folds i mod 5 | folds by likeness |")
    print("|---|---|---|---|")
    names = (
        [base["category"]] if "category" in base else categories(Settings(**base).data)
    )
    for name in names:
        settings = Settings(**base | {"category": name})
        for variant, change in VARIANTS.items():
            if change is None:
                print(row(settings, variant), flush=True)
                continue
            with tempfile.TemporaryDirectory() as folder:
                made = varied(settings, change, Path(folder))
                print(row(made, variant), flush=True)


def main():
    """Exit status: 0 done, 2 bad input (one line on stderr)."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset_path", nargs="?", default="")
    return run(parser, print_table)


if __name__ == "__main__":
    sys.exit(main())
