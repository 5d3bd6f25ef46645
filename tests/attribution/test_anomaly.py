"""Shapley values of anomalies: closed forms of linear programs, adding up, zeros, missing evidence, and what is refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import causalppl as cp
from causalppl.attribution import attribute_anomaly
from causalppl.attribution.shapley import exact_plan, permutation_plan
from causalppl.errors import EvidenceError, QueryError, UnknownSiteError


def shapley(players, value):
    """Shapley's formula as it is printed, over all coalitions."""
    n, found = len(players), {}
    for p in players:
        rest, total = [q for q in players if q != p], 0.0
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for s in itertools.combinations(rest, size):
                total += weight * (value({*s, p}) - value(set(s)))
        found[p] = total
    return found


def linear_game(coefficients, noises):
    """log P(|Y| >= |y|) given some noises, for y = sum of c n with standard normal n."""
    y = abs(sum(coefficients[p] * noises[p] for p in noises))

    def value(kept):
        centre = sum(coefficients[p] * noises[p] for p in kept)
        sd = math.sqrt(sum(c**2 for p, c in coefficients.items() if p not in kept))
        if sd == 0.0:
            return 0.0
        return math.log(stats.norm.sf(y, centre, sd) + stats.norm.cdf(-y, centre, sd))

    return value


def near(estimate, expected, slack=0.01):
    """Within Monte Carlo error; the slack is for the median, which is estimated too."""
    error = np.asarray(estimate.standard_error)
    assert np.all(np.abs(np.asarray(estimate.value) - expected) <= 5 * error + slack)


def diamond():
    """y = 2.5 a + 1.5 b + 1 c + y's own noise; w comes after y, z is apart."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(a, 1.0))
    c = pyro.sample("c", dist.Normal(a, 1.0))
    y = pyro.sample("y", dist.Normal(1.5 * b + c, 1.0))
    pyro.sample("w", dist.Normal(y + z, 1.0))


COEFFICIENTS = {"a": 2.5, "b": 1.5, "c": 1.0, "y": 1.0}


def values(**noises):
    a = noises["a"]
    b, c = a + noises["b"], a + noises["c"]
    return {"z": 0.3, "a": a, "b": b, "c": c, "y": 1.5 * b + c + noises["y"], "w": 0.1}


@pytest.mark.parametrize(
    "noises",
    [
        {"a": 0.2, "b": 4.0, "c": -0.5, "y": 0.3},
        {"a": -2.0, "b": -1.0, "c": 0.5, "y": -3.0},
        {"a": 0.1, "b": 0.2, "c": -0.1, "y": 0.4},  # nothing unusual
    ],
)
def test_linear_programs_have_closed_forms(noises):
    found = attribute_anomaly(diamond, target="y", evidence=values(**noises), seed=1)()
    expected = shapley(list(COEFFICIENTS), linear_game(COEFFICIENTS, noises))
    for site, value in expected.items():
        near(found[site], value)
    score = -linear_game(COEFFICIENTS, noises)(set())
    near(found.score, score)
    assert sum(float(part) for part in found.values()) == pytest.approx(float(found.score))
    assert list(found) == ["z", "a", "b", "c", "y", "w"]
    for apart in ("z", "w"):
        assert float(found[apart]) == 0.0 and found[apart].exact
    assert all(part.rung == 3 for part in found.values())


def test_rare_outcomes_are_told_apart():
    """Eight standard deviations: no draw from the noises' own laws would show this."""
    noises = {"a": 0.0, "b": 8.0, "c": 0.0, "y": 0.0}
    found = attribute_anomaly(diamond, target="y", evidence=values(**noises), seed=2)()
    expected = shapley(list(COEFFICIENTS), linear_game(COEFFICIENTS, noises))
    for site, value in expected.items():
        near(found[site], value, slack=0.03)
        assert found[site].standard_error < 0.2
    near(found.score, -linear_game(COEFFICIENTS, noises)(set()), slack=0.03)


