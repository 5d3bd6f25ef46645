"""Effects of finite programs are exact: published answers, and loops over all noise."""

from __future__ import annotations

import itertools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from noise_tables import NoiseTables

import causalppl as cp

#: z confounds; m and k mediate, and m also acts through k.
GRAPH = {"z": (), "t": ("z",), "m": ("t", "z"), "k": ("t", "m"), "y": ("t", "m", "k", "z")}


def mediation():
    """Primer, section 4.5.2."""
    double = {"dtype": torch.float64}
    t = pyro.sample("t", dist.Bernoulli(torch.tensor(0.5, **double)))
    m = pyro.sample("m", dist.Bernoulli(torch.tensor([0.40, 0.75], **double)[t.long()]))
    table = torch.tensor([[0.2, 0.3], [0.4, 0.8]], **double)
    return pyro.sample("y", dist.Bernoulli(table[t.long(), m.long()]))


SITES = {"treatment": "t", "outcome": "y"}


def test_the_primers_mediation():
    effects = cp.effects
    direct = effects.natural_direct_effect(mediation, **SITES, mediators=["m"])()
    indirect = effects.natural_indirect_effect(mediation, **SITES, mediators=["m"])()
    total = effects.total_effect(mediation, **SITES)()
    found = [float(direct), float(indirect), float(total)]
    assert found == pytest.approx([0.32, 0.035, 0.46], abs=1e-12)
    assert all(e.exact and e.standard_error == 0.0 for e in (direct, indirect, total))
    assert (direct.rung, total.rung) == (3, 2)
    # the total effect is the direct one minus the indirect one of the way back
    back = effects.natural_indirect_effect(
        mediation, **SITES, mediators=["m"], treated=0.0, control=1.0
    )()
    assert float(total) == pytest.approx(float(direct) - float(back), abs=1e-12)
    for m, expected in ((0.0, 0.2), (1.0, 0.5)):
        held = effects.controlled_direct_effect(mediation, **SITES, mediator="m", at=m)()
        assert float(held) == pytest.approx(expected, abs=1e-12)


def cases(w):
    """Estimate, and the same of one noise, for every effect; ``w`` is a program."""
    e, run = cp.effects, w.program
    difference = lambda f: f(t=1)["y"] - f(t=0)["y"]  # noqa: E731
    yield e.average_treatment_effect(run, **SITES)(), w.mean(difference)
    yield e.total_effect(run, **SITES, treated=0, control=1)(), -w.mean(difference)
    yield e.effect_on_treated(run, **SITES)(), w.mean(difference, lambda f: f()["t"] == 1)
    yield (
        e.effect_on_treated(run, **SITES, treated=0.0, control=1.0)(),
        -w.mean(difference, lambda f: f()["t"] == 0),
    )
    yield (
        e.controlled_direct_effect(run, **SITES, mediator="m", at=1.0)(),
        w.mean(lambda f: f(t=1, m=1)["y"] - f(t=0, m=1)["y"]),
    )
    yield (
        e.natural_direct_effect(run, **SITES, mediators=["m"])(),
        w.mean(lambda f: f(t=1, m=f(t=0)["m"])["y"] - f(t=0)["y"]),
    )
    yield (
        e.natural_direct_effect(run, **SITES, mediators=["k", "m"])(),
        w.mean(lambda f: f(t=1, m=f(t=0)["m"], k=f(t=0)["k"])["y"] - f(t=0)["y"]),
    )
    yield (
        e.natural_indirect_effect(run, **SITES, mediators=["m", "k"])(),
        w.mean(lambda f: f(t=0, m=f(t=1)["m"], k=f(t=1)["k"])["y"] - f(t=0)["y"]),
    )


@pytest.mark.parametrize("seed", range(4))
def test_every_effect_of_random_programs(seed):
    w = NoiseTables(GRAPH, np.random.default_rng(seed))
    for i, (found, expected) in enumerate(cases(w)):
        assert found.exact
        assert float(found) == pytest.approx(expected, abs=1e-9), (i, found.text)


def along(w, path):
    """The effect along a path, written out: each site of it is computed from its assignment, with other parents under control."""

    def value(f, noise):
        base = f(t=0)
        carried = {"t": 1}
        for before, site in itertools.pairwise(path):
            inputs = {**base, before: carried[before]}
            p = w.tables[site][tuple(inputs[q] for q in w.parents[site])]
            carried = {site: int(noise[site] < p)}
        return carried["y"] - base["y"]

    total = 0.0
    for noise, p in w.cells():
        total += p * value(lambda noise=noise, **d: w.world(noise, **d), noise)
    return total


