"""Patch features: images through the network, tapped maps joined on one grid."""

import os
import time
from collections import deque
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from math import ceil

import numpy as np
import torch
import tqdm
from IPython.display import display
from torch.nn import functional as F

from anomaly.errors import InputError
from anomaly.framing import Framing
from anomaly.machine import (
    filled_up,
    on_all_cores,
    one_thread_a_core,
    pick_device,
    readers,
)

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

    def narrow(self, part):
        """(N, h, w, D) half precision, on the device: all that a Gaussian needs."""
        return self.half[part].to(self.device)

    @property
    def good(self):
        """(N, h, w, D) float32, on the device."""
        return self.narrow("good").float()

    @property
    def bad(self):
        """(B, h, w, D) float32, on the device."""
        return self.narrow("bad").float()

    @property
    def test(self):
        """(T, h, w, D) float32, on the device."""
        return self.narrow("test").float()


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
def _patch_features(trunk, images):
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)  # (B, 3, H, W)
    if trunk.chunk:
        pixels = filled_up(pixels, trunk.chunk)
    maps = trunk(pixels.to(trunk.mean.device))
    return join_layers(maps, images.shape[1:3])[: len(images)]


def patch_features(trunk, images):
    """Patch features (B, h, w, D) of images (B, H, W, 3) uint8 RGB.

    On the CPU to the bit the same in any company and on any number of cores: chunks of
    one size, filled up, each on one thread. Elsewhere batches, halved when memory runs
    out.
    """
    if trunk.chunk:
        chunks = np.split(images, range(trunk.chunk, len(images), trunk.chunk))
        return torch.cat(on_all_cores(partial(_patch_features, trunk), chunks))
    parts, start = [], 0
    while start < len(images):
        try:
            part = _patch_features(trunk, images[start : start + trunk.limit])
            parts, start = [*parts, part], start + len(part)
            continue
        except torch.OutOfMemoryError as error:
            device, count = trunk.mean.device, min(trunk.limit, len(images) - start)
            if count == 1:
                raise InputError(
                    f"memory of {device} is too small for one image; "
                    "choose a smaller image_size, or device=cpu"
                ) from error
            trunk.limit = count // 2
        print(f"memory of {device} is full: batches of {trunk.limit} from here on")
        torch.cuda.empty_cache()
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def project(features, dim=PROJECTION):
    """Features (B, h, w, D) on `dim` dimensions, if they have more."""
    if features.shape[-1] <= dim:
        return features
    return features @ semi_orthogonal(features.shape[-1], dim).to(features.device)


def in_order(work, items, pool, ahead):
    """Yield work(item) of each; at most `ahead` are begun before they are asked for."""
    begun = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) > ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def in_chunks(trunk, look, sources, what):
    """Yield patch features (B, h, w, D) and [look(source), …], chunk by chunk.

    The first thing in look(source) is the window that the network sees, (H, W, 3); if
    it is None there are no features. On the CPU each core takes its chunks from file to
    features; elsewhere images are read ahead while the device computes.
    """

    def compute(seen, features=patch_features):
        windows = [first for first, *_ in seen if first is not None]
        return features(trunk, np.stack(windows)) if windows else None, seen

    if size := trunk.chunk:
        chunks = [sources[i : i + size] for i in range(0, len(sources), size)]

        def work(chunk):
            return compute([*map(look, chunk)], _patch_features)

        with one_thread_a_core() as pool:
            ready = in_order(work, chunks, pool, 1 + trunk.limit // size)
            yield from progress(ready, what, len(sources), lambda pair: len(pair[1]))
    else:
        with readers() as pool:
            size = trunk.limit
            ready = in_order(look, sources, pool, 2 * size)
            batches = iter(lambda: [*islice(ready, size)], [])
            yield from map(compute, progress(batches, what, len(sources)))


def one_by_one(trunk, look, sources, what):
    """`in_chunks`, image by image: features (h, w, D) or None, the rest of the look."""
    for features, seen in in_chunks(trunk, look, sources, what):
        features = iter(() if features is None else features)
        for window, *rest in seen:
            yield None if window is None else next(features), *rest


def stream(trunk, framing, sources, what, read=None):
    """Yield patch features (B, h, w, D) and windows (B, 4), chunk by chunk.

    read(source) is an image (H, W, 3). Without it sources are paths or images.
    """
    read = read or framing.read_small
    chunks = in_chunks(trunk, lambda s: framing.apply(read(s)), sources, what)
    for features, seen in chunks:
        yield features, np.array([window for _, window in seen])


def progress(batches, what, total, size=len):
    """Yield the batches under a bar: on a terminal, in JupyterLab, nowhere else."""
    if "JPY_SESSION_NAME" in os.environ:  # a kernel that JupyterLab started
        yield from _progress_line(batches, what, total, size)
        return
    options = {"unit": "image", "leave": False, "disable": None}
    with tqdm.tqdm(desc=what, total=total, **options) as bar:
        for batch in batches:
            yield batch
            bar.update(size(batch))


def _progress_line(batches, what, total, size):
    """One output, replaced as it goes on: in the end a line of text, and no widget.

    A widget would be an error message in the notebook that is saved and opened again.
    """

    def line(text):
        return {"text/plain": f"{what}: {text}"}

    start, done = time.perf_counter(), 0
    output = display(line(f"0 of {total} images"), raw=True, display_id=True)
    for batch in batches:
        yield batch
        done += size(batch)
        bar = "█" * (30 * done // total) + "░" * (30 - 30 * done // total)
        output.update(line(f"{bar} {done} of {total} images"), raw=True)
    seconds = time.perf_counter() - start
    output.update(line(f"{total} images in {seconds:.0f} s"), raw=True)
