"""What the method is held against: a memory bank, and other days."""

import cv2
import numpy as np
import torch

from anomaly.gaussian import wide


def _shift(image):
    height, width = image.shape[:2]
    step = np.float32([[1, 0, 0.02 * width], [0, 1, -0.02 * height]])
    border = cv2.BORDER_REPLICATE
    return cv2.warpAffine(image, step, (width, height), borderMode=border)


def _scaled(image, gain, pivot):
    levels = (np.arange(256) - pivot) * gain + pivot
    return cv2.LUT(image, np.uint8(np.rint(levels.clip(0, 255))))


def _jpeg(image, quality=90):
    code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(code, cv2.IMREAD_COLOR)


PERTURBATIONS = {  # what another day at the same camera may do to an image
    "shifted by 2 %": _shift,
    "10 % brighter": lambda image: _scaled(image, 1.1, 0),
    "10 % darker": lambda image: _scaled(image, 0.9, 0),
    "10 % more contrast": lambda image: _scaled(image, 1.1, image.mean()),
    "10 % less contrast": lambda image: _scaled(image, 0.9, image.mean()),
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), image.shape[0] / 512),
    "JPEG, quality 90": _jpeg,
}


def memory_bank_scores(good, test, seed=0, size=2000):
    """Image scores (T,) of a nearest-neighbour memory bank, for reference.

    Features (N, h, w, D) and (T, h, w, D), half precision will do. The distance of each
    test patch to the nearest of `size` random normal patches, the largest in the image
    counts: PatchCore (Roth et al., CVPR 2022) without its coreset. A patch of NaN is
    none, cf. `roi`.
    """

    def patches(x):  # (…, D) as (n, D)
        flat = x.flatten(0, -2)
        return flat[~flat[:, 0].isnan()]

    bank = patches(good)
    rng = np.random.default_rng(seed)
    picks = np.sort(rng.choice(len(bank), min(size, len(bank)), replace=False))
    bank = bank[torch.from_numpy(picks).to(bank.device)]
    bank = bank.to(wide(bank))
    scores = [
        torch.cdist(patches(image).to(bank), bank).amin(dim=1).max().item()
        for image in test
    ]
    return np.array(scores)
