"""Questions of many worlds: targets, doses, patterns, nested counterfactuals, policies, gradients, cost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import reference
import torch
from monte_carlo import assert_moments, assert_share

import causalppl as cp
from causalppl import errors

N = dist.Normal


def chain() -> None:
    v = torch.zeros(())
    for i in range(5):
        v = pyro.sample(f"v{i}", N(2 * v + 1, 1.0))


OBSERVED = {f"v{i}": x for i, x in enumerate([0.5, 1.0, -1.0, 2.0, 0.0])}


def chain_by_hand(change: Callable[[str, float], float]) -> dict[str, float]:
    """v_i = 2 v_(i-1) + 1 + e_i with the noise of what was observed; ``change`` gets each natural value."""
    last, was, out = 0.0, 0.0, {}
    for i in range(5):
        name = f"v{i}"
        noise = OBSERVED[name] - (2 * was + 1)
        was = OBSERVED[name]
        last = out[name] = change(name, 2 * last + 1 + noise)
    return out


CHANGES: dict[str, tuple[dict[Any, Any], Callable[[str, float], float]]] = {
    "hard": ({"v1": 3.0}, lambda n, v: 3.0 if n == "v1" else v),
    "two at once": ({"v0": 1.0, "v3": -1.0}, lambda n, v: {"v0": 1.0, "v3": -1.0}.get(n, v)),
    "last only": ({"v4": 9.0}, lambda n, v: 9.0 if n == "v4" else v),
    "shift": ({"v2": cp.shift(0.5)}, lambda n, v: v + 0.5 if n == "v2" else v),
    "function": ({"v2": lambda v: v * v}, lambda n, v: v * v if n == "v2" else v),
    "pattern": ({re.compile(r"v[13]"): 2.0}, lambda n, v: 2.0 if n in ("v1", "v3") else v),
    "pattern and name": (
        {re.compile(r"v.*"): cp.shift(1.0), "v3": 7.0},
        lambda n, v: 7.0 if n == "v3" else v + 1.0,
    ),
    "nothing": ({}, lambda n, v: v),
    "null": ({"v2": lambda v: v}, lambda n, v: v),
    "integer": ({"v1": 3}, lambda n, v: 3.0 if n == "v1" else v),
    "masked": ({"v1": cp.where(torch.tensor(False), 3.0)}, lambda n, v: v),
}


def test_worlds_of_every_kind_together_are_each_as_by_hand() -> None:
    posterior = cp.abduct(chain, OBSERVED)()
    worlds = posterior.predict(worlds={name: given for name, (given, _) in CHANGES.items()})
    assert worlds.num_draws == 1
    for name, (given, change) in CHANGES.items():
        expected = chain_by_hand(change)
        alone = posterior.predict(worlds={name: given})
        for site, value in expected.items():
            assert float(worlds.tensor(site, name)) == pytest.approx(value, abs=1e-4), (name, site)
            assert float(alone.tensor(site, name)) == pytest.approx(value, abs=1e-4), (name, site)


def test_another_target_in_every_world() -> None:
    worlds = {f"do {i}": {f"v{i}": 10.0 + i} for i in range(5)}
    found = cp.counterfactual(chain, evidence=OBSERVED, worlds=worlds)()
    for i in range(5):
        expected = chain_by_hand(lambda n, v, i=i: 10.0 + i if n == f"v{i}" else v)
        for site, value in expected.items():
            assert float(found.tensor(site, f"do {i}")) == pytest.approx(value, abs=1e-4)


def test_a_policy_reads_the_values_of_its_own_world() -> None:
    rule = cp.policy(lambda v: v["v0"] - v["v1"])
    found = cp.counterfactual(
        chain, evidence=OBSERVED, worlds={"a": {"v0": 5.0, "v2": rule}, "b": {"v2": rule}}
    )()
    # in "a": v1 = 2 * 5 + 1 + e1, and e1 = 1 - (2 * .5 + 1) = -1
    assert float(found.tensor("v2", "a")) == pytest.approx(5 - 10)
    assert float(found.tensor("v2", "b")) == pytest.approx(0.5 - 1.0)


def test_several_worlds_in_which_nothing_is_done() -> None:
    """They are the factual world, at its speed: no warning that the program runs row by row."""
    found = cp.abduct(chain, num_samples=10, seed=0)().predict(worlds={"a": {}, "b": {}, "c": {}})
    for site in found.sites:
        for world in "abc":
            assert torch.equal(found.tensor(site, world), found.tensor(site, "factual"))


# --- Doses --------------------------------------------------------------------------------------


def people() -> None:
    with pyro.plate("people", 4):
        z = pyro.sample("z", N(0.0, 1.0))
        x = pyro.sample("x", N(z, 1.0))
        pyro.sample("y", N(x * x + z, 0.5))


FACTS = {
    "z": torch.tensor([0.0, 1.0, -1.0, 0.5]),
    "x": torch.tensor([1.0, 1.0, 0.0, 2.0]),
    "y": torch.tensor([1.0, 3.0, -1.0, 4.0]),
}


def test_tensor_doses_per_person_and_per_world() -> None:
    doses = torch.tensor([0.0, 0.5, 1.0, 2.0])
    worlds = {
        "each": {"x": doses},
        "same": {"x": torch.tensor(2.0)},
        "array": {"x": doses.double().numpy()},
        "list": {"x": doses.tolist()},
        "more": {"x": cp.shift(doses)},
        "some": {"x": cp.where(doses > 0.7, doses)},
    }
    found = cp.counterfactual(people, evidence=FACTS, worlds=worlds)()
    residual = FACTS["y"] - FACTS["x"] ** 2 - FACTS["z"]
    some = torch.where(doses > 0.7, doses, FACTS["x"])
    for name, x in {
        "each": doses,
        "same": torch.full((4,), 2.0),
        "array": doses,
        "list": doses,
        "more": FACTS["x"] + doses,
        "some": some,
    }.items():
        torch.testing.assert_close(found.tensor("x", name)[0], x)
        expected = x**2 + FACTS["z"] + residual
        torch.testing.assert_close(found.tensor("y", name)[0], expected, rtol=1e-5, atol=1e-5)


def test_full_size_amounts_in_a_subsampled_plate() -> None:
    """A shift, a mask and a value of the plate's full size are indexed by the subsample, in every world."""

    def model() -> None:
        with pyro.plate("people", 6, subsample_size=2):
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", N(x, 1.0))

    amounts = 10 * torch.arange(6.0)
    evidence = {"x": torch.zeros(2), "y": torch.ones(2)}
    worlds = {
        "value": {"x": amounts},
        "shift": {"x": cp.shift(amounts)},
        "mask": {"x": cp.where(amounts > 25, cp.shift(amounts))},
    }
    found = cp.counterfactual(model, evidence=evidence, worlds=worlds, seed=0)()
    mine = amounts[found["x"].coords["people"].values.tolist()]
    for name, expected in {
        "value": mine,
        "shift": mine,
        "mask": torch.where(mine > 25, mine, 0.0),
    }.items():
        torch.testing.assert_close(found.tensor("x", name)[0], expected)
        torch.testing.assert_close(found.tensor("y", name)[0], expected + 1)


