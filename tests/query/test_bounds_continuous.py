"""Bounds of programs with continuous and infinite sites: closed forms, optimal transport, and couplings written out."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import sparse, stats
from scipy.optimize import linprog
from torch.distributions.transforms import AffineTransform

import causalppl as cp
from causalppl.query.makarov import Scaled, compared
from causalppl.query.site_laws import NoLaw, law_of

OPERATORS = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "=": np.equal,
    "!=": np.not_equal,
}
#: HiGHS keeps its constraints to 1e-7.
LINPROG = 1e-6


def double(value):
    return torch.tensor(value, dtype=torch.float64)


def transported(p, q, happens):
    """The least and greatest probability of an event over all joint laws of two finite ones: a linear program."""
    n, m = happens.shape
    margins = sparse.vstack(
        [sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))]
    )
    right = np.concatenate([p, q])
    ends = [
        linprog(sign * happens.ravel(), A_eq=margins, b_eq=right, method="highs").fun
        for sign in (1.0, -1.0)
    ]
    return ends[0], -ends[1]


# --- Two laws ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("a", "b", "s"), [(1.0, -1.0, 0.0), (1.0, 1.0, 4.0), (-2.0, 1.0, -1.0)])
def test_discrete_laws_against_optimal_transport(operator, a, b, s):
    one, two = stats.poisson(1.3), stats.nbinom(2, 0.5)
    x, z = np.arange(35), np.arange(70)
    happens = OPERATORS[operator](a * x[:, None] + b * z[None, :], s).astype(float)
    p, q = one.pmf(x), two.pmf(z)
    expected = transported(p / p.sum(), q / q.sum(), happens)
    first, second = law_of(dist.Poisson(double(1.3))), law_of(dist.NegativeBinomial(2, double(0.5)))
    low, high, sharp = compared(Scaled(first, a), Scaled(second, b), operator, s)
    assert (low, high) == pytest.approx(expected, abs=LINPROG)
    assert sharp


@pytest.mark.parametrize("operator", ["<", ">="])
@pytest.mark.parametrize(("a", "b", "s"), [(1.0, -1.0, 0.3), (1.0, 1.0, 1.5), (-1.0, 2.0, 0.7)])
def test_continuous_laws_against_optimal_transport_on_a_grid(operator, a, b, s):
    # quantiles of equal weight: the law of a fine grid, within one step of probability at either end
    steps = 120
    u = (np.arange(steps) + 0.5) / steps
    x, z = stats.gamma(2.0).ppf(u), stats.norm(0.5, 1.5).ppf(u)
    happens = OPERATORS[operator](a * x[:, None] + b * z[None, :], s).astype(float)
    weights = np.full(steps, 1 / steps)
    expected = transported(weights, weights, happens)
    first, second = law_of(dist.Gamma(double(2.0), double(1.0))), law_of(dist.Normal(0.5, 1.5))
    low, high, sharp = compared(Scaled(first, a), Scaled(second, b), operator, s)
    assert (low, high) == pytest.approx(expected, abs=1.5 / steps)
    assert sharp


@pytest.mark.parametrize("shift", [0.1, 1.0, 3.0])
def test_shifted_normals(shift):
    model = additive(shift)
    found = cp.bounds("P(y[x=1] > y[x=0])", model)()
    assert found.low == pytest.approx(2 * stats.norm.cdf(shift / 2) - 1, abs=1e-9)
    assert found.high == 1.0
    assert found.sharp
    assert found.coupled == ("y",)


@pytest.mark.parametrize(
    ("fn", "law"),
    [
        (dist.Normal(1.0, 2.0), stats.norm(1, 2)),
        (dist.LogNormal(0.5, 0.5), stats.lognorm(0.5, scale=math.exp(0.5))),
        (dist.Gumbel(1.0, 2.0), stats.gumbel_r(1, 2)),
        (dist.HalfNormal(2.0), stats.halfnorm(scale=2)),
        (dist.Exponential(4.0), stats.expon(scale=0.25)),
        (dist.Uniform(1.0, 3.0), stats.uniform(1, 2)),
        (dist.Weibull(2.0, 1.5), stats.weibull_min(1.5, scale=2)),
        (dist.Pareto(1.0, 3.0), stats.pareto(3)),
        (dist.Gamma(2.0, 4.0), stats.gamma(2, scale=0.25)),
        (dist.Chi2(3.0), stats.chi2(3)),
        (dist.Beta(2.0, 5.0), stats.beta(2, 5)),
        (dist.StudentT(4.0, 1.0, 2.0), stats.t(4, 1, 2)),
        (dist.Geometric(0.25), stats.nbinom(1, 0.25)),
        (dist.NegativeBinomial(3, 0.25), stats.nbinom(3, 0.75)),
        (dist.TransformedDistribution(dist.Normal(0.0, 1.0), [AffineTransform(1.0, -2.0)]), stats.norm(1, 2)),
    ],
)  # fmt: skip
def test_laws_are_those_that_the_family_draws(fn, law):
    found = law_of(fn)
    y = np.unique(law.ppf([0.001, 0.1, 0.5, 0.9, 0.999]))
    np.testing.assert_allclose(found.upto(y), law.cdf(y), atol=1e-6)
    draws = fn.sample((20_000,)).numpy()  # and the family has these parameters
    share = (draws[:, None] <= y).mean(0)
    np.testing.assert_allclose(share, found.upto(y), atol=4.5 * 0.5 / math.sqrt(20_000))
    share = (draws[:, None] < y).mean(0)
    np.testing.assert_allclose(share, found.below(y), atol=4.5 * 0.5 / math.sqrt(20_000))
    np.testing.assert_allclose(found.quantile(law.cdf(y) - 1e-9), y, rtol=1e-4)
    if not math.isnan(found.mean):
        assert found.mean == pytest.approx(law.mean(), rel=1e-6)


def test_families_without_a_distribution_function():
    with pytest.raises(NoLaw):
        law_of(dist.VonMises(0.0, 1.0))


# --- Programs ---------------------------------------------------------------------------------------------------------


def additive(shift=1.0, scale=1.0):
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        return pyro.sample("y", dist.Normal(double(shift) * x, double(scale)))

    return model


def test_the_mechanisms_of_a_site_lie_inside():
    found = cp.bounds("P(y[x=1] > y[x=0])", additive())()
    antitone, independent = stats.norm.cdf(0.5), stats.norm.cdf(math.sqrt(0.5))  # .69 and .76
    assert antitone in found
    assert independent in found
    assert 1.0 in found


def confounded():
    """A confounder that takes three values; the treatment shifts and spreads."""
    z = pyro.sample("z", dist.Categorical(double([0.2, 0.3, 0.5])))
    x = pyro.sample("x", dist.Bernoulli(double([0.1, 0.5, 0.8])[z]))
    return pyro.sample("y", dist.Normal(double([0.0, 1.0, -1.0])[z] * x, 1.0 + 0.5 * x))


def test_confounded_comparisons_stratum_by_stratum():
    low = high = 0.0
    grid = np.linspace(-12, 12, 200_001)
    for weight, shift in zip((0.2, 0.3, 0.5), (0.0, 1.0, -1.0), strict=True):
        above = stats.norm.cdf(grid) - stats.norm.cdf(grid, shift, 1.5)
        low += weight * max(0.0, above.max())
        high += weight * (1.0 - max(0.0, (-above).max()))
    found = cp.bounds("P(y[x=1] > y[x=0])", confounded)()
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-8)
    assert found.sharp
    # among the treated the strata have other weights
    weights = np.array([0.2 * 0.1, 0.3 * 0.5, 0.5 * 0.8])
    weights /= weights.sum()
    own = [
        max(0.0, (stats.norm.cdf(grid) - stats.norm.cdf(grid, shift, 1.5)).max())
        for shift in (0.0, 1.0, -1.0)
    ]
    treated = cp.bounds("P(y[x=1] > y[x=0] | x=1)", confounded)()
    assert treated.low == pytest.approx(float(weights @ own), abs=1e-8)


def mediated():
    x = pyro.sample("x", dist.Bernoulli(0.5))
    m = pyro.sample("m", dist.Bernoulli(double([0.3, 0.8])[x.long()]))
    return pyro.sample("y", dist.Normal(2.0 * m, 1.0))


def test_a_coupled_mediator_and_a_coupled_outcome():
    # y[x=1] > y[x=0]: of the four pairs of mediators (1, 0) gives Makarov's range for a shift of 2, (0, 1) the mirrored one,
    # equal ones the same y. Their probabilities go from monotone to antitone: P(1, 0) in [.5, .7], P(0, 1) = P(1, 0) - .5
    least = 2 * stats.norm.cdf(1.0) - 1
    found = cp.bounds("P(y[x=1] > y[x=0])", mediated)()
    assert found.low == pytest.approx(0.5 * least, abs=1e-9)
    assert found.high == pytest.approx(0.7 * 1.0 + 0.2 * (1 - least), abs=1e-9)
    assert not found.sharp  # one pair of responses both ways round
    assert set(found.coupled) == {"m", "y"}


def test_thresholds_in_two_worlds_are_cells():
    found = cp.bounds("P(y[x=1] > 1, y[x=0] < 0)", additive(1.0))()
    a, b = stats.norm.sf(1, 1), stats.norm.cdf(0)
    assert (found.low, found.high) == pytest.approx((max(0, a + b - 1), min(a, b)), abs=1e-12)
    assert found.sharp
    # three cells of the factual y and two of the other: a linear program over their joint laws
    text = "P(y[x=1] > 1 | x=0, y > -1, 2 * y - 1 < 2)"
    found = cp.bounds(text, additive(1.0))()
    inside = stats.norm.cdf(1.5) - stats.norm.cdf(-1)
    p, q = np.array([1 - inside, inside]), np.array([1 - a, a])
    expected = transported(p, q, np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert (found.low, found.high) == pytest.approx(np.array(expected) / inside, abs=LINPROG)


def test_marginal_events_have_one_value():
    mixture = 0.5 * stats.norm.sf(0.3, 1) + 0.5 * stats.norm.sf(0.3)
    for text, value in [
        ("P(y > 0.3)", mixture),
        ("P(y > 0.3 | do(x=1))", stats.norm.sf(0.3, 1)),
        ("P(x=1 | y > 0.3)", 0.5 * stats.norm.sf(0.3, 1) / mixture),
        ("P(x=1 | y = 0.3)", stats.norm.pdf(0.3, 1) / (stats.norm.pdf(0.3, 1) + stats.norm.pdf(0.3))),
        ("P(1 - y > 0.3)", 0.5 * stats.norm.cdf(0.7, 1) + 0.5 * stats.norm.cdf(0.7)),
        ("P(y > x)", 0.5 * stats.norm.sf(1, 1) + 0.25),
        ("P(y = 0.3)", 0.0),
        ("E[y]", 0.5),
        ("E[x * y + 1]", 1.5),
        ("E[y[x=1]] - E[y[x=0]]", 1.0),
        ("E[y[x=1] - y[x=0]]", 1.0),
        ("E[y[x=1] - x | x=0]", 1.0),
    ]:  # fmt: skip
        found = cp.bounds(text, additive(1.0))()
        assert (found.low, found.high) == pytest.approx((value, value), abs=1e-9), text
        assert found.sharp, text


def test_counts():
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        return pyro.sample("n", dist.Poisson(1.0 + x))

    n = np.arange(60)
    p, q = stats.poisson(2.0).pmf(n), stats.poisson(1.0).pmf(n)
    for operator, happens in OPERATORS.items():
        found = cp.bounds(f"P(n[x=1] {operator} n[x=0])", model)()
        expected = transported(p / p.sum(), q / q.sum(), happens(n[:, None], n).astype(float))
        assert (found.low, found.high) == pytest.approx(expected, abs=LINPROG)
        assert found.sharp
    # a count that was seen
    found = cp.bounds("P(n[x=1] = 0 | x=0, n=0)", model)()
    assert found.high == pytest.approx(math.exp(-1), abs=1e-9)
    assert found.low == 0.0


def test_what_is_observed_weighs_by_its_density():
    def model(wage=None):
        offer = pyro.sample("offer", dist.Bernoulli(double(0.5)))
        train = pyro.sample("train", dist.Bernoulli(0.2 + 0.6 * offer))
        return pyro.sample("wage", dist.Normal(1.5 * train, double(1.0)), obs=wage)

    # P(train=1 | offer=1, wage)
    odds = 0.8 * stats.norm.pdf(2.0, 1.5) / (0.2 * stats.norm.pdf(2.0))
    trained = odds / (1 + odds)
    found = cp.bounds("P(train[offer=0] = 0 | offer=1)", model)(double(2.0))
    assert found.sharp
    # a joint law of the two trainings: P(1, 0) = t in [.6, .8], P(0, 0) = .8 - t; weights by the wage
    ends = [t / 0.8 * trained + (0.8 - t) / 0.2 * (1 - trained) for t in (0.6, 0.8)]
    assert (found.low, found.high) == pytest.approx((min(ends), max(ends)), abs=1e-9)


# --- What is out of reach ---------------------------------------------------------------------------------------------


def everything():
    u = pyro.sample("u", dist.Normal(0.0, 1.0))
    x = pyro.sample("x", dist.Bernoulli(0.5))
    y = pyro.sample("y", dist.Normal(u + x, 1.0))
    w = pyro.sample("w", dist.Cauchy(x, 1.0))
    pyro.sample("b", dist.Beta(1.0 + x, 2.0))
    pyro.sample("v", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
    with pyro.plate("units", 3):
        pyro.sample("p", dist.Exponential(1.0 + x))
    pyro.deterministic("d", y + w)
    pyro.sample("t", dist.Normal(x, 1.0))
    pyro.sample("c", dist.Uniform(x - 1.0, x + 1.0).to_event(0).mask(torch.tensor(True)))
    pyro.sample("n", dist.Poisson(1.0 + x))
    pyro.sample("r", dist.Uniform(2.0, 3.0))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("P(y[x=1] > y[x=0])", 0.0, 1.0),
        ("P(y > 0)", 0.0, 1.0),
        ("E[y | do(x=1)]", -math.inf, math.inf),
        ("E[w]", -math.inf, math.inf),
        ("E[b[x=1] * b[x=0]]", 0.0, 1.0),
        ("E[p]", 0.0, math.inf),
        ("P(p[x=1] > p[x=0])", 0.0, 1.0),
        ("E[v]", -math.inf, math.inf),
        ("P(d > 0)", 0.0, 1.0),
        ("1 + 2 * P(d > 0)", 1.0, 3.0),
        ("P(w[x=1] > w[x=0], w > 0)", 0.0, 1.0),
        ("P(x=1) + P(d > 0)", 0.5, 1.5),  # one term is known
        ("E[t | t > 0]", -math.inf, math.inf),
        ("P(t[x=1] > t[x=0], t[x=1] > 0)", 0.0, 1.0),
        ("P(t > x, t < x + 1)", 0.0, 1.0),
        ("P(x=1 | t=0.5, t=0.5)", 0.0, 1.0),
        ("E[c]", -math.inf, math.inf),
        ("E[r * r]", 4.0, 9.0),
        ("E[n | n > x]", 0.0, math.inf),
    ],
)
def test_valid_bounds_where_nothing_is_known(text, low, high):
    found = cp.bounds(text, everything)()
    assert (found.low, found.high) == (low, high)
    assert not found.sharp


def test_factors_and_values_that_python_sees():
    def weighed():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        y = pyro.sample("y", dist.Bernoulli(0.2 + 0.6 * x))
        pyro.factor("odds", y)

    assert cp.bounds("P(y[x=1]=1, y[x=0]=0)", weighed)().low == 0.0
    assert not cp.bounds("P(y[x=1]=1, y[x=0]=0)", weighed)().sharp
    assert cp.bounds("P(y=1 | do(x=1))", weighed)().low == pytest.approx(0.8)

    def branch():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        return pyro.sample("y", dist.Normal(1.0 if x > 0 else 0.0, 1.0))

    found = cp.bounds("P(y[x=1] > y[x=0])", branch)()
    assert (found.low, found.high, found.sharp) == (0.0, 1.0, False)


def test_sites_that_do_not_matter_are_left_alone():
    exact = cp.bounds("P(x=1)", everything)()
    assert (exact.low, exact.high, exact.sharp) == (0.5, 0.5, True)


def test_a_vector_that_was_observed_is_out_of_reach():
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        y = pyro.sample("y", dist.Bernoulli(0.2 + 0.6 * x))
        pyro.sample("v", dist.Normal(y, torch.ones(2)).to_event(1), obs=torch.zeros(2))

    found = cp.bounds("P(y[x=1]=1, y[x=0]=0)", model)()
    assert (found.low, found.high, found.sharp) == (0.0, 1.0, False)
    assert cp.bounds("P(y=1 | do(x=1))", model)().sharp


def test_a_monotone_open_site_is_not_called_sharp():
    free = cp.bounds("P(y[x=1] > 1, y[x=0] < 0)", additive())()
    found = cp.bounds("P(y[x=1] > 1, y[x=0] < 0)", additive(), assume={"y": "monotone"})()
    assert free.low <= found.low <= found.high <= free.high
    assert not found.sharp


def test_equality_of_continuous_values():
    # it can be avoided, and hold at most where the densities overlap
    found = cp.bounds("P(y[x=1] = y[x=0])", additive())()
    assert found.low == 0.0
    assert found.high == pytest.approx(2 * stats.norm.sf(0.5), abs=1e-5)
    assert not found.sharp


def test_values_of_two_sites_are_compared_without_their_independence():
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(x, double(1.0)))
        pyro.sample("w", dist.Normal(double(0.0), double(1.0)))

    found = cp.bounds("P(y[x=1] > w)", model)()
    assert found.low == pytest.approx(2 * stats.norm.cdf(0.5) - 1, abs=1e-9)
    assert stats.norm.cdf(math.sqrt(0.5)) in found
    assert not found.sharp


def test_probable_counts_have_to_be_equal_at_times():
    one, two = law_of(dist.Poisson(double(0.1))), law_of(dist.Poisson(double(0.2)))
    low, _, sharp = compared(Scaled(one, 1.0), Scaled(two, -1.0), "=", 0.0)
    assert low == pytest.approx(math.exp(-0.1) + math.exp(-0.2) - 1, abs=1e-12)
    assert sharp


def test_scaled_counts_are_compared_as_integers():
    one, two = law_of(dist.Poisson(double(2.0))), law_of(dist.Poisson(double(1.0)))
    for operator in OPERATORS:
        whole = compared(Scaled(one, 1.0), Scaled(two, -1.0), operator, 3.0)
        tenth = compared(Scaled(one, 0.1), Scaled(two, -0.1), operator, 0.3)
        assert tenth == pytest.approx(whole, abs=1e-12)


def test_three_responses_in_a_circle_and_no_pair_both_ways():
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        m = pyro.sample("m", dist.Categorical(double([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])[x.long()]))
        return pyro.sample("y", dist.Normal(1.0 * m, 1.0))

    assert not cp.bounds("P(y[x=1] > y[x=0])", model)().sharp


def test_three_responses_in_a_circle_are_not_called_sharp():
    def model():
        x = pyro.sample("x", dist.Categorical(double([0.2, 0.3, 0.5])))
        m = pyro.sample(
            "m", dist.Categorical(double([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2], [0.3, 0.3, 0.4]])[x])
        )
        return pyro.sample("y", dist.Normal(1.0 * m, 1.0))

    assert not cp.bounds("P(y[x=1] > y[x=0])", model)().sharp
    assert cp.bounds("P(y[m=1] > y[m=0])", model)().sharp


def test_quotients_keep_no_sharpness_they_do_not_have():
    wide = "P(y[x=1] > 1, y[x=0] < 0)"
    found = cp.bounds(f"1 / {wide}", additive())()
    assert (found.low, found.high, found.sharp) == (-math.inf, math.inf, False)
    half = cp.bounds("0.5 * P(y[x=1] > y[x=0])", additive())()
    assert half.sharp
    assert half.high == 0.5


# --- Queries of the sampled engine lie inside -------------------------------------------------------------------------


def mixed():
    z = pyro.sample("z", dist.Bernoulli(double(0.4)))
    x = pyro.sample("x", dist.Bernoulli(0.2 + 0.5 * z))
    m = pyro.sample("m", dist.Bernoulli(0.3 + 0.4 * x))
    n = pyro.sample("n", dist.Poisson(1.0 + x + z))
    y = pyro.sample("y", dist.Normal(x - m + z, 1.0 + 0.5 * x))
    pyro.sample("w", dist.Exponential(torch.exp(0.1 * y)))
    return n


ASKED = [
    "P(y[x=1] > y[x=0])",
    "P(y[x=1] - 2 * y[x=0] <= 1 | z=1)",
    "P(y[x=1, m=m[x=0]] > y[x=0])",
    "P(n[x=1] >= n[x=0] | x=0)",
    "P(n[x=1] = n[x=0] + m)",
    "P(n[x=1] > 2, n[x=0] < 2 | n < 4)",
    "P(y[x=1] > 0 | x=0, y < 0, m=1)",
    "E[y[x=1, m=m[x=0]]] - E[y[x=0]]",
    "P(w[x=1] > w[x=0])",
    "P(x=1 | y > 1, n=3)",
]


@pytest.mark.filterwarnings("ignore::causalppl.errors.CouplingWarning")
@pytest.mark.parametrize("text", ASKED)
def test_couplings_of_the_mechanisms_lie_inside(text):
    found = cp.bounds(text, mixed)()
    assert found.low <= found.high
    estimate = cp.query(text, mixed, seed=0, num_samples=1000)()
    slack = 4.5 * estimate.standard_error + 1e-9
    assert found.low - slack <= float(estimate) <= found.high + slack


def test_evidence_so_far_out_that_its_density_is_zero():
    found = cp.bounds("P(x=1 | y = 1e6)", additive())()
    assert (found.low, found.high, found.sharp) == (0.0, 1.0, False)
