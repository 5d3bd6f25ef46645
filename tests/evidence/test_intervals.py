"""Evidence that is a range, against truncated laws of scipy, tables and quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats
import torch
from monte_carlo import assert_moments, assert_share

import causalppl as cp
from causalppl import errors

N = dist.Normal
INF = math.inf


def factual(posterior: Any, site: str) -> torch.Tensor:
    return posterior.predict().tensor(site, world="factual")


def alone(law: Any) -> Callable[[], Any]:
    def model() -> Any:
        return pyro.sample("v", law)

    return model


def truncated(law: Any, low: float, high: float) -> tuple[float, float]:
    """Mean and variance of a scipy law inside a range, by its quantiles, counted from the nearer tail."""
    u = (np.arange(200_000) + 0.5) / 200_000
    if law.sf(low) < law.cdf(low):
        c, d = law.sf(low), law.sf(high)
        v = law.isf(d + u * (c - d))
    else:
        a, b = law.cdf(low), law.cdf(high)
        v = law.ppf(a + u * (b - a))
    return float(v.mean()), float(v.var())


affine = torch.distributions.AffineTransform
CONTINUOUS = {
    "normal": (N(1.0, 2.0), scipy.stats.norm(1, 2), 0.0, 2.5),
    "normal, open below": (N(1.0, 2.0), scipy.stats.norm(1, 2), -INF, 0.0),
    "normal, open above": (N(1.0, 2.0), scipy.stats.norm(1, 2), 3.0, INF),
    "normal, open": (N(1.0, 2.0), scipy.stats.norm(1, 2), -INF, INF),
    "normal, 8 sigma": (N(0.0, 1.0), scipy.stats.norm(), 8.0, INF),
    "normal, -12 sigma": (N(0.0, 1.0), scipy.stats.norm(), -INF, -12.0),
    "normal, 20 sigma": (N(0.0, 1.0), scipy.stats.norm(), 20.0, INF),
    "normal, narrow tail": (N(0.0, 1.0), scipy.stats.norm(), 5.0, 5.1),
    "laplace": (dist.Laplace(0.0, 1.0), scipy.stats.laplace(), 2.0, INF),
    "logistic": (dist.Logistic(0.0, 1.0), scipy.stats.logistic(), 5.0, 6.0),
    "gumbel": (dist.Gumbel(0.0, 1.0), scipy.stats.gumbel_r(), -INF, -1.0),
    "exponential": (dist.Exponential(2.0), scipy.stats.expon(scale=0.5), 10.0, INF),
    "exponential, wide": (dist.Exponential(2.0), scipy.stats.expon(scale=0.5), -3.0, 0.5),
    "uniform": (dist.Uniform(0.0, 2.0), scipy.stats.uniform(0, 2), 1.5, 9.0),
    "half normal": (dist.HalfNormal(1.0), scipy.stats.halfnorm(), 3.0, INF),
    "weibull": (dist.Weibull(1.0, 2.0), scipy.stats.weibull_min(2), 0.0, 0.4),
    "gamma": (dist.Gamma(2.0, 1.0), scipy.stats.gamma(2), 15.0, INF),
    "beta": (dist.Beta(2.0, 3.0), scipy.stats.beta(2, 3), 0.9, 1.0),
    "log normal": (dist.LogNormal(0.0, 1.0), scipy.stats.lognorm(1), 0.5, 1.0),
    "log normal, transformed": (
        dist.TransformedDistribution(N(0.0, 1.0), [dist.transforms.ExpTransform()]),
        scipy.stats.lognorm(1),
        -1.0,
        0.7,
    ),
    "a falling normal": (
        dist.TransformedDistribution(N(0.0, 1.0), [affine(0.0, -2.0)]),
        scipy.stats.norm(0, 2),
        1.0,
        INF,
    ),
    "a shifted exponential": (
        dist.TransformedDistribution(dist.Exponential(1.0), [affine(1.0, 2.0)]),
        scipy.stats.expon(1, 2),
        0.5,
        2.0,
    ),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_range_of_one_continuous_site(name: str) -> None:
    law, reference, low, high = CONTINUOUS[name]
    n = 1000 if name in ("gamma", "beta") else 4000  # these invert their functions numerically
    posterior = cp.abduct(alone(law), {"v": cp.Interval(low, high)}, num_samples=n, seed=0)()
    draws = factual(posterior, "v")
    assert float(draws.min()) >= low and float(draws.max()) <= high
    assert_moments(draws, *truncated(reference, low, high))
    # by quantiles inside the range, however rare it is, and not by the sampler that stands in
    assert posterior.predict().diagnostics.method == "ImportanceSampling"


@pytest.mark.parametrize("low", [38.0, 45.0, 1000.0])
def test_a_tail_whose_probability_is_no_number(low: float) -> None:
    """Beyond 38 sigma a normal's survival underflows; the excess over the end is Exponential(low) but for 1 / low^2."""
    law = N(torch.zeros((), dtype=torch.float64), 1.0)
    posterior = cp.abduct(alone(law), {"v": cp.Interval(low, INF)}, num_samples=4000, seed=0)()
    excess = (factual(posterior, "v") - low) * low
    assert float(excess.min()) >= 0
    assert float(excess.mean()) == pytest.approx(1, abs=4.5 / math.sqrt(4000))
    assert float(excess.var()) == pytest.approx(1, abs=4.5 * math.sqrt(8 / 4000))
    below = cp.abduct(alone(law), {"v": cp.Interval(-INF, -low)}, num_samples=100, seed=0)()
    assert -low - 20 / low < float(factual(below, "v").min())


