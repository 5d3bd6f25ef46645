"""Twin and multi-world programs: the original's density, shared noise, and Pyro's own inference on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from monte_carlo import assert_moments
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal

import causalppl as cp
from causalppl import errors

N = dist.Normal


def simple() -> torch.Tensor:
    x = pyro.sample("x", N(0.0, 1.0))
    pyro.deterministic("square", x * x)
    with poutine.scale(scale=2.0):
        y = pyro.sample("y", N(2 * x, 1.0))
    pyro.factor("weight", -(y**2))
    return y


def plated() -> torch.Tensor:
    theta = pyro.sample("theta", dist.Gamma(2.0, 1.0))
    with pyro.plate("people", 3):
        x = pyro.sample("x", dist.Bernoulli(0.4))
        m = pyro.sample("m", dist.Poisson(theta * (1 + x)))
        with poutine.mask(mask=torch.tensor([True, False, True])):
            c = pyro.sample("c", dist.Categorical(logits=torch.stack([x, m, theta + x], -1)))
    return c


def subsampled() -> torch.Tensor:
    with pyro.plate("people", 6, subsample_size=2):
        x = pyro.sample("x", N(0.0, 1.0))
        y = pyro.sample("y", N(x, 1.0), obs=torch.zeros(2))
    return y


def vectors() -> torch.Tensor:
    x = pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
    y = pyro.sample("y", N(x @ torch.tensor([[1.0, 2.0], [0.5, 1.0]]), 1.0).to_event(1))
    return y.sum()


@pytest.mark.parametrize("model", [simple, plated, subsampled, vectors])
@pytest.mark.parametrize("seed", range(3))
def test_the_density_is_that_of_the_original(model: Callable[[], Any], seed: int) -> None:
    worlds = {"null": {}, "set": {"x": 1.0}, "moved": {"x": lambda v: 1 - v}}
    pyro.set_rng_seed(seed)
    trace = poutine.trace(cp.multi_world(model, worlds)).get_trace()
    own = poutine.trace(poutine.replay(model, trace=trace)).get_trace()
    trace.compute_log_prob()
    own.compute_log_prob()
    assert float(trace.log_prob_sum()) == float(own.log_prob_sum())
    for name, node in own.nodes.items():
        if node["type"] == "sample":
            assert torch.equal(node["value"], trace.nodes[name]["value"])
            assert float(node["log_prob_sum"]) == float(trace.nodes[name]["log_prob_sum"])
    for name, node in trace.nodes.items():
        if "/" in name:
            assert node["infer"]["_deterministic"] and float(node["log_prob_sum"]) == 0
            world, site = name.split("/")
            if world == "null":  # the same noise: nothing moves
                assert torch.equal(node["value"], own.nodes[site]["value"])


def test_the_factual_draws_are_those_of_the_original() -> None:
    pyro.set_rng_seed(0)
    alone = vectors()
    pyro.set_rng_seed(0)
    both = cp.twin_world(vectors, {"x": 1.0})()
    assert torch.equal(alone, both["factual"])
    assert list(both) == ["factual", "counterfactual"]


def test_noise_is_shared() -> None:
    def model() -> None:
        with pyro.plate("people", 200):
            x = pyro.sample("x", N(0.0, 1.0))
            y = pyro.sample("y", N(2 * x, 0.5))
            pyro.sample("z", dist.Exponential(torch.exp(-y / 5)))

    trace = poutine.trace(cp.multi_world(model, {"a": {"x": 1.0}, "b": {"y": 0.0}})).get_trace()
    v = {name: node["value"] for name, node in trace.nodes.items() if node["type"] == "sample"}
    torch.testing.assert_close(v["a/y"] - 2.0, v["y"] - 2 * v["x"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(v["b/x"], v["x"])
    unit = v["z"] * torch.exp(-v["y"] / 5)  # the exponential of rate one
    torch.testing.assert_close(v["b/z"], unit, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(v["a/z"] * torch.exp(-v["a/y"] / 5), unit, rtol=1e-3, atol=1e-4)


def test_every_form_of_intervention_in_one_world_program() -> None:
    def model() -> torch.Tensor:
        with pyro.plate("people", 3):
            x = pyro.sample("x", N(0.0, 1.0))
            m = pyro.sample("m", N(x, 1.0))
            return pyro.sample("y", N(x + 10 * m, 1.0))

    dose = torch.tensor([1.0, 2.0, 3.0])
    worlds: dict[str, Any] = {
        "dose": {"x": dose},
        "shift": {"x": cp.shift(1.0)},
        "function": {"x": lambda v: 2 * v},
        "policy": {"m": cp.policy(lambda v: v["x"] + 1)},
        "where": {"x": cp.where(dose > 1.5, 0.0)},
        "nested": {"x": 5.0, "m": cp.from_world("dose")},
        "drawn": {"x": N(0.0, 1.0)},
        "drawn too": {"x": N(1.0, 1.0)},
    }
    trace = poutine.trace(cp.multi_world(model, worlds)).get_trace()
    v = {name: node["value"] for name, node in trace.nodes.items() if node["type"] == "sample"}
    x, m, y = v["x"], v["m"], v["y"]
    natural = {
        "dose": (dose, dose + m - x),
        "shift": (x + 1, m + 1),
        "function": (2 * x, m + x),
        "policy": (x, x + 1),
        "where": (torch.where(dose > 1.5, 0.0, x), m - torch.where(dose > 1.5, x, 0.0)),
        "nested": (torch.full((3,), 5.0), dose + m - x),
    }
    for world, (there, mediator) in natural.items():
        torch.testing.assert_close(v[f"{world}/x"], there, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(v[f"{world}/m"], mediator, rtol=1e-4, atol=1e-4)
        expected = there + 10 * mediator + (y - x - 10 * m)
        torch.testing.assert_close(v[f"{world}/y"], expected, rtol=1e-4, atol=1e-3)
    # the noise of a mechanism put in is one for a site, as all noise is
    torch.testing.assert_close(v["drawn too/x"], v["drawn/x"] + 1)
    assert not torch.allclose(v["drawn/x"], x)


def test_full_size_doses_follow_the_subsample() -> None:
    amounts = 10 * torch.arange(6.0)
    worlds = {"set": {"x": amounts}, "shift": {"x": cp.shift(amounts)}}
    trace = poutine.trace(cp.multi_world(subsampled, worlds)).get_trace()
    index = trace.nodes["people"]["value"]
    torch.testing.assert_close(trace.nodes["set/x"]["value"], amounts[index])
    moved = trace.nodes["shift/x"]["value"] - trace.nodes["x"]["value"]
    torch.testing.assert_close(moved, amounts[index])


def test_nan_in_a_world_is_nan() -> None:
    def model() -> torch.Tensor:
        x = pyro.sample("x", dist.Exponential(1.0))
        return pyro.deterministic("log", torch.log(x))

    twin = cp.twin_world(model, {"x": lambda v: -v})
    trace = poutine.trace(twin).get_trace()
    assert math.isnan(float(trace.nodes["counterfactual/log"]["value"]))
    # a handler may state again the value that it has
    given = {"counterfactual/log": torch.tensor(math.nan)}
    assert math.isnan(float(poutine.condition(twin, given)()["counterfactual"]))


def test_worlds_share_the_noise_of_discrete_sites_too() -> None:
    """Given the value, the noise of a coin is random in a cell: drawn once, for all worlds."""

    def model() -> None:
        with pyro.plate("people", 500):
            x = pyro.sample("x", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Bernoulli(0.2 + 0.5 * x))

    worlds = {"on": {"x": 1.0}, "also on": {"x": 1.0}, "off": {"x": 0.0}}
    trace = poutine.trace(cp.multi_world(model, worlds)).get_trace()
    on, also, off = (trace.nodes[f"{w}/y"]["value"] for w in worlds)
    assert torch.equal(on, also)
    assert bool((on >= off).all()) and bool((on > off).any())


# --- Pyro's inference ---------------------------------------------------------------------------


def observed(y: torch.Tensor) -> None:
    z = pyro.sample("z", N(0.0, 1.0))
    x = pyro.sample("x", N(z, 1.0))
    pyro.sample("y", N(x + z, 1.0), obs=y)


def test_svi_sees_the_same_objective() -> None:
    twin = cp.twin_world(observed, {"x": 0.0})
    losses = []
    for program in (observed, twin):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        guide = AutoNormal(observed)
        svi = SVI(program, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
        losses.append([svi.step(torch.tensor(1.0)) for _ in range(5)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_vectorised_particles() -> None:
    twin = cp.twin_world(observed, {"x": 0.0})
    elbo = Trace_ELBO(num_particles=2000, vectorize_particles=True, max_plate_nesting=0)
    pyro.set_rng_seed(1)
    guide = AutoNormal(observed)
    found = elbo.loss(twin, guide, torch.tensor(1.0))
    pyro.set_rng_seed(1)
    pyro.clear_param_store()
    guide = AutoNormal(observed)
    assert found == pytest.approx(elbo.loss(observed, guide, torch.tensor(1.0)), rel=1e-4)


def test_enumeration_sees_the_same_marginal() -> None:
    @config_enumerate
    def model(y: torch.Tensor) -> None:
        z = pyro.sample("z", dist.Bernoulli(0.3))
        x = pyro.sample("x", dist.Bernoulli(0.2 + 0.5 * z))
        pyro.sample("y", N(x + z, 1.0), obs=y)

    joint = {
        (z, x): (0.3 if z else 0.7) * abs(1 - x - (0.2 + 0.5 * z)) for z in (0, 1) for x in (0, 1)
    }
    density = sum(
        p * math.exp(-((1.0 - x - z) ** 2) / 2) / math.sqrt(2 * math.pi)
        for (z, x), p in joint.items()
    )
    elbo = TraceEnum_ELBO(max_plate_nesting=0)
    twin = cp.twin_world(model, {"x": 0.0})
    assert elbo.loss(twin, lambda y: None, torch.tensor(1.0)) == pytest.approx(-math.log(density))


def test_predictive_gives_coupled_worlds() -> None:
    twin = cp.twin_world(observed, {"x": 0.0})
    samples = {"z": torch.randn(50), "x": torch.randn(50)}
    for parallel in (False, True):
        found = Predictive(twin, samples, parallel=parallel)(torch.tensor(1.0))
        torch.testing.assert_close(found["counterfactual/z"].flatten(), samples["z"])
        expected = 1.0 - samples["x"]  # y0 = y - x: the noise of y = 1
        torch.testing.assert_close(
            found["counterfactual/y"].flatten(), expected, rtol=1e-4, atol=1e-4
        )


@pytest.mark.slow
def test_nuts_on_a_twin() -> None:
    """Given y = 1: (z, x) normal with precision [[3, 0], [0, 2]] + cross terms; y0 = 1 - x."""
    kernel = NUTS(cp.twin_world(observed, {"x": 0.0}))
    pyro.set_rng_seed(0)
    run = MCMC(kernel, num_samples=1000, warmup_steps=200, disable_progbar=True)
    run.run(torch.tensor(1.0))
    # z ~ N(0,1), x ~ N(z,1), y = x + z + e: precision of (z, x) is [[1 + 1 + 1, -1 + 1], [0, 1 + 1]]
    cov = torch.linalg.inv(torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
    mean = cov @ torch.tensor([1.0, 1.0])
    draws = run.get_samples()
    assert_moments(draws["z"], float(mean[0]), float(cov[0, 0]), 300)
    assert_moments(draws["x"], float(mean[1]), float(cov[1, 1]), 300)
    found = Predictive(cp.twin_world(observed, {"x": 0.0}), draws)(torch.tensor(1.0))
    assert_moments(found["counterfactual/y"].flatten(), 1 - float(mean[1]), float(cov[1, 1]), 300)


# --- What is refused ----------------------------------------------------------------------------


def test_evidence_on_a_site_of_another_world() -> None:
    twin = cp.twin_world(simple, {"x": 1.0})
    with pytest.raises(errors.ProgramError, match=r"give cp\.abduct the evidence with worlds="):
        poutine.condition(twin, {"counterfactual/y": torch.tensor(1.0)})()


def test_names_that_collide() -> None:
    def model() -> None:
        y = pyro.sample("a/y", N(0.0, 1.0))
        pyro.sample("y", N(y, 1.0))

    with pytest.raises(errors.WorldNameError, match="choose another name for the world"):
        cp.multi_world(model, {"a": {}})()
    cp.multi_world(model, {"b": {}})()


@pytest.mark.parametrize(
    ("worlds", "error", "message"),
    [
        ({"factual": {}}, errors.WorldNameError, "is reserved"),
        ({"a/b": {}}, errors.WorldNameError, "without '/'"),
        ({"a": 1.0}, errors.InterventionError, "as a mapping such as"),
        ({"a": {"q": 1.0}}, errors.UnknownSiteError, "no site 'q'"),
        ({"a": {"x": float("nan")}}, errors.InterventionError, "NaN"),
        (
            {"a": {"x": N(0.0, 1.0).expand([2]).to_event(1)}},
            errors.IncompatibleMechanismError,
            "leave out",
        ),
        ({"a": {"weight": 1.0}}, errors.UnknownSiteError, "no site 'weight'"),
    ],
)
def test_messages(worlds: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cp.multi_world(simple, worlds)()


def test_a_block_around_a_question_says_where_the_change_belongs() -> None:
    for verb in (cp.do({"x": 1.0}), cp.set_mechanism({"y": "antitone"})):
        with pytest.raises(errors.UnknownSiteError, match=r"cp\.\w+\(model, \.\.\.\)"), verb:
            cp.abduct(simple, num_samples=10)().predict()
