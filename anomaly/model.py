"""All that scoring a new image takes, and nothing of the training images."""

from dataclasses import dataclass

import numpy as np

from anomaly.features import patch_features, project
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
    image_score: str | float
    sigma: float  # pixels

    def patch_scores(self, images):
        """Patch scores (B, h, w) of images [(H, W, 3) uint8], and windows (B, 4)."""
        windows, places = zip(*map(self.framing.apply, images), strict=True)
        x = patch_features(self.trunk, np.stack(windows))
        x = project(x, self.gaussian.mean.shape[-1])
        x = x.half().float()  # as if from the cache
        return self.gaussian.score(x).cpu().numpy(), np.array(places)

    def score(self, image):
        """Score and anomaly map (size, size) of one image (H, W, 3) uint8."""
        patches, windows = self.patch_scores([image])
        shape = (self.framing.size,) * 2
        heat = anomaly_map(patches[0], shape, self.sigma, windows[0])
        return image_scores(patches, self.image_score)[0], heat