def test_a_falling_exponential_in_a_range() -> None:
    """v = -Exponential(1): inside [-2, -1], and in [-2, 5], which leaves the support."""
    law = dist.TransformedDistribution(dist.Exponential(1.0), [affine(0.0, -1.0)])
    for low, high in ((-2.0, -1.0), (-2.0, 5.0), (-INF, -1.0)):
        posterior = cp.abduct(alone(law), {"v": cp.Interval(low, high)}, num_samples=4000, seed=0)()
        mean, variance = truncated(scipy.stats.expon(), max(-high, 0.0), -low)
        assert_moments(-factual(posterior, "v"), mean, variance)


@pytest.mark.parametrize("method", [None, cp.ImportanceSampling()])
def test_the_mass_of_a_range_is_evidence_about_the_parents(method: Any) -> None:
    """z ~ N(0, 1), y ~ N(z, 1) in [2, inf): y is N(0, 2) truncated, z given y is N(y / 2, 1 / 2)."""

    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 1.0))

    evidence = {"y": cp.Interval(2.0, INF)}
    posterior = cp.abduct(model, evidence, method=method, num_samples=4000, seed=0)()
    mean, variance = truncated(scipy.stats.norm(0, math.sqrt(2)), 2.0, INF)
    z, y = factual(posterior, "z"), factual(posterior, "y")
    assert_moments(y, mean, variance, 2000)
    assert_moments(z, mean / 2, variance / 4 + 0.5, 2000)
    assert_moments(z - y / 2, 0, 0.5, 2000)


@pytest.mark.slow
def test_a_range_by_nuts() -> None:
    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 1.0))

    evidence = {"y": cp.Interval(2.0, INF)}
    posterior = cp.abduct(model, evidence, method=cp.NUTS(), num_samples=4000, seed=0)()
    mean, variance = truncated(scipy.stats.norm(0, math.sqrt(2)), 2.0, INF)
    assert_moments(factual(posterior, "y"), mean, variance, 1000)
    assert_moments(factual(posterior, "z"), mean / 2, variance / 4 + 0.5, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["NUTS", "laplace"])
