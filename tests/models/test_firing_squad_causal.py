"""The nervous rifleman, asked of the public verbs."""

from __future__ import annotations

import math

import pytest
import torch

import causalppl as cp
from models.firing_squad import KNOWN, alive_had_a_not_fired, data, model

DRAWS = 20_000


def binomial_error(p: float) -> float:
    return math.sqrt(p * (1 - p) / DRAWS)


@pytest.mark.parametrize(("p", "q"), [(0.6, 0.25), (0.1, 0.9), (1.0, 0.3), (0.0, 0.3)])
def test_alive_had_a_not_fired(p: float, q: float) -> None:
    _, dead = data()
    worlds = cp.counterfactual(model, {"rifleman_a": 0.0}, dead, num_samples=DRAWS, seed=0)(p, q)
    answer = alive_had_a_not_fired(p, q)
    alive = float(worlds.probability(lambda w: w["counterfactual"]["death"] == 0))
    # Without Monte Carlo room where the answer is 0 or 1: impossible means never.
    assert alive == pytest.approx(answer, abs=4 * binomial_error(answer))
    assert (worlds.tensor("death", world="factual") == 1).all()


def test_the_court_is_judged_by_the_death() -> None:
    args, dead = data()
    worlds = cp.abduct(model, evidence=dead, num_samples=DRAWS, seed=0)(*args).predict()
    ordered = worlds.tensor("order", world="factual").double().mean().item()
    answer = KNOWN["order_given_dead"]
    assert ordered == pytest.approx(answer, abs=4 * binomial_error(answer))


def test_each_draw_obeys_the_equations_in_each_world() -> None:
    args, dead = data()
    posterior = cp.abduct(model, evidence=dead, num_samples=1000, seed=0)(*args)
    worlds = posterior.predict(
        worlds={"a_holds": {"rifleman_a": 0.0}, "both_hold": {"rifleman_a": 0.0, "rifleman_b": 0.0}}
    )
    order, nerves = (worlds.tensor(site, world="factual") for site in ("order", "nerves"))
    assert (torch.maximum(order, nerves) == 1).all()
    for world in ("a_holds", "both_hold"):
        assert torch.equal(worlds.tensor("order", world=world), order), "the past is shared"
    assert torch.equal(worlds.tensor("death", world="a_holds"), order), "B alone decides"
    assert (worlds.tensor("death", world="both_hold") == 0).all()


@pytest.mark.skipif(not hasattr(cp, "query"), reason="the query language is not there yet")
def test_query_is_exact() -> None:
    estimate = cp.query("P(death[rifleman_a=0] = 0 | death=1)", model)()
    assert estimate.exact and estimate.rung == 3
    assert estimate.value == pytest.approx(KNOWN["alive_had_a_not_fired"], abs=1e-6)
