"""Entries that are missing, by NaN and by Pyro's masks, against conjugate normals, tables and quadrature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import reference
import torch
from monte_carlo import assert_moments, assert_share
from pyro import poutine

import causalppl as cp
from causalppl import errors

N = dist.Normal
NAN = math.nan


def factual(posterior: Any, site: str) -> torch.Tensor:
    return posterior.predict().tensor(site, world="factual")


# --- Single entries -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entries_of_two_normals_in_a_plate(dtype: torch.dtype) -> None:
    """x ~ N(0, 1), y ~ N(2x + 1, .5): every pattern of what is known of a unit."""

    def model() -> None:
        zero = torch.zeros((), dtype=dtype)
        with pyro.plate("units", 4):
            x = pyro.sample("x", N(zero, 1.0))
            pyro.sample("y", N(2 * x + 1, 0.5))

    x = torch.tensor([NAN, 0.3, NAN, 0.3], dtype=dtype)
    y = torch.tensor([2.0, NAN, NAN, 2.0], dtype=dtype)
    n = 4000
    posterior = cp.abduct(model, {"x": x, "y": y}, num_samples=n, seed=0)()
    xs, ys = factual(posterior, "x"), factual(posterior, "y")
    assert xs.dtype == ys.dtype == dtype
    precision = 1 + 4 / 0.25
    assert_moments(xs[:, 0], 2 * (2 - 1) / 0.25 / precision, 1 / precision, n / 2)
    assert_moments(ys[:, 1], 1.6, 0.25)
    assert_moments(xs[:, 2], 0, 1)
    assert_moments(ys[:, 2], 1, 4.25)
    assert_moments(ys[:, 2] - 2 * xs[:, 2], 1, 0.25)
    assert bool((xs[:, 1] == x[1]).all()) and bool((ys[:, 3] == y[3]).all())
    # the noise of known and missing entries alike is kept: y moves by twice what x moves
    moved = posterior.predict({"x": cp.shift(1.5)})
    torch.testing.assert_close(moved.tensor("y", "counterfactual"), ys + 3, rtol=1e-4, atol=1e-4)


def test_entries_of_a_bernoulli() -> None:
    """a ~ B(.3), y ~ B(.2 + .6 a): the four patterns, and the monotone coupling of the missing ones."""

    def model() -> None:
        with pyro.plate("units", 3):
            a = pyro.sample("a", dist.Bernoulli(0.3))
            pyro.sample("y", dist.Bernoulli(0.2 + 0.6 * a))

    n = 20_000
    evidence = {"a": torch.tensor([NAN, 1.0, NAN]), "y": torch.tensor([1.0, NAN, NAN])}
    posterior = cp.abduct(model, evidence, num_samples=n, seed=0)()
    a, y = factual(posterior, "a"), factual(posterior, "y")
    assert_share(a[:, 0] == 1, 0.3 * 0.8 / (0.3 * 0.8 + 0.7 * 0.2))
    assert_share(y[:, 1] == 1, 0.8)
    assert_share((a[:, 2] == 1) & (y[:, 2] == 1), 0.24)
    y0 = posterior.predict({"a": 0.0}).tensor("y", "counterfactual")
    # unit 0: y = 1 means u < .8 where a = 1 and u < .2 where a = 0; y0 = 1 means u < .2
    weight = {1: 0.3 * 0.8, 0: 0.7 * 0.2}
    expected = (weight[1] * 0.25 + weight[0]) / (weight[1] + weight[0])
    assert_share(y0[:, 0] == 1, expected)
    assert_share(y0[:, 1] == 1, 0.2)
    assert not bool(((y0 == 1) & (y == 0)).any())


def test_whole_sites_and_several_at_once() -> None:
    """A chain of four of which only the last is known: all of the rest NaN, as columns often are."""

    def model() -> None:
        v = torch.zeros(())
        for name in "abcd":
            v = pyro.sample(name, N(v, 1.0))

    n = 5000
    evidence = {"a": NAN, "b": torch.tensor(NAN), "c": np.nan, "d": 2.0}
    posterior = cp.abduct(model, evidence, num_samples=n, seed=0)()
    bare = cp.abduct(model, {"d": 2.0}, num_samples=n, seed=0)()
    for k, name in enumerate("abc", start=1):
        assert_moments(factual(posterior, name), 2 * k / 4, k * (4 - k) / 4, n / 2)
        torch.testing.assert_close(factual(posterior, name), factual(bare, name))


def multivariate(mean: Any, cov: Any, known: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the entries that are not known."""
    keep = [i for i in range(len(mean)) if i not in known]
    given = list(known)
    gain = cov[np.ix_(keep, given)] @ np.linalg.inv(cov[np.ix_(given, given)])
    shift = np.array(list(known.values())) - mean[given]
    return mean[keep] + gain @ shift, cov[np.ix_(keep, keep)] - gain @ cov[np.ix_(given, keep)]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entries_of_a_multivariate_normal(dtype: torch.dtype) -> None:
    cov = np.array([[1.0, 0.6, 0.2], [0.6, 2.0, -0.5], [0.2, -0.5, 1.5]])
    mean = np.array([0.5, -1.0, 0.0])

    def model() -> None:
        law = dist.MultivariateNormal(
            torch.tensor(mean, dtype=dtype), torch.tensor(cov, dtype=dtype)
        )
        with pyro.plate("units", 2):
            pyro.sample("v", law)

    v = torch.tensor([[1.0, NAN, -0.5], [NAN, NAN, 2.0]], dtype=dtype)
    method = cp.NUTS(chains=1, warmup=200)
    posterior = cp.abduct(model, {"v": v}, method=method, num_samples=2000, seed=0)()
    draws = factual(posterior, "v")
    assert draws.dtype == dtype
    assert bool((draws[:, 0, [0, 2]] == v[0, [0, 2]]).all())
    expected, spread = multivariate(mean, cov, {0: 1.0, 2: -0.5})
    assert_moments(draws[:, 0, 1], expected[0], spread[0, 0], 1000)
    expected, spread = multivariate(mean, cov, {2: 2.0})
    for k in range(2):
        assert_moments(draws[:, 1, k], expected[k], spread[k, k], 1000)
    found = float(torch.cov(draws[:, 1, :2].T.double())[0, 1])
    assert found == pytest.approx(spread[0, 1], abs=0.15)


