"""The Gaussian against textbook formulas, and what holds whatever the input."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import oas

from anomaly.errors import InputError
from anomaly.gaussian import (
    COVARIANCES,
    RIDGE,
    PatchSums,
    cross_validated_scores,
    fit_gaussian,
    row_blocks,
)

GRIDS = [(60, 3, 5, 7), (6, 3, 2, 12), (2, 1, 3, 4), (9, 1, 1, 8), (7, 5, 3, 7)]
GRIDS += [(24, 3, 5, 256)]  # as many dimensions as are kept


def patches(shape, seed=0):
    """Correlated features whose mean and covariance depend on the position."""
    rng = np.random.default_rng(seed)
    N, h, w, D = shape
    mix = rng.normal(size=(h, w, D, D)) / D**0.5 + np.eye(D)
    x = np.einsum("nhwd,hwde->nhwe", rng.normal(size=shape), mix)
    return x + rng.normal(size=(h, w, D)) * 3


def textbook(x, test, covariance, alpha):
    """Means and explicit covariances, one position after the other."""
    N, h, w, D = x.shape
    mean = x.mean(0)
    if covariance == "global":
        mean = np.broadcast_to(x.mean((0, 1, 2)), mean.shape)
    r = x - mean
    flat = r.reshape(-1, D)
    dof = N * h * w - 1 if covariance == "global" else h * w * (N - 1)
    pooled = flat.T @ flat / dof
    pooled += RIDGE * np.trace(pooled) / D * np.eye(D)
    out = np.empty(test.shape[:3])
    for i, j in np.ndindex(h, w):
        if covariance == "global":
            sigma = pooled
        elif covariance == "position":
            sigma = oas(x[:, i, j])[0]
        else:
            own = r[:, i, j].T @ r[:, i, j] / (N - 1)
            sigma = (1 - alpha) * own + alpha * pooled
        inverse = np.linalg.inv(sigma)
        for n, t in enumerate(test):
            out[n, i, j] = mahalanobis(t[i, j], mean[i, j], inverse)
    return out


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matches_textbook(covariance, shape, dtype):
    x, test = patches(shape), patches((3, *shape[1:]), seed=0) * 1.3
    model = fit_gaussian(torch.tensor(x, dtype=dtype), covariance, 0.2)
    scores = model.score(torch.tensor(test, dtype=dtype))
    assert scores.dtype == dtype
    expected = textbook(x, test, covariance, 0.2)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("covariance", ["position", "shrunk"])
def test_chunks_do_not_change_the_result(covariance, monkeypatch):
    x = torch.tensor(patches((5, 4, 3, 9)))
    whole = fit_gaussian(x, covariance).score(x)
    small = functools.partial(row_blocks, floats=1)
    monkeypatch.setattr("anomaly.gaussian.row_blocks", small)
    assert torch.allclose(fit_gaussian(x, covariance).score(x), whole, rtol=1e-9)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_distances_are_the_same_in_any_company(covariance):
    """To the bit: alone, in a few, in many."""
    x = torch.tensor(patches((40, 4, 3, 64)), dtype=torch.float32)
    model = fit_gaussian(x, covariance)
    together = model.score(x)
    assert torch.equal(torch.cat([model.score(one[None]) for one in x]), together)
    assert torch.equal(model.score(x[5:28]), together[5:28])


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_fit_is_the_same_on_any_cores(cores, covariance):
    x, before = torch.tensor(patches((40, 8, 8, 256)), dtype=torch.float32), None
    for count in (1, 2, 3):
        cores(count)
        parts = vars(fit_gaussian(x, covariance))
        before = before or parts
        assert all(torch.equal(parts[name], before[name]) for name in parts)


def test_full_shrinkage_is_the_limit():
    x = torch.tensor(patches((8, 3, 3, 5)))
    limit = fit_gaussian(x, "shrunk", 1 - 1e-9).score(x)
    assert torch.allclose(fit_gaussian(x, "shrunk", 1).score(x), limit, rtol=1e-6)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_singular_covariances_stay_finite(covariance, n):
    constant = torch.full((n, 2, 3, 4), 0.7)
    model = fit_gaussian(constant, covariance)
    assert model.score(constant).max() < 0.1
    distance = model.score(constant + 1)
    assert torch.isfinite(distance).all() and (distance > 1).all()


def test_unknown_covariance_is_named():
    with pytest.raises(InputError, match="'diagonal'.*global, position, shrunk"):
        fit_gaussian(torch.zeros(2, 1, 1, 2), "diagonal")


def test_cross_validation_never_scores_an_image_it_was_fitted_to():
    x = torch.tensor(patches((11, 2, 3, 4)))
    scores = cross_validated_scores(x, covariance="shrunk")
    for k in range(5):
        rest = [i for i in range(11) if i % 5 != k]
        expected = fit_gaussian(x[rest]).score(x[k::5])
        assert torch.equal(scores[k::5], expected)


def test_cross_validation_of_one_image_is_refused():
    with pytest.raises(InputError, match="one normal image"):
        cross_validated_scores(torch.zeros(1, 2, 2, 3))


def test_streamed_sums_equal_the_whole():
    x = torch.tensor(patches((20, 4, 3, 9)), dtype=torch.float32)
    sums = PatchSums()
    for batch in x.split(7):
        sums.add(batch)
    expected = fit_gaussian(x, "global").score(x)
    assert torch.allclose(sums.gaussian().score(x), expected, rtol=1e-4)


SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.tuples(*(st.integers(1, high) for high in (9, 3, 3, 6)))  # N, h, w, D
KNOWN = st.sampled_from(COVARIANCES)
few = settings(deadline=None, max_examples=60)


def normal(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape))


@few
@given(SEEDS, SHAPES)
def test_global_distances_are_affine_invariant(seed, shape):
    N, h, w, D = shape
    rng = np.random.default_rng(seed)
    x, test = normal(rng, N + 10, h, w, D), normal(rng, 3, h, w, D) * 3
    q, r = (np.linalg.qr(rng.normal(size=(D, D)))[0] for _ in range(2))
    turn = torch.from_numpy(q * rng.uniform(0.2, 5, D) @ r)
    shift = 10 * normal(rng, D)
    plain = fit_gaussian(x, "global", ridge=0).score(test)
    moved = fit_gaussian(x @ turn + shift, "global", ridge=0)
    moved = moved.score(test @ turn + shift)
    torch.testing.assert_close(moved, plain, rtol=1e-4, atol=0)


@few
@given(SEEDS, SHAPES, KNOWN)
def test_the_order_of_images_is_no_matter(seed, shape, covariance):
    rng = np.random.default_rng(seed)
    x, test = normal(rng, *shape), normal(rng, 2, *shape[1:])
    order = torch.from_numpy(rng.permutation(len(x)))
    one, two = (fit_gaussian(part, covariance) for part in (x, x[order]))
    torch.testing.assert_close(one.score(test), two.score(test), rtol=1e-7, atol=0)


KINDS = ["normal", "constant", "copies", "rank 1", "one dimension", "tiny", "huge"]


def degenerate(rng, kind, shape):
    x = normal(rng, *shape)
    if kind == "constant":
        x = x * 0 + 0.7
    if kind == "copies":
        x = x[:1].expand(shape)
    if kind == "rank 1":
        x = x[..., :1] * torch.arange(1, shape[-1] + 1)
    if kind == "one dimension":
        x[..., 1:] = 0
    return x * {"tiny": 1e-6, "huge": 1e3}.get(kind, 1)


@few
@given(SEEDS, SHAPES, KNOWN, st.sampled_from(KINDS))
def test_degenerate_features_have_finite_scores(seed, shape, covariance, kind):
    x = degenerate(np.random.default_rng(seed), kind, shape).float()
    model = fit_gaussian(x, covariance)
    for test in (x, x + 1, 1e3 * x - 1):
        scores = model.score(test)
        assert scores.shape == test.shape[:3]
        assert torch.isfinite(scores).all()


@few
@given(SEEDS, SHAPES, KNOWN, st.sampled_from(KINDS))
def test_precision_matrices_are_positive_semidefinite(seed, shape, covariance, kind):
    x = degenerate(np.random.default_rng(seed), kind, shape)
    model = fit_gaussian(x, covariance)
    eye = torch.eye(shape[-1], dtype=x.dtype)[None]
    for root in model.root if len(model.root) else eye:
        factor = torch.linalg.solve_triangular(root, model.whiten, upper=False)
        assert torch.equal(root, root.tril()) and (factor.diagonal() > 0).all()
        values = torch.linalg.eigvalsh(factor.T @ factor)
        assert values.isfinite().all() and values.min() >= -1e-9 * values.max()
