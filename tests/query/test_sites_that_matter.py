"""Exact answers where all sites that matter are finite: what may be left out of the tables, and what may not."""

from __future__ import annotations

import math
import warnings

import noise_cells
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp
from causalppl.notation.terms import Outcome, Setting
from causalppl.query.finite import FiniteModel
from causalppl.query.relevance import relevance
from causalppl.structural import StructuralForm

#: Couplings matter to most of these answers; what is said of them has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore::causalppl.errors.CouplingWarning")


def double(value):
    return torch.tensor(value, dtype=torch.float64)


def exactly(text, model, *args, **keywords):
    found = cp.query(text, model, **keywords)(*args)
    assert found.exact, found.diagnostics
    assert found.standard_error == 0.0
    return float(found)


def sampled(text, model, *args, seed=0, **keywords):
    found = cp.query(text, model, seed=seed, num_samples=2000, **keywords)(*args)
    assert not found.exact
    return found


def near(found, expected):
    assert abs(float(found) - expected) <= 4.5 * found.standard_error + 1e-6


def training(wage=None):
    offer = pyro.sample("offer", dist.Bernoulli(double(0.5)))
    train = pyro.sample("train", dist.Bernoulli(0.2 + 0.6 * offer))
    with pyro.plate("years", 3):
        pyro.sample("hours", dist.Poisson(1.0 + train))
    pyro.sample(
        "skills", dist.MultivariateNormal(torch.ones(2).double() * train, torch.eye(2).double())
    )
    with pyro.poutine.mask(mask=torch.tensor(True)):
        pyro.sample("panel", dist.Bernoulli(0.5))
    return pyro.sample("wage", dist.Normal(1.5 * train, 1.0), obs=wage)


def test_descendants_that_nobody_asks_about():
    # monotone: offered only 0.6, always 0.2
    pns = "P(train[offer=1]=1, train[offer=0]=0)"
    assert exactly(pns, training, units="years") == pytest.approx(0.6, abs=1e-12)
    assert exactly("P(train=1 | do(offer=1))", training) == pytest.approx(0.8, abs=1e-12)
    assert exactly("P(offer=1 | train=1)", training) == pytest.approx(0.8, abs=1e-12)


def test_evidence_downstream_matters():
    # the wage is continuous, so that its evidence is not summed, and it changes the answer
    def model(wage=None):
        offer = pyro.sample("offer", dist.Bernoulli(double(0.5)))
        train = pyro.sample("train", dist.Bernoulli(0.2 + 0.5 * offer))
        return pyro.sample("wage", dist.Normal(1.5 * train, double(1.0)), obs=wage)

    pns = "P(train[offer=1]=1, train[offer=0]=0)"
    assert exactly(pns, model) == pytest.approx(0.5, abs=1e-12)
    weights = []  # of the three responses: never, compliant, always; half of the compliant have no offer
    for p, trained in ((0.3, (0, 0)), (0.5, (0, 1)), (0.2, (1, 1))):
        weights.append(p * sum(0.5 * math.exp(-0.5 * (3.0 - 1.5 * t) ** 2) for t in trained))
    expected = weights[1] / sum(weights)
    assert abs(expected - 0.5) > 0.01
    near(sampled(pns, model, double(3.0)), expected)
    near(sampled(pns, model, evidence={"wage": double(3.0)}), expected)
    near(sampled(pns + " - P(train=1)", model, evidence={"wage": double(3.0)}), expected - 0.45)
    # terms of rungs 1 and 2 speak of the population, which the wage of one unit says nothing of
    assert exactly("P(train=1 | do(offer=1))", model, double(3.0)) == pytest.approx(0.7, abs=1e-12)
    # a condition in the text matters just as much
    odds = 0.45 * math.exp(-0.5 * 1.5**2) / (0.55 * math.exp(-0.5 * 3.0**2))
    near(sampled("P(train=1 | wage=3)", model), odds / (1 + odds))


def test_finite_evidence_downstream_is_summed():
    def model(seen=None):
        offer = pyro.sample("offer", dist.Bernoulli(double(0.5)))
        train = pyro.sample("train", dist.Bernoulli(0.2 + 0.5 * offer))
        pyro.sample("wage", dist.Normal(1.5 * train, 1.0))
        return pyro.sample("seen", dist.Bernoulli(0.1 + 0.8 * train), obs=seen)

    # never .3, compliant .5, always .2; the seen has odds of 1 to 9
    weights = [0.3 * 0.1, 0.5 * (0.5 * 0.1 + 0.5 * 0.9), 0.2 * 0.9]
    found = exactly("P(train[offer=1]=1, train[offer=0]=0)", model, double(1.0))
    assert found == pytest.approx(weights[1] / sum(weights), abs=1e-12)
    assert exactly("P(train[offer=1]=1, train[offer=0]=0)", model) == pytest.approx(0.5, abs=1e-12)


def test_a_continuous_ancestor_matters_unless_every_world_sets_it():
    def model():
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
        x = pyro.sample("x", dist.Bernoulli(torch.sigmoid(u.double())))
        return pyro.sample("y", dist.Bernoulli(torch.sigmoid(2 * u.double() + x)))

    sigmoid = 1 / (1 + math.exp(-3.0))
    text = "P(y=1 | do(u=1, x=1))"
    assert exactly(text, model) == pytest.approx(sigmoid, abs=1e-9)
    both = "P(y[u=1, x=1]=1, y[u=0, x=0]=0)"
    assert exactly(both, model) == pytest.approx(sigmoid - 0.5, abs=1e-9)
    near(sampled("P(y=1 | do(x=1))", model), 0.62948)  # by quadrature, E sigmoid(1 + 2 u)
    # its value in another world is a law after all
    assert "u" in relevance([Outcome("y", (Setting("u", Outcome("u")),))], ARROWS).laws
    assert relevance([Outcome("y", (Setting("u", 1.0), Setting("x", 0.0)))], ARROWS).laws == {"y"}


