"""A model in one file: safetensors, arrays and their names, no code.

What a file claims is checked before anything is allocated, its content against a digest
before anything is used. It holds no photograph but the mean of all, and no path.
"""

import hashlib
import json
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import accumulate

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from anomaly.backbones import weights_path
from anomaly.depth import RANGES
from anomaly.errors import InputError
from anomaly.features import STRIDE
from anomaly.files import sha256, write_file
from anomaly.framing import Framing, with_margin
from anomaly.gaussian import Gaussian
from anomaly.model import Model, Normals
from anomaly.network import load_trunk
from anomaly.settings import Settings

VERSION = f"{version('image-anomaly-course')}, layout 1"
MACHINE = ("dataset_path", "visualization_dir", "weights", "device", "batch_size")
FREE = (*MACHINE, "max_fpr", "colormap", "lang")  # what may differ from the file's
UNFIT = (SafetensorError, ValueError, TypeError, KeyError, AttributeError)
UNFIT += (RecursionError,)  # JSON
MOST = 10**6  # normal images, and dimensions of a feature: more is no model's
TYPES = {  # number of dimensions and type of each array
    "mean": (3, "F32"),
    "whiten": (2, "F32"),
    "root": (2, "F32"),
    "template": (2, "U8"),
    "seen": (2, "F64"),
    "usual": (2, "F64"),
    "normal_scores": (1, "F64"),
    "normal_peaks": (1, "F64"),
    "normal_seen": (2, "F64"),
}


def pack(root):
    """The lower triangles (P, D (D + 1) / 2) of matrices (P, D, D), row by row."""
    rows = [root[:, i, : i + 1] for i in range(root.shape[-1])]
    return np.concatenate(rows, axis=1)


def unpack(packed, D):
    """Matrices (P, D, D) from their lower triangles, to the bit."""
    root = np.zeros((len(packed), D, D), packed.dtype)
    for i, end in enumerate(accumulate(range(1, D + 1))):
        root[:, i, : i + 1] = packed[:, end - i - 1 : end]
    return root


def save_model(path, model):
    """Write a `Model`; the file is whole or absent."""
    settings = replace(model.settings, layers=",".join(model.trunk.taps))
    learned, normals = model.gaussian.arrays(), model.normals
    arrays = {
        **{"mean": learned["mean"], "whiten": learned["whiten"]},
        **{"root": pack(learned["root"]), "template": model.framing.template},
        **{"seen": model.framing.seen, "usual": np.float64(model.usual)},
        **{"normal_scores": normals.scores, "normal_peaks": normals.peaks},
        "normal_seen": normals.seen,
    }
    kept = {k: v for k, v in asdict(settings).items() if k not in MACHINE}
    about = {
        **{"version": VERSION, "settings": kept, "scale": model.scale},
        **{"n_normal": normals.count, "data_sha256": model.data_sha256},
        "full_scale": model.framing.full_scale,
        "weights_sha256": sha256(_weights(settings)),
    }
    if model.framing.region is not None:
        arrays["region"] = np.uint8(model.framing.region)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(about, sort_keys=True)
    write_file(path, save(arrays, {"model": text, "sha256": _digest(text, arrays)}))


def load_model(path, **changes):
    """The `Model` of a file, with settings that are FREE to differ.

    InputError for a file that is damaged, of another version or of another backbone.
    """
    about, arrays = read_model_file(path)
    if fixed := [name for name in changes if name not in FREE]:
        raise InputError(
            f"{fixed[0]}: fixed by {path}; free are {', '.join(FREE)}, for the rest "
            "save another model"
        )
    settings = _settings(path, about["settings"], changes)
    if sha256(_weights(settings)) != about["weights_sha256"]:
        raise InputError(
            f"{path}: fitted with other weights of {settings.backbone} (SHA-256 "
            f"{about['weights_sha256'][:16]}…); give that file: -p weights FILE"
        )
    names = ("normal_scores", "normal_peaks", "normal_seen")
    region = arrays["region"] > 0 if "region" in arrays else None
    framed = arrays["template"], arrays["seen"], about["full_scale"], region
    root = unpack(arrays["root"], arrays["whiten"].shape[0])
    learned = {"mean": arrays["mean"], "whiten": arrays["whiten"], "root": root}
    return Model(
        settings,
        load_trunk(**settings.network),
        Framing(settings.image_size, *framed),
        Gaussian.of(settings.device, **learned),
        arrays["usual"],
        tuple(about["scale"]),
        Normals(*(arrays[name] for name in names), about["n_normal"]),
        about["data_sha256"],
    )


def read_model_file(path):
    """What a file says of itself, and its arrays; InputError unless both are whole."""
    damaged = f"{path}: damaged, or not a model that tools/score.py has saved"
    try:
        with safe_open(path, framework="numpy") as file:
            about, text, digest = _about(path, file.metadata())
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            claims = {n: (s.get_shape(), s.get_dtype()) for n, s in slices.items()}
            _check(about, claims)
            arrays = {name: file.get_tensor(name) for name in slices}
    except InputError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read ({reason})") from error
    except UNFIT as error:
        raise InputError(f"{damaged}; copy or save it again") from error
    if _digest(text, arrays) != digest or np.isnan(arrays["mean"]).all():
        raise InputError(f"{damaged} (checksum); copy or save it again")
    return about, arrays


def _about(path, metadata):
    """The metadata, its text and the digest; ValueError where they are not as saved."""
    text, digest = metadata["model"], metadata["sha256"]
    about = json.loads(text)
    if about["version"] != VERSION:
        raise InputError(
            f"{path}: saved by version {about['version']}, this is {VERSION}: "
            "save it again"
        )
    _settings(path, about["settings"])
    low, high = about["scale"]
    if about["full_scale"] not in RANGES:
        raise ValueError
    names = ("n_normal", "full_scale", "data_sha256", "weights_sha256")
    found = (low, high, *(about[name] for name in names))
    if [*map(type, found)] != [float, float, int, int, str, str]:
        raise ValueError
    return about, text, digest


def _settings(path, kept, changes=()):
    names = {name for name in asdict(Settings()) if name not in MACHINE}
    if kept.keys() != names:
        raise ValueError
    try:
        return Settings(**kept | dict(changes))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _check(about, claims):
    """ValueError unless shapes and types are those of one model."""
    types = TYPES | ({"region": (2, "U8")} if "region" in claims else {})
    if {name: (len(s), kind) for name, (s, kind) in claims.items()} != types:
        raise ValueError
    shape = {name: tuple(shape) for name, (shape, _) in claims.items()}
    (h, w, D), (P, triangle), (K,) = (
        shape[name] for name in ("mean", "root", "normal_scores")
    )
    groups, seen = shape["usual"][1], shape["seen"][0]
    expected = {
        **{"mean": (h, w, D), "whiten": (D, D), "root": (P, D * (D + 1) // 2)},
        "template": with_margin(about["settings"]["image_size"]),
        **{"seen": (seen, 4), "usual": (2, groups)},
        **{"normal_scores": (K,), "normal_peaks": (K,), "normal_seen": (K, 4)},
    }
    if "region" in claims:
        expected["region"] = expected["template"]
    grid = -(-about["settings"]["image_size"] // STRIDE)
    fits = min(h, w) > 0 and max(h, w) <= grid
    fits &= min(D, K, groups, seen) > 0 and max(D, K, groups, seen) <= MOST
    if shape != expected or P not in (0, h * w) or not fits:
        raise ValueError


def _weights(settings):
    return settings.weights_file or weights_path(settings.backbone)


def _digest(text, arrays):
    total = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(array)
    return total.hexdigest()
