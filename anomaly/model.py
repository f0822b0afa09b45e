"""All that scoring a new image takes, and nothing of the training images."""

from dataclasses import dataclass

import numpy as np

from anomaly.features import project, stream
from anomaly.framing import Framing
from anomaly.gaussian import Gaussian
from anomaly.network import Trunk
from anomaly.scores import Threshold, anomaly_map, image_scores


@dataclass(frozen=True)
class Model:
    """The backbone, and what was learned from the normal images of a category."""

    trunk: Trunk
    framing: Framing
    gaussian: Gaussian
    threshold: Threshold
    scale: tuple[float, float]  # of the colours, cf. `map_scale`
    usual: np.ndarray  # (2, K), cf. `usual_means`
    image_score: str | float
    sigma: float  # pixels

    def stream(self, sources, what, read=None):
        """Yield patch scores (B, h, w) and windows (B, 4), batch by batch.

        read(source) is an image (H, W, 3) uint8: sources are paths, or images.
        """
        for x, windows in stream(self.trunk, self.framing, sources, what, read):
            x = project(x, self.gaussian.mean.shape[-1])
            x = x.half().float()  # as if from the cache
            yield self.gaussian.score(x).cpu().numpy(), windows

    def patch_scores(self, sources, what, read=None):
        """Patch scores (N, h, w) of all sources."""
        return np.concatenate([part for part, _ in self.stream(sources, what, read)])

    def score(self, image):
        """Score and anomaly map (size, size) of one image (H, W, 3) uint8."""
        [(patches, windows)] = self.stream([image], "image")
        shape = (self.framing.size,) * 2
        heat = anomaly_map(patches[0], shape, self.sigma, windows[0])
        return image_scores(patches, self.image_score, self.usual)[0], heat
