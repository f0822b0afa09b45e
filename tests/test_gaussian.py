"""The Gaussian section against textbook formulas."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import oas

import helpers as hp

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
    pooled += hp.RIDGE * np.trace(pooled) / D * np.eye(D)
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


@pytest.mark.parametrize("covariance", hp.COVARIANCES)
@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matches_textbook(covariance, shape, dtype):
    x, test = patches(shape), patches((3, *shape[1:]), seed=0) * 1.3
    model = hp.fit_gaussian(torch.tensor(x, dtype=dtype), covariance, 0.2)
    scores = model.score(torch.tensor(test, dtype=dtype))
    assert scores.dtype == dtype
    expected = textbook(x, test, covariance, 0.2)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("covariance", ["position", "shrunk"])
def test_chunks_do_not_change_the_result(covariance, monkeypatch):
    x = torch.tensor(patches((5, 4, 3, 9)))
    whole = hp.fit_gaussian(x, covariance).score(x)
    monkeypatch.setattr(hp, "_BLOCK_FLOATS", 1)
    assert torch.allclose(hp.fit_gaussian(x, covariance).score(x), whole, rtol=1e-9)


def test_full_shrinkage_is_the_limit():
    x = torch.tensor(patches((8, 3, 3, 5)))
    limit = hp.fit_gaussian(x, "shrunk", 1 - 1e-9).score(x)
    assert torch.allclose(hp.fit_gaussian(x, "shrunk", 1).score(x), limit, rtol=1e-6)


@pytest.mark.parametrize("covariance", hp.COVARIANCES)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_singular_covariances_stay_finite(covariance, n):
    constant = torch.full((n, 2, 3, 4), 0.7)
    model = hp.fit_gaussian(constant, covariance)
    assert model.score(constant).max() < 0.1
    distance = model.score(constant + 1)
    assert torch.isfinite(distance).all() and (distance > 1).all()


def test_unknown_covariance_is_named():
    with pytest.raises(hp.InputError, match="'diagonal'.*global, position, shrunk"):
        hp.fit_gaussian(torch.zeros(2, 1, 1, 2), "diagonal")


def test_cross_validation_never_scores_an_image_it_was_fitted_to():
    x = torch.tensor(patches((11, 2, 3, 4)))
    scores = hp.cross_validated_scores(x, folds=5, covariance="shrunk")
    for k in range(5):
        rest = [i for i in range(11) if i % 5 != k]
        expected = hp.fit_gaussian(x[rest]).score(x[k::5])
        assert torch.equal(scores[k::5], expected)


def test_cross_validation_of_one_image_is_refused():
    with pytest.raises(hp.InputError, match="one normal image"):
        hp.cross_validated_scores(torch.zeros(1, 2, 2, 3))


def test_layers_are_joined_on_the_first_grid():
    fine, coarse = torch.randn(2, 4, 6, 4), torch.randn(2, 6, 3, 2)
    joined = hp.join_layers([fine, coarse], (48, 32))  # (2, 6, 4, 10)
    assert joined.shape == (2, 6, 4, 10)
    assert torch.equal(joined[..., :4], fine.permute(0, 2, 3, 1))
    up = torch.nn.Upsample(size=(6, 4), mode="bilinear")(coarse)
    assert torch.allclose(joined[..., 4:], up.permute(0, 2, 3, 1))


def test_finer_layers_are_averaged_to_a_patch_per_stride():
    fine, coarse = torch.randn(2, 4, 12, 8), torch.randn(2, 6, 3, 2)
    joined = hp.join_layers([fine, coarse], (48, 32))  # (2, 6, 4, 10)
    mean = fine.reshape(2, 4, 6, 2, 4, 2).mean((3, 5))
    assert torch.allclose(joined[..., :4], mean.permute(0, 2, 3, 1), atol=1e-6)


def test_projection_is_orthonormal_and_reproducible():
    q = hp.semi_orthogonal(10, 6)
    assert torch.allclose(q.T @ q, torch.eye(6), atol=1e-6)
    hp.semi_orthogonal.cache_clear()
    assert torch.equal(q, hp.semi_orthogonal(10, 6))


def test_streamed_sums_equal_the_whole():
    x = torch.tensor(patches((20, 4, 3, 9)), dtype=torch.float32)
    sums = hp.PatchSums()
    for batch in x.split(7):
        sums.add(batch)
    expected = hp.fit_gaussian(x, "global").score(x)
    assert torch.allclose(sums.gaussian().score(x), expected, rtol=1e-4)


def test_a_category_without_train_bad_is_projected_alike(tmp_path, monkeypatch):
    from make_sample_data import make

    monkeypatch.setattr(hp, "PROJECTION", 16)
    monkeypatch.setenv("ANOMALY_CACHE", str(tmp_path / "cache"))
    make(tmp_path, image_size=64, train_good=3, train_bad=0, test_good=2, test_bad=1)
    settings = hp.Settings(
        dataset_path=str(tmp_path), image_size=64, backbone="efficientnet_lite2"
    )
    detection = hp.detect(settings)
    assert detection.bad.shape[0] == 0
    assert detection.embedding.shape == (3, 16)
