"""The parameters that every notebook shares, each beside what is valid."""

import os
from dataclasses import dataclass, fields
from pathlib import Path

from anomaly.backbones import BACKBONES
from anomaly.errors import CONTROLS, InputError
from anomaly.files import ROOT
from anomaly.gaussian import COVARIANCES

COLORMAPS = ("jet", "inferno", "magma", "viridis", "cividis")
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
