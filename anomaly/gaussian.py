"""Gaussians of patch features, three covariances, and their Mahalanobis distance.

    global    one mean and one Σ for all positions (the assignment's)
    position  Σ_p = (1 - ρ) S_p + ρ tr(S_p) / D · I, ρ by OAS (PaDiM)
    shrunk    Σ_p = (1 - α) S_p + α S, S pooled over all positions

What is pooled is done once: W whitens S (W is I for `position`), and z = W (x - μ_p) is
a patch in coordinates in which S is the identity. What is left to a position is its own
Σ_p in these coordinates, with Cholesky factor L_p, and d(x) = |L_p⁻¹ z|. Features have
at most 256 dimensions here (cf. `features.project`), so that a factor for each position
is cheap; `global` alone is fitted to whole features, and has none.

A patch of NaN is not there (cf. `roi`): its position takes no part in what is pooled,
the mean is NaN there, and so are all distances.
"""

from dataclasses import dataclass

import numpy as np
import torch

from anomaly.covariance import FLOOR, RIDGE, oas, whitened, whitening
from anomaly.errors import InputError
from anomaly.machine import filled_up, on_all_cores, pick_device

COVARIANCES = ("global", "position", "shrunk")
SHRINKAGE = 0.3  # weight of the pooled covariance in `shrunk`
FOLDS = 5  # for scoring the training images out of sample
TOGETHER = 16  # images scored at once: the factors are read once for all
BLOCK_FLOATS = 2**22  # 16 MB of float32: the system takes larger tensors back each time


@dataclass(frozen=True)
class Gaussian:
    """Fitted patch distribution; `P = h * w` positions. See `fit_gaussian`."""

    mean: torch.Tensor  # (h, w, D), or (1, 1, D) where place does not count
    whiten: torch.Tensor  # W, (D, D)
    root: torch.Tensor  # L, (P, D, D) lower triangular, or (0, D, D): none

    @classmethod
    def of(cls, device, **arrays):
        """The Gaussian on a device ("auto", "cpu", …) from what `arrays` gave."""
        device = pick_device(device)
        return cls(**{k: torch.from_numpy(a).to(device) for k, a in arrays.items()})

    def arrays(self):
        """Its parts as NumPy arrays, to be kept in a file."""
        return {name: part.cpu().numpy() for name, part in vars(self).items()}

    def score(self, features):
        """Mahalanobis distance (B, h, w) of patch features (B, h, w, D).

        To the bit the same in any company: images are scored by so many, filled up.
        """
        together = TOGETHER if len(self.root) else 1
        parts = features.split(together)
        d = [self._score(filled_up(part, together))[: len(part)] for part in parts]
        return torch.cat(d)

    def _score(self, features):
        B, h, w, D = features.shape
        mean, d = self.mean.expand(h, w, D), self.mean.new_empty(B, h * w)

        def score_block(block):
            rows, at = block
            z = whitened((features[:, rows] - mean[rows]).flatten(1, 2), self.whiten)
            if len(self.root):  # z (B, p, D), one system of equations a position
                z, lower = z.transpose(0, 1), self.root[at].mT
                z = torch.linalg.solve_triangular(lower, z, upper=True, left=False)
                z = z.transpose(0, 1)
            d[:, at] = z.norm(dim=-1)

        on_all_cores(score_block, row_blocks(features))
        return d.reshape(B, h, w)


