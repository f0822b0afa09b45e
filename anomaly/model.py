"""All that scoring a new image takes, and nothing of the training images."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from anomaly.errors import InputError
from anomaly.features import in_chunks, one_by_one, patch_features, project, stream
from anomaly.framing import Framing, with_margin
from anomaly.gaussian import TOGETHER, Gaussian
from anomaly.images import image_shape, shrunk
from anomaly.likeness import group_scores, look_alikes, thumbnail
from anomaly.network import Trunk
from anomaly.regions import Region, find_regions, map_peaks
from anomaly.scores import anomaly_map, conformal_threshold, image_scores
from anomaly.settings import Settings


class Normals(NamedTuple):
    """What is kept of normal images that the model was not fitted to."""

    scores: np.ndarray  # (K,) highest of each group of look-alikes
    peaks: np.ndarray  # (K,) likewise, of their maps
    seen: np.ndarray  # (K, 4) place and light of one of each, cf. `Framing.seen`
    count: int  # of images


class Answer(NamedTuple):
    """What the model says about an image."""

    path: Path
    image: np.ndarray  # (…, …, 3) uint8, as large as it is drawn
    shape: tuple[int, int]  # of the original, whose pixels those of the regions are
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

        Read ahead, a few at a time: of thousands, few are in memory at once.
        """
        enough, drawn = with_margin(self.framing.size), 4 * self.framing.size

        def look(path):
            try:
                image = self.framing.read(path, at_least=enough)
                seen = self.framing.look(image)
                return *seen, path, shrunk(image, drawn), image_shape(path)
            except InputError as error:
                return None, path, error

        images = one_by_one(self.trunk, look, paths, what)
        while rows := list(islice(images, TOGETHER)):
            features = [x for x, *_ in rows if x is not None]
            scored = iter(self._distances(torch.stack(features))[1] if features else ())
            for x, *row in rows:
                yield tuple(row) if x is None else self._answer(*row, next(scored))

    def _score(self, windows):
        """Features (B, h, w, D) and patch scores (B, h, w) of windows (B, s, s, 3)."""
        return self._distances(patch_features(self.trunk, windows))

    def _distances(self, x):
        x = project(x, self.gaussian.mean.shape[-1])
        x = x.half().float()  # as if from the cache
        return x, self.gaussian.score(x).cpu().numpy()

    def _answer(self, where, seen, path, image, shape, patches):
        normals, heat = self.normals.scores, self._heat(patches, where)
        score = float(self.image_scores(patches[None])[0])
        p_value = float((1 + (normals >= score).sum()) / (1 + len(normals)))
        is_bad = score > self.threshold.value
        regions = find_regions(heat, self.map_threshold.value, shape)
        said = score, p_value, is_bad, regions
        return Answer(path, image, shape, heat, *said, seen)

    def recalibrated(self, paths):
        """This model, its thresholds from new normal images; the rest is as it was.

        The model was not fitted to them, so that what they promise is exact.
        """

        def look(path):
            image = self.framing.read_small(path)
            return *self.framing.look(image), thumbnail(image)

        rows, features, scored = [], [], []
        for x, seen in in_chunks(self.trunk, look, paths, "new normal images"):
            x, patches = self._distances(x)
            outside = self.gaussian.mean[..., :1].isnan()  # of the region
            features.append(x.masked_fill(outside, torch.nan).half().cpu().numpy())
            scored.append(patches)
            rows += [row[1:] for row in seen]  # without the windows
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
