"""Covariance matrices: shrunk so that they can be inverted, and whitened by."""

import torch

RIDGE = 1e-3  # added to a covariance's diagonal, in units of its mean
FLOOR = 1e-8  # smallest variance: constant images stay invertible


def whitening(covariance, ridge=RIDGE):
    """W (D, D) with WᵀW = (S + ridge)⁻¹ for a covariance S (D, D).

    In double precision: rounded, it does not depend on the number of threads.
    """
    S = covariance.double()
    eye = torch.eye(len(S), dtype=S.dtype, device=S.device)
    root = torch.linalg.cholesky(
        S + (ridge * S.diagonal().mean()).clamp_min(FLOOR) * eye
    )
    return torch.linalg.solve_triangular(root, eye, upper=False).to(covariance)


def whitened(x, whiten, block=256):
    """x Wᵀ (..., D) of a lower triangular W, without multiplying by its zeros."""
    D = len(whiten)
    stops = [*range(block, D, block), D]
    rows = [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]
    parts = [x[..., : at.stop] @ whiten[at, : at.stop].T for at in rows]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def oas(own, count):
    """Shrinkage ρ and mean variance, (P,) each, of covariances S (P, D, D).

    Chen et al., "Shrinkage Algorithms for MMSE Covariance Estimation", IEEE TSP 2010,
    eq. 23, without its terms in 2/D (as scikit-learn does); S from `count` samples.
    """
    D = own.shape[-1]
    mean = own.diagonal(dim1=1, dim2=2).mean(1)
    alpha = own.square().mean((1, 2))
    gap = (count + 1) * (alpha - mean**2 / D)
    rho = torch.where(gap > 0, (alpha + mean**2) / gap, 1.0).clamp(max=1)
    return rho, mean