@pytest.mark.parametrize(
    "path", [["t", "y"], ["t", "m", "y"], ["t", "k", "y"], ["t", "m", "k", "y"]], ids="-".join
)
def test_path_specific_effects_of_random_programs(path):
    for seed in range(3):
        w = NoiseTables(GRAPH, np.random.default_rng(100 + seed))
        found = cp.effects.path_specific_effect(w.program, **SITES, path=path)()
        assert found.exact
        assert float(found) == pytest.approx(along(w, path), abs=1e-9)
        recants = any("recanting" in note for note in found.diagnostics.notes)
        assert recants == ("m" in path)


def test_a_path_that_is_an_arrow_is_the_natural_direct_effect():
    w = NoiseTables(GRAPH, np.random.default_rng(3))
    direct = cp.effects.natural_direct_effect(w.program, **SITES, mediators=["m", "k"])()
    arrow = cp.effects.path_specific_effect(w.program, **SITES, path=["t", "y"])()
    assert float(direct) == pytest.approx(float(arrow), abs=1e-12)


def test_conditional_effects_are_one_for_each_level():
    w = NoiseTables(GRAPH, np.random.default_rng(11))
    found = cp.effects.conditional_effect(w.program, **SITES, by="z")()
    expected = [
        w.mean(lambda f: f(t=1)["y"] - f(t=0)["y"], lambda f, z=z: f()["z"] == z) for z in (0, 1)
    ]
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert (found.site, found.at.tolist(), found.exact, found.rung) == ("z", [0.0, 1.0], True, 2)
    assert isinstance(found, cp.Estimate)
    # a site that the treatment moves tells groups apart by what happened, a counterfactual
    after = cp.effects.conditional_effect(w.program, **SITES, by="m", levels=[1.0])()
    difference = w.mean(lambda f: f(t=1)["y"] - f(t=0)["y"], lambda f: f()["m"] == 1)
    assert (after.rung, after.value.tolist()) == (3, pytest.approx([difference], abs=1e-9))


def test_dose_response_of_a_finite_program():
    def model():
        t = pyro.sample("t", dist.Binomial(3, 0.5))
        return pyro.sample("y", dist.Bernoulli((t / 4) ** 2))

    curve = cp.effects.dose_response(model, **SITES, doses=[0, 1, 2, 3])()
    assert curve.value == pytest.approx([0, 1 / 16, 4 / 16, 9 / 16], abs=1e-7)
    assert (curve.exact, curve.rung, curve.at.tolist()) == (True, 2, [0, 1, 2, 3])


def test_the_individual_effect_is_the_posterior_of_one_unit():
    w = NoiseTables(GRAPH, np.random.default_rng(5))
    evidence = {"z": 1.0, "t": 0.0, "y": 0.0}
    found = cp.effects.individual_effect(w.program, **SITES, evidence=evidence)()

    def seen(f):
        return all(f()[n] == v for n, v in evidence.items())

    difference = lambda f: f(t=1)["y"] - f(t=0)["y"]  # noqa: E731
    assert float(found) == pytest.approx(w.mean(difference, seen), abs=1e-9)
    assert (found.exact, found.rung, found.standard_error) == (True, 3, 0.0)
    # y was 0 untreated, so the effect of this unit is 0 or 1, and either has more than 2.5%
    share = w.mean(lambda f: difference(f) == 1, seen)
    assert 0.025 < share < 0.975 and found.interval == (0.0, 1.0)
    sampled = cp.effects.individual_effect(
        w.program, **SITES, evidence=evidence, method=cp.Enumeration(), num_samples=4_000, seed=1
    )()
    assert abs(float(sampled) - share) < 4.5 * sampled.standard_error
    assert (sampled.exact, sampled.interval) == (False, (0.0, 1.0))


def test_effects_average_over_the_posterior_of_finite_parameters():
    def model():
        kind = pyro.sample("kind", dist.Bernoulli(0.5))
        t = pyro.sample("t", dist.Bernoulli(0.5))
        pyro.sample("hint", dist.Bernoulli(0.25 + 0.5 * kind))
        return pyro.sample("y", dist.Bernoulli(0.25 + 0.5 * t * kind))

    found = cp.effects.average_treatment_effect(
        model, **SITES, evidence={"hint": 1.0}, over="sample"
    )()
    assert float(found) == pytest.approx(0.75 * 0.5, abs=1e-7)
    assert float(cp.effects.average_treatment_effect(model, **SITES)()) == pytest.approx(0.25)
    named = cp.effects.average_treatment_effect(
        model, **SITES, evidence={"hint": 1.0}, parameters=["kind"]
    )()
    assert float(named) == pytest.approx(0.75 * 0.5, abs=1e-7)
    assert named.interval == pytest.approx((0.0, 0.5), abs=1e-7)