def test_gradients_with_respect_to_doses() -> None:
    """y = x^2 + z + e, and a mediator's world: derivatives in closed form, and by finite differences."""

    def effect(doses: torch.Tensor, world: str) -> torch.Tensor:
        worlds = {
            "hard": {"x": doses},
            "shift": {"x": cp.shift(doses)},
            "policy": {"x": cp.policy(lambda v: v["z"] * doses)},
            "function": {"x": lambda v: v * doses},
            "where": {"x": cp.where(torch.tensor([True, False, True, False]), doses)},
            "nested": {"x": cp.from_world("hard"), "z": 0.0},
        }
        found = cp.abduct(people, FACTS)().predict(worlds=worlds)
        return found.tensor("y", world).sum()

    z, x = FACTS["z"], FACTS["x"]
    doses = torch.tensor([0.3, 0.5, 1.0, 2.0])
    kept = torch.tensor([1.0, 0.0, 1.0, 0.0])
    closed = {
        "hard": 2 * doses,
        "shift": 2 * (x + doses),
        "policy": 2 * z**2 * doses,
        "function": 2 * x**2 * doses,
        "where": 2 * doses * kept,
        "nested": 2 * doses,
    }
    for world, expected in closed.items():
        at = doses.clone().requires_grad_()
        (found,) = torch.autograd.grad(effect(at, world), at)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        step = torch.zeros(4)
        step[2] = 1e-2
        with torch.no_grad():
            difference = (effect(doses + step, world) - effect(doses - step, world)) / 2e-2
        assert float(difference) == pytest.approx(float(expected[2]), abs=2e-2)


