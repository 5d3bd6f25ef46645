"""Effects of programs that are not finite: closed forms with interaction and nonlinearity, and intervals that cover."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp

SITES = {"treatment": "t", "outcome": "y"}


def near(found, expected, width=4.5):
    """Within Monte Carlo error, everywhere."""
    value, error = np.asarray(found.value), np.asarray(found.standard_error)
    assert np.all(np.abs(value - np.asarray(expected)) <= width * error + 1e-6), (value, expected)


def gaussian(a=0.7, b=2.0, c=1.5, d=0.4, e=0.8):
    """Mediation with interaction and a confounder: y = b m + c t + d t m + e z + noise, m = a t + z + noise."""
    z = pyro.sample("z", dist.Normal(1.0, 1.0))
    t = pyro.sample("t", dist.Bernoulli(logits=z))
    m = pyro.sample("m", dist.Normal(a * t + z, 1.0))
    return pyro.sample("y", dist.Normal(b * m + c * t + d * t * m + e * z, 1.0))


def test_closed_forms_with_interaction():
    e = cp.effects
    mean_m0, mean_m1 = 1.0, 1.7
    total = e.average_treatment_effect(gaussian, **SITES, seed=1)()
    near(total, 2.0 * 0.7 + 1.5 + 0.4 * mean_m1)
    assert (total.rung, total.exact) == (2, False)
    near(e.natural_direct_effect(gaussian, **SITES, mediators=["m"], seed=2)(), 1.5 + 0.4 * mean_m0)
    near(e.natural_indirect_effect(gaussian, **SITES, mediators=["m"], seed=3)(), 2.0 * 0.7)
    # with the mediator held, everything else of a unit is the same in both worlds
    held = e.controlled_direct_effect(gaussian, **SITES, mediator="m", at=2.0, seed=4)()
    assert float(held) == pytest.approx(1.5 + 0.4 * 2.0, abs=1e-4)
    near(e.path_specific_effect(gaussian, **SITES, path=["t", "m", "y"], seed=5)(), 2.0 * 0.7)


def test_the_treated_differ_by_their_confounder():
    grid = torch.linspace(-9.0, 11.0, 20_001, dtype=torch.float64)
    law = torch.exp(-0.5 * (grid - 1.0) ** 2) * torch.sigmoid(grid)
    z_treated = float((grid * law).sum() / law.sum())
    found = cp.effects.effect_on_treated(gaussian, **SITES, seed=1)()
    near(found, 2.0 * 0.7 + 1.5 + 0.4 * (0.7 + z_treated))
    assert found.rung == 3
    average = 2.0 * 0.7 + 1.5 + 0.4 * 1.7
    assert float(found) - average > 10 * found.standard_error


def test_conditional_effects_along_a_grid():
    found = cp.effects.conditional_effect(
        gaussian, **SITES, by="z", levels=[-1.0, 0.0, 2.0], seed=1
    )()
    near(found, [2.0 * 0.7 + 1.5 + 0.4 * (0.7 + z) for z in (-1.0, 0.0, 2.0)])
    assert (found.rung, found.at.tolist()) == (2, [-1.0, 0.0, 2.0])
    chosen = cp.effects.conditional_effect(gaussian, **SITES, by="z", num_samples=500, seed=1)()
    assert len(chosen.at) == 7
    near(chosen, 2.0 * 0.7 + 1.5 + 0.4 * (0.7 + chosen.at))
    quantiles = 1.0 + torch.special.ndtri(torch.tensor([0.05, 0.5, 0.95])).numpy()
    assert chosen.at[[0, 3, 6]] == pytest.approx(quantiles, abs=0.2)


def nonlinear():
    t = pyro.sample("t", dist.Normal(0.0, 1.0))
    m = pyro.sample("m", dist.Normal(0.5 * t, 1.0))
    return pyro.sample("y", dist.Normal(torch.exp(m) + t**2, 1.0))


def test_nonlinear_dose_response():
    doses = [-1.0, 0.0, 1.0, 2.0]
    curve = cp.effects.dose_response(nonlinear, **SITES, doses=doses, num_samples=20_000, seed=1)()
    near(curve, [math.exp(0.5 * d + 0.5) + d**2 for d in doses])
    assert curve.interval[0].shape == curve.standard_error.shape == (4,)


def test_nonlinear_natural_effects():
    e = cp.effects
    sites = {**SITES, "treated": 2.0, "control": 1.0}
    near(e.natural_direct_effect(nonlinear, **sites, mediators=["m"], seed=1)(), 3.0)
    indirect = e.natural_indirect_effect(nonlinear, **sites, mediators=["m"], seed=2)()
    near(indirect, math.exp(1.5) - math.exp(1.0))


def test_the_error_of_a_contrast_knows_what_its_worlds_share():
    def opposed():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        t = pyro.sample("t", dist.Bernoulli(0.5))
        pyro.deterministic("y", (2 * t - 1) * z)

    def parallel():
        z = pyro.sample("z", dist.Normal(0.0, 5.0))
        t = pyro.sample("t", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(t + z, 1.0))

    ask = cp.effects.average_treatment_effect
    found = ask(opposed, **SITES, num_samples=4_000, seed=1)()
    assert found.standard_error == pytest.approx(2 / math.sqrt(4_000), rel=0.1)
    same = ask(parallel, **SITES, num_samples=1_000, seed=1)()
    assert float(same) == pytest.approx(1.0, abs=1e-4) and same.standard_error < 1e-4


def test_outcomes_with_event_dims():
    def model():
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        return pyro.sample("y", dist.Normal(torch.arange(3.0) * t, 1.0).to_event(1))

    found = cp.effects.average_treatment_effect(model, **SITES, treated=2.0, seed=1)()
    assert found.value == pytest.approx([0.0, 2.0, 4.0], abs=1e-4)
    curve = cp.effects.dose_response(model, **SITES, doses=[0.0, 1.0], seed=1)()
    assert curve.value.shape == (2, 3)
    near(curve, [[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]])


# --- People and parameters --------------------------------------------------------------------------------------------


def people(n=60):
    """The effect is b (1 + z): b is shared, z is a person's own."""
    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    with pyro.plate("people", n):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        t = pyro.sample("t", dist.Bernoulli(logits=z))
        pyro.sample("y", dist.Normal(b * t * (1 + z) + z, 1.0))


