"""Each mechanism's second world against a coupling written another way: scipy's quantiles, and tables of cells."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from mechanism_cases import CASES

from causalppl.mechanisms import mechanism_for


@dataclass(frozen=True)
class Written:
    """A law that scipy lacks, by its quantile function of a probability and its complement."""

    quantile: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def ppf(self, p: np.ndarray) -> np.ndarray:
        return self.quantile(p, 1 - p)

    def isf(self, q: np.ndarray) -> np.ndarray:
        return self.quantile(1 - q, q)


def kumaraswamy(concentration1: float, concentration0: float) -> Written:
    return Written(
        lambda p, q: (
            np.where(
                p < 0.5, -np.expm1(np.log1p(-p) / concentration0), 1 - q ** (1 / concentration0)
            )
            ** (1 / concentration1)
        )
    )


def continuous_bernoulli(probs: float) -> Written:
    ratio = probs / (1 - probs)  # F(x) = (ratio^x - 1) / (ratio - 1)
    return Written(lambda p, q: np.log1p(p * (ratio - 1)) / np.log(ratio))


def relaxed_bernoulli(temperature: float, probs: float) -> Written:
    odds = np.log(probs / (1 - probs))
    return Written(lambda p, q: 1 / (1 + np.exp(-(odds + np.log(p) - np.log(q)) / temperature)))


#: Case to the scipy law of its parameters.
QUANTILES: dict[str, Callable[..., Any]] = {
    "Normal-affine": lambda loc, scale: st.norm(loc, scale),
    "Laplace-affine": lambda loc, scale: st.laplace(loc, scale),
    "Cauchy-affine": lambda loc, scale: st.cauchy(loc, scale),
    "Gumbel-affine": lambda loc, scale: st.gumbel_r(loc, scale),
    "Logistic-affine": lambda loc, scale: st.logistic(loc, scale),
    "LogNormal": lambda loc, scale: st.lognorm(scale, scale=np.exp(loc)),
    "Exponential-inverse_cdf": lambda rate: st.expon(scale=1 / rate),
    "Weibull-inverse_cdf": lambda scale, concentration: st.weibull_min(concentration, scale=scale),
    "Pareto-inverse_cdf": lambda scale, alpha: st.pareto(alpha, scale=scale),
    "Uniform-inverse_cdf": lambda low, high: st.uniform(low, high - low),
    "HalfNormal-inverse_cdf": lambda scale: st.halfnorm(scale=scale),
    "HalfCauchy-inverse_cdf": lambda scale: st.halfcauchy(scale=scale),
    "GeneralizedPareto-inverse_cdf": lambda loc, scale, concentration: st.genpareto(
        concentration, loc, scale
    ),
    "Gamma-inverse_cdf": lambda concentration, rate: st.gamma(concentration, scale=1 / rate),
    "Chi2-inverse_cdf": lambda df: st.chi2(df),
    "Beta-inverse_cdf": lambda concentration1, concentration0: st.beta(
        concentration1, concentration0
    ),
    "InverseGamma": lambda concentration, rate: st.invgamma(concentration, scale=rate),
    "AffineBeta": lambda concentration1, concentration0, loc, scale: st.beta(
        concentration1, concentration0, loc, scale
    ),
    "StudentT-inverse_cdf": lambda df, loc, scale: st.t(df, loc, scale),
    "SoftLaplace-affine": lambda loc, scale: st.hypsecant(loc, scale),
    "AsymmetricLaplace-inverse_cdf": lambda loc, scale, asymmetry: st.laplace_asymmetric(
        asymmetry, loc, scale
    ),
    "SkewLogistic-inverse_cdf": lambda loc, scale, asymmetry: st.genlogistic(asymmetry, loc, scale),
    "Kumaraswamy-inverse_cdf": kumaraswamy,
    "ContinuousBernoulli-inverse_cdf": continuous_bernoulli,
    "RelaxedBernoulli": relaxed_bernoulli,
    "FisherSnedecor-inverse_cdf": lambda df1, df2: st.f(df1, df2),
}
#: Near 1, float32 values are too coarse to tell their upper quantiles.
_COARSE = ("Kumaraswamy-inverse_cdf", "RelaxedBernoulli")
_PROBABILITIES = np.array([1e-6, 1e-4, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])


@pytest.mark.parametrize("name", QUANTILES)
def test_continuous_worlds_share_the_quantile(name: str) -> None:
    case = CASES[name]
    here, there = (QUANTILES[name](**p) for p in (case.parameters, case.others))
    value = np.concatenate([here.ppf(_PROBABILITIES), here.isf(_PROBABILITIES)])
    expected = np.concatenate([there.ppf(_PROBABILITIES), there.isf(_PROBABILITIES)])
    for dtype, tolerance in ((torch.float64, 1e-7), (torch.float32, 1e-4)):
        if dtype == torch.float32 and name in _COARSE:
            continue
        fn, other = case.distribution(dtype), case.distribution(dtype, other=True)
        mechanism = case.resolve(fn)
        noise = mechanism.abduct(fn, torch.tensor(value, dtype=dtype), None)
        found = mechanism.forward(other, noise).numpy()
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * 0.1)


def overlaps(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """P(i here, j there) when both read one uniform against their own cumulative probabilities."""
    a, b = (np.concatenate([[0], np.cumsum(x)]) for x in (p, q))
    table = np.zeros((len(p), len(q)))
    for i, j in itertools.product(range(len(p)), range(len(q))):
        table[i, j] = max(0.0, min(a[i + 1], b[j + 1]) - max(a[i], b[j]))
    return table


def worlds(here: Any, there: Any, name: str | None, value: int, draws: int = 40_000) -> np.ndarray:
    """Shares of the values there, of those that have ``value`` here."""
    torch.manual_seed(1)
    here, there = here.expand([draws]), there.expand([draws])
    mechanism = mechanism_for(here, name)
    noise = mechanism.abduct(
        here, torch.full((draws,), value).to(here.sample().dtype), mechanism.base(here).sample()
    )
    return np.bincount(mechanism.forward(there, noise).long().numpy()) / draws


def near(found: np.ndarray, expected: np.ndarray, draws: int = 40_000) -> None:
    size = max(len(found), len(expected))
    found, expected = (np.pad(x, (0, size - len(x))) for x in (found, expected))
    error = 5 * np.sqrt(expected.clip(0, 1) * (1 - expected.clip(0, 1)) / draws)
    assert (np.abs(found - expected) <= error + 1e-12).all(), (found, expected)


def test_bernoulli_is_monotone() -> None:
    here, there = dist.Bernoulli(torch.tensor(0.7)), dist.Bernoulli(torch.tensor(0.4))
    near(worlds(here, there, None, 1), np.array([3 / 7, 4 / 7]))
    near(worlds(here, there, None, 0), np.array([1.0]))


def test_gumbel_max_table() -> None:
    here = dist.Categorical(torch.tensor([0.2, 0.3, 0.5]))
    there = dist.Categorical(torch.tensor([0.5, 0.3, 0.2]))
    for value, expected in enumerate(([1, 0, 0], [3 / 13, 10 / 13, 0], [6 / 13, 9 / 65, 2 / 5])):
        near(worlds(here, there, None, value), np.array(expected))


def test_straight_through_families_are_coupled_as_what_they_round_to() -> None:
    torch.manual_seed(8)
    draws = 40_000
    p, q = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.5, 0.3, 0.2])
    temperature = torch.tensor(0.7)
    for make in (
        dist.OneHotCategoricalStraightThrough,
        lambda probs: dist.RelaxedOneHotCategoricalStraightThrough(temperature, probs),
    ):
        here, there = make(p).expand([draws]), make(q).expand([draws])
        mechanism = mechanism_for(here)
        value = torch.eye(3)[1].expand(draws, 3)
        noise = mechanism.abduct(here, value, mechanism.base(here).sample())
        near(mechanism.forward(there, noise).mean(0).numpy(), np.array([3 / 13, 10 / 13, 0]))
    here, there = (
        dist.RelaxedBernoulliStraightThrough(temperature, torch.tensor(x)).expand([draws])
        for x in (0.7, 0.4)
    )
    mechanism = mechanism_for(here)
    noise = mechanism.abduct(here, torch.ones(draws), mechanism.base(here).sample())
    near(np.array([float(mechanism.forward(there, noise).mean())]), np.array([4 / 7]))


def test_ordered_logistic_reads_one_uniform() -> None:
    cells = []
    for predictor, cutpoints in ((0.3, [-1.0, 0.0, 2.0]), (-2.0, [-1.0, 0.5, 1.0])):
        cdf = 1 / (1 + np.exp(-(np.array(cutpoints) - predictor)))
        cells.append(np.diff(np.concatenate([[0], cdf, [1]])))
    here, there = (
        dist.OrderedLogistic(torch.tensor(predictor), torch.tensor(cutpoints))
        for predictor, cutpoints in ((0.3, [-1.0, 0.0, 2.0]), (-2.0, [-1.0, 0.5, 1.0]))
    )
    table = overlaps(*cells)
    for value in range(4):
        near(worlds(here, there, None, value), table[value] / table[value].sum())


def test_ordered_categories_read_one_uniform() -> None:
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.3, 0.2])
    table = overlaps(p, q)
    for value in range(3):
        found = worlds(
            dist.Categorical(torch.tensor(p)),
            dist.Categorical(torch.tensor(q)),
            "inverse_cdf",
            value,
        )
        near(found, table[value] / table[value].sum())


def test_location_scale_couplings_differ_on_rung_three_only() -> None:
    torch.manual_seed(2)
    draws = 100_000
    here, there = (dist.Normal(torch.tensor(x), 1.0).expand([draws]) for x in (0.0, 1.0))
    for name, expected in (("affine", 1.0), ("antitone", 0.691462), ("independent", 0.760250)):
        mechanism = mechanism_for(here, name)
        before = here.sample()
        noise = mechanism.abduct(here, before, mechanism.base(here).sample())
        after = mechanism.forward(there, noise)
        error = 5 * np.sqrt(expected * (1 - expected) / draws)
        assert abs(float((after > before).double().mean()) - expected) <= error
        assert st.kstest(after.numpy(), st.norm(1, 1).cdf).pvalue > 1e-6
        torch.testing.assert_close(mechanism.forward(here, noise), before)
        assert torch.equal(mechanism.forward(there, noise), after)


def test_independent_worlds_are_independent_of_each_other_and_survive_round_off() -> None:
    torch.manual_seed(3)
    fns = [dist.Normal(torch.full((50_000,), x), 1.0) for x in (0.0, 0.3, 2.0)]
    mechanism = mechanism_for(fns[0], "independent")
    for noise in (
        mechanism.noise(fns[0]).sample(),
        mechanism.abduct(fns[0], fns[0].sample(), mechanism.base(fns[0]).sample()),
    ):
        values = np.stack([mechanism.forward(fn, noise).numpy() for fn in fns])
        assert np.abs(np.corrcoef(values) - np.eye(3)).max() < 5 / np.sqrt(50_000)
        nearly = dist.Normal(fns[1].loc + 1e-8, fns[1].scale)
        assert np.array_equal(mechanism.forward(nearly, noise).numpy(), values[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_come_back_exactly_at_extreme_odds(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    odds = torch.tensor([-torch.inf, -80, -50, -20, -1e-3, 0, 3, 50, 80, torch.inf], dtype=dtype)
    for value in (0.0, 1.0):
        possible = ~torch.isinf(odds) | ((odds > 0) == bool(value))
        fn = dist.Bernoulli(logits=odds[possible], validate_args=False).expand(
            [10_000, int(possible.sum())]
        )
        mechanism = mechanism_for(fn)
        noise = mechanism.abduct(
            fn, torch.full(fn.batch_shape, value, dtype=dtype), mechanism.base(fn).sample()
        )
        assert bool((mechanism.forward(fn, noise) == value).all()) and bool(noise.isfinite().all())
    logits = torch.randn(50_000, 6, dtype=dtype) * 30
    logits[:, 3] = -torch.inf
    fn = dist.Categorical(logits=logits, validate_args=False)
    value = torch.randint(6, (50_000,))
    value = torch.where(value == 3, 4, value)
    mechanism = mechanism_for(fn)
    assert torch.equal(
        mechanism.forward(fn, mechanism.abduct(fn, value, mechanism.base(fn).sample())), value
    )


COUNTS: dict[str, Callable[..., Any]] = {
    "Poisson-inverse_cdf": lambda rate: st.poisson(rate),
    "Binomial[2000]-inverse_cdf": lambda total_count, logits: st.binom(
        total_count, 1 / (1 + np.exp(-logits))
    ),
    "NegativeBinomial-inverse_cdf": lambda total_count, probs: st.nbinom(total_count, 1 - probs),
    "GammaPoisson-inverse_cdf": lambda concentration, rate: st.nbinom(
        concentration, rate / (1 + rate)
    ),
    "Geometric-inverse_cdf": lambda probs: st.geom(probs, loc=-1),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_read_one_uniform(name: str) -> None:
    case = CASES[name]
    here, there = (COUNTS[name](**p) for p in (case.parameters, case.others))
    ours = case.distribution(torch.float64), case.distribution(torch.float64, other=True)
    for value in sorted({int(here.ppf(p)) for p in (1e-6, 0.3, 0.8, 1 - 1e-6)}):
        found = worlds(*ours, None, value, draws=600)
        counts = np.arange(int(there.ppf(1 - 1e-14)) + 2)
        edges = np.clip(
            np.concatenate([[0], there.cdf(counts)]), here.cdf(value - 1), here.cdf(value)
        )
        near(found, np.diff(edges) / here.pmf(value), draws=600)
