"""Refutation: programs that made the data pass, programs that did not are caught; sensitivity against published numbers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import causalppl as cp
from causalppl.diagnostics.confounding import e_value, robustness_value
from causalppl.diagnostics.independence import holm, independence_p_value
from causalppl.errors import EvidenceError, MethodError

N = 200
SITES = {"treatment": "t", "outcome": "y"}


def chain(n=N):
    """z to t, t to y, and nothing else."""
    with pyro.plate("units", n):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        t = pyro.sample("t", dist.Normal(torch.tanh(z), 1.0))
        pyro.sample("y", dist.Normal(t, 1.0))


def confounded(slope_of_z=0.0, n=N, seed=0):
    """Data of the chain, with an arrow from z to y where its slope is not zero."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    t = np.tanh(z) + rng.normal(size=n)
    y = t + slope_of_z * z + rng.normal(size=n)
    return pd.DataFrame({"z": z, "t": t, "y": y})


def test_implied_independences():
    good = cp.diagnostics.refute(chain, confounded())(N)
    assert good.passed and good.effect is None
    (row,) = good.independences.itertuples()
    assert (row.a, row.b, row.given) == ("z", "y", ("t",))
    bad = cp.diagnostics.refute(chain, confounded(0.7))(N)
    assert not bad.passed
    assert "z and y depend on each other given ['t']" in bad.failures[0]
    assert "failed: z and y" in str(bad)


def test_discrete_independences():
    def collider(n=500):
        with pyro.plate("units", n):
            a = pyro.sample("a", dist.Bernoulli(0.5))
            b = pyro.sample("b", dist.Bernoulli(0.5))
            pyro.sample("c", dist.Bernoulli(0.1 + 0.4 * a + 0.4 * b))

    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2, (2, 500)).astype(float)
    c = (rng.random(500) < 0.1 + 0.4 * a + 0.4 * b).astype(float)
    good = cp.diagnostics.refute(collider, {"a": a, "b": b, "c": c})(500)
    assert good.passed and good.independences.given.tolist() == [()]
    assert not cp.diagnostics.refute(collider, {"a": a, "b": a, "c": c})(500).passed


def test_parameters_do_not_connect_units():
    def shared(n=N):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("units", n):
            pyro.sample("a", dist.Normal(level, 1.0))
            pyro.sample("b", dist.Normal(level, 1.0))

    rng = np.random.default_rng(2)
    a, b = 3 + rng.normal(size=(2, N))
    found = cp.diagnostics.refute(shared, {"a": a, "b": b})(N)
    assert len(found.independences) == 1 and found.passed


# --- The tests themselves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["continuous", "discrete", "mixed"])
def test_p_values_are_uniform_where_independence_holds(kind):
    p_values = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        z = rng.normal(size=300) if kind != "discrete" else rng.integers(0, 3, 300).astype(float)
        x, y = np.sin(z) + rng.normal(size=300), z**2 + rng.normal(size=300)
        if kind != "continuous":
            x = (x > 0.5).astype(float)
        if kind == "discrete":
            y = (y > 1.0).astype(float)
        p_values.append(independence_p_value(x, y, [z]))
    share = np.mean(np.array(p_values) < 0.05)
    assert share <= 0.05 + 4.5 * math.sqrt(0.05 * 0.95 / 100)
    assert np.mean(np.array(p_values) < 0.5) > 0.2  # and it is a test


def test_dependence_of_means_and_of_variances_is_seen():
    rng = np.random.default_rng(3)
    z, x = rng.normal(size=(2, 400))
    assert independence_p_value(x, 0.5 * x + z, [z]) < 1e-4
    assert independence_p_value(x, rng.normal(size=400) * np.exp(x / 2), [z]) < 1e-3
    assert independence_p_value(x, x**2 + rng.normal(size=400), [z]) < 1e-4


def test_the_g_test_is_scipys():
    rng = np.random.default_rng(4)
    x, y = rng.integers(0, 3, (2, 100)).astype(float)
    table = np.array([[np.sum((x == i) & (y == j)) for j in range(3)] for i in range(3)])
    expected = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood").pvalue
    assert independence_p_value(x, y) == pytest.approx(expected)


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05) == [True, False, False, True]
    assert holm([], 0.05) == []


# --- Effects ----------------------------------------------------------------------------------------------------------


def regression(n=60, scale=1.0):
    b = pyro.sample("b", dist.Normal(0.0, 5.0))
    c = pyro.sample("c", dist.Normal(0.0, 5.0))
    with pyro.plate("units", n):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        t = pyro.sample("t", dist.Bernoulli(logits=z))
        pyro.sample("y", dist.Normal(c + b * t + z, scale))


def regression_data(n=60, noise=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, generator=generator)
    t = (torch.rand(n, generator=generator) < torch.sigmoid(z)).float()
    y = 1 + 2.0 * t + z + noise * torch.randn(n, generator=generator)
    return {"z": z, "t": t, "y": y}


