"""All that scoring a new image takes, and nothing of the training images."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from anomaly.errors import InputError
from anomaly.features import (
    in_batches,
    patch_features,
    progress,
    project,
    stream,
)
from anomaly.framing import Framing
from anomaly.gaussian import Gaussian
from anomaly.likeness import group_scores, look_alikes, thumbnail
from anomaly.network import Trunk
from anomaly.regions import Region, find_regions, map_peaks
from anomaly.scores import anomaly_map, conformal_threshold, image_scores
from anomaly.settings import Settings

TOGETHER = 32  # images whose distances take a third of the time of 4 at a time


class Normals(NamedTuple):
    """What is kept of normal images that the model was not fitted to."""

    scores: np.ndarray  # (K,) highest of each group of look-alikes
    peaks: np.ndarray  # (K,) likewise, of their maps
    seen: np.ndarray  # (K, 4) place and light of one of each, cf. `Framing.seen`
    count: int  # of images


class Answer(NamedTuple):
    """What the model says about an image."""

    path: Path
    image: np.ndarray  # (H, W, 3) uint8
    heat: np.ndarray  # (size, size) anomaly map
    score: float
    p_value: float  # share of normal scores at least as high, this one counted
    is_bad: bool
    regions: list[Region]
    seen: np.ndarray  # (4,) place and light, cf. `Framing.seen`


@dataclass(frozen=True)
class Model:
    """The backbone, and what was learned from the normal images of a category."""

    settings: Settings
    trunk: Trunk
    framing: Framing
    gaussian: Gaussian
    usual: np.ndarray  # (2, K), cf. `usual_means`
    scale: tuple[float, float]  # of the colours, cf. `map_scale`
    normals: Normals
    data_sha256: str

    @cached_property
    def threshold(self):
        """`Threshold` of the score."""
        rate, count = self.settings.max_fpr, self.normals.count
        return conformal_threshold(self.normals.scores, rate, count)

    @cached_property
    def map_threshold(self):
        """`Threshold` of the map: at most as many normal images show any region."""
        rate, count = self.settings.max_fpr, self.normals.count
        return conformal_threshold(self.normals.peaks, rate, count)

    def patch_scores(self, sources, what, read=None):
        """Patch scores (N, h, w) of all sources.

        read(source) is an image (H, W, 3) uint8: sources are paths, or images.
        """
        scores, waiting = [], []
        for x, _ in stream(self.trunk, self.framing, sources, what, read):
            waiting.append(project(x, self.gaussian.mean.shape[-1]))
            if sum(map(len, waiting)) >= TOGETHER:
                scores.append(self._distances(torch.cat(waiting))[1])
                waiting = []
        scores += [self._distances(torch.cat(waiting))[1]] if waiting else []
        return np.concatenate(scores)

    def image_scores(self, patches):
        """Image scores (N,) of patch scores (N, h, w)."""
        return image_scores(patches, self.settings.image_score, self.usual)

    def score(self, image):
        """Score and anomaly map (size, size) of one image (H, W, 3) uint8."""
        window, where, _ = self.framing.look(image)
        patches = self._score(window[None])[1]
        return float(self.image_scores(patches)[0]), self._heat(patches[0], where)

    def _heat(self, patches, where):
        shape = (self.framing.size,) * 2
        return anomaly_map(patches, shape, self.settings.sigma, where)

    def answers(self, paths, what="images"):
        """Yield an `Answer` to each path, or (path, `InputError`) if it is no image.

        In batches, read ahead: of thousands, few are in memory at once.
        """

        def read(path):
            try:
                image = self.framing.read(path)
            except InputError as error:
                return path, error
            return path, image, *self.framing.look(image)

        for batch in progress(
            in_batches(read, paths, self.trunk.limit), what, len(paths)
        ):
            windows = [row[2] for row in batch if len(row) > 2]
            scored = iter(self._score(np.stack(windows))[1] if windows else ())
            for row in batch:
                yield self._answer(*row, next(scored)) if len(row) > 2 else row

    def _score(self, windows):
        """Features (B, h, w, D) and patch scores (B, h, w) of windows (B, s, s, 3)."""
        return self._distances(patch_features(self.trunk, windows))

    def _distances(self, x):
        x = project(x, self.gaussian.mean.shape[-1])
        x = x.half().float()  # as if from the cache
        return x, self.gaussian.score(x).cpu().numpy()

    def _answer(self, path, image, _, where, seen, patches):
        normals, heat = self.normals.scores, self._heat(patches, where)
        score = float(self.image_scores(patches[None])[0])
        p_value = float((1 + (normals >= score).sum()) / (1 + len(normals)))
        is_bad = score > self.threshold.value
        regions = find_regions(heat, self.map_threshold.value, image.shape[:2])
        return Answer(path, image, heat, score, p_value, is_bad, regions, seen)

    def recalibrated(self, paths):
        """This model, its thresholds from new normal images; the rest is as it was.

        The model was not fitted to them, so that what they promise is exact.
        """

        def read(path):
            image = self.framing.read_small(path)
            return *self.framing.look(image), thumbnail(image)

        rows, features, scored = [], [], []
        batches = in_batches(read, paths, self.trunk.limit)
        for batch in progress(batches, "new normal images", len(paths)):
            x, patches = self._score(np.stack([row[0] for row in batch]))
            features.append(x.half().cpu().numpy())
            scored.append(patches)
            rows += [row[1:] for row in batch]  # without the windows
        where, seen, thumbs = map(np.stack, zip(*rows, strict=True))
        groups = look_alikes(np.concatenate(features), thumbs)
        patches, usual = np.concatenate(scored), self.usual
        normals = normals_of(self.settings, patches, where, groups, seen, usual)
        return replace(self, normals=normals)


def normals_of(settings, patches, windows, groups, seen, usual):
    """`Normals` from out-of-sample patch scores (N, h, w) and windows (N, 4).

    groups (N,) says which look alike; seen (N, 4) as in `Framing`.
    """
    values = image_scores(patches, settings.image_score, usual)
    peaks = map_peaks(patches, windows, settings.image_size, settings.sigma)
    first = np.unique(groups, return_index=True)[1]
    scores, peaks = (group_scores(np.float64(x), groups) for x in (values, peaks))
    return Normals(scores, peaks, seen[first], len(patches))