def row_blocks(features, floats=BLOCK_FLOATS):
    """Slices of the grid's rows, and of the positions in them, of some 16 MB each."""
    N, h, w, D = features.shape
    step = max(1, floats // (max(N, D) * w * D))
    for start in range(0, h, step):
        stop = min(start + step, h)
        yield slice(start, stop), slice(start * w, stop * w)


class PatchSums:
    """Mean and covariance of all patches, from batches that are not kept."""

    def __init__(self):
        self.count, self.total, self.product, self.origin = 0, 0, None, None

    def add(self, features):
        """Take in patch features (B, h, w, D)."""
        x = features.flatten(0, 2)  # (n, D)
        outside = x[:, 0].isnan()
        x = x[~outside] if outside.any() else x
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
        whiten = whitening(covariance.to(self.origin))
        mean = (self.origin + mean).to(self.origin)[None, None]
        return Gaussian(mean, whiten, whiten.new_empty(0, *whiten.shape))


def wide(features):
    """The type to compute in: half precision is only for keeping features."""
    return torch.promote_types(features.dtype, torch.float32)


def mean_of(features, images):
    """Mean (h, w, D) of the features of those images."""
    blocks = (features[:, rows][images] for rows, _ in row_blocks(features))
    return torch.cat([block.mean(0, dtype=wide(block)) for block in blocks])


def pooled_covariance(features, images, mean, means):
    """Covariance (D, D) pooled over all positions inside around their `means` means."""
    (h, w, D), count = features.shape[1:], 0
    scatter, mean = mean.new_zeros(D, D), mean.expand(h, w, D)
    for rows, _ in row_blocks(features):
        inside = ~mean[rows, :, 0].isnan()
        r = (features[:, rows][images] - mean[rows])[:, inside].flatten(0, 1)
        scatter += r.T @ r
        count += len(r)
    return scatter / max(count - means, 1)  # a mean costs one


def fit_gaussian(
    features, covariance="shrunk", shrinkage=SHRINKAGE, ridge=RIDGE, images=None
):
    """Fit one of COVARIANCES to patch features (N, h, w, D) of normal images.

    global    one N(mean, S) over all patches of all images
    position  N(mean_p, Σ_p), Σ_p by OAS (PaDiM: Defard et al., 2020)
    shrunk    Σ_p = (1 - α) S_p + α S, S pooled over positions around their own
              means, α = `shrinkage` (regularised discriminant analysis:
              Friedman, JASA 1989)

    `ridge` is added to S, in units of its mean variance. `images` are the indices of
    those to fit to, all if None. The features' device and dtype carry over to the
    result, half precision as float32. Needs no more than N ≥ 1 images; variances have
    a floor, so that constant images give finite distances.
    """
    if covariance not in COVARIANCES:
        raise InputError(
            f"covariance = {covariance!r}: choose one of {', '.join(COVARIANCES)}"
        )
    h, w, D = features.shape[1:]
    if images is None:
        images = torch.arange(len(features), device=features.device)
    mean = mean_of(features, images)
    means = int((inside := ~mean[..., 0].isnan()).sum())  # (h, w)
    if covariance == "global":
        mean, means = mean[inside].mean(0)[None, None], 1
        if not inside.all():
            mean = torch.where(inside[..., None], mean, torch.nan)
    eye = torch.eye(D, dtype=mean.dtype, device=mean.device)
    whiten, positions = eye, h * w
    if covariance != "position":
        S = pooled_covariance(features, images, mean, means)
        whiten = whitening(S, ridge)
    if covariance == "global" or (covariance == "shrunk" and shrinkage >= 1):
        positions = 0
    root = mean.new_empty(positions, D, D)

    def fit_block(block):
        rows, at = block
        z = (features[:, rows][images] - mean[rows]).flatten(1, 2) @ whiten.T
        z = z.transpose(0, 1)  # (p, N, D)
        z[~inside[rows].flatten()] = 0  # where nothing is, a factor that is finite
        own = z.mT @ z  # (p, D, D)
        if covariance == "shrunk":
            own *= (1 - shrinkage) / max(len(images) - 1, 1)
            variance = mean.new_full((len(own),), shrinkage)  # of S, which is I
        else:
            rho, variance = oas(own.div_(len(images)), len(images))
            own *= (1 - rho)[:, None, None]
            variance = (rho * variance).clamp_min(FLOOR)
        root[at] = torch.linalg.cholesky(own + variance[:, None, None] * eye)

    if positions:
        on_all_cores(fit_block, row_blocks(features[:1].expand(len(images), h, w, D)))
    return Gaussian(mean, whiten, root)


def cross_validated_scores(features, fold=None, **fit_options):
    """Distances (N, h, w) of the training images, each scored out of sample.

    An image is scored by a model fitted to the other folds; `fold` (N,) says which is
    whose, i mod FOLDS if None. These scores give the decision threshold, since an
    image that helped to fit the covariance always looks too normal to it.
    """
    N = len(features)
    fold = torch.as_tensor(np.arange(N) % FOLDS if fold is None else fold)
    fold = fold.to(features.device)
    if len(fold.unique()) < 2:
        raise InputError("one normal image cannot be scored out of sample: add more")
    scores = features.new_empty(features.shape[:3], dtype=wide(features))
    for k in fold.unique():
        others = (fold != k).nonzero().squeeze(1)
        model = fit_gaussian(features, images=others, **fit_options)
        scores[fold == k] = model.score(features[fold == k])
        del model  # its factors take as much memory as the next one's
    return scores
