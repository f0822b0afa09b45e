"""Properties of the Gaussian and the label parser that hold whatever the input."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import helpers as hp

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.tuples(*(st.integers(1, high) for high in (9, 3, 3, 6)))  # N, h, w, D
COVARIANCES = st.sampled_from(hp.COVARIANCES)
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hp, "RIDGE", 0)
        plain = hp.fit_gaussian(x, "global").score(test)
        moved = hp.fit_gaussian(x @ turn + shift, "global").score(test @ turn + shift)
    torch.testing.assert_close(moved, plain, rtol=1e-4, atol=0)


@few
@given(SEEDS, SHAPES, COVARIANCES)
def test_the_order_of_images_is_no_matter(seed, shape, covariance):
    rng = np.random.default_rng(seed)
    x, test = normal(rng, *shape), normal(rng, 2, *shape[1:])
    order = torch.from_numpy(rng.permutation(len(x)))
    one, two = (hp.fit_gaussian(part, covariance) for part in (x, x[order]))
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
@given(SEEDS, SHAPES, COVARIANCES, st.sampled_from(KINDS))
def test_degenerate_features_have_finite_scores(seed, shape, covariance, kind):
    x = degenerate(np.random.default_rng(seed), kind, shape).float()
    model = hp.fit_gaussian(x, covariance)
    for test in (x, x + 1, 1e3 * x - 1):
        scores = model.score(test)
        assert scores.shape == test.shape[:3]
        assert torch.isfinite(scores).all()


@few
@given(SEEDS, SHAPES, COVARIANCES, st.sampled_from(KINDS))
def test_precision_matrices_are_positive_semidefinite(seed, shape, covariance, kind):
    x = degenerate(np.random.default_rng(seed), kind, shape)
    model = hp.fit_gaussian(x, covariance)
    eye = torch.eye(shape[-1], dtype=x.dtype)
    for p, base in enumerate(model.base):
        precision = base * eye
        if model.factor is not None:
            a = model.factor[p]
            precision = precision + model.sign * a.T @ a
        values = torch.linalg.eigvalsh(precision)
        assert values.min() >= -1e-9 * values.abs().max()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["label", "defect", "c/test/0.png"]) | st.text(max_size=8),
            inner | st.sampled_from(["good", "bad"]),
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(values)
def test_any_json_is_labels_or_refused(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    try:
        entries = hp._parse_labels(path)
    except hp.InputError as error:
        assert str(path) in str(error) and len(str(error).splitlines()) == 1
    else:
        assert isinstance(value, dict) and len(entries) == len(value)
        assert all(is_bad in (0, 1) for is_bad, _ in entries.values())
