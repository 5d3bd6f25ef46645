"""Known answers of the models about effects and causes: sums by hand, and what the toolkit says of the plain programs."""

from __future__ import annotations

import itertools

import pytest
import torch

import causalppl as cp
from models import food_poisoning, forest_fire, mediation, rock_throwing, voting


@pytest.mark.parametrize("kind", ["disjunctive", "conjunctive"])
def test_forest_fire(kind):
    known, conjunctive = forest_fire.KNOWN, kind == "conjunctive"
    ask = cp.attribution.probabilities_of_causation
    found = ask(forest_fire.model, cause="match", effect="fire")(conjunctive)
    for name in ("pn", "ps", "pns"):
        assert float(getattr(found, name)) == pytest.approx(known[f"{kind}_{name}"], abs=1e-9)
    _, both = forest_fire.data()
    causes = cp.attribution.actual_causes(forest_fire.model, evidence=both, outcome={"fire": 1.0})(
        conjunctive
    )
    sites = [{"lightning"}, {"match"}] if conjunctive else [{"lightning", "match"}]
    assert [c.sites for c in causes] == sites
    assert {c.responsibility for c in causes} == {known[f"{kind}_responsibility"]}


def test_rock_throwing():
    _, both = rock_throwing.data()
    causes = cp.attribution.actual_causes(
        rock_throwing.model, evidence=both, outcome={"shatters": 1.0}
    )()
    assert [set(c.sites) for c in causes] == [{"suzy"}, {"suzy_hits"}]
    assert all(c.witness == {"billy_hits": 0.0} for c in causes)
    assert causes[0].responsibility == rock_throwing.KNOWN["suzy_responsibility"]
    worlds = cp.counterfactual(rock_throwing.model, {"suzy": 0.0}, both)()
    shatters = float(worlds.tensor("shatters", world="counterfactual").mean())
    assert shatters == rock_throwing.KNOWN["shatters_without_suzy"]


@pytest.mark.parametrize(("name", "ayes"), [("unanimous", 11), ("close", 6)])
def test_voting(name, ayes):
    _, ballot = voting.data(ayes)
    causes = cp.attribution.actual_causes(voting.model, evidence=ballot, outcome={"wins": 1.0})()
    assert len(causes) == voting.KNOWN[f"{name}_causes"]
    assert {c.responsibility for c in causes} == {voting.KNOWN[f"{name}_responsibility"]}


def test_mediation():
    sites = {"treatment": "training", "outcome": "passes"}
    effects, known, model = cp.effects, mediation.KNOWN, mediation.model
    for name in ("natural_direct_effect", "natural_indirect_effect"):
        found = getattr(effects, name)(model, **sites, mediators=["homework"])()
        assert found.exact and float(found) == pytest.approx(known[name], abs=1e-7)
    assert float(effects.total_effect(model, **sites)()) == pytest.approx(
        known["total_effect"], abs=1e-7
    )
    for m in (0, 1):
        held = effects.controlled_direct_effect(model, **sites, mediator="homework", at=m)()
        assert float(held) == pytest.approx(known[f"controlled_direct_effect_{m}"], abs=1e-7)


# --- Food poisoning ---------------------------------------------------------------------------------------------------


def by_enumeration():
    """All answers about Saturday by a loop over everything that was not seen."""
    rates = {"L": 0.1, "C": 0.05}
    people = food_poisoning.HOUSEHOLD
    rates |= {f"{kind}_{who}": p for who in people for kind, p in (("s", 0.8), ("bug", 0.02))}
    totals = dict.fromkeys(("all", "lettuce_bad", "chicken_bad", "washed", "no_chicken"), 0.0)
    for bits in itertools.product((0, 1), repeat=len(rates)):
        u = dict(zip(rates, bits, strict=True))
        p = 1.0
        for name, rate in rates.items():
            p *= rate if u[name] else 1 - rate

        def sick(who, washed=0, chicken=None, u=u):
            ate_salad, ate_chicken = people[who]
            ate_chicken = ate_chicken if chicken is None else chicken
            bad = max(ate_salad * u["L"] * (1 - washed), ate_chicken * u["C"])
            return max(bad * u[f"s_{who}"], u[f"bug_{who}"])

        if sick("me") == 1 and sick("ann") == 1 and sick("ben") == 0:
            totals["all"] += p
            totals["lettuce_bad"] += p * u["L"]
            totals["chicken_bad"] += p * u["C"]
            totals["washed"] += p * (sick("me", washed=1) == 0)
            totals["no_chicken"] += p * (sick("me", chicken=0) == 0)
    whole = totals.pop("all")
    return {name: total / whole for name, total in totals.items()}


def test_the_sums_of_food_poisoning_are_right():
    found, known = by_enumeration(), food_poisoning.KNOWN
    assert found["lettuce_bad"] == pytest.approx(known["lettuce_bad"], abs=1e-12)
    assert found["chicken_bad"] == pytest.approx(known["chicken_bad"], abs=1e-12)
    assert found["washed"] == pytest.approx(known["well_had_we_washed"], abs=1e-12)
    assert found["no_chicken"] == pytest.approx(known["well_without_chicken"], abs=1e-12)


def test_what_made_me_sick():
    args, saturday = food_poisoning.data()
    known, model = food_poisoning.KNOWN, food_poisoning.model

    def ask(text):
        return cp.query(text, model, evidence=saturday, over="sample")(*args)

    for text, name in (
        ("P(lettuce_bad = 1)", "lettuce_bad"),
        ("P(chicken_bad = 1)", "chicken_bad"),
        ("P(sick_me[washed=1] = 0)", "well_had_we_washed"),
        ("P(sick_me[chicken_me=0] = 0)", "well_without_chicken"),
    ):
        found = ask(text)
        assert found.exact and float(found) == pytest.approx(known[name], abs=1e-6), text
    washing = cp.effects.individual_effect(
        model, treatment="washed", outcome="sick_me", evidence=saturday
    )(*args)
    assert washing.exact
    assert float(washing) == pytest.approx(-known["well_had_we_washed"], abs=1e-6)
    # somebody new, who eats both
    eats = {"salad_me": 1.0, "chicken_me": 1.0}
    average = cp.effects.average_treatment_effect(
        model, treatment="washed", outcome="sick_me", evidence=eats, over="sample"
    )(*args)
    assert float(average) == pytest.approx(known["effect_of_washing"], abs=1e-6)


def test_blame_for_the_salad():
    """Causes are averaged over what was not seen: the salad is one where the lettuce alone did it."""
    args, saturday = food_poisoning.data()
    causes = cp.attribution.actual_causes(
        food_poisoning.model,
        evidence=saturday,
        outcome={"sick_me": 1.0},
        candidates=["washed", "salad_me", "chicken_me"],
        num_samples=300,
        seed=1,
    )(*args)
    found = {frozenset(c.sites): c for c in causes}
    expected = food_poisoning.KNOWN["well_had_we_washed"]
    for site in ("washed", "salad_me"):
        cause = found[frozenset({site})]
        error = (expected * (1 - expected) / 300) ** 0.5
        assert cause.probability == pytest.approx(expected, abs=4.5 * error)
    assert torch.equal(saturday["sick_ben"], torch.tensor(0.0))
