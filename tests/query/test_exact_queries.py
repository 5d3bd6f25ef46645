"""Exact queries of finite programs against known answers, and against loops over all noise."""

from __future__ import annotations

import warnings

import noise_cells
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import reference
import torch

import causalppl as cp
from causalppl.query.couplings import gumbel_max_joint
from models import firing_squad

HALF = torch.tensor(0.5, dtype=torch.float64)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def ask(text, model, **keywords):
    """An exact answer, whatever it says of couplings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cp.errors.CouplingWarning)
        estimate = cp.query(text, model, **keywords)()
    assert estimate.exact
    assert estimate.standard_error == 0.0
    return float(estimate)


# --- Known answers --------------------------------------------------------------------------------------------------


def bernoulli():
    x = pyro.sample("x", dist.Bernoulli(HALF))
    return pyro.sample("y", dist.Bernoulli(torch.where(x > 0, double(0.4)[0], double(0.7)[0])))


def test_monotone_bernoulli():
    assert ask("P(y[x=1] = 0 | x=0, y=1)", bernoulli) == pytest.approx(3 / 7, abs=1e-12)
    assert ask("P(y[x=1] = 1 | x=0, y=0)", bernoulli) == 0.0


def gumbel():
    x = pyro.sample("x", dist.Bernoulli(HALF))
    table = torch.stack([double(0.2, 0.3, 0.5), double(0.5, 0.3, 0.2)])
    return pyro.sample("y", dist.Categorical(table[x.long()]))


def test_gumbel_max_table():
    expected = [[1, 0, 0], [3 / 13, 10 / 13, 0], [6 / 13, 9 / 65, 2 / 5]]
    found = [[ask(f"P(y[x=1] = {j} | x=0, y={i})", gumbel) for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(np.array([0.2, 0.3, 0.5]) @ found, [0.5, 0.3, 0.2], atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_gumbel_max_joint_is_the_integral(size):
    rng = np.random.default_rng(size)
    for trial in range(10):
        p, q = rng.dirichlet(np.ones(size), size=2)
        if trial < 3:  # zeros on either side
            p[trial % size], q[(trial + 1) % size] = 0.0, 0.0
            p, q = p / p.sum(), q / q.sum()
        found = joint(p, q)
        np.testing.assert_allclose(found, reference.gumbel_max_joint(p, q), atol=1e-9)
        np.testing.assert_allclose(found.sum(1), p, atol=1e-12)
        np.testing.assert_allclose(found.sum(0), q, atol=1e-12)


def joint(p, q):
    return gumbel_max_joint(tuple(map(float, p)), tuple(map(float, q)))


def test_firing_squad():
    found = ask("P(death[rifleman_a=0] = 0 | death=1)", firing_squad.model)
    assert found == pytest.approx(firing_squad.KNOWN["alive_had_a_not_fired"], abs=1e-7)
    assert ask("P(order=1 | death=1)", firing_squad.model) == pytest.approx(6 / 7, abs=1e-7)
    assert ask("P(death=1)", firing_squad.model) == pytest.approx(0.7, abs=1e-7)


def simpson():
    """Recovery by drug and sex, Primer table 1.1: men 357 of 700, women 343."""
    woman = pyro.sample("woman", dist.Bernoulli(double(343 / 700)[0]))
    drug = pyro.sample("drug", dist.Bernoulli(double(87 / 357, 263 / 343)[woman.long()]))
    table = torch.stack([double(234 / 270, 55 / 80), double(81 / 87, 192 / 263)])
    return pyro.sample("recovery", dist.Bernoulli(table[drug.long(), woman.long()]))


def test_simpson():
    doing = "E[recovery | do(drug=1)] - E[recovery | do(drug=0)]"
    # the same by hand, adjusting for sex
    women = 343 / 700
    men_effect, women_effect = 81 / 87 - 234 / 270, 192 / 263 - 55 / 80
    adjusted = (1 - women) * men_effect + women * women_effect
    assert ask(doing, simpson) == pytest.approx(adjusted, abs=1e-12)
    assert ask(doing, simpson) == pytest.approx(0.0537, abs=1e-4)
    seeing = ask("E[recovery | drug=1] - E[recovery | drug=0]", simpson)
    assert seeing == pytest.approx(273 / 350 - 289 / 350, abs=1e-12)
    assert seeing == pytest.approx(-0.0457, abs=1e-4)


def mediation():
    t = pyro.sample("t", dist.Bernoulli(HALF))
    m = pyro.sample("m", dist.Bernoulli(double(0.40, 0.75)[t.long()]))
    table = torch.stack([double(0.2, 0.3), double(0.4, 0.8)])
    return pyro.sample("y", dist.Bernoulli(table[t.long(), m.long()]))


def test_mediation():
    assert ask("E[y[t=1, m=m[t=0]]] - E[y[t=0]]", mediation) == pytest.approx(0.32, abs=1e-12)
    assert ask("E[y[t=0, m=m[t=1]]] - E[y[t=0]]", mediation) == pytest.approx(0.035, abs=1e-12)
    assert ask("E[y | do(t=1)] - E[y | do(t=0)]", mediation) == pytest.approx(0.46, abs=1e-12)
    assert ask("E[y[t=1] - y[t=0]]", mediation) == pytest.approx(0.46, abs=1e-12)
    assert ask("E[y | do(t=0, m=1)]", mediation) == pytest.approx(0.3, abs=1e-12)


def leukaemia():
    x = pyro.sample("fallout", dist.Bernoulli(HALF))
    return pyro.sample("death", dist.Bernoulli(double(16 / 59026, 30 / 69160)[x.long()]))


def test_leukaemia():
    pn = ask("P(death[fallout=0] = 0 | fallout=1, death=1)", leukaemia)
    ps = ask("P(death[fallout=1] = 1 | fallout=0, death=0)", leukaemia)
    pns = ask("P(death[fallout=1] = 1, death[fallout=0] = 0)", leukaemia)
    assert pn == pytest.approx(0.3751, abs=5e-5)
    assert ps == pytest.approx(0.00016275, abs=5e-9)
    assert pns == pytest.approx(0.00016271, abs=5e-9)
    p, q = 30 / 69160, 16 / 59026
    assert (pn, ps, pns) == pytest.approx(((p - q) / p, (p - q) / (1 - q), p - q), abs=1e-12)


@pytest.mark.parametrize(
    ("together", "expected"),
    [(torch.maximum, (0.5, 1.0, 0.5)), (torch.minimum, (1.0, 0.5, 0.5))],
    ids=["disjunctive", "conjunctive"],
)
def test_forest_fire(together, expected):
    def fire():
        lightning = pyro.sample("lightning", dist.Bernoulli(HALF))
        match = pyro.sample("match", dist.Bernoulli(HALF))
        return pyro.deterministic("fire", together(lightning, match))

    found = (
        ask("P(fire[match=0] = 0 | match=1, fire=1)", fire),
        ask("P(fire[match=1] = 1 | match=0, fire=0)", fire),
        ask("P(fire[match=1] = 1, fire[match=0] = 0)", fire),
    )
    assert found == pytest.approx(expected, abs=1e-12)


def primer(b=3.0):
    """Primer 4.3.2: Z = X + U2, Y = bZ, with fair coins X and U2."""
    x = pyro.sample("x", dist.Bernoulli(HALF))
    u = pyro.sample("u", dist.Bernoulli(HALF))
    z = pyro.deterministic("z", x + u)
    return pyro.deterministic("y", b * z)


def test_primer_4_3_2():
    assert ask("E[y[x=1] | z=1]", primer) == pytest.approx(1.5 * 3.0, abs=1e-12)
    assert ask("E[y[x=0] | z=1]", primer) == pytest.approx(0.5 * 3.0, abs=1e-12)
    # post-intervention selection is another question
    assert ask("E[y | do(x=1), z=1]", primer) == pytest.approx(3.0, abs=1e-12)


# --- Random models --------------------------------------------------------------------------------------------------

QUERIES = [
    ("P(y = 1 | x=1)", lambda w: w()["y"] == 1, lambda w: w()["x"] == 1),
    ("P(y = 1 | do(x=1))", lambda w: w(x=1)["y"] == 1, None),
    ("P(y = 1, m = 0 | do(x=1), z=0)", lambda w: w(x=1)["y"] == 1 and w(x=1)["m"] == 0, lambda w: w()["z"] == 0),
    ("E[y | do(x=1), m=1]", lambda w: w(x=1)["y"], lambda w: w(x=1)["m"] == 1),
    ("P(y[x=1] = 1 | x=0, y=0)", lambda w: w(x=1)["y"] == 1, lambda w: w()["x"] == 0 and w()["y"] == 0),
    ("P(y[x=1] = 1, y[x=0] = 0)", lambda w: w(x=1)["y"] == 1 and w(x=0)["y"] == 0, None),
    ("P(y[x=1] > y[x=0] | m != 1)", lambda w: w(x=1)["y"] > w(x=0)["y"], lambda w: w()["m"] != 1),
    ("E[y[x=1, m=m[x=0]]]", lambda w: w(x=1, m=w(x=0)["m"])["y"], None),
    (
        "E[y[x=1, m=m[x=0]] * y[x=0] - m / 2 | y >= 1]",
        lambda w: w(x=1, m=w(x=0)["m"])["y"] * w(x=0)["y"] - w()["m"] / 2,
        lambda w: w()["y"] >= 1,
    ),
    ("E[y[x=1] | m[x=0]=1, z=1]", lambda w: w(x=1)["y"], lambda w: w(x=0)["m"] == 1 and w()["z"] == 1),
]  # fmt: skip


def compare(make, seeds, rtol):
    for seed in seeds:
        model = make(np.random.default_rng(seed))
        cells, run = noise_cells.NoiseCells(model), noise_cells.program(model)
        for text, event, given in QUERIES:
            expected = cells.answer(event, given or (lambda w: True))
            assert ask(text, run) == pytest.approx(expected, abs=rtol), (seed, text)


def test_random_binary_models_against_all_noise():
    compare(noise_cells.binary_model, range(12), 1e-9)


def test_random_ternary_models_against_all_noise():
    compare(noise_cells.ternary_model, range(100, 112), 1e-8)  # quadrature's own tolerance


@pytest.mark.slow
def test_many_random_models_against_all_noise():
    compare(noise_cells.binary_model, range(1000, 1060), 1e-9)
    compare(noise_cells.ternary_model, range(2000, 2060), 1e-8)


def test_programs_that_index_with_python_numbers():
    model = noise_cells.binary_model(np.random.default_rng(5))
    cells, run = noise_cells.NoiseCells(model), noise_cells.program(model, index=int)
    for text, event, given in QUERIES:
        expected = cells.answer(event, given or (lambda w: True))
        assert ask(text, run) == pytest.approx(expected, abs=1e-9), text


def tian_pearl(cells):
    """PNS, PN and PS bounds of Tian and Pearl (2000) from an experiment and an observation."""
    y1, y0 = (cells.answer(lambda w, x=x: w(x=x)["y"]) for x in (1, 0))
    p = {(x, y): cells.answer(lambda w, x=x, y=y: w()["x"] == x and w()["y"] == y) for x in (0, 1) for y in (0, 1)}  # fmt: skip
    y = p[1, 1] + p[0, 1]
    return {
        "P(y[x=1]=1, y[x=0]=0)": (
            max(0, y1 - y0, y - y0, y1 - y),
            min(y1, 1 - y0, p[1, 1] + p[0, 0], y1 - y0 + p[1, 0] + p[0, 1]),
        ),
        "P(y[x=0]=0 | x=1, y=1)": (
            max(0, (y - y0) / p[1, 1]),
            min(1, (1 - y0 - p[0, 0]) / p[1, 1]),
        ),
        "P(y[x=1]=1 | x=0, y=0)": (
            max(0, (y1 - y) / p[0, 0]),
            min(1, (y1 - p[1, 1]) / p[0, 0]),
        ),
    }


def check_bounds(seeds):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        model = {
            "u": noise_cells.random_node(rng, {}, 2, "bernoulli"),
            "x": noise_cells.random_node(rng, {"u": 2}, 2, "bernoulli"),
            "y": noise_cells.random_node(rng, {"u": 2, "x": 2}, 2, "bernoulli"),
        }
        run = noise_cells.program(model)
        for text, (low, high) in tian_pearl(noise_cells.NoiseCells(model)).items():
            assert low - 1e-9 <= ask(text, run) <= high + 1e-9, (seed, text)


def test_tian_pearl_bounds_hold():
    check_bounds(range(200))


@pytest.mark.slow
def test_tian_pearl_bounds_hold_in_a_thousand_models():
    check_bounds(range(1000))
