"""Which normal images are pictures of the same thing, and how they are kept together.

Copies, frames of one product and bursts of a camera look alike. An image whose twin
helped to fit the model scores too low, and a threshold from such scores promises too
much: look-alikes share a fold, and count once. Variants of a product, which are many,
do not: a fold without a variant would find all of it abnormal.
"""

import cv2
import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from scipy.stats import binom
from torch.nn.functional import adaptive_avg_pool2d

from anomaly.covariance import whitening
from anomaly.features import project
from anomaly.images import to_grey

BURST = 5  # look-alikes of one image at most: more are a pose or a variant
LEVEL = 0.05  # share of false look-alikes


def thumbnail(image):
    """A grey picture (96 * 96,) without its light, of unit length; near zero if flat.

    The cosine of two photographs stays below 0.88 even for zippers, that of a resized,
    re-encoded or brightened copy is above 0.95.
    """
    grey = cv2.resize(to_grey(image), (96, 96), interpolation=cv2.INTER_AREA)
    grey = grey.astype(np.float32)
    grey -= cv2.GaussianBlur(grey, (0, 0), 4)
    return grey.ravel() / max(np.linalg.norm(grey), 24)


def near_copies(thumbs, level=0.92):
    """Which of thumbnails (n, 96 * 96) show the same picture: (n, n) bool.

    The mean of all is taken out, since aligned products look alike. At a `level` of
    0.98 only copies are left: frames of a turntable reach 0.975.
    """
    alike = thumbs @ thumbs.T
    rest = thumbs - thumbs.mean(axis=0)
    rest /= np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-6)
    return (alike > 0.9) & (rest @ rest.T > level)


def look_alikes(features, thumbs):
    """Group (N,) of each of N normal images, from what is at hand.

    features (N, h, w, D), NumPy, half precision; thumbs (N, 96 * 96).
    """
    z = descriptors(torch.from_numpy(features))
    return likeness_groups(z, near_copies(thumbs, level=0.98))


def descriptors(features, grid=8):
    """Whitened features (N, grid * grid * D) of patches (N, h, w, D), pooled.

    Centred at each position, whitened by the covariance pooled over positions: what all
    images share, and what varies anyway, does not make two alike. NaN is not
    pooled, cf. `roi`; where there is nothing else, images do not differ.
    """
    N, h, w, _ = features.shape
    grid = min(grid, h, w)
    x = features.permute(0, 3, 1, 2).float()  # (N, D, h, w)
    gaps = x[:, :1].isnan()
    if gaps.any():
        share = adaptive_avg_pool2d((~gaps).float(), grid).clamp_min(1e-6)
        x = adaptive_avg_pool2d(x.masked_fill(gaps, 0), grid) / share
    x = adaptive_avg_pool2d(x, grid).permute(0, 2, 3, 1)
    x = project(x - x.mean(0)).flatten(0, 2)  # (N * grid * grid, D)
    return (x @ whitening(x.T @ x / len(x)).T).reshape(N, -1).cpu().numpy()


def likeness_groups(z, copies=False):
    """Group (N,) of each image, 0 .. K - 1; the images of a group are look-alikes.

    `z` (N, d) are `descriptors`; `copies` (N, N) says which are known to be the same.
    Around image i let T be the distance to its m-th neighbour, m = N / 5, one fold's
    worth. Images independent of each other lie within r of i with chance (r / T)^δ; δ
    is the local dimension, by the neighbours m / 2 and m, median over the neighbourhood
    (Levina & Bickel, NIPS 2004). The k nearest, k <= BURST, are look-alikes if so many
    so near are surprising (binomial tail; false discoveries held at LEVEL, Benjamini &
    Hochberg 1995) and a gap follows: k δ log(d_k+1 / d_k) is Exp(1) (Rényi). Two images
    are linked if each is among the other's k, and both surprises, by their geometric
    mean, suffice. The order of the images is no matter.
    """
    N = len(z)
    if N < 10:  # no neighbourhood to compare with
        same = (z[:, None] == z).all(-1) | copies
        return connected_components(same, directed=False)[1]
    square = np.square(z).sum(1)
    far = np.sqrt(np.maximum(square[:, None] + square - 2 * z @ z.T, 0))  # (N, N)
    np.fill_diagonal(far, np.inf)
    order = np.argsort(far, axis=1, kind="stable")
    d = np.maximum(np.take_along_axis(far, order, 1)[:, :-1], 1e-9)  # ascending
    m = -(-N // 5)
    half, T = m // 2, d[:, m - 1]
    ratio = np.log(np.maximum(T / d[:, half - 1], 1 + 1e-9))
    dim = np.median((np.log(m / half) / ratio)[order[:, :m]], axis=1)

    top = min(half, BURST)
    gap = np.arange(1, top + 1) * np.log(d[:, 1 : top + 1] / d[:, :top])
    k = gap.argmax(axis=1) + 1
    p = binom.sf(k - 1, m - 1, (d[np.arange(N), k - 1] / T) ** dim)
    p[np.exp(-gap.max(axis=1) * dim) >= LEVEL / top] = 1
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(N)[None].repeat(N, 0), 1)
    mutual = (rank < k[:, None]) & (rank < k[:, None]).T
    steps = LEVEL * np.arange(1, N + 1) / N
    level = steps[max((np.sort(p) <= steps).nonzero()[0], default=0)]
    link = mutual & (np.sqrt(np.outer(p, p)) <= level)
    link |= (far < 0.1 * np.sqrt(np.outer(T, T))) | copies  # copies, however many
    return connected_components(link, directed=False)[1]


def folds_by_likeness(groups, folds=5):
    """Fold (N,) of each image: groups stay whole, the largest are placed first.

    Without look-alikes that is i mod `folds`.
    """
    size = np.bincount(groups)
    fold, filled = np.empty(len(size), int), np.zeros(min(folds, len(size)), int)
    for group in np.argsort(-size, kind="stable"):
        fold[group] = filled.argmin()
        filled[fold[group]] += size[group]
    return fold[groups]


def group_scores(scores, groups):
    """Highest score (K,) of each group, for `conformal_threshold` with n = K.

    Valid for any image of a new group, where groups are exchangeable (Dunn, Wasserman &
    Ramdas, JASA 2023; the weights of Lee, Barber & Willett, 2023, hold for a member
    drawn at random only).
    """
    highest = np.full(groups.max() + 1, -np.inf)
    np.maximum.at(highest, groups, scores)
    return highest