@pytest.mark.slow
def test_missing_outcomes_beside_parameters_found_by_nuts() -> None:
    """A regression in which some outcomes are missing: the known rows alone decide, the missing follow."""
    rng = np.random.default_rng(3)
    design = np.column_stack([np.ones(12), rng.normal(size=12)])
    y = design @ [0.5, -1.0] + 0.7 * rng.normal(size=12)
    known = np.ones(12, bool)
    known[[1, 5, 6]] = False
    mean, cov = reference.normal_posterior(np.zeros(2), np.eye(2) * 4, design[known], 0.7, y[known])
    columns = torch.tensor(design, dtype=torch.float32)

    def model() -> None:
        b = pyro.sample("b", N(torch.zeros(2), 2.0).to_event(1))
        with pyro.plate("units", 12):
            pyro.sample("y", N(columns @ b, 0.7))

    given = torch.tensor(np.where(known, y, np.nan), dtype=torch.float32)
    posterior = cp.abduct(model, {"y": given}, method=cp.NUTS(chains=1), num_samples=2000, seed=0)()
    b, ys = factual(posterior, "b"), factual(posterior, "y")
    for k in range(2):
        assert_moments(b[:, k], mean[k], cov[k, k], 1000)
    for unit in (1, 5, 6):
        expected = float(design[unit] @ mean)
        assert_moments(ys[:, unit], expected, float(design[unit] @ cov @ design[unit]) + 0.49, 1000)
    assert "ignorable" in str(posterior.predict().diagnostics.notes)


def test_missing_entries_of_a_positive_site() -> None:
    """What stands in for a missing entry is in the support, so that the known ones alone are judged."""

    def model() -> None:
        with pyro.plate("units", 2):
            pyro.sample("v", dist.LogNormal(0.0, 1.0))

    posterior = cp.abduct(model, {"v": torch.tensor([2.0, NAN])}, num_samples=4000, seed=0)()
    v = factual(posterior, "v")
    assert bool((v[:, 0] == 2).all())
    assert_moments(v[:, 1].log(), 0, 1)
    with pytest.raises(errors.SupportError, match="outside the support"):
        cp.abduct(model, {"v": torch.tensor([-2.0, NAN])})()


def test_a_part_of_a_simplex_is_refused() -> None:
    def model() -> None:
        pyro.sample("p", dist.Dirichlet(torch.ones(3)))

    with pytest.raises(errors.EvidenceError, match="give all of its entries or none"):
        cp.abduct(model, {"p": torch.tensor([0.2, NAN, NAN])})()


# --- Pyro's own idioms --------------------------------------------------------------------------


def test_masked_observations_are_latent() -> None:
    """``poutine.mask`` around an obs, ``.mask()`` of the law, and ``obs_mask=`` say the same."""
    y, mask = torch.tensor([1.0, 9.0]), torch.tensor([True, False])

    def by_handler() -> None:
        with pyro.plate("units", 2):
            z = pyro.sample("z", N(0.0, 1.0))
            with poutine.mask(mask=mask):
                pyro.sample("y", N(z, 1.0), obs=y)

    def by_law() -> None:
        with pyro.plate("units", 2):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("y", N(z, 1.0).mask(mask), obs=y)

    def by_argument() -> None:
        with pyro.plate("units", 2):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("y", N(z, 1.0), obs=y, obs_mask=mask)

    n = 10_000
    for model in (by_handler, by_law, by_argument):
        posterior = cp.abduct(model, num_samples=n, seed=0)()
        z, ys = factual(posterior, "z"), factual(posterior, "y")
        assert_moments(z[:, 0], 0.5, 0.5)
        assert_moments(z[:, 1], 0, 1)
        assert bool((ys[:, 0] == 1).all())
        assert_moments(ys[:, 1], 0, 2)  # latent, and not the number that the mask hides
        assert_moments(ys[:, 1] - z[:, 1], 0, 1)
        moved = posterior.predict({"z": cp.shift(1.0)}).tensor("y", "counterfactual")
        torch.testing.assert_close(moved, ys + 1, rtol=1e-4, atol=1e-4)


