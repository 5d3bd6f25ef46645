"""What answers rest on: data and graph, couplings, the form of the program's distributions, or a prior."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp
from causalppl.errors import CouplingWarning, IdentificationWarning
from models import front_door, instrument, kidney_stones, m_bias, napkin

GRAPH, COUPLED = "graph", "graph and couplings"
FORM, PRIOR = "graph and parametric form", "prior"


def rests_on(text, model, *args, **keywords):
    """What an answer rests on, whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CouplingWarning)
        warnings.simplefilter("ignore", IdentificationWarning)
        found = cp.query(text, model, seed=0, num_samples=200, **keywords)(*args)
    return found.diagnostics.identification


# --- Standard graphs --------------------------------------------------------------------------------------------------

#: Model, treatment, outcome, what is measured; for the effect, the effect on the untreated, and necessity.
STANDARD = [
    (kidney_stones, "treatment", "success", "large treatment success", (GRAPH, GRAPH, COUPLED)),
    (front_door, "smoking", "cancer", "smoking tar cancer", (GRAPH, GRAPH, FORM)),
    (instrument, "train", "employed", "offer train employed", (FORM, FORM, FORM)),
    (m_bias, "x", "y", "m x y", (GRAPH, GRAPH, FORM)),
    (napkin, "x", "y", "w z x y", (GRAPH, FORM, FORM)),
]


@pytest.mark.parametrize(("module", "x", "y", "measured", "expected"), STANDARD)
def test_standard_graphs(module, x, y, measured, expected) -> None:
    queries = (
        f"P({y}=1 | do({x}=1))",
        f"P({y}[{x}=1]=1 | {x}=0)",
        f"P({y}[{x}=0]=0 | {x}=1, {y}=1)",
    )
    found = tuple(rests_on(q, module.model, observed=measured.split()) for q in queries)
    assert found == expected
    # where everything is measured, nothing is left but couplings
    everything = tuple(rests_on(q, module.model) for q in queries)
    assert everything == (GRAPH, GRAPH, COUPLED)


def test_seeing_rests_on_nothing_else() -> None:
    assert rests_on("P(success=1 | treatment=1)", kidney_stones.model) is None


def test_functions_need_no_coupling() -> None:
    def fire():
        lightning = pyro.sample("lightning", dist.Bernoulli(0.5))
        match = pyro.sample("match", dist.Bernoulli(0.5))
        return pyro.deterministic("fire", lightning * match)

    text = "P(fire[match=0]=0 | match=1, fire=1)"
    assert rests_on(text, fire) == GRAPH
    assert rests_on(text, fire, observed=["match", "fire"]) == FORM


def test_where_a_treatment_has_no_overlap_the_form_extrapolates() -> None:
    def model():
        s = pyro.sample("s", dist.Bernoulli(0.5))
        x = pyro.deterministic("x", 1.0 * s)
        return pyro.sample("y", dist.Bernoulli(0.1 + 0.3 * s + 0.5 * x))

    assert rests_on("P(y=1 | do(x=1))", model) == FORM


# --- Parameters ----------------------------------------------------------------------------------------------------------


