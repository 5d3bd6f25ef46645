"""What effects refuse, and what they say then."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp
from causalppl.errors import QueryError, UnknownSiteError

SITES = {"treatment": "t", "outcome": "y"}
EFFECTS = {
    "average_treatment_effect": {},
    "total_effect": {},
    "effect_on_treated": {},
    "individual_effect": {},
    "conditional_effect": {"by": "z"},
    "dose_response": {"doses": [0.0, 1.0]},
    "controlled_direct_effect": {"mediator": "m"},
    "natural_direct_effect": {"mediators": ["m"]},
    "natural_indirect_effect": {"mediators": ["m"]},
    "path_specific_effect": {"path": ["t", "m", "y"]},
}


def model(dose=0.5):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    t = pyro.sample("t", dist.Normal(z, 1.0))
    m = pyro.sample("m", dist.Normal(dose * t, 1.0))
    y = pyro.sample("y", dist.Normal(m + t + z, 1.0))
    pyro.sample("after", dist.Normal(y, 1.0))


def ask(effect, **changes):
    given = {**SITES, **EFFECTS[effect], "num_samples": 50, "seed": 0, **changes}
    return getattr(cp.effects, effect)(model, **given)()


@pytest.mark.parametrize("effect", EFFECTS)
def test_every_effect_returns_an_estimate(effect):
    assert isinstance(ask(effect), cp.Estimate)


@pytest.mark.parametrize("effect", sorted(EFFECTS.keys() - {"path_specific_effect"}))
def test_unknown_and_unconnected_sites(effect):
    with pytest.raises(UnknownSiteError, match=r"outcome: the program has no site 'yy'.*'y'"):
        ask(effect, outcome="yy")
    with pytest.raises(UnknownSiteError, match=r"treatment: 'dose' is an argument of the program"):
        ask(effect, treatment="dose")
    with pytest.raises(QueryError, match=r"no directed path.*'after' does affect|other way round"):
        ask(effect, treatment="after", outcome="t")
    with pytest.raises(QueryError, match="given as treatment and as outcome"):
        ask(effect, treatment="y")
    with pytest.raises(QueryError, match="give the name of one site"):
        ask(effect, treatment=["t"])


@pytest.mark.parametrize("effect", sorted(EFFECTS.keys() - {"dose_response"}))
def test_doses_are_numbers(effect):
    with pytest.raises(QueryError, match=r"treated='high'; give one finite number"):
        ask(effect, treated="high")
    with pytest.raises(QueryError, match="control=nan; give one finite number"):
        ask(effect, control=float("nan"))


@pytest.mark.parametrize("effect", ["natural_direct_effect", "natural_indirect_effect"])
def test_mediators(effect):
    with pytest.raises(QueryError, match=r"give mediators as a list, as in \['m'\]"):
        ask(effect, mediators="m")
    with pytest.raises(QueryError, match="names of one or more sites"):
        ask(effect, mediators=[])
    with pytest.raises(QueryError, match=r"'z' stands on no directed path.*\['m'\]"):
        ask(effect, mediators=["m", "z"])
    with pytest.raises(QueryError, match="'after' stands on no directed path"):
        ask(effect, mediators=["after"])
    with pytest.raises(UnknownSiteError, match="mediator: the program has no site 'k'"):
        ask(effect, mediators=["k"])


def test_the_mediator_that_is_held():
    with pytest.raises(QueryError, match="'z' stands on no directed path"):
        ask("controlled_direct_effect", mediator="z")
    with pytest.raises(QueryError, match="give the name of one site"):
        ask("controlled_direct_effect", mediator=["m"])
    with pytest.raises(QueryError, match="at=None; give one finite number"):
        ask("controlled_direct_effect", at=None)


def test_paths():
    with pytest.raises(QueryError, match=r"give the path as a list"):
        ask("path_specific_effect", path="tmy")
    with pytest.raises(QueryError, match="does not lead from 't' to 'y'"):
        ask("path_specific_effect", path=["t", "m"])
    with pytest.raises(QueryError, match="no arrow leads from 't' to 'z'; the direct parents"):
        ask("path_specific_effect", path=["t", "z", "y"])
    with pytest.raises(UnknownSiteError, match="path: the program has no site 'k'"):
        ask("path_specific_effect", path=["t", "k", "y"])


def test_doses_and_levels():
    with pytest.raises(QueryError, match="give at least one dose"):
        ask("dose_response", doses=[])
    with pytest.raises(QueryError, match="give a list of numbers"):
        ask("dose_response", doses=1.0)
    with pytest.raises(QueryError, match="at least one level"):
        ask("conditional_effect", levels=[])
    with pytest.raises(QueryError, match="is the treatment or the outcome"):
        ask("conditional_effect", by="t")
    with pytest.raises(UnknownSiteError, match="by: the program has no site 'zz'"):
        ask("conditional_effect", by="zz")


def test_levels_that_do_not_occur():
    def finite():
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5, 0.0])))
        t = pyro.sample("t", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Bernoulli(0.25 * (1 + t * (z + 1))))

    found = cp.effects.conditional_effect(finite, **SITES, by="z")()
    assert found.at.tolist() == [0.0, 1.0]
    with pytest.raises(cp.errors.ImpossibleEvidenceError, match="probability zero"):
        cp.effects.conditional_effect(finite, **SITES, by="z", levels=[2.0])()

    def counts():
        z = pyro.sample("z", dist.Poisson(50.0))
        t = pyro.sample("t", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(t * z, 1.0))

    with pytest.raises(QueryError, match="no finite support; say which, as in levels="):
        cp.effects.conditional_effect(counts, **SITES, by="z", num_samples=50)()


def test_continuous_groups_that_the_treatment_moves():
    def people():
        with pyro.plate("people", 5):
            t = pyro.sample("t", dist.Bernoulli(0.5))
            m = pyro.sample("m", dist.Normal(t, 1.0))
            pyro.sample("y", dist.Normal(m, 1.0))

    with pytest.raises(QueryError, match="comes before the treatment"):
        cp.effects.conditional_effect(people, **SITES, by="m", levels=[0.0], num_samples=50)()

    def before():
        with pyro.plate("people", 5):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            t = pyro.sample("t", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Normal(t * z, 1.0))

    with pytest.raises(QueryError, match="no observed unit has exactly the value"):
        cp.effects.conditional_effect(before, **SITES, by="z", levels=[0.0], over="sample")()


def test_options_that_an_effect_does_not_take():
    with pytest.raises(
        TypeError, match=r"unexpected keyword argument 'num_sample'; did you mean 'num_samples'"
    ):
        ask("natural_direct_effect", num_sample=5)
    with pytest.raises(
        TypeError, match=r"dose_response\(\) got an unexpected keyword argument 'treated'"
    ):
        ask("dose_response", treated=1.0)
    with pytest.raises(TypeError, match=r"individual_effect.*'over'"):
        ask("individual_effect", over="sample")