def test_evidence_overrides_what_obs_mask_says() -> None:
    def model() -> None:
        with pyro.plate("units", 2):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample(
                "y",
                N(z, 1.0),
                obs=torch.tensor([1.0, 9.0]),
                obs_mask=torch.tensor([True, False]),
            )

    n = 10_000
    posterior = cp.abduct(model, {"y": torch.tensor([NAN, 2.0])}, num_samples=n, seed=0)()
    assert_moments(factual(posterior, "z")[:, 0], 0, 1)
    assert_moments(factual(posterior, "z")[:, 1], 1, 0.5)


def test_a_mask_of_false_hides_a_whole_site() -> None:
    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 1.0).mask(False), obs=torch.tensor(3.0))
        with poutine.mask(mask=False):
            pyro.sample("w", N(z, 1.0), obs=torch.tensor(3.0))

    posterior = cp.abduct(model, num_samples=8000, seed=0)()
    assert_moments(factual(posterior, "z"), 0, 1)
    for name in "yw":
        assert_moments(factual(posterior, name), 0, 2)


@pytest.mark.parametrize(
    "method",
    [None, cp.ImportanceSampling(), pytest.param(cp.NUTS(), marks=pytest.mark.slow)],
)
def test_masks_and_scales_weigh_evidence_and_leave_latents_their_law(method: Any) -> None:
    """z ~ N(0, 1), masked and scaled as a latent, y ~ N(z, 1) of scale 3: precision 1 + 3, whatever z's own scale."""

    def model() -> None:
        with poutine.scale(scale=5.0), poutine.mask(mask=torch.tensor(False)):
            z = pyro.sample("z", N(0.0, 1.0))
        with poutine.scale(scale=3.0):
            pyro.sample("y", N(z, 1.0))

    posterior = cp.abduct(model, {"y": 2.0}, method=method, num_samples=4000, seed=0)()
    assert_moments(factual(posterior, "z"), 6 / 4, 1 / 4, 2000)


def test_masks_and_scales_with_an_enumerated_latent() -> None:
    def model() -> None:
        with poutine.scale(scale=0.1):
            a = pyro.sample("a", dist.Bernoulli(0.3).mask(False))
        with poutine.scale(scale=2.0):
            pyro.sample("y", dist.Bernoulli(0.2 + 0.6 * a))

    posterior = cp.abduct(model, {"y": 1.0}, num_samples=20_000, seed=0)()
    assert posterior.predict().diagnostics.method == "Enumeration"
    assert_share(factual(posterior, "a"), 0.3 * 0.8**2 / (0.3 * 0.8**2 + 0.7 * 0.2**2))


def test_masked_counts_are_drawn_again() -> None:
    def model() -> None:
        with pyro.plate("units", 3):
            a = pyro.sample("a", dist.Bernoulli(0.5))
            with poutine.mask(mask=torch.tensor([True, False, True])):
                pyro.sample("y", dist.Poisson(1 + 4 * a), obs=torch.tensor([7.0, 7.0, 0.0]))

    def odds(k: int) -> float:
        one, zero = math.exp(-5) * 5**k, math.exp(-1)
        return one / (one + zero)

    posterior = cp.abduct(model, num_samples=1000, seed=0)()
    a, y = factual(posterior, "a"), factual(posterior, "y")
    for unit, p in enumerate((odds(7), 0.5, odds(0))):
        assert_share(a[:, unit] == 1, p)
    assert_moments(y[:, 1], 3, 3 + 4)  # mean of the rates, and variance: E rate + Var rate


def test_a_missing_entry_of_a_function() -> None:
    """NaN on a deterministic site tells nothing of that entry, and the rest is exact."""

    def model() -> None:
        with pyro.plate("units", 2):
            a = pyro.sample("a", dist.Bernoulli(0.3))
            b = pyro.sample("b", dist.Bernoulli(0.3))
            pyro.deterministic("s", a + b)

    posterior = cp.abduct(model, {"s": torch.tensor([1.0, NAN])}, num_samples=10_000, seed=0)()
    a, s = factual(posterior, "a"), factual(posterior, "s")
    assert bool((s[:, 0] == 1).all())
    assert_share(a[:, 0] == 1, 0.5)
    assert_share(a[:, 1] == 1, 0.3)
    assert_share(s[:, 1] == 2, 0.09)