def test_more_than_twelve_sites_are_sampled():
    n = 15

    def chain():
        value = torch.tensor(0.0)
        for i in range(n):
            value = pyro.sample(f"x{i}", dist.Normal(0.9 * value, 1.0))

    noises = np.random.default_rng(3).normal(size=n)
    noises[4] = 4.0
    evidence, value = {}, 0.0
    for i in range(n):
        value = 0.9 * value + noises[i]
        evidence[f"x{i}"] = value
    found = attribute_anomaly(chain, target=f"x{n - 1}", evidence=evidence, seed=4)()
    assert "random orders" in found.score.diagnostics.why
    coefficients = np.array([0.9 ** (n - 1 - i) for i in range(n)])
    expected = by_all_coalitions(coefficients, noises)
    for i in range(n):
        near(found[f"x{i}"], expected[i])
    assert sum(map(float, found.values())) == pytest.approx(float(found.score))


def by_all_coalitions(coefficients, noises):
    """Shapley values of the linear game, vectorised over coalitions."""
    n = len(noises)
    codes = np.arange(2**n)
    members = (codes[:, None] >> np.arange(n)) & 1
    y = abs(coefficients @ noises)
    centre = members @ (coefficients * noises)
    sd = np.sqrt(np.maximum((1 - members) @ coefficients**2, 1e-30))
    v = np.log(stats.norm.sf(y, centre, sd) + stats.norm.cdf(-y, centre, sd))
    v[-1] = 0.0
    size = members.sum(1)
    whole = np.zeros(n)
    for i in range(n):
        without = codes[members[:, i] == 0]
        k = size[without]
        weight = np.array([math.factorial(j) * math.factorial(n - j - 1) for j in range(n)])
        whole[i] = (weight[k] / math.factorial(n)) @ (v[without | (1 << i)] - v[without])
    return whole


def test_missing_evidence_is_averaged_over():
    def pair():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(a, 1.0))

    found = attribute_anomaly(pair, target="y", evidence={"y": 4.0}, seed=5)()
    game = linear_game({"a": 1.0, "y": 1.0}, {"a": 0.0, "y": 4.0})
    score = -game(set())

    def part_of_a(a):  # for one value of a, whose posterior is N(2, 1/2)
        both = linear_game({"a": 1.0, "y": 1.0}, {"a": a, "y": 4.0 - a})
        return shapley(["a", "y"], both)["a"]

    grid = stats.norm.ppf((np.arange(200) + 0.5) / 200, 2.0, math.sqrt(0.5))
    parts = [part_of_a(a) for a in grid]
    near(found["a"], np.mean(parts))
    near(found.score, score)
    assert found["a"].interval == pytest.approx(np.quantile(parts, [0.025, 0.975]), abs=0.7)
    assert float(found["a"]) + float(found["y"]) == pytest.approx(float(found.score))
    assert len(found["a"].draws) == 50
    # what the two explain differs from draw to draw, their sum does not
    total = found["a"].draws + found["y"].draws
    assert total == pytest.approx(total[0], abs=1e-9)


def test_parameters_are_no_noise():
    def people(n):
        level = pyro.sample("level", dist.Normal(0.0, 10.0))
        with pyro.plate("people", n):
            x = pyro.sample("x", dist.Normal(level, 1.0))
            pyro.sample("y", dist.Normal(x, 1.0))

    generator = torch.Generator().manual_seed(1)
    x = 3.0 + torch.randn(40, generator=generator)
    y = x + torch.randn(40, generator=generator)
    x[0], y[0], y[1] = 8.0, 8.0, x[1] - 5.0
    found = attribute_anomaly(people, target="y", evidence={"x": x, "y": y}, seed=6)(40)
    assert list(found) == ["level", "x", "y"] and not np.any(found["level"].value)
    assert found["x"].value.shape == (40,)
    total = found["x"].value + found["y"].value
    assert total == pytest.approx(found.score.value)
    assert found["x"].value[0] > 3 > found["y"].value[0]
    assert found["y"].value[1] > 3 > found["x"].value[1]
    # unit by unit it is the game of two noises, around the mean that is known well
    level = float(x.mean())
    noises = {"x": float(x[0]) - level, "y": 0.0}
    expected = shapley(["x", "y"], linear_game({"x": 1.0, "y": 1.0}, noises))
    assert found["x"].value[0] == pytest.approx(expected["x"], rel=0.15)