ARROWS = {"u": (), "x": ("u",), "y": ("u", "x")}


def test_parameters_of_the_units_are_left_out_where_they_do_not_matter():
    def model(y=None):
        offer = pyro.sample("offer", dist.Bernoulli(double(0.5)))
        pyro.sample("train", dist.Bernoulli(0.2 + 0.6 * offer))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("units", 4):
            return pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    text = "P(train[offer=1]=1, train[offer=0]=0)"
    assert exactly(text, model) == pytest.approx(0.6, abs=1e-12)

    def coupled(y=None):
        kind = pyro.sample("kind", dist.Bernoulli(double(0.5)))
        with pyro.plate("units", 4):
            return pyro.sample("y", dist.Normal(2.0 * kind, double(1.0)), obs=y)

    assert exactly("P(kind=1)", coupled) == pytest.approx(0.5, abs=1e-12)
    # the units' data are about the parameter: they matter
    y = double([0.5, 1.0, 1.5, 0.8])
    odds = math.exp(float(-0.5 * ((y - 2) ** 2).sum() + 0.5 * (y**2).sum()))
    near(sampled("P(kind=1)", coupled, y), odds / (1 + odds))


def test_parameters_that_were_named_matter():
    def model():
        pyro.sample("mu", dist.Normal(0.0, 1.0))
        return pyro.sample("x", dist.Bernoulli(double(0.5)))

    assert exactly("P(x=1)", model) == 0.5
    near(sampled("P(x=1)", model, parameters=["mu"]), 0.5)


def test_factors_matter_where_the_observed_unit_is_asked():
    def model():
        x = pyro.sample("x", dist.Bernoulli(double(0.5)))
        y = pyro.sample("y", dist.Bernoulli(0.2 + 0.5 * x))
        w = pyro.sample("w", dist.Normal(y, 1.0))
        pyro.factor("odds", -(w**2))

    assert exactly("P(y=1 | do(x=1))", model) == pytest.approx(0.7, abs=1e-9)
    found = sampled("P(y[x=1]=1, y[x=0]=0)", model)
    assert "factors, which weigh the observed units" in found.diagnostics.why
    # w | y is N(y, 1), and E exp(-w^2) = exp(-y^2 / 3) / sqrt(3)
    pass_on = math.exp(-1 / 3)
    weights = [0.3 * 1.0, 0.5 * (0.5 + 0.5 * pass_on), 0.2 * pass_on]
    near(found, weights[1] / sum(weights))


def test_python_that_sees_values_keeps_the_whole_program():
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        pyro.sample("w", dist.Normal(1.0 if x > 0 else 0.0, 1.0))
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cp.errors.ExecutorWarning)
        found = sampled("P(x=1)", model)
    assert "Normal) has no finite support" in found.diagnostics.why


QUERIES = [
    ("P(y[x=1]=1, y[x=0]=0)", lambda w: w(x=1)["y"] == 1 and w(x=0)["y"] == 0, lambda w: True),
    (
        "P(y[x=1]=1 | x=0, y=0)",
        lambda w: w(x=1)["y"] == 1,
        lambda w: w()["x"] == 0 and w()["y"] == 0,
    ),
    ("E[m | do(x=1)]", lambda w: w(x=1)["m"], lambda w: True),
    ("P(z=1 | m=1)", lambda w: w()["z"], lambda w: w()["m"] == 1),
    (
        "E[y[x=1, m=m[x=0]]] - E[y[x=0]]",
        lambda w: w(x=1, m=w(x=0)["m"])["y"] - w(x=0)["y"],
        lambda w: True,
    ),
]


@pytest.mark.parametrize("make", [noise_cells.binary_model, noise_cells.ternary_model])
def test_random_programs_with_continuous_sites_everywhere_against_all_noise(make):
    for seed in range(3):
        model = make(np.random.default_rng(seed))
        finite, cells = noise_cells.program(model), noise_cells.NoiseCells(model)

        def run(finite=finite):
            finite()
            pyro.sample("score", dist.Normal(0.0, 1.0))

        def below(finite=finite, nodes=tuple(model)):
            with Scores(nodes):
                finite()

        for text, event, given in QUERIES[:: 1 + seed % 2]:
            expected = cells.answer(event, given)
            for program in (run, below):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", cp.errors.CouplingWarning)
                    assert exactly(text, program) == pytest.approx(expected, abs=1e-9)


class Scores(pyro.poutine.messenger.Messenger):
    """After each of these sites a continuous one that comes from it."""

    def __init__(self, nodes):
        super().__init__()
        self.nodes = nodes

    def _pyro_post_sample(self, msg):
        if msg["name"] in self.nodes:
            pyro.sample(f"score of {msg['name']}", dist.Normal(1.0 * msg["value"], 1.0))


def test_tables_hold_what_matters_only():
    form = StructuralForm(training, (), {}, None, 0)
    arrows = {n: tuple(p) for n, p in form.dependencies.parents.items()}
    model = FiniteModel(form, relevance([Outcome("train")], arrows))
    assert model.nodes == ("offer", "train")
    assert model.conditional("train", {"offer": 1.0}).probabilities == pytest.approx((0.2, 0.8))


def test_tables_of_a_program_whose_values_python_sees_are_whole():
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        return pyro.sample("y", dist.Bernoulli([0.1, 0.4][int(x)]))

    form = StructuralForm(model, (), {}, None, 0)
    assert FiniteModel(form, relevance([Outcome("x")], {"x": ()})).nodes == ("x", "y")
