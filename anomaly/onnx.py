"""A model as one ONNX graph: window -> patch distances, image score, map.

The window is what `Framing.apply` cuts out of an image, and the map lies in it. Place
and light are the caller's to correct. Outside of the region of interest (cf. `roi`),
which the graph covers, distances are NaN and the map is zero. ONNX has no triangular
solve: inverse factors stand in its place, whole matrices, so that the file is twice as
large.
"""

import copy
import json
import warnings
from importlib.util import find_spec

import numpy as np
import torch
from torch import nn

from anomaly.answers import about
from anomaly.errors import InputError
from anomaly.features import join_layers, project
from anomaly.files import whole_file
from anomaly.scores import anomaly_map, nearest, scan_sizes, top_count

NEEDED = ("onnx", "onnxscript")
OPSET = 18


class Graph(nn.Module):
    """Windows (B, size, size, 3) uint8 to what a `Model` says of them, on the CPU."""

    def __init__(self, model):
        super().__init__()
        settings, gaussian, side = model.settings, model.gaussian, model.framing.size
        self.trunk, self.side = copy.deepcopy(model.trunk).cpu(), side
        self.image_score = settings.image_score
        self.h, self.w, self.dim = gaussian.mean.shape
        if not len(gaussian.root):  # one Gaussian for all positions
            self.h = self.w = len(self._features(torch.zeros(1, side, side, 3))[0])
        parts = {
            "mean": gaussian.mean.cpu(),
            "whiten": gaussian.whiten.cpu().T.contiguous(),
            "inverse": inverse_factors(gaussian.root.cpu()),
            "usual": torch.from_numpy(np.float32(model.usual)),
            "down": torch.from_numpy(spread(self.h, side, settings.sigma)),
            "right": torch.from_numpy(spread(self.w, side, settings.sigma).T.copy()),
        }
        outside = gaussian.mean[..., 0].isnan().cpu().numpy()  # (h, w) of the region
        self.has_region = bool(outside.any())
        self.is_covered = model.framing.region is not None
        if self.is_covered:
            inside, cover = model.framing.inside[..., None], model.framing.cover
            parts |= {"seen": torch.from_numpy(inside.copy())}
            parts |= {"cover": torch.from_numpy(cover.copy())}
        if self.has_region:
            there = anomaly_map(np.where(outside, np.nan, 1), (side, side))
            parts |= {"inside": torch.from_numpy(np.flatnonzero(~outside))}
            parts |= {"nearest": torch.from_numpy(nearest(outside).ravel())}
            parts |= {"there": torch.from_numpy(there)}  # (side, side): 1, outside 0
        for name, part in parts.items():
            self.register_buffer(name, part)

    def _features(self, windows):
        images = windows.permute(0, 3, 1, 2)
        return join_layers(self.trunk(images), (self.side, self.side))

    def forward(self, windows):
        if self.is_covered:
            windows = torch.where(self.seen, windows, self.cover)
        x = project(self._features(windows), self.dim).half().float()
        z = ((x - self.mean) @ self.whiten).flatten(1, 2)  # (B, P, D)
        if len(self.inverse):
            z = torch.bmm(z.transpose(0, 1), self.inverse).transpose(0, 1)
        d = z.square().sum(-1).sqrt()  # (B, P)
        distances = d.reshape(-1, self.h, self.w)
        if not self.has_region:
            return distances, self._score(d), self.down @ distances @ self.right
        filled = d[:, self.nearest].reshape(-1, self.h, self.w)
        heat = self.there * (self.down @ filled @ self.right)
        return distances, self._score(d[:, self.inside]), heat

    def _score(self, d):
        if self.image_score != "scan":
            return d.topk(top_count(d.shape[1], self.image_score)).values.mean(1)
        sizes = scan_sizes(d.shape[1])
        top = d.topk(int(sizes[-1])).values
        means = torch.stack([top[:, :size].mean(1) for size in sizes.tolist()], dim=1)
        z = (means.clamp_min(1e-9).log() - self.usual[0]) / self.usual[1]
        return z.exp().mean(1).log()


def inverse_factors(root):
    """L⁻ᵀ (P, D, D) of factors L, so that z @ L⁻ᵀ solves L y = z."""
    eye = torch.eye(root.shape[-1], dtype=torch.double)
    for i, factor in enumerate(inverse := root.clone()):
        solved = torch.linalg.solve_triangular(factor.double(), eye, upper=False)
        inverse[i] = solved.T
    return inverse


def spread(count, side, sigma):
    """Matrix (side, count) of what `anomaly_map` does along one axis: it is linear."""
    columns = np.eye(count, dtype=np.float32)[:, :, None]  # count of (count, 1)
    maps = [anomaly_map(column, (side, side), sigma)[:, 0] for column in columns]
    return np.stack(maps, axis=1)


def save_onnx(path, model):
    """Write the `Graph` of a `Model` for any batch; InputError without the packages."""
    if missing := [name for name in NEEDED if not find_spec(name)]:
        raise InputError(
            f"{path}: {' and '.join(missing)} not installed: pip install "
            f"{' '.join(NEEDED)}, or save it as .safetensors"
        )
    if model.settings.precision != "float32":
        raise InputError(f"{path}: use precision=float32, that others can run")
    side = model.framing.size
    with warnings.catch_warnings(), whole_file(path) as part:
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.onnx.export(
            Graph(model).eval(),
            (torch.zeros(2, side, side, 3, dtype=torch.uint8),),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            input_names=["window"],
            output_names=["distances", "score", "map"],
        )
        said = {name: json.dumps(value) for name, value in about(model).items()}
        program.model.metadata_props.update(said)
        program.save(part, external_data=False)