def test_ranges_that_are_open_for_some_units(method: str) -> None:
    """Each unit has a range of its own: two-sided, from below, from above, and none at all."""
    low, high = torch.tensor([0.5, 1.0, -INF, -INF]), torch.tensor([1.5, INF, -0.5, INF])

    def model() -> None:
        with pyro.plate("units", 4):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("y", N(z, 1.0))

    chosen = cp.NUTS() if method == "NUTS" else cp.ImportanceSampling("laplace")
    evidence = {"y": cp.Interval(low, high)}
    posterior = cp.abduct(model, evidence, method=chosen, num_samples=4000, seed=0)()
    z, y = factual(posterior, "z"), factual(posterior, "y")
    for unit in range(4):
        ends = float(low[unit]), float(high[unit])
        mean, variance = truncated(scipy.stats.norm(0, math.sqrt(2)), *ends)
        assert ends[0] <= y[:, unit].min() and y[:, unit].max() <= ends[1]
        assert_moments(y[:, unit], mean, variance, 1000)
        assert_moments(z[:, unit], mean / 2, variance / 4 + 0.5, 1000)


def test_ranges_of_several_sites_that_depend_on_each_other() -> None:
    """x ~ N(0, 1) in [.5, 1], y ~ N(x, 1) in [-1, 0]: moments by a double integral."""

    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", N(x, 1.0))

    def moment(f: Callable[[float, float], float]) -> float:
        return scipy.integrate.dblquad(
            lambda y, x: f(x, y) * scipy.stats.norm.pdf(x) * scipy.stats.norm.pdf(y - x),
            0.5, 1.0, -1.0, 0.0,
        )[0]  # fmt: skip

    total = moment(lambda x, y: 1.0)
    evidence = {"x": cp.Interval(0.5, 1.0), "y": cp.Interval(-1.0, 0.0)}
    posterior = cp.abduct(model, evidence, num_samples=4000, seed=0)()
    for name, pick in (("x", lambda x, y: x), ("y", lambda x, y: y)):
        mean = moment(pick) / total
        square = moment(lambda x, y, pick=pick: pick(x, y) ** 2) / total
        assert_moments(factual(posterior, name), mean, square - mean**2)


def test_entries_that_are_ranges_points_and_nothing() -> None:
    """A range whose ends agree is a point: its density weighs, beside masses of true ranges."""

    def model() -> None:
        with pyro.plate("units", 4):
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", N(x, 1.0))

    low = torch.tensor([1.0, 0.0, -INF, math.nan])
    high = torch.tensor([1.0, 2.0, INF, 0.0])
    n = 4000
    posterior = cp.abduct(model, {"y": cp.Interval(low, high)}, num_samples=n, seed=0)()
    x, y = factual(posterior, "x"), factual(posterior, "y")
    assert bool((y[:, 0] == 1).all())
    assert_moments(x[:, 0], 0.5, 0.5)
    wide = scipy.stats.norm(0, math.sqrt(2))
    for unit, (a, b) in {1: (0.0, 2.0), 2: (-INF, INF), 3: (-INF, 0.0)}.items():
        mean, variance = truncated(wide, a, b)
        assert_moments(y[:, unit], mean, variance)
        assert_moments(x[:, unit], mean / 2, variance / 4 + 0.5)
    worlds = posterior.predict({"x": 0.0})
    torch.testing.assert_close(worlds.tensor("y", "counterfactual"), y - x, rtol=1e-4, atol=1e-4)


def test_a_range_that_is_a_point_is_that_point() -> None:
    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", N(x, 1.0))

    evidence = {"x": cp.Interval(0.5, 0.5), "y": cp.Interval(1.5, 1.5)}
    worlds = cp.counterfactual(model, {"x": 0.0}, evidence)()
    assert worlds.diagnostics.method == "Exact"
    assert float(worlds.tensor("y", "counterfactual")[0]) == pytest.approx(1.0)