def test_gradients_through_drawn_latents() -> None:
    """E[y] given do(x = d) = d^2 + E[z]: the gradient of the mean over draws is 2 d, whatever was drawn."""
    dose = torch.tensor(0.7, requires_grad=True)
    posterior = cp.abduct(people, {"y": FACTS["y"]}, num_samples=100, seed=0)()
    mean = posterior.predict({"x": dose}).tensor("y", "counterfactual").mean()
    (found,) = torch.autograd.grad(mean, dose)
    assert float(found) == pytest.approx(1.4, abs=1e-4)


# --- Cost ---------------------------------------------------------------------------------------


def runs_of(worlds: dict[str, Any]) -> int:
    count = [0]

    def counted() -> None:
        count[0] += 1
        chain()

    posterior = cp.abduct(counted, OBSERVED)()
    posterior.predict(worlds={"a": {"v0": 0.0}})
    count[0] = 0
    found = posterior.predict(worlds=worlds)
    assert len(found.worlds) == len(worlds) + 1
    return count[0]


def test_cost_is_linear_in_worlds() -> None:
    """Hard worlds are rows of one run, whatever their targets; others are a run each. Nothing is a power of their number."""
    hard = runs_of({f"w{i}": {"v1": float(i)} for i in range(300)})
    mixed = runs_of({f"w{i}": {f"v{i % 5}": float(i)} for i in range(300)})
    few = runs_of({f"w{i}": {"v1": float(i)} for i in range(3)})
    shifts = runs_of({f"w{i}": {"v1": cp.shift(float(i))} for i in range(30)})
    assert hard == few <= 4 and mixed <= 4
    assert shifts <= 3 * 30


def test_three_hundred_worlds_are_right() -> None:
    worlds = {f"w{i}": {f"v{i % 5}": float(i)} for i in range(300)}
    found = cp.counterfactual(chain, evidence=OBSERVED, worlds=worlds)()
    for i in (0, 1, 77, 298, 299):
        expected = chain_by_hand(lambda n, v, i=i: float(i) if n == f"v{i % 5}" else v)
        assert float(found.tensor("v4", f"w{i}")) == pytest.approx(expected["v4"], rel=1e-5)


# --- Nested counterfactuals ---------------------------------------------------------------------


def mediation() -> None:
    """Primer 4.5.2."""
    t = pyro.sample("t", dist.Bernoulli(0.5))
    m = pyro.sample("m", dist.Bernoulli(0.40 + 0.35 * t))
    table = torch.tensor([[0.2, 0.3], [0.4, 0.8]])
    pyro.sample("y", dist.Bernoulli(table[t.long(), m.long()]))


def test_natural_effects_of_the_primer() -> None:
    n = 40_000
    worlds = {
        "control": {"t": 0.0},
        "treated": {"t": 1.0},
        "direct": {"t": 1.0, "m": cp.from_world("control")},
        "indirect": {"t": 0.0, "m": cp.from_world("treated")},
    }
    found = cp.abduct(mediation, num_samples=n, seed=0)().predict(worlds=worlds)
    for world, expected in {"direct": 0.32, "indirect": 0.035, "treated": 0.46}.items():
        effect = float(found.contrast("y", world, "control").mean())
        assert effect == pytest.approx(expected, abs=4.5 * 0.7 / np.sqrt(n))
    assert bool((found.tensor("m", "direct") == found.tensor("m", "control")).all())
    assert bool((found.tensor("m", "indirect") == found.tensor("m", "treated")).all())


def test_a_value_from_a_world_that_is_asked_later_and_from_two_worlds() -> None:
    worlds = {
        "late": {"v2": cp.from_world("early"), "v3": cp.from_world("other")},
        "other": {"v1": 4.0},
        "early": {"v0": 2.0},
        "fact": {"v0": 2.0, "v2": cp.from_world("factual")},
    }
    found = cp.counterfactual(chain, evidence=OBSERVED, worlds=worlds)()
    early = chain_by_hand(lambda n, v: 2.0 if n == "v0" else v)
    other = chain_by_hand(lambda n, v: 4.0 if n == "v1" else v)
    late = chain_by_hand(lambda n, v: {"v2": early["v2"], "v3": other["v3"]}.get(n, v))
    assert float(found.tensor("v4", "late")) == pytest.approx(late["v4"], abs=1e-4)
    assert float(found.tensor("v4", "fact")) == pytest.approx(0.0, abs=1e-4)
    assert found.worlds == ("factual", "late", "other", "early", "fact")