def test_an_honest_program_passes():
    data = regression_data()
    found = cp.diagnostics.refute(regression, data, **SITES, num_samples=300, subsets=2, seed=1)(60)
    assert found.passed, str(found)
    assert abs(float(found.effect) - 2.0) < 1.0
    assert found.placebo.interval[0] < 0 < found.placebo.interval[1]
    assert float(found.random_common_cause) == pytest.approx(float(found.effect), abs=0.3)
    assert len(found.subsets) == 2
    # four fifths of the units tell less
    width = np.diff(found.effect.interval)[0]
    assert all(np.diff(part.interval)[0] > 0.95 * width for part in found.subsets)


def test_a_program_that_is_too_sure_is_caught():
    data = regression_data(noise=1.0, seed=3)
    found = cp.diagnostics.refute(regression, data, **SITES, num_samples=300, subsets=1, seed=2)(
        60, 0.1
    )
    assert not found.passed
    assert any("placebo" in text or "four fifths" in text for text in found.failures), str(found)


def test_left_out_units_weigh_nothing():
    from causalppl.diagnostics.altered import OnlyUnits

    data = regression_data()
    chosen = torch.zeros(60, dtype=torch.bool)
    chosen[:40] = True
    ask = cp.effects.average_treatment_effect
    given = {**SITES, "num_samples": 1_000, "seed": 1}
    part = ask(OnlyUnits("units", chosen, -1)(regression), evidence=data, **given)(60)
    alone = ask(regression, evidence={n: v[:40] for n, v in data.items()}, **given)(40)
    spread = np.std(alone.draws)
    assert float(part) == pytest.approx(float(alone), abs=0.15 * spread)
    assert np.std(part.draws) == pytest.approx(spread, rel=0.1)


def test_an_effect_that_learns_nothing_is_said_so():
    found = cp.diagnostics.refute(chain, confounded(), **SITES, seed=1)(N)
    assert found.placebo is None and "no parameter that learns" in found.notes[0]


# --- Confounding ------------------------------------------------------------------------------------------------------


def test_published_e_and_robustness_values():
    assert e_value(3.9) == pytest.approx(7.26, abs=0.005)
    assert e_value(1 / 3.9) == pytest.approx(e_value(3.9)) and e_value(1.0) == 1.0
    # Cinelli and Hazlett (2020), table 1: Darfur, t = 4.18 with 783 degrees of freedom
    assert robustness_value(4.18, 783) == pytest.approx(0.139, abs=5e-4)
    # at RV, a confounder that explains as much of both takes the whole effect away: bias factor = |t| / sqrt(df)
    rv = robustness_value(3.0, 50)
    assert math.sqrt(rv * rv / (1 - rv)) == pytest.approx(3.0 / math.sqrt(50))
    with pytest.raises(MethodError, match="no risk ratio"):
        e_value(0.0)


def small(n=24):
    b = pyro.sample("b", dist.Normal(0.0, 5.0))
    c = pyro.sample("c", dist.Normal(0.0, 5.0))
    with pyro.plate("units", n):
        t = pyro.sample("t", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(c + b * t, 1.0))


def test_a_hidden_confounder_is_added_to_the_program():
    t = torch.arange(24) % 2.0
    y = 1.0 * t + torch.randn(24, generator=torch.Generator().manual_seed(5))
    found = cp.diagnostics.confounding_sensitivity(
        small, {"t": t, "y": y}, **SITES, strengths=[0.2, 2.0], num_samples=400, seed=1
    )(24)
    means = [float(y[t == k].mean()) for k in (0, 1)]
    assert float(found.effect) == pytest.approx(means[1] - means[0], abs=0.1)
    ratio = math.exp(0.91 * (means[1] - means[0]) / float(y.std()))
    assert found.risk_ratio == pytest.approx(ratio, rel=0.15)
    assert found.e_value == pytest.approx(e_value(found.risk_ratio))
    assert found.e_value_limit <= found.e_value
    weak, strong = found.by_strength[0.2], found.by_strength[2.0]
    # a confounder that pushes both the same way takes away from a positive effect, and makes it less certain
    assert float(strong) < float(weak) < float(found.effect) + 0.1
    assert np.std(strong.draws) > np.std(weak.draws)
    assert found.tipping_point in (0.0, 0.2, 2.0)
    ordinary = stats.ttest_ind(y[t == 1].numpy(), y[t == 0].numpy()).statistic
    assert found.partial_r2 == pytest.approx(ordinary**2 / (ordinary**2 + 22), abs=0.1)


def test_errors():
    with pytest.raises(MethodError, match="give both treatment and outcome"):
        cp.diagnostics.refute(chain, confounded(), treatment="t")
    with pytest.raises(EvidenceError, match="give data as a mapping"):
        cp.diagnostics.refute(chain, [1.0])
    with pytest.raises(EvidenceError, match="no site of the data has one complete number"):

        def alone():
            pyro.sample("x", dist.Normal(0.0, 1.0))

        cp.diagnostics.refute(alone, {"x": torch.tensor(1.0)})()
    with pytest.raises(MethodError, match="depends on no parameter that learns"):
        cp.diagnostics.confounding_sensitivity(chain, dict(confounded()), **SITES)(N)