def observed(n=60, b=2.0, seed=3):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, generator=generator)
    t = (torch.rand(n, generator=generator) < torch.sigmoid(z)).float()
    y = b * t * (1 + z) + z + torch.randn(n, generator=generator)
    return {"z": z, "t": t, "y": y}


def posterior_of_b(data):
    """Mean and sd of b, a conjugate linear regression."""
    x = (data["t"] * (1 + data["z"])).double()
    precision = float((x**2).sum()) + 0.01
    return float((x * (data["y"] - data["z"]).double()).sum()) / precision, precision**-0.5


@pytest.fixture(scope="module")
def data():
    return observed()


def keywords(data):
    return {**SITES, "evidence": data, "num_samples": 2_000, "seed": 1}


def test_the_interval_of_an_average_is_the_posterior_of_its_parameters(data):
    mean, sd = posterior_of_b(data)
    found = cp.effects.average_treatment_effect(people, **keywords(data))()
    # new people: E[b (1 + z)] = b
    near(found, mean)
    low, high = found.interval
    assert low == pytest.approx(mean - 1.96 * sd, abs=0.25 * sd)
    assert high == pytest.approx(mean + 1.96 * sd, abs=0.25 * sd)
    assert found.draws.shape == (2_000,) and found.rung == 2
    # the observed people have a z of their own
    own = cp.effects.average_treatment_effect(people, **keywords(data), over="sample")()
    near(own, mean * float(1 + data["z"].mean()))


def test_the_effect_on_the_treated_people(data):
    mean, sd = posterior_of_b(data)
    share = float((1 + data["z"])[data["t"] == 1].mean())
    found = cp.effects.effect_on_treated(people, **keywords(data))()
    near(found, mean * share)
    assert found.interval[1] - found.interval[0] == pytest.approx(2 * 1.96 * sd * share, rel=0.15)


