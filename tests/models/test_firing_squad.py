"""The nervous rifleman by enumeration of the four states of the world, without causalppl."""

from __future__ import annotations

import pyro
import pytest
import torch

from models.firing_squad import KNOWN, alive_had_a_not_fired, model

STATES = [(0, 0), (0, 1), (1, 0), (1, 1)]  # order, nerves
SITES = ["order", "nerves", "captain", "rifleman_a", "rifleman_b", "death"]
PAIRS = [(0.6, 0.25), (0.1, 0.9), (0.5, 0.01), (1.0, 0.3), (0.0, 0.3)]


def run(
    p: float, q: float, order: int, nerves: int, **forced: float
) -> tuple[float, dict[str, float]]:
    """Probability of a state of the roots, and every site's value in it, some of them forced."""
    roots = {"order": torch.tensor(float(order)), "nerves": torch.tensor(float(nerves))}
    program = pyro.poutine.condition(model, roots)
    with Force(forced):
        trace = pyro.poutine.trace(program).get_trace(p, q)
    # From the parameters, since Pyro's log_prob clamps probabilities of 0 and 1.
    probability = (p if order else 1 - p) * (q if nerves else 1 - q)
    return probability, {name: trace.nodes[name]["value"].item() for name in SITES}


class Force(pyro.poutine.messenger.Messenger):
    """Sets deterministic sites, which Pyro's own ``do`` leaves alone: that is all an action is here."""

    def __init__(self, values: dict[str, float]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.values:
            msg["value"] = torch.tensor(self.values[msg["name"]])
            msg["done"] = True


@pytest.mark.parametrize(("order", "nerves"), STATES)
def test_equations(order: int, nerves: int) -> None:
    _, values = run(0.6, 0.25, order, nerves)
    assert values["captain"] == values["rifleman_b"] == order
    assert values["rifleman_a"] == values["death"] == max(order, nerves)


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_alive_had_a_not_fired(p: float, q: float) -> None:
    dead = alive = 0.0
    for order, nerves in STATES:
        weight, factual = run(p, q, order, nerves)
        _, counterfactual = run(p, q, order, nerves, rifleman_a=0.0)
        dead += weight * (factual["death"] == 1)
        alive += weight * (factual["death"] == 1) * (counterfactual["death"] == 0)
    assert alive / dead == pytest.approx(alive_had_a_not_fired(p, q), abs=1e-12)


def test_known_answers_are_those_of_the_defaults() -> None:
    states = [run(0.6, 0.25, *state) for state in STATES]
    dead = sum(weight * values["death"] for weight, values in states)
    ordered = sum(weight * values["death"] * values["order"] for weight, values in states)
    assert dead == pytest.approx(KNOWN["dead"], abs=1e-12)
    assert ordered / dead == pytest.approx(KNOWN["order_given_dead"], abs=1e-12)
    assert alive_had_a_not_fired() == pytest.approx(KNOWN["alive_had_a_not_fired"], abs=1e-12)