def trial(x=None, y=None, size=20):
    """A randomised trial with an unknown effect, and hyperpriors that all units share."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    effect = pyro.sample("effect", dist.Normal(mu, scale))
    with pyro.plate("units", size):
        x = pyro.sample("x", dist.Bernoulli(torch.sigmoid(mu)), obs=x)
        return pyro.sample("y", dist.Normal(effect * x + mu, 1.0), obs=y)


X = torch.tensor([0.0, 1.0]).repeat(10)
Y = torch.linspace(-1.0, 2.0, 20)


def test_shared_hyperpriors_are_no_confounders() -> None:
    draws = {"mu": torch.zeros(200), "scale": torch.ones(200), "effect": torch.linspace(0, 1, 200)}
    method = cp.PosteriorSamples(draws)
    assert rests_on("E[y | do(x=1)]", trial, X, Y, method=method) == GRAPH
    assert rests_on("E[y[x=1] - y[x=0]]", trial, X, Y, method=method) == GRAPH
    assert rests_on("P(y[x=1] > y[x=0])", trial, X, Y, method=method) == COUPLED
    assert rests_on("P(y[x=1] > 0 | x=0)", trial, X, Y, method=method) == GRAPH


def test_a_latent_of_each_unit_is_one() -> None:
    def model(x, y):
        with pyro.plate("units", 20):
            u = pyro.sample("u", dist.Normal(0.0, 1.0))
            x = pyro.sample("x", dist.Bernoulli(torch.sigmoid(u)), obs=x)
            return pyro.sample("y", dist.Normal(u + x, 1.0), obs=y)

    assert rests_on("E[y | do(x=1)]", model, X, Y) == FORM


def test_a_prior_that_nothing_corrects_is_named() -> None:
    def model(x):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("units", 20):
            x = pyro.sample("x", dist.Bernoulli(0.5), obs=x)
            return pyro.sample("y", dist.Normal(slope * x, 1.0))

    with pytest.warns(IdentificationWarning, match="depends on 'slope', and nothing that is obs"):
        found = cp.query("E[y | do(x=1)]", model, seed=0, num_samples=200)(X)
    assert found.diagnostics.identification == PRIOR
    # where the slope does not matter, nothing is said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cp.query("P(x=1 | do(y=1))", model, seed=0, num_samples=200)(X)


def test_without_data_a_parameter_is_its_prior() -> None:
    with pytest.warns(IdentificationWarning, match="'mu', 'scale', 'effect'"):
        found = cp.query("E[y | do(x=1)]", trial, seed=0, num_samples=200)()
    assert found.diagnostics.identification == PRIOR


# --- One run -------------------------------------------------------------------------------------------------------------


def joe():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    h = pyro.sample("h", dist.Normal(0.5 * x, 1.0))
    return pyro.sample("y", dist.Normal(0.7 * x + 0.4 * h, 1.0))


def test_evidence_on_one_run_is_a_condition() -> None:
    evidence = {"x": 0.5, "h": 1.0, "y": 1.5}
    assert rests_on("E[y[h=2] | x=0.5, h=1, y=1.5]", joe) == COUPLED
    assert rests_on("E[y[h=2]]", joe, evidence=evidence, over="sample") == COUPLED
    assert rests_on("E[y[h=2]]", joe, evidence=evidence) == GRAPH  # of the population
    # what was done is what would be: consistency
    assert rests_on("E[y[h=1]]", joe, evidence=evidence, over="sample") == GRAPH
    assert rests_on("E[y[h=2]]", joe, evidence={"h": 1.0, "y": 1.5}, over="sample") == FORM
    # h tells of x, and nothing of y, whose law is the word of the program
    assert rests_on("E[y[h=2]]", joe, evidence={"h": 1.0}, over="sample") == FORM


def test_a_chosen_coupling_is_still_one() -> None:
    chosen = cp.set_mechanism(kidney_stones.model, {"success": "inverse_cdf"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cp.query("P(success[treatment=0]=0 | treatment=1, success=1)", chosen)()
    assert found.diagnostics.identification == COUPLED


def test_no_coupling_is_named_where_the_graph_settles_the_answer() -> None:
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        m = pyro.sample("m", dist.Bernoulli(0.2 + 0.5 * x))
        return pyro.sample("y", dist.Bernoulli(0.1 + 0.4 * m + 0.3 * x))

    # two worlds share the noise of m, and given m the answer does not ask how
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cp.query("E[y[x=1, m=m[x=0]] | x=1]", model)()
    assert found.diagnostics.identification == GRAPH
    with pytest.warns(CouplingWarning, match=r"'m' \(inverse_cdf; also antitone, independent\)"):
        cp.query("P(m[x=1]=1, m[x=0]=0)", model)()


# --- Worlds --------------------------------------------------------------------------------------------------------------


def worlds_of(model, *args, do, evidence=None, **keywords):
    return cp.counterfactual(model, do, evidence, num_samples=50, seed=0, **keywords)(*args)


def test_worlds_say_it_when_they_are_asked() -> None:
    found = worlds_of(joe, do={"h": 2.0}, evidence={"x": 0.5, "h": 1.0, "y": 1.5})
    stored = found.diagnostics.__dict__
    assert callable(stored["identification"])  # not computed yet
    assert "not examined" in found.dataset.attrs["identification"]
    assert found.diagnostics.identification == COUPLED and stored["identification"] == COUPLED
    assert "graph and couplings" in str(found.diagnostics)
    assert cp.abduct(joe, {"x": 0.5})().predict().diagnostics.identification is None


def test_what_worlds_rest_on() -> None:
    everything = {"offer": 1.0, "drive": 0.0, "train": 0.0, "employed": 0.0}
    known = {n: v for n, v in everything.items() if n != "drive"}
    model = instrument.model
    train = {"train": 1.0}

    def grounds(do, evidence, **keywords):
        return worlds_of(model, do=do, evidence=evidence, **keywords).diagnostics.identification

    assert grounds(train, everything) == COUPLED
    assert grounds(train, known) == FORM
    assert grounds({"train": 0.0}, everything) == GRAPH  # consistency
    assert grounds({"employed": 1.0}, known) == GRAPH  # nothing comes from it
    assert grounds({"train": cp.shift(1.0)}, everything) == COUPLED
    named = {"a": {"train": 1.0}, "b": {"offer": 0.0, "train": cp.from_world("a")}}
    found = cp.counterfactual(model, evidence=everything, worlds=named, seed=0)()
    assert found.diagnostics.identification == COUPLED


def test_worlds_of_units() -> None:
    draws = {"mu": torch.zeros(50), "scale": torch.ones(50), "effect": torch.linspace(0, 1, 50)}
    method = cp.PosteriorSamples(draws)
    found = cp.counterfactual(trial, {"x": 1.0}, method=method, num_samples=50, seed=0)(X, Y)
    assert found.diagnostics.identification == COUPLED


def test_it_survives_files_and_copies(tmp_path) -> None:
    found = worlds_of(joe, do={"h": 2.0}, evidence={"x": 0.5, "h": 1.0, "y": 1.5})
    for twin in (copy.deepcopy(found.diagnostics), pickle.loads(pickle.dumps(found.diagnostics))):
        assert twin.identification == COUPLED
    found.save(tmp_path / "worlds.nc")
    loaded = type(found).load(tmp_path / "worlds.nc")
    assert loaded.diagnostics.identification == COUPLED
    np.testing.assert_array_equal(loaded["y"].values, found["y"].values)