def test_one_individual_effect_for_each_person(data):
    mean, sd = posterior_of_b(data)
    found = cp.effects.individual_effect(people, **keywords(data))()
    each = (1 + data["z"]).double().numpy()
    assert found.value.shape == (60,) and found.draws.shape == (2_000, 60)
    near(found, mean * each)
    width = found.interval[1] - found.interval[0]
    assert width == pytest.approx(2 * 1.96 * sd * np.abs(each), rel=0.15)
    assert found.diagnostics.mechanisms == {"y": "affine"}


def test_conditional_effects_of_people_on_a_grid(data):
    mean, sd = posterior_of_b(data)
    grid = [-2.0, 0.0, 1.5]
    found = cp.effects.conditional_effect(people, **keywords(data), by="z", levels=grid)()
    near(found, [mean * (1 + z) for z in grid])
    assert found.draws.shape == (2_000, 3)
    width = found.interval[1] - found.interval[0]
    assert width == pytest.approx([2 * 1.96 * sd * abs(1 + z) for z in grid], rel=0.2)
    chosen = cp.effects.conditional_effect(people, **keywords(data), by="z")()
    assert chosen.at[3] == pytest.approx(np.median(data["z"].numpy()), abs=1e-6)


def test_a_grid_of_a_site_that_latents_move():
    """z is moved by the ability a, which moves the effect: E[a | z] = z / 2."""

    def model(n=40):
        with pyro.plate("people", n):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(a, 1.0))
            t = pyro.sample("t", dist.Bernoulli(logits=z))
            pyro.sample("y", dist.Normal(3 * t * a, 1.0))

    grid = [-1.0, 0.0, 2.0]
    found = cp.effects.conditional_effect(
        model, **SITES, by="z", levels=grid, num_samples=200, seed=1
    )()
    near(found, [3 * z / 2 for z in grid])


def test_conditional_effects_of_people_by_a_discrete_site():
    def model(n=300):
        with pyro.plate("people", n):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.3, 0.2])))
            t = pyro.sample("t", dist.Bernoulli(0.2 + 0.3 * (z == 1)))
            pyro.sample("y", dist.Normal(t * (z + 1) ** 2, 1.0))

    found = cp.effects.conditional_effect(model, **SITES, by="z", seed=1)()
    assert found.at.tolist() == [0, 1, 2]
    assert found.value == pytest.approx([1, 4, 9], abs=1e-4)


def test_a_posterior_is_sampled_once_for_a_whole_curve(data):
    class Counting(cp.ImportanceSampling):
        calls = 0

        def sample(self, form, num_samples, progress):
            Counting.calls += 1
            return super().sample(form, num_samples, progress)

    method = Counting("laplace")
    given = {**keywords(data), "method": method, "num_samples": 400}
    curve = cp.effects.dose_response(people, **given, doses=[0.0, 1.0])()
    assert Counting.calls == 1
    # both doses are of the same draws of b
    difference = curve.draws[:, 1] - curve.draws[:, 0]
    assert difference.std() == pytest.approx(posterior_of_b(data)[1], rel=0.2)


@pytest.mark.slow
def test_intervals_cover():
    inside = 0
    for seed in range(100):
        truth = float(np.random.default_rng(seed).normal(0.0, 2.0))
        given = {**keywords(observed(b=truth, seed=seed)), "num_samples": 500, "seed": seed}
        found = cp.effects.average_treatment_effect(people, **given)()
        inside += found.interval[0] <= truth <= found.interval[1]
    assert inside >= 88  # P(fewer) < .003 at 95%


def test_couplings_of_categories_are_warned_of():
    def model():
        t = pyro.sample("t", dist.Bernoulli(0.5))
        p = torch.where(t > 0, torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5]))
        k = pyro.sample("k", dist.Categorical(p))
        return pyro.sample("y", dist.Normal(1.0 * k, 1.0))

    with pytest.warns(cp.errors.CouplingWarning, match="effect_on_treated: the answer depends"):
        # whether a unit's category changes is a matter of coupling
        cp.effects.effect_on_treated(model, **SITES, num_samples=500, seed=1)()
    with pytest.warns(cp.errors.CouplingWarning, match="individual_effect"):
        cp.effects.individual_effect(model, **SITES, evidence={"t": 0.0, "y": 1.0}, seed=1)()