# --- Discrete sites -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("law", "reference", "low", "high"),
    [
        (dist.Poisson(3.0), scipy.stats.poisson(3), 2, 4),
        (dist.Poisson(3.0), scipy.stats.poisson(3), 1.5, 4.9),
        (dist.Poisson(3.0), scipy.stats.poisson(3), 5, INF),
        (dist.Binomial(10, torch.tensor(0.5)), scipy.stats.binom(10, 0.5), 9, INF),
        (dist.Geometric(torch.tensor(0.3)), scipy.stats.geom(0.3, loc=-1), -5, 2),
        (dist.Bernoulli(0.3), scipy.stats.bernoulli(0.3), 0, 1),
        (dist.Bernoulli(0.3), scipy.stats.bernoulli(0.3), 0.5, 3),
        (
            dist.Categorical(torch.tensor([0.1, 0.2, 0.3, 0.4])),
            scipy.stats.rv_discrete(values=(range(4), [0.1, 0.2, 0.3, 0.4])),
            1,
            2,
        ),
    ],
)
def test_a_range_of_one_discrete_site(law: Any, reference: Any, low: float, high: float) -> None:
    n = 3000
    posterior = cp.abduct(alone(law), {"v": cp.Interval(low, high)}, num_samples=n, seed=0)()
    draws = factual(posterior, "v")
    inside = [k for k in range(40) if low <= k <= high]
    mass = np.array([reference.pmf(k) for k in inside])
    for k, p in zip(inside, mass / mass.sum(), strict=True):
        assert_share(draws == k, float(p), n / 2)
    assert set(draws.unique().tolist()) <= set(inside)


def test_a_range_of_a_count_tells_of_its_parents() -> None:
    def model() -> None:
        a = pyro.sample("a", dist.Bernoulli(0.4))
        pyro.sample("y", dist.Binomial(5, 0.2 + 0.5 * a))

    posterior = cp.abduct(model, {"y": cp.Interval(3, INF)}, num_samples=10_000, seed=0)()
    one, zero = (w * scipy.stats.binom(5, p).sf(2) for w, p in ((0.4, 0.7), (0.6, 0.2)))
    assert_share(factual(posterior, "a") == 1, one / (one + zero))


# --- Functions ----------------------------------------------------------------------------------


def test_a_function_of_discrete_sites_is_exact() -> None:
    """Three dice, two of which are known to differ in sum: a table of 216 cells."""

    def model() -> None:
        faces = [pyro.sample(f"d{i}", dist.Categorical(torch.ones(6) / 6)) for i in range(3)]
        pyro.deterministic("sum", faces[0] + faces[1] + faces[2])
        pyro.deterministic("even", faces[0] % 2 == 0)

    cells = [
        (a, b, c)
        for a in range(6)
        for b in range(6)
        for c in range(6)
        if a + b + c == 4 and a % 2 == 0
    ]
    n = 10_000
    posterior = cp.abduct(model, {"sum": 4, "even": True}, num_samples=n, seed=0)()
    d = [factual(posterior, f"d{i}") for i in range(3)]
    for a, b, c in cells:
        assert_share((d[0] == a) & (d[1] == b) & (d[2] == c), 1 / len(cells))
    assert bool((d[0] + d[1] + d[2] == 4).all())


def test_a_function_of_continuous_sites_needs_a_range() -> None:
    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        y = pyro.sample("y", N(0.0, 1.0))
        pyro.deterministic("s", x + y)

    with pytest.raises(errors.EvidenceError, match=r"probability zero; give a range.*Interval"):
        cp.abduct(model, {"s": 1.0})()
    posterior = cp.abduct(model, {"s": cp.Interval(1.0, 1.2)}, num_samples=4000, seed=0)()
    mean, variance = truncated(scipy.stats.norm(0, math.sqrt(2)), 1.0, 1.2)
    s, x = factual(posterior, "s"), factual(posterior, "x")
    assert float(s.min()) >= 1.0 and float(s.max()) <= 1.2
    assert_moments(x, mean / 2, variance / 4 + 0.5, 2000)


# --- Transformed and mixed sites ----------------------------------------------------------------


