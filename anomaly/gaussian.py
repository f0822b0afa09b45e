"""Gaussians of patch features, three covariances, and their Mahalanobis distance.

Every covariance below is written in one form. With the patch residual whitened,
z = (x - mean_p) W, the covariance at position p is

    base_p I + sum_i a_i a_i^T,    i = 1..N training images,

a correction of rank <= N, so that no D x D matrix per position is inverted:

    global    W whitens the pooled covariance, base = 1, no correction
    position  W = I, base_p = rho_p tr(S_p) / D  (PaDiM with OAS shrinkage)
    shrunk    W whitens the pooled covariance, base = shrinkage
"""

from dataclasses import dataclass

import numpy as np
import torch

from anomaly.errors import InputError
from anomaly.machine import pick_device

COVARIANCES = ("global", "position", "shrunk")
SHRINKAGE = 0.3  # weight of the pooled covariance in `shrunk`
RIDGE = 1e-3  # added to a covariance's diagonal, in units of its mean
FOLDS = 5  # for scoring the training images out of sample
_FLOOR = 1e-8  # smallest variance: constant images stay invertible
_BLOCK_FLOATS = 2**22  # 16 MB of float32: cf. CPU_PIXELS


@dataclass(frozen=True)
class Gaussian:
    """Fitted patch distribution; `P = h * w` positions. See `fit_gaussian`.

    d²(x) = base_p |z|² + sign |A_p z|²  with  z = (x - mean_p) whiten.
    """

    mean: torch.Tensor  # (h, w, D), or (1, 1, D) where place does not count
    whiten: torch.Tensor | None  # (D, D)
    base: torch.Tensor  # (P,) or (1,)
    factor: torch.Tensor | None  # A, (P, min(N, D), D)
    sign: int

    @classmethod
    def of(cls, device, **arrays):
        """The Gaussian on a device ("auto", "cpu", …) from what `arrays` gave."""
        device = pick_device(device)
        return cls(
            **{
                name: torch.from_numpy(np.array(part)).to(device)  # a copy: read-only
                if isinstance(part, np.ndarray)
                else part
                for name, part in arrays.items()
            }
        )

    def arrays(self):
        """Its parts as NumPy arrays, to be kept in a file."""
        return {
            name: part.cpu().numpy() if torch.is_tensor(part) else part
            for name, part in vars(self).items()
        }

    def score(self, features):
        """Mahalanobis distance (B, h, w) of patch features (B, h, w, D)."""
        B, h, w, D = features.shape
        mean, base = self.mean.expand(h, w, D), self.base.expand(h * w)
        d2 = features.new_empty(B, h * w)
        for rows, at in _row_blocks(features):
            z = (features[:, rows] - mean[rows]).flatten(1, 2)  # (B, p, D)
            if self.whiten is not None:
                z = z @ self.whiten
            d2[:, at] = z.square().sum(-1) * base[at]
            if self.factor is not None:
                az = torch.bmm(self.factor[at], z.permute(1, 2, 0))  # (p, min(N, D), B)
                d2[:, at] += self.sign * az.square().sum(1).T
        return d2.clamp_min(0).sqrt().reshape(B, h, w)