def test_circles_of_worlds_are_refused_by_name() -> None:
    circle = {
        "a": {"v1": cp.from_world("b")},
        "b": {"v1": cp.from_world("c")},
        "c": {"v2": cp.from_world("a")},
    }
    with pytest.raises(errors.InterventionError, match="a -> b -> c -> a"):
        cp.counterfactual(chain, worlds=circle)()
    with pytest.raises(errors.InterventionError, match="a -> a"):
        cp.multi_world(chain, {"a": {"v1": cp.from_world("a")}})()
    with pytest.raises(errors.UnknownWorldError, match="did you mean 'control'"):
        cp.counterfactual(chain, worlds={"control": {}, "a": {"v1": cp.from_world("contrl")}})()


def with_and_without_m() -> None:
    """``m`` is there only where ``t`` is 1."""
    t = pyro.sample("t", dist.Bernoulli(0.5))
    if t > 0:
        pyro.sample("m", dist.Normal(0.0, 1.0))


@pytest.mark.filterwarnings("ignore::causalppl.errors.ExecutorWarning")
def test_a_value_from_a_world_without_that_site_is_refused() -> None:
    worlds = {"off": {"t": 0.0}, "on": {"t": 1.0, "m": cp.from_world("off")}}
    with pytest.raises(errors.UnknownSiteError, match=r"'m' is to be as in world 'off'.*'t'"):
        cp.counterfactual(with_and_without_m, worlds=worlds, num_samples=20, seed=0)()
    # Present in some draws of the other world: refused in the draws that lack it.
    worlds = {"on": {"t": 1.0, "m": cp.from_world("factual")}}
    with pytest.raises(errors.InterventionError, match=r"'m'.*'on' gave NaN"):
        cp.counterfactual(with_and_without_m, worlds=worlds, num_samples=20, seed=0)()


# --- Sites that exist in some worlds ------------------------------------------------------------


def branching() -> None:
    x = pyro.sample("x", dist.Bernoulli(0.5))
    if x > 0:
        dose = pyro.sample("dose", N(3.0, 1.0))
    else:
        dose = torch.zeros(())
    pyro.sample("y", N(dose, 0.1))


@pytest.mark.filterwarnings("ignore::causalppl.errors.ExecutorWarning")
def test_sites_that_exist_in_some_worlds() -> None:
    n = 300
    posterior = cp.abduct(branching, num_samples=n, seed=0)()
    worlds = {"treated": {"x": 1.0}, "set": {"x": 1.0, "dose": 5.0}, "untreated": {"x": 0.0}}
    found = posterior.predict(worlds=worlds)
    treated = found.tensor("dose", "treated")
    assert_moments(treated, 3.0, 1.0)
    x, dose = found.tensor("x", "factual"), found.tensor("dose", "factual")
    assert bool((dose.isnan() == (x == 0)).all())
    torch.testing.assert_close(dose[x == 1], treated[x == 1])  # the noise that it had
    assert bool(found["dose"].sel(world="untreated").isnull().all())
    noise = found.tensor("y", "untreated")
    torch.testing.assert_close(found.tensor("y", "treated") - treated, noise, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.tensor("y", "set") - 5.0, noise, rtol=1e-3, atol=1e-4)
    again = posterior.predict(worlds={"treated": {"x": 1.0}})
    torch.testing.assert_close(again.tensor("dose", "treated"), treated)


# --- Factors, names, files ----------------------------------------------------------------------


def test_patterns_pass_factors_by_and_names_of_factors_are_refused() -> None:
    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        y = pyro.sample("y", N(x, 1.0))
        pyro.factor("y_weight", -(y**2))

    changed = cp.do(model, {re.compile("y.*"): 1.0})
    trace = pyro.poutine.trace(changed).get_trace()
    trace.compute_log_prob()
    assert float(trace.nodes["y_weight"]["log_prob_sum"]) == -1.0
    with pytest.raises(errors.UnknownSiteError, match="y_weight"):
        cp.do(model, {"y_weight": 1.0})()
    with pytest.raises(errors.InterventionError, match="sites that can be set are 'x', 'y'"):
        cp.counterfactual(model, {"y_weight": 1.0}, num_samples=10)()
    with pytest.raises(errors.UnknownSiteError, match=r"no site matches the pattern 'w\.\*'"):
        cp.counterfactual(model, {re.compile("w.*"): 1.0}, num_samples=10)()