def test_points_on_transformed_sites() -> None:
    """z ~ N(0, 1), v = exp(N(z, 1)) = e: z given log v = 1 is N(.5, .5); the multiplicative noise is kept."""

    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("v", dist.TransformedDistribution(N(z, 1.0), [dist.transforms.ExpTransform()]))

    posterior = cp.abduct(model, {"v": math.e}, num_samples=8000, seed=0)()
    z = factual(posterior, "z")
    assert_moments(z, 0.5, 0.5)
    moved = posterior.predict({"z": cp.shift(1.0)}).tensor("v", "counterfactual")
    torch.testing.assert_close(moved, torch.full_like(z, math.e**2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("observed", [0.0, 2.0])
def test_points_on_a_zero_inflated_count(observed: float) -> None:
    """a ~ B(.5) sets rate and gate; Bayes by the mixture's own mass."""
    rates, gates = (1.0, 4.0), (0.3, 0.6)

    def model() -> None:
        a = pyro.sample("a", dist.Bernoulli(0.5))
        pyro.sample("y", dist.ZeroInflatedPoisson(rate=1 + 3 * a, gate=0.3 + 0.3 * a))

    mass = [
        g * (observed == 0) + (1 - g) * scipy.stats.poisson(r).pmf(observed)
        for r, g in zip(rates, gates, strict=True)
    ]
    posterior = cp.abduct(model, {"y": observed}, num_samples=10_000, seed=0)()
    assert_share(factual(posterior, "a") == 1, mass[1] / sum(mass))


# --- What is refused ----------------------------------------------------------------------------


def test_ends_in_the_wrong_order_or_that_do_not_broadcast() -> None:
    with pytest.raises(errors.EvidenceError, match="give the lower end first"):
        cp.Interval(2.0, 1.0)
    with pytest.raises(errors.EvidenceError, match="give the lower end first"):
        cp.Interval([0.0, 3.0], [1.0, 2.0])
    with pytest.raises(errors.EvidenceError, match="do not broadcast"):
        cp.Interval([0.0, 1.0, 2.0], [3.0, 4.0])
    with pytest.raises(errors.EvidenceError, match="no value; give a number"):
        cp.Interval("a", "b")


@pytest.mark.parametrize(
    ("law", "low", "high"),
    [
        (dist.Exponential(1.0), -2.0, -1.0),
        (dist.Exponential(1.0), -2.0, 0.0),
        (dist.Beta(1.0, 1.0), 1.5, 2.0),
        (dist.Poisson(3.0), 1.2, 1.8),
        (dist.Bernoulli(0.5), 0.2, 0.8),
        (dist.Poisson(3.0), -INF, -1.0),
        (dist.HalfNormal(1.0).expand([3]).to_event(1), -2.0, -1.0),
    ],
)
def test_a_range_without_a_value_of_the_site(law: Any, low: float, high: float) -> None:
    with pytest.raises(errors.ImpossibleEvidenceError, match="meets the support"):
        cp.abduct(alone(law), {"v": cp.Interval(low, high)})()


def test_a_range_that_is_one_infinity() -> None:
    with pytest.raises(errors.EvidenceError, match="same infinity"):
        cp.abduct(alone(N(0.0, 1.0)), {"v": cp.Interval(INF, INF)})()


def test_a_point_among_ranges_is_checked_against_the_support() -> None:
    law = dist.Exponential(torch.ones(2))
    with pytest.raises(errors.SupportError, match="outside the support"):
        cp.abduct(alone(law), {"v": cp.Interval([-1.0, 1.0], [-1.0, 2.0])})()


def test_a_range_that_fixes_a_part_of_an_event() -> None:
    law = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))
    with pytest.raises(errors.EvidenceError, match="give ranges for all of its entries"):
        cp.abduct(alone(law), {"v": cp.Interval([1.0, 0.0], [1.0, 2.0])})()


def test_a_delta_of_continuous_sites_needs_a_range_too() -> None:
    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("twice", dist.Delta(2 * x))

    with pytest.raises(errors.EvidenceError, match=r"probability zero; give a range"):
        cp.abduct(model, {"twice": 1.0})()
    posterior = cp.abduct(model, {"twice": cp.Interval(1.0, 2.0)}, num_samples=1000, seed=0)()
    mean, variance = truncated(scipy.stats.norm(), 0.5, 1.0)
    assert_moments(factual(posterior, "x"), mean, variance)


def test_a_range_of_the_wrong_shape() -> None:
    with pytest.raises(errors.ShapeError, match="does not broadcast"):
        cp.abduct(alone(N(0.0, 1.0)), {"v": cp.Interval([0.0, 0.0], [1.0, 1.0])})()