def test_other_families_and_functions():
    """A wait is a sum of exponentials: log P(T >= t | one of them) is known."""

    def wait():
        a = pyro.sample("a", dist.Exponential(1.0))
        b = pyro.sample("b", dist.Exponential(1.0))
        pyro.deterministic("t", a + b)

    found = attribute_anomaly(wait, target="t", evidence={"a": 7.0, "b": 0.5}, seed=7)()
    median = stats.gamma(2).median()
    t = 7.5
    assert 2 * median - t < 0  # so no wait is as extreme below

    def value(kept):
        if len(kept) == 2:
            return 0.0
        if not kept:
            return math.log(stats.gamma(2).sf(t))
        return -0.5 - 0.0 if "a" in kept else -7.0

    # P(T >= 7.5 | a = 7) = P(b >= .5), P(T >= 7.5 | b = .5) = P(a >= 7)
    expected = shapley(["a", "b"], value)
    for site in "ab":
        near(found[site], expected[site], slack=0.15)
    assert float(found["a"]) > 4 * abs(float(found["b"]))


def test_discrete_noise_is_abducted_in_several_draws():
    def model():
        fault = pyro.sample("fault", dist.Bernoulli(0.01))
        pyro.sample("y", dist.Normal(8.0 * fault, 1.0))

    found = attribute_anomaly(model, target="y", evidence={"fault": 1.0, "y": 8.2}, seed=8)()
    # -log P(|Y| >= 8.2), a fault being nearly needed
    score = -math.log(0.01 * stats.norm.sf(0.2) + 0.99 * 2 * stats.norm.sf(8.2))
    near(found.score, score, slack=0.35)
    assert float(found["fault"]) > 0.7 * float(found.score)


def test_programs_that_run_row_by_row():
    def model():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        slope = 2.0 if a > 0 else 1.0
        pyro.sample("y", dist.Normal(slope * a, 1.0))

    with pytest.warns(cp.errors.ExecutorWarning):
        found = attribute_anomaly(model, target="y", evidence={"a": 3.0, "y": 6.1}, seed=9)()
    assert float(found["a"]) > 3 > float(found["y"])
    assert float(found["a"]) + float(found["y"]) == pytest.approx(float(found.score))


# --- Plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [exact_plan(5), permutation_plan(5, 400, 1)], ids=["all", "some"])
def test_plans_give_shapley_values(plan):
    rng = np.random.default_rng(0)
    table = {
        frozenset(s): rng.normal() for k in range(6) for s in itertools.combinations(range(5), k)
    }
    expected = shapley(list(range(5)), lambda s: table[frozenset(s)])
    v = np.array([table[frozenset(np.flatnonzero(row))] for row in plan.coalitions])
    weights = plan.weights if plan.exact else plan.weights.mean(0)
    found = weights @ v
    assert not plan.coalitions[0].any() and plan.coalitions[-1].all()
    assert found.sum() == pytest.approx(table[frozenset(range(5))] - table[frozenset()])
    if plan.exact:
        assert found == pytest.approx([expected[i] for i in range(5)])
    else:
        error = (plan.weights @ v).std(0) / math.sqrt(len(plan.weights))
        assert np.all(np.abs(found - [expected[i] for i in range(5)]) <= 4.5 * error)


# --- What is refused --------------------------------------------------------------------------------------------------


def test_errors():
    known = values(a=0.0, b=0.0, c=0.0, y=0.0)
    with pytest.raises(UnknownSiteError, match="target: the program has no site 'yy'"):
        attribute_anomaly(diamond, target="yy", evidence=known)()
    with pytest.raises(EvidenceError, match="the value of the target 'y' is not known"):
        attribute_anomaly(diamond, target="y", evidence={"a": 0.0})()
    with pytest.raises(QueryError, match="give the name of one site"):
        attribute_anomaly(diamond, target=["y"], evidence=known)

    def vector():
        pyro.sample("v", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(QueryError, match=r"events of shape \(2,\)"):
        attribute_anomaly(vector, target="v", evidence={"v": torch.zeros(2)})()

    def constant():
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.deterministic("y", torch.tensor(1.0))

    with pytest.raises(QueryError, match="depends on no noise"):
        attribute_anomaly(constant, target="y", evidence={"a": 0.0})()
