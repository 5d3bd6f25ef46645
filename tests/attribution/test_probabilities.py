"""Probabilities of causation: published numbers, bounds, and exact values of random programs inside them."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from noise_tables import NoiseTables

import causalppl as cp
from causalppl.attribution import probabilities_of_causation, tian_pearl_bounds
from causalppl.errors import EvidenceError, QueryError, UnknownSiteError

HALF = torch.tensor(0.5, dtype=torch.float64)


def three(found):
    assert all(e.exact and e.rung == 3 for e in (found.pn, found.ps, found.pns))
    return float(found.pn), float(found.ps), float(found.pns)


@pytest.mark.parametrize(
    ("together", "expected"), [(torch.maximum, (0.5, 1.0, 0.5)), (torch.minimum, (1.0, 0.5, 0.5))]
)
def test_forest_fire(together, expected):
    def fire():
        lightning = pyro.sample("lightning", dist.Bernoulli(HALF))
        match = pyro.sample("match", dist.Bernoulli(HALF))
        pyro.deterministic("fire", together(lightning, match))

    answer = three(probabilities_of_causation(fire, cause="match", effect="fire")())
    assert answer == pytest.approx(expected, abs=1e-12)


def test_leukaemia():
    rates = torch.tensor([16 / 59026, 30 / 69160], dtype=torch.float64)

    def model():
        fallout = pyro.sample("fallout", dist.Bernoulli(HALF))
        pyro.sample("death", dist.Bernoulli(rates[fallout.long()]))

    found = three(probabilities_of_causation(model, cause="fallout", effect="death")())
    assert found[0] == pytest.approx(0.3751, abs=5e-5)
    assert found[1] == pytest.approx(0.00016275, abs=5e-9)
    assert found[2] == pytest.approx(0.00016271, abs=5e-9)
    # the program is exogenous and monotone, so this is what the bounds come to
    q, p = rates.tolist()
    joint = [[(1 - q) / 2, q / 2], [(1 - p) / 2, p / 2]]
    bounds = tian_pearl_bounds(joint, (q, p), monotone=True)
    ends = (bounds.pn, bounds.ps, bounds.pns)
    assert [low for low, _ in ends] == pytest.approx(found, abs=1e-12)
    assert all(low == high for low, high in ends)


def test_drug_lawsuit():
    bounds = tian_pearl_bounds([[0.486, 0.014], [0.499, 0.001]], (0.014, 0.016))
    assert bounds.pn == pytest.approx((1.0, 1.0), abs=1e-12)
    assert bounds.pns == pytest.approx((0.002, 0.016), abs=1e-12)
    assert bounds.ps == pytest.approx((0.00206, 0.0309), abs=5e-5)


def exogenous(seed):
    rng = np.random.default_rng(seed)
    return NoiseTables({"u": (), "x": ("u",), "y": ("u", "x")}, rng)


def facts(w):
    """The joint law and the experiment, by loops over all noise."""
    joint = [
        [w.mean(lambda f, x=x, y=y: f()["x"] == x and f()["y"] == y) for y in (0, 1)]
        for x in (0, 1)
    ]
    return joint, tuple(w.mean(lambda f, x=x: f(x=x)["y"]) for x in (0, 1))


def inside(seeds):
    for seed in seeds:
        w = exogenous(seed)
        bounds = tian_pearl_bounds(*facts(w))
        found = probabilities_of_causation(w.program, cause="x", effect="y")()
        for value, (low, high) in zip(
            three(found), (bounds.pn, bounds.ps, bounds.pns), strict=True
        ):
            assert low - 1e-9 <= value <= high + 1e-9, seed


def test_exact_values_lie_inside_the_bounds():
    inside(range(40))


@pytest.mark.slow
def test_exact_values_of_a_thousand_programs_lie_inside_the_bounds():
    inside(range(1_000))


def test_values_are_those_of_all_noise():
    for seed in range(8):
        w = exogenous(seed)
        found = three(probabilities_of_causation(w.program, cause="x", effect="y")())
        expected = (
            w.mean(lambda f: f(x=0)["y"] == 0, lambda f: f()["x"] == 1 and f()["y"] == 1),
            w.mean(lambda f: f(x=1)["y"] == 1, lambda f: f()["x"] == 0 and f()["y"] == 0),
            w.mean(lambda f: f(x=1)["y"] == 1 and f(x=0)["y"] == 0),
        )
        assert found == pytest.approx(expected, abs=1e-9)


def test_bounds_are_attained():
    """Every way to give each of four kinds of people a response type has its PNS inside; the extremes of a linear program are the ends."""
    from scipy.optimize import linprog

    joint, do = facts(exogenous(4))
    # people by x and by response (y0, y1): p[x, r] >= 0 with the given joint law and experiment
    kinds = [(x, r) for x in (0, 1) for r in ((0, 0), (0, 1), (1, 0), (1, 1))]
    equal, right = [], []
    for x in (0, 1):
        for y in (0, 1):
            equal.append([float(k == x and r[x] == y) for k, r in kinds])
            right.append(joint[x][y])
    for x in (0, 1):
        equal.append([float(r[x]) for _, r in kinds])
        right.append(do[x])
    events = {
        "pns": ([float(r == (0, 1)) for _, r in kinds], 1.0),
        "pn": ([float(k == 1 and r == (0, 1)) for k, r in kinds], joint[1][1]),
        "ps": ([float(k == 0 and r == (0, 1)) for k, r in kinds], joint[0][0]),
    }
    bounds = tian_pearl_bounds(joint, do)
    for name, (event, mass) in events.items():
        ends = [
            s * linprog([s * e for e in event], A_eq=equal, b_eq=right).fun / mass for s in (1, -1)
        ]
        assert getattr(bounds, name) == pytest.approx(ends, abs=1e-8)


def test_evidence_and_undefined_conditions():
    def model():
        u = pyro.sample("u", dist.Bernoulli(HALF))
        x = pyro.sample("x", dist.Bernoulli(HALF))
        pyro.deterministic("y", torch.maximum(u, x))

    found = probabilities_of_causation(
        model, cause="x", effect="y", evidence={"x": 1.0, "y": 1.0}
    )()
    assert float(found.pn) == pytest.approx(0.5, abs=1e-12)
    assert float(found.pns) == pytest.approx(0.5, abs=1e-12)
    assert math.isnan(found.ps.value) and "does not happen" in found.ps.diagnostics.notes[0]


def test_sampled_programs():
    """A threshold on a normal: y = [x + e > 1], so PN = P(e <= 1 | e > 0) and PS = P(e > 0 | e <= 1)."""

    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        e = pyro.sample("e", dist.Normal(0.0, 1.0))
        pyro.deterministic("y", (x + e > 1).float())

    phi = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    found = probabilities_of_causation(model, cause="x", effect="y", seed=1)()
    expected = ((phi - 0.5) / 0.5, (phi - 0.5) / phi, phi - 0.5)
    for estimate, value in zip((found.pn, found.ps, found.pns), expected, strict=True):
        assert abs(float(estimate) - value) <= 4.5 * estimate.standard_error
        assert not estimate.exact and estimate.standard_error > 0


def test_other_values_than_one_and_zero():
    def model():
        dose = pyro.sample("dose", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        luck = pyro.sample("luck", dist.Bernoulli(HALF))
        pyro.deterministic("grade", dose + luck)

    found = probabilities_of_causation(
        model, cause="dose", effect="grade", present=2.0, absent=1.0, occurs=2.0
    )()
    # grade 2 with dose 2 means no luck, so a dose of 1 would have given 1
    assert float(found.pn) == pytest.approx(1.0)
    # dose 1 and not grade 2 means no luck, so a dose of 2 would have given 2
    assert float(found.ps) == pytest.approx(1.0)
    assert float(found.pns) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("joint", "do", "says"),
    [
        ([[0.5, 0.5]], (0.1, 0.2), "give p_joint as"),
        ([[0.5, 0.5], [0.0, 0.0]], 0.3, "give p_joint as"),
        ([[0.5, 0.6], [0.0, -0.1]], (0.1, 0.2), "no probability between 0 and 1"),
        ([[0.5, 0.3], [0.1, 0.2]], (0.1, 0.2), "sum to 1.1"),
        ([[0.4, 0.1], [0.1, 0.4]], (0.05, 0.6), r"do\(x=0\)\) = 0.05 is impossible"),
        ([[0.4, 0.1], [0.1, 0.4]], (0.3, 0.95), r"leaves it 0.4 to 0.9"),
    ],
)
def test_impossible_inputs(joint, do, says):
    with pytest.raises(EvidenceError, match=says):
        tian_pearl_bounds(joint, do)


def test_monotonicity_can_be_contradicted():
    joint = [[0.25, 0.25], [0.25, 0.25]]
    with pytest.raises(EvidenceError, match="monotone=True needs"):
        tian_pearl_bounds(joint, (0.6, 0.4), monotone=True)
    assert tian_pearl_bounds(joint, (0.6, 0.4)).pns[0] == 0.0


def test_a_condition_without_people_has_no_bounds():
    bounds = tian_pearl_bounds([[0.5, 0.0], [0.5, 0.0]], (0.0, 0.0))
    assert math.isnan(bounds.pn[0]) and bounds.ps == (0.0, 0.0) and bounds.pns == (0.0, 0.0)


def test_errors():
    model = exogenous(0).program
    with pytest.raises(UnknownSiteError, match="cause: the program has no site 'xx'"):
        probabilities_of_causation(model, cause="xx", effect="y")()
    with pytest.raises(QueryError, match=r"from the cause 'y' to the effect 'x'.*other way round"):
        probabilities_of_causation(model, cause="y", effect="x")()
    with pytest.raises(QueryError, match="give the name of one site"):
        probabilities_of_causation(model, cause=1, effect="y")
    with pytest.raises(QueryError, match="present='yes'"):
        probabilities_of_causation(model, cause="x", effect="y", present="yes")
    assert isinstance(probabilities_of_causation(model, cause="x", effect="y")().pn, cp.Estimate)