def _row_blocks(features):
    """Slices of the grid's rows, and of the positions in them, of some 16 MB each."""
    N, h, w, D = features.shape
    step = max(1, _BLOCK_FLOATS // (max(N, 1) * w * D))
    for start in range(0, h, step):
        stop = min(start + step, h)
        yield slice(start, stop), slice(start * w, stop * w)


def _inverse_root(matrices):
    """L⁻¹ (..., n, n) of symmetric positive definite M = L Lᵀ, on one thread.

    On two cores, threaded LAPACK takes 30 times longer for batches of n = 200,
    nearly all of it waiting.
    """
    eye = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        root = torch.linalg.cholesky(matrices)
        return torch.linalg.solve_triangular(root, eye.expand_as(root), upper=False)
    finally:
        torch.set_num_threads(threads)


def _whitening(covariance):
    """W (D, D) with W Wᵀ = (S + ridge)⁻¹ for a covariance S (D, D)."""
    covariance = covariance.clone()
    ridge = RIDGE * covariance.diagonal().mean()
    covariance.diagonal().add_(ridge.clamp_min(_FLOOR))
    return _inverse_root(covariance).T.contiguous()


class PatchSums:
    """Mean and covariance of all patches, from batches that are not kept."""

    def __init__(self):
        self.count, self.total, self.product, self.origin = 0, 0, None, None

    def add(self, features):
        """Take in patch features (B, h, w, D)."""
        x = features.flatten(0, 2)  # (n, D)
        if self.origin is None:
            self.origin = x.mean(0)  # near the mean, so that float32 products do
            self.product = x.new_zeros(x.shape[1], x.shape[1], dtype=torch.double)
        x = x - self.origin
        self.count += len(x)
        self.total += x.sum(0).double()
        for start in range(0, x.shape[1], 512):  # only the upper triangle, in blocks
            rows = slice(start, start + 512)
            self.product[rows, start:] += x[:, rows].T @ x[:, start:]

    def gaussian(self):
        """The assignment's model: one `Gaussian` for all positions."""
        mean = self.total / self.count
        product = self.product.triu() + self.product.triu(1).T
        scatter = product - self.count * torch.outer(mean, mean)
        covariance = scatter / max(self.count - 1, 1)
        whiten = _whitening(covariance.to(self.origin))
        mean = (self.origin + mean).to(self.origin)[None, None]
        return Gaussian(mean, whiten, self.origin.new_ones(1), None, 0)


def _mean(features, images):
    """Mean (h, w, D) of the features of those images."""
    blocks = [features[:, rows][images].mean(0) for rows, _ in _row_blocks(features)]
    return torch.cat(blocks)


def _pooled_covariance(features, images, mean):
    """Covariance (D, D) pooled over all positions (h, w) around their means."""
    N, (h, w, D) = len(images), features.shape[1:]
    scatter = features.new_zeros(D, D)
    for rows, _ in _row_blocks(features):
        r = (features[:, rows][images] - mean.expand(h, w, D)[rows]).flatten(0, 2)
        scatter += r.T @ r
    return scatter / max(N * h * w - mean[..., 0].numel(), 1)  # a mean costs one


def _oas(z):
    """Oracle-approximating shrinkage ρ and mean variance, each (P,).

    `z` (P, N, D) is centred. Chen et al., "Shrinkage Algorithms for MMSE
    Covariance Estimation", IEEE TSP 2010, eq. 23, without its terms in 2/D
    (as scikit-learn does). tr(S²) comes from the N × N Gram matrix.
    """
    N, D = z.shape[1:]
    small = z if N <= D else z.mT
    gram = small @ small.mT / N
    mean = gram.diagonal(dim1=1, dim2=2).sum(1) / D
    alpha = gram.square().sum((1, 2)) / D**2  # mean of the entries of S²
    gap = (N + 1) * (alpha - mean**2 / D)
    rho = torch.where(gap > 0, (alpha + mean**2) / gap, 1.0).clamp(max=1)
    return rho, mean


def fit_gaussian(features, covariance="shrunk", shrinkage=SHRINKAGE, images=None):
    """Fit one of COVARIANCES to patch features (N, h, w, D) of normal images.

    global    one N(mean, S) over all patches of all images
    position  N(mean_p, Σ_p), Σ_p by OAS (PaDiM: Defard et al., 2020)
    shrunk    Σ_p = (1 - α) S_p + α S, S pooled over positions around their own
              means, α = `shrinkage` (regularised discriminant analysis:
              Friedman, JASA 1989)

    `images` are the indices of those to fit to, all if None. The features' device
    and dtype carry over to the result. Cost: one N × N
    (or D × D, where that is smaller) Cholesky factor per position. Needs no
    more than N ≥ 1 images; variances have a floor, so that constant images
    give finite distances.
    """
    if covariance not in COVARIANCES:
        raise InputError(
            f"covariance = {covariance!r}: choose one of {', '.join(COVARIANCES)}"
        )
    h, w, D = features.shape[1:]
    if images is None:
        images = torch.arange(len(features), device=features.device)
    mean = _mean(features, images)
    if covariance == "global":
        mean = mean.mean((0, 1), keepdim=True)
    whiten = None
    if covariance != "position":
        whiten = _whitening(_pooled_covariance(features, images, mean))
    one = features.new_ones(1)
    if covariance == "global" or (covariance == "shrunk" and shrinkage >= 1):
        return Gaussian(mean, whiten, one, None, 0)

    N, rank = len(images), min(len(images), D)
    base = features.new_empty(h * w)
    factor = features.new_empty(h * w, rank, D)
    eye = torch.eye(rank, dtype=features.dtype, device=features.device)
    for rows, at in _row_blocks(features):
        z = features[:, rows][images] - mean[rows]
        z = z.flatten(1, 2).transpose(0, 1)  # (p, N, D)
        if covariance == "shrunk":
            z = z @ whiten
            z *= ((1 - shrinkage) / max(N - 1, 1)) ** 0.5
            base[at] = shrinkage
        else:
            rho, variance = _oas(z)
            z = z * ((1 - rho) / N).sqrt()[:, None, None]
            base[at] = (rho * variance).clamp_min(_FLOOR)
        b = base[at, None, None]
        if N <= D:  # Woodbury: (bI + ZᵀZ)⁻¹ = (I - Zᵀ(bI + ZZᵀ)⁻¹Z) / b
            factor[at] = _inverse_root(z @ z.mT + b * eye) @ (z / b.sqrt())
        else:
            factor[at] = _inverse_root(z.mT @ z + b * eye)
    if N <= D:
        return Gaussian(mean, whiten, 1 / base, factor, -1)
    return Gaussian(mean, whiten, torch.zeros_like(base), factor, 1)


def cross_validated_scores(features, folds=FOLDS, **fit_options):
    """Distances (N, h, w) of the training images, each scored out of sample.

    Image i belongs to fold i mod `folds` and is scored by a model fitted to the
    other folds. These scores give the decision threshold, since an image that
    helped to fit the covariance always looks too normal to it.
    """
    N = len(features)
    if N < 2:
        raise InputError("one normal image cannot be scored out of sample: add more")
    fold = torch.arange(N, device=features.device) % min(folds, N)
    scores = features.new_empty(features.shape[:3])
    for k in range(min(folds, N)):
        others = (fold != k).nonzero().squeeze(1)
        model = fit_gaussian(features, images=others, **fit_options)
        scores[fold == k] = model.score(features[fold == k])
    return scores
