"""Counterfactuals of vectors, matrices and angles against their constructions, written again in NumPy and scipy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch

from causalppl.mechanisms import mechanism_for
from causalppl.mechanisms.law_cases import expanded

Array = np.ndarray[Any, Any]
_DRAWS = 50


def carried(here: Any, there: Any, value: Array, draws: int = 1) -> Array:
    """The value in the other world."""
    torch.manual_seed(3)
    here, there = expanded(here, draws), expanded(there, draws)
    mechanism = mechanism_for(here)
    base = None if mechanism.invertible else mechanism.base(here).sample()
    noise = mechanism.abduct(here, torch.tensor(value), base)
    return mechanism.forward(there, noise).numpy()  # type: ignore[no-any-return]


def double(x: Any) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


_LOC = np.array([1.0, 2.0]), np.array([0.0, -2.0])
_COVARIANCE = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.3], [-0.3, 0.7]])


@pytest.mark.parametrize("given", ["covariance_matrix", "precision_matrix", "scale_tril"])
def test_normals_are_triangular_in_the_order_of_the_coordinates(given: str) -> None:
    form: dict[str, Callable[[Array], Array]] = {
        "covariance_matrix": lambda c: c, "precision_matrix": np.linalg.inv, "scale_tril": np.linalg.cholesky,
    }  # fmt: skip
    here, there = (
        dist.MultivariateNormal(double(m), **{given: double(form[given](c))})
        for m, c in zip(_LOC, _COVARIANCE, strict=True)
    )
    value = np.random.default_rng(0).normal(size=(_DRAWS, 2))
    lower, other = map(np.linalg.cholesky, _COVARIANCE)
    expected = _LOC[1] + (value - _LOC[0]) @ np.linalg.inv(lower).T @ other.T
    np.testing.assert_allclose(carried(here, there, value, _DRAWS), expected, rtol=1e-9, atol=1e-9)


def test_low_rank_normals_are_those_of_their_covariance() -> None:
    factors = (
        (np.array([[1.0], [0.5]]), np.array([1.0, 2.0])),
        (np.array([[-1.0], [2.0]]), np.array([0.3, 0.1])),
    )
    here, there = (
        dist.LowRankMultivariateNormal(double(m), double(w), double(d))
        for m, (w, d) in zip(_LOC, factors, strict=True)
    )
    value = np.random.default_rng(0).normal(size=(_DRAWS, 2))
    lower, other = (np.linalg.cholesky(w @ w.T + np.diag(d)) for w, d in factors)
    expected = _LOC[1] + (value - _LOC[0]) @ np.linalg.inv(lower).T @ other.T
    np.testing.assert_allclose(carried(here, there, value, _DRAWS), expected, rtol=1e-9, atol=1e-9)


def test_von_mises_turns_with_its_location_and_shares_the_centred_quantile() -> None:
    worlds = (1.0, 2.0), (-3.0, 20.0)  # beyond 50 scipy approximates
    here, there = (dist.VonMises(double(loc), double(k)) for loc, k in worlds)
    p = np.array([1e-3, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
    (loc, k), (other, steep) = worlds

    def wrapped(angle: Array) -> Array:
        return np.mod(angle + np.pi, 2 * np.pi) - np.pi

    value = wrapped(loc + st.vonmises.ppf(p, k))
    found = carried(here, there, value, len(p))
    expected = wrapped(other + st.vonmises.ppf(p, steep))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    turned = dist.VonMises(double(loc + 0.5), double(k))
    np.testing.assert_allclose(
        carried(here, turned, value, len(p)), wrapped(value + 0.5), atol=1e-9
    )


def test_relaxed_categories_keep_their_gumbels_whatever_their_common_shift() -> None:
    p, q, t, s = np.array([0.3, 0.2, 0.5]), np.array([0.1, 0.8, 0.1]), 0.7, 1.5
    here, there = (
        dist.RelaxedOneHotCategorical(double(t), double(p)),
        dist.RelaxedOneHotCategorical(double(s), double(q)),
    )
    value = np.random.default_rng(0).dirichlet([1, 1, 1], size=_DRAWS)
    scores = (t * np.log(value) - np.log(p) + np.log(q)) / s
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(carried(here, there, value, _DRAWS), expected, rtol=1e-8, atol=1e-10)


def partial_correlations(correlation: Array) -> Array:
    """``r_21``, ``r_31`` and ``r_32`` given 1."""
    a, b, c = correlation[1, 0], correlation[2, 0], correlation[2, 1]
    return np.array([a, b, (c - a * b) / np.sqrt((1 - a * a) * (1 - b * b))])


def correlation_of(partial: Array) -> Array:
    a, b, r = partial
    c = a * b + r * np.sqrt((1 - a * a) * (1 - b * b))
    return np.array([[1, a, b], [a, 1, c], [b, c, 1]])


@pytest.mark.parametrize("family", [dist.LKJ, dist.LKJCholesky])
def test_correlation_matrices_share_the_quantiles_of_partial_correlations(family: Any) -> None:
    eta, other = 0.8, 4.0
    correlation = np.array([[1.0, 0.5, -0.2], [0.5, 1.0, 0.3], [-0.2, 0.3, 1.0]])
    first, second = (
        np.array([eta + 0.5, eta + 0.5, eta]),
        np.array([other + 0.5, other + 0.5, other]),
    )
    level = st.beta.cdf((1 + partial_correlations(correlation)) / 2, first, first)
    expected = correlation_of(2 * st.beta.ppf(level, second, second) - 1)
    here, there = (family(3, double(x)) for x in (eta, other))
    root = family is dist.LKJCholesky
    found = carried(here, there, (np.linalg.cholesky(correlation) if root else correlation)[None])[
        0
    ]
    np.testing.assert_allclose(found @ found.T if root else found, expected, rtol=1e-8, atol=1e-8)


def test_wishart_matrices_share_the_parts_of_bartletts_factor() -> None:
    lowers, dfs = (
        (np.array([[1.0, 0.0], [0.5, 2.0]]), np.array([[0.3, 0.0], [-1.0, 1.0]])),
        (4.5, 2.2),
    )
    value = np.array([[5.0, 1.0], [1.0, 3.0]])
    factor = np.linalg.inv(lowers[0]) @ np.linalg.cholesky(value)
    shift = np.arange(2)
    squares = st.chi2.ppf(st.chi2.cdf(np.diag(factor) ** 2, dfs[0] - shift), dfs[1] - shift)
    root = lowers[1] @ (np.tril(factor, -1) + np.diag(np.sqrt(squares)))
    here, there = (
        dist.Wishart(double(df), scale_tril=double(lower))
        for df, lower in zip(dfs, lowers, strict=True)
    )
    np.testing.assert_allclose(
        carried(here, there, value[None])[0], root @ root.T, rtol=1e-8, atol=1e-8
    )


def test_logistic_normal_is_a_normal_on_the_simplex() -> None:
    worlds = (
        (np.array([0.5, 2.0]), np.array([1.0, 0.5])),
        (np.array([0.0, 0.0]), np.array([0.5, 2.0])),
    )
    here, there = (dist.LogisticNormal(double(loc), double(scale)) for loc, scale in worlds)
    value = np.random.default_rng(0).dirichlet([2, 2, 2], size=_DRAWS)
    rest = np.stack(
        [1 - value[:, 0], value[:, 2]], 1
    )  # what stick breaking leaves after each piece
    offset = np.log(np.array([2.0, 1.0]))
    normal = np.log(value[:, :2]) - np.log(rest) + offset
    normal = worlds[1][0] + (normal - worlds[0][0]) / worlds[0][1] * worlds[1][1]
    share = 1 / (1 + np.exp(-(normal - offset)))
    expected = np.stack(
        [share[:, 0], (1 - share[:, 0]) * share[:, 1], (1 - share[:, 0]) * (1 - share[:, 1])], 1
    )
    np.testing.assert_allclose(carried(here, there, value, _DRAWS), expected, rtol=1e-8, atol=1e-9)
