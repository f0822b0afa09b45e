"""The parameters that every notebook shares, each beside what is valid."""

import os
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path

from anomaly.backbones import BACKBONES, best_backbone
from anomaly.errors import CONTROLS, InputError
from anomaly.files import ROOT
from anomaly.gaussian import COVARIANCES
from anomaly.machine import has_bfloat16, pick_device

COLORMAPS = ("jet", "inferno", "magma", "viridis", "cividis")


def valid(default, is_valid, words):
    """A parameter that is_valid(value); `words` say what is, for the error."""
    return field(default=default, metadata={"is_valid": is_valid, "words": words})


def within(default, low, high):
    """A number from low to high."""
    return valid(default, lambda v: low <= v <= high, f"{low} to {high}")


def one_of(default, *choices, registry=()):
    """One of the choices, or a name in a registry, which may grow."""
    return valid(
        default,
        lambda v: v in choices or v in registry,
        lambda: ", ".join((*choices, *registry)),
    )


def is_folder_name(name):
    return name not in ("", ".", "..") and not set(name) & {"/", "\\"}


def is_image_score(score):
    return score in ("scan", "max") or (not isinstance(score, str) and 0 < score <= 1)


@dataclass(frozen=True)
class Settings:
    """The parameters that every notebook shares; see the README for their meaning.

    Raises InputError for a value that is out of range or of the wrong type.
    """

    category: str = valid(
        "hazelnut", is_folder_name, "the name of a folder of the data set"
    )
    dataset_path: str = ""
    image_size: int = within(256, 32, 2048)
    batch_size: int = within(16, 1, 1024)
    device: str = one_of("auto", "auto", "cpu", "cuda", "mps")
    precision: str = one_of("float32", "float32", "bfloat16")
    visualization_dir: str = "report"
    backbone: str = one_of("auto", "auto", registry=BACKBONES)
    weights: str = ""
    layers: str = ""
    covariance: str = one_of("shrunk", *COVARIANCES)
    image_score: str | float = valid(
        "scan",
        is_image_score,
        "scan, max, or the share of patches to average, above 0 and up to 1",
    )
    sigma: float = within(4.0, 0, 100)  # input pixels
    max_fpr: float = valid(0.05, lambda v: 0 < v < 1, "a rate between 0 and 1")
    colormap: str = one_of("jet", *COLORMAPS)
    lang: str = one_of("en", "en", "zh")
    seed: int = within(0, 0, 2**32 - 1)

    def __post_init__(self):
        for parameter in fields(self):
            self._check_type(parameter.name, parameter.type)
            if rule := parameter.metadata:
                value, words = getattr(self, parameter.name), rule["words"]
                words = words() if callable(words) else words
                self._require(parameter.name, rule["is_valid"](value), words)
        data = os.path.realpath(self.data / self.category)
        output = os.path.realpath(self.output)
        outside = not Path(output).is_relative_to(data)
        self._require("visualization_dir", outside, "a folder apart from the images")

    def _check_type(self, name, types):
        value = getattr(self, name)
        kinds = {str: str, int: int, float: (int, float)}.get(types, (str, int, float))
        if isinstance(value, bool) or not isinstance(value, kinds):
            wanted = {str: "text", int: "a whole number", float: "a number"}
            hint = f" (by papermill: -r {name} …, for -p makes 7 of 007)"
            raise InputError(
                f"{name}={value!r}: {wanted.get(types, types)} is needed"
                f"{hint if types is str else ''}"
            )
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
        """Path of the local weights file, None without one; InputError if missing."""
        path = ROOT / os.path.expanduser(self.weights)
        if self.weights and not os.path.isfile(path):
            raise InputError(f"weights={self.weights!r}: there is no file {path}")
        return path if self.weights else None

    @property
    def network(self):
        """The arguments of `load_trunk`."""
        names = ("image_size", "layers", "batch_size", "device", "precision")
        options = {name: getattr(self, name) for name in names}
        return {"name": self.backbone, "weights": self.weights_file, **options}

    @property
    def keeps_whole(self):
        """Are patch features kept whole, not on fewer dimensions?"""
        return self.covariance == "global"

    @property
    def output(self):
        """Path below which everything about this category is written."""
        return ROOT / os.path.expanduser(self.visualization_dir) / self.category


def resolve_backbone(settings):
    """The settings with `auto` replaced by the backbone that this machine can run.

    And bfloat16 by float32, which takes a sixth of the time where it is emulated.
    """
    if settings.precision == "bfloat16":
        device = pick_device(settings.device)
        if not has_bfloat16(device):
            say_once(
                "precision=bfloat16: this processor has no instructions for it; "
                "float32 is used, which is faster here"
            )
            settings = replace(settings, precision="float32")
    if settings.backbone != "auto":
        return settings
    name = "wide_resnet50_2" if settings.weights else best_backbone()
    return replace(settings, backbone=name)


@cache
def say_once(line):
    print(line)