def test_names_with_slashes_and_dims_without_plates_can_be_kept(tmp_path: Path) -> None:
    def model() -> None:
        with pyro.plate("ward/bed", 2):
            y = pyro.sample("mod/y", N(0.0, 1.0).expand([3, 2]))
        pyro.sample("m.z", N(torch.zeros(4, 1, 2), 1.0))
        pyro.sample("vector", N(torch.zeros(3), 1.0).to_event(1))
        pyro.deterministic("total/sum", y.sum())

    worlds = {"nothing": {"mod/y": 0.0}}
    found = cp.counterfactual(model, worlds=worlds, num_samples=20, seed=0)()
    found.save(tmp_path / "worlds.nc")
    read = type(found).load(tmp_path / "worlds.nc")
    assert read.sites == found.sites
    for site in found.sites:
        torch.testing.assert_close(read.tensor(site, "nothing"), found.tensor(site, "nothing"))
        assert read[site].dims == found[site].dims
    assert found["mod/y"].dims[-1] == "ward/bed"
    assert found.to_arviz().posterior.sizes["draw"] == 20


def test_new_units_reuse_the_parameters() -> None:
    """theta ~ N(0, 1); people's y ~ N(theta + z, 1), z ~ N(0, 1). New people: z follows from their y given theta."""

    def model(count: int) -> None:
        theta = pyro.sample("theta", N(0.0, 1.0))
        with pyro.plate("people", count):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("y", N(theta + z, 1.0))

    y = torch.tensor([1.0, 2.0, 0.0, 1.5])
    mean, cov = reference.normal_posterior(
        np.zeros(1), np.eye(1), np.ones((4, 1)), np.sqrt(2.0), y.double().numpy()
    )
    samples = torch.from_numpy(
        np.random.default_rng(0).normal(mean[0], np.sqrt(cov[0, 0]), 3000)
    ).float()
    z = (y - samples[:, None]) / 2 + np.sqrt(0.5) * torch.randn(
        3000, 4, generator=torch.Generator().manual_seed(0)
    )
    method = cp.PosteriorSamples({"theta": samples, "z": z})
    posterior = cp.abduct(model, {"y": y}, method=method, seed=0)(4)
    later = posterior.for_units(2, evidence={"y": torch.tensor([3.0, float("nan")])})
    found = later.predict({"z": 0.0})
    theta = found.tensor("theta", "factual")
    torch.testing.assert_close(theta, samples)
    zs = found.tensor("z", "factual")
    # z given y = 3 and theta is N((3 - theta) / 2, 1 / 2); mixed over theta
    assert_moments(zs[:, 0], (3 - mean[0]) / 2, 0.5 + cov[0, 0] / 4, 1500)
    assert_moments(zs[:, 1], 0, 1, 1500)
    assert_moments(found.tensor("y", "counterfactual")[:, 1], mean[0], 1 + cov[0, 0], 1500)
    with pytest.raises(errors.UnknownSiteError):
        posterior.for_units(2, evidence={"w": 1.0})


def test_probabilities_of_joint_events_are_shares_of_draws() -> None:
    """y ~ B(.3 + .4 t), monotone: helped .4, hurt 0, always .3, never .3."""

    def model() -> None:
        t = pyro.sample("t", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Bernoulli(0.3 + 0.4 * t))

    found = cp.abduct(model, num_samples=10_000, seed=0)().predict(
        worlds={"on": {"t": 1.0}, "off": {"t": 0.0}}
    )
    for on, off, expected in ((1, 0, 0.4), (0, 1, 0.0), (1, 1, 0.3), (0, 0, 0.3)):
        hits = (found.tensor("y", "on") == on) & (found.tensor("y", "off") == off)
        assert_share(hits, expected)
        event = found.probability(
            lambda w, on=on, off=off: (w["on"]["y"] == on) & (w["off"]["y"] == off)
        )
        assert float(event) == pytest.approx(float(hits.double().mean()))
