"""Patch features: images through the network, tapped maps joined on one grid."""

import os
import time
from dataclasses import dataclass
from functools import cache
from math import ceil

import numpy as np
import torch
import tqdm
from IPython.display import display
from torch.nn import functional as F

from anomaly.errors import InputError
from anomaly.framing import Framing
from anomaly.machine import pick_device, readers

STRIDE = 8  # pixels from patch to patch, or more
PROJECTION = 256  # dimensions kept of a patch feature that has more


@dataclass(frozen=True)
class Features:
    """Patch features of a category. `good`, `bad`, `test` are made when asked for."""

    device: torch.device
    half: dict  # (N, h, w, D) of each part, half precision, on the CPU, as kept
    windows: dict  # (N, 4) of each part, cf. `Framing.apply`
    assignment: np.ndarray  # (T, h, w) test distances under the assignment's Gaussian
    groups: np.ndarray  # (N,) which normal images look alike, cf. `likeness`
    layers: tuple
    framing: Framing
    seconds: float

    @classmethod
    def of(cls, device, half, **rest):
        """From what is kept of them: half = {part: NumPy, half precision}."""
        half = {part: torch.from_numpy(x) for part, x in half.items()}
        return cls(pick_device(device), half, **rest)

    @property
    def good(self):
        """(N, h, w, D) float32, on the device."""
        return self.half["good"].to(self.device).float()

    @property
    def bad(self):
        """(B, h, w, D) float32, on the device."""
        return self.half["bad"].to(self.device).float()

    @property
    def test(self):
        """(T, h, w, D) float32, on the device."""
        return self.half["test"].to(self.device).float()


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


def join_layers(maps, image_shape, stride=STRIDE):
    """Tapped maps [(B, C_l, h_l, w_l)] of images (H, W) as patches (B, h, w, sum C_l).

    All are brought to the grid of the first, or of one patch per `stride` pixels if
    that is coarser: finer ones averaged, coarser ones enlarged (bilinear). Then they
    are put side by side.
    """
    sides = zip(maps[0].shape[-2:], image_shape, strict=True)
    grid = tuple(min(side, ceil(pixels / stride)) for side, pixels in sides)

    def resized(m):
        if m.shape[-2] > grid[0]:
            return F.adaptive_avg_pool2d(m, grid)
        return F.interpolate(m, grid, mode="bilinear") if m.shape[-2:] != grid else m

    maps = [resized(m) for m in maps]
    return torch.cat(maps, dim=1).permute(0, 2, 3, 1).contiguous()  # (B, h, w, D)


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


def project(features, dim=PROJECTION):
    """Features (B, h, w, D) on `dim` dimensions, if they have more."""
    if features.shape[-1] <= dim:
        return features
    return features @ semi_orthogonal(features.shape[-1], dim).to(features.device)


def in_batches(read, sources, batch_size):
    """Lists of at most `batch_size` read(source), read ahead while others compute."""
    chunks = [sources[i : i + batch_size] for i in range(0, len(sources), batch_size)]
    with readers() as pool:

        def submit(chunk):
            return [pool.submit(read, source) for source in chunk]

        ahead = submit(chunks[0]) if chunks else []
        for following in [*chunks[1:], []]:
            current, ahead = ahead, submit(following)
            if current:
                yield [future.result() for future in current]


def stream(trunk, framing, sources, what, read=None):
    """Yield patch features (B, h, w, D) and windows (B, 4), batch by batch.

    read(source) is an image (H, W, 3); it happens while the network computes.
    Without it sources are paths or images.
    """
    read = read or framing.read_small
    batches = in_batches(
        lambda source: framing.apply(read(source)), sources, trunk.limit
    )
    for batch in progress(batches, what, len(sources)):
        windows, places = zip(*batch, strict=True)
        yield patch_features(trunk, np.stack(windows)), np.array(places)


def progress(batches, what, total):
    """Yield the batches under a bar: on a terminal, in JupyterLab, nowhere else."""
    if "JPY_SESSION_NAME" in os.environ:  # a kernel that JupyterLab started
        yield from _progress_line(batches, what, total)
        return
    options = {"unit": "image", "leave": False, "disable": None}
    with tqdm.tqdm(desc=what, total=total, **options) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


def _progress_line(batches, what, total):
    """One output, replaced as it goes on: in the end a line of text, and no widget.

    A widget would be an error message in the notebook that is saved and opened again.
    """

    def line(text):
        return {"text/plain": f"{what}: {text}"}

    start, done = time.perf_counter(), 0
    output = display(line(f"0 of {total} images"), raw=True, display_id=True)
    for batch in batches:
        yield batch
        done += len(batch)
        bar = "█" * (30 * done // total) + "░" * (30 - 30 * done // total)
        output.update(line(f"{bar} {done} of {total} images"), raw=True)
    seconds = time.perf_counter() - start
    output.update(line(f"{total} images in {seconds:.0f} s"), raw=True)
