"""The known answers of the five models about identification, by enumeration of the programs in plain Pyro; then their graphs."""

from __future__ import annotations

import importlib
import itertools

import pyro
import pytest
import torch

import causalppl as cp

#: Model to treatment, outcome, and the sites that are measured.
MODELS = {
    "kidney_stones": ("treatment", "success", "large treatment success"),
    "front_door": ("smoking", "cancer", "smoking tar cancer"),
    "instrument": ("train", "employed", "offer train employed"),
    "m_bias": ("x", "y", "m x y"),
    "napkin": ("x", "y", "w z x y"),
}


def load(name: str):
    return importlib.import_module(f"models.{name}")


def probability(program, **event: float) -> float:
    """The program's probability of an event, summed over all values of all sites."""
    sites = [
        n for n, s in pyro.poutine.trace(program).get_trace().nodes.items() if s["type"] == "sample"
    ]
    total = 0.0
    for values in itertools.product((0.0, 1.0), repeat=len(sites)):
        at = dict(zip(sites, values, strict=True))
        if all(at.get(n, v) == v for n, v in event.items()):
            data = {n: torch.tensor(v) for n, v in at.items()}
            trace = pyro.poutine.trace(pyro.poutine.condition(program, data)).get_trace()
            total += trace.log_prob_sum().double().exp().item()
    return total


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_known_answers(name: str, value: float) -> None:
    module, (x, y, _) = load(name), MODELS[name]
    done = pyro.poutine.do(module.model, {x: torch.tensor(value)})
    known = module.KNOWN[f"doing_{int(value)}"]
    # Pyro's do leaves a copy of the site without effect, which sums to one
    assert probability(done, **{y: 1.0}) == pytest.approx(known, abs=1e-5)
    if f"seeing_{int(value)}" in module.KNOWN:
        seen = probability(module.model, **{x: value, y: 1.0}) / probability(
            module.model, **{x: value}
        )
        assert seen == pytest.approx(module.KNOWN[f"seeing_{int(value)}"], abs=1e-5)


def graph(name: str):
    return cp.causal_graph(load(name).model, observed=MODELS[name][2].split())()


@pytest.mark.parametrize(
    ("name", "backdoor", "frontdoor", "instruments", "identified"),
    [
        ("kidney_stones", [{"large"}], [], [], True),
        ("front_door", [], [{"tar"}], [], True),
        ("instrument", [], [], ["offer"], False),
        ("m_bias", [set()], [], [], True),
        ("napkin", [], [], None, True),
    ],
)
def test_verdicts(name, backdoor, frontdoor, instruments, identified) -> None:
    found, (x, y, _) = graph(name), MODELS[name]
    assert found.backdoor_sets(x, y) == backdoor
    assert found.frontdoor_sets(x, y) == frontdoor
    if instruments is not None:
        assert list(found.instruments(x, y)) == instruments
    verdict = found.identify(f"P({y} | do({x}))")
    assert verdict.identified is identified and (verdict.hedge is None) is identified


def test_adjusting_for_m_is_biased() -> None:
    model = load("m_bias").model
    adjusted = sum(
        probability(model, m=m)
        * probability(model, m=m, x=1.0, y=1.0) / probability(model, m=m, x=1.0)
        for m in (0.0, 1.0)
    )  # fmt: skip
    assert abs(adjusted - 0.65) > 0.01
