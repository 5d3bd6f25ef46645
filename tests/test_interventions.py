"""cp.do: every kind of intervention, its three forms, and its life among Pyro's own handlers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import causalppl as cp

N = dist.Normal


def chain() -> torch.Tensor:
    z = pyro.sample("z", N(0.0, 1.0))
    x = pyro.sample("x", N(z, 1.0))
    d = pyro.deterministic("d", 2 * x)
    return pyro.sample("y", N(d + z, 1.0))


def values(model: Any, *args: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    """The values of one run, with the caller's generator left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trace = poutine.trace(model).get_trace(*args)
    return {n: node["value"] for n, node in trace.nodes.items() if node["type"] == "sample"}


def log_prob(model: Any, given: dict[str, Any]) -> float:
    trace = poutine.trace(poutine.condition(model, data=given)).get_trace()
    return float(torch.as_tensor(trace.log_prob_sum()))


# --- Hard ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        3,
        3.0,
        np.float64(3.0),
        np.float32(3.0),
        np.array(3.0),
        np.array(3),
        torch.tensor(3.0),
        torch.tensor(3),
        torch.tensor(3.0, dtype=torch.float64),
        True + 2,
    ],
    ids=str,
)
def test_hard_values_of_every_kind(value: Any) -> None:
    run = values(cp.do(chain, {"x": value}))
    assert float(run["x"]) == 3.0 and float(run["d"]) == 6.0
    assert run["x"].dtype == run["d"].dtype == torch.float32
    assert run["x"].shape == ()


def test_a_hard_value_takes_the_sites_dtype() -> None:
    def model() -> None:
        a = pyro.sample("a", N(torch.zeros((), dtype=torch.float64), 1.0))
        c = pyro.sample("c", dist.Categorical(torch.ones(4) / 4))
        pyro.sample("b", dist.Bernoulli(0.5))
        pyro.deterministic("both", a + c)

    run = values(cp.do(model, {"a": torch.tensor(1.5), "c": 2.0, "b": 1}))
    assert run["a"].dtype == torch.float64 and run["c"].dtype == torch.int64
    assert run["b"].dtype == torch.float32
    assert float(run["both"]) == 3.5 and int(run["c"]) == 2


def test_a_fraction_is_refused_for_an_integer_site() -> None:
    def model() -> None:
        pyro.sample("c", dist.Categorical(torch.ones(4) / 4))

    with pytest.raises(cp.errors.InterventionError, match=r"1\.5 for site 'c'"):
        cp.do(model, {"c": 1.5})()


def test_hard_values_broadcast_to_the_site() -> None:
    def model() -> None:
        with pyro.plate("units", 4):
            x = pyro.sample("x", N(0.0, 1.0))
            v = pyro.sample("v", N(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("y", N(x + v.sum(-1), 1.0))

    run = values(cp.do(model, {"x": 2.0, "v": torch.tensor([1.0, 2.0, 3.0])}))
    assert run["x"].shape == (4,) and bool((run["x"] == 2).all())
    assert run["v"].shape == (4, 3) and torch.equal(run["v"][3], torch.tensor([1.0, 2.0, 3.0]))
    run = values(cp.do(model, {"x": np.arange(4)}))
    assert torch.equal(run["x"], torch.arange(4.0))
    run = values(cp.do(model, {"v": torch.arange(4.0)[:, None]}))
    assert torch.equal(run["v"], torch.arange(4.0)[:, None].expand(4, 3))


def test_downstream_reads_the_intervened_value_and_upstream_does_not() -> None:
    plain, done = values(chain), values(cp.do(chain, {"x": 50.0}))
    assert torch.equal(plain["z"], done["z"])
    assert float(done["x"]) == 50 and float(done["d"]) == 100 and abs(float(done["y"]) - 100) < 10


def test_zero_is_a_value() -> None:
    run = values(cp.do(chain, {"x": 0, "z": 0.0}))
    assert float(run["x"]) == 0 and float(run["z"]) == 0 and float(run["d"]) == 0


def test_a_deterministic_site() -> None:
    run = values(cp.do(chain, {"d": -20.0}))
    assert float(run["d"]) == -20 and abs(float(run["y"]) + 20) < 10
    assert torch.equal(run["x"], values(chain)["x"])


def test_an_observed_site_can_be_set() -> None:
    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0), obs=torch.tensor(4.0))
        pyro.sample("y", N(x, 1.0))

    run = values(cp.do(model, {"x": -4.0}))
    assert float(run["x"]) == -4 and float(run["y"]) < 0


def test_an_empty_mapping_changes_nothing() -> None:
    assert values(cp.do(chain, {})) == values(chain)


def test_gradients_flow_through_a_hard_value() -> None:
    value = torch.tensor(1.0, requires_grad=True)
    values(cp.do(chain, {"x": value}))["d"].backward()
    assert float(value.grad) == 2.0


# --- The density leaves the joint ---------------------------------------------------------------


@pytest.mark.parametrize("site", ["z", "x", "y", "d"])
def test_the_density_of_a_set_site_leaves_the_joint(site: str) -> None:
    given = {"z": torch.tensor(0.3), "x": torch.tensor(-1.0), "y": torch.tensor(2.0)}
    set_to = 0.9
    full = {**given, site: torch.tensor(set_to)}
    d = full.get("d", 2 * full["x"])
    terms = {
        "z": N(0.0, 1.0).log_prob(full["z"]),
        "x": N(full["z"], 1.0).log_prob(full["x"]),
        "y": N(d + full["z"], 1.0).log_prob(full["y"]),
    }
    expected = float(sum(t for name, t in terms.items() if name != site))
    rest = {name: v for name, v in given.items() if name != site}
    assert log_prob(cp.do(chain, {site: set_to}), rest) == pytest.approx(expected, abs=1e-5)


def test_the_density_of_a_functional_intervention_leaves_too() -> None:
    given = {"z": torch.tensor(0.3), "y": torch.tensor(2.0)}
    done = cp.do(chain, {"x": cp.policy(lambda v: 2 * v["z"])})
    expected = N(0.0, 1.0).log_prob(given["z"]) + N(4 * given["z"] + given["z"], 1.0).log_prob(
        given["y"]
    )
    assert log_prob(done, given) == pytest.approx(float(expected), abs=1e-5)


def test_an_observed_site_that_is_set_has_no_likelihood() -> None:
    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", N(x, 1.0), obs=torch.tensor(100.0))

    done = cp.do(model, {"y": 1.0})
    assert log_prob(done, {"x": torch.tensor(0.5)}) == pytest.approx(
        float(N(0.0, 1.0).log_prob(torch.tensor(0.5))), abs=1e-5
    )


# --- Functional, stochastic, policy, where ------------------------------------------------------


def test_shift_and_callables_act_on_the_natural_value() -> None:
    plain = values(chain)
    assert torch.allclose(values(cp.do(chain, {"x": cp.shift(2.0)}))["x"], plain["x"] + 2)
    assert torch.allclose(values(cp.do(chain, {"x": lambda x: x**2}))["x"], plain["x"] ** 2)
    assert torch.allclose(values(cp.do(chain, {"d": cp.shift(-1.0)}))["d"], plain["d"] - 1)
    assert torch.allclose(values(cp.do(chain, {"x": torch.abs}))["x"], plain["x"].abs())


def test_shift_by_a_tensor_per_unit() -> None:
    def model() -> None:
        with pyro.plate("units", 3):
            pyro.sample("x", N(0.0, 1.0))

    by = torch.tensor([0.0, 1.0, -2.0])
    assert torch.allclose(values(cp.do(model, {"x": cp.shift(by)}))["x"], values(model)["x"] + by)


def test_a_distribution_replaces_the_mechanism() -> None:
    def model() -> None:
        with pyro.plate("units", 20_000):
            z = pyro.sample("z", N(5.0, 1.0))
            x = pyro.sample("x", N(z, 1.0))
            pyro.sample("y", N(x, 0.1))

    run = values(cp.do(model, {"x": N(-1.0, 0.5)}))
    assert run["x"].shape == (20_000,)
    assert float(run["x"].mean()) == pytest.approx(-1.0, abs=4 * 0.5 / math.sqrt(20_000))
    assert float(run["x"].std()) == pytest.approx(0.5, abs=0.015)
    assert abs(float(torch.corrcoef(torch.stack([run["z"], run["x"]]))[0, 1])) < 4 / math.sqrt(
        20_000
    )
    assert float((run["y"] - run["x"]).std()) == pytest.approx(0.1, abs=0.01)


def test_a_distribution_that_is_callable_is_a_distribution() -> None:
    """Pyro's distributions can be called; they are tested before "any callable"."""
    assert callable(N(0.0, 1.0))
    run = values(cp.do(chain, {"x": N(1000.0, 1e-3)}))
    assert abs(float(run["x"]) - 1000) < 1


def test_a_policy_reads_upstream_values_of_its_own_world() -> None:
    def model() -> None:
        with pyro.plate("units", 50):
            z = pyro.sample("z", N(0.0, 1.0))
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", N(x + z, 1.0))

    treat = cp.policy(lambda v: (v["z"] > 0).float())
    run = values(cp.do(model, {"x": treat}))
    assert torch.equal(run["x"], (run["z"] > 0).float())
    run = values(cp.do(model, {"x": treat, "z": 1.0}))
    assert bool((run["x"] == 1).all())


def test_a_policy_may_read_deterministic_and_earlier_set_sites() -> None:
    run = values(cp.do(chain, {"x": 1.5, "y": cp.policy(lambda v: v["d"] * 10)}))
    assert float(run["y"]) == 30.0


def test_where_leaves_the_others_their_natural_value() -> None:
    def model() -> None:
        with pyro.plate("units", 4):
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.deterministic("double", 2 * x)

    mask = torch.tensor([True, False, False, True])
    plain = values(model)
    run = values(cp.do(model, {"x": cp.where(mask, 9.0)}))
    assert torch.equal(run["x"], torch.where(mask, torch.tensor(9.0), plain["x"]))
    assert torch.equal(run["double"], 2 * run["x"])
    run = values(cp.do(model, {"x": cp.where(np.asarray(mask), np.arange(4.0))}))
    assert torch.equal(run["x"], torch.where(mask, torch.arange(4.0), plain["x"]))


def test_kinds_that_nest() -> None:
    """where takes any intervention as its value."""

    def model() -> None:
        with pyro.plate("units", 4):
            pyro.sample("x", N(0.0, 1.0))

    mask = torch.tensor([True, False, False, True])
    run = values(cp.do(model, {"x": cp.where(mask, cp.shift(10.0))}))
    assert torch.allclose(run["x"], values(model)["x"] + 10.0 * mask)


def test_kinds_in_counterfactual_worlds() -> None:
    """The same kinds, applied to abducted people: the natural value is the one this world would have had."""
    evidence = {"z": 0.5, "x": 1.0, "y": 3.0}  # y - d - z = .5
    posterior = cp.abduct(chain, evidence=evidence, seed=0)()
    worlds = posterior.predict(
        worlds={
            "shift": {"x": cp.shift(2.0)},
            "square": {"x": lambda x: (x + 1) ** 2},
            "policy": {"x": cp.policy(lambda v: 4 * v["z"])},
            "upstream too": {"z": 1.5, "x": cp.shift(2.0)},
            "mask": {"x": cp.where(torch.tensor(False), 7.0)},
            "deterministic": {"d": 0.0},
        }
    )
    expected = {
        "shift": (3.0, 7.0),
        "square": (4.0, 9.0),
        "policy": (2.0, 5.0),
        "upstream too": (4.0, 10.0),
        "mask": (1.0, 3.0),
        "deterministic": (1.0, 1.0),
    }
    for world, (x, y) in expected.items():
        assert float(worlds.tensor("x", world=world)[0]) == pytest.approx(x, abs=1e-5), world
        assert float(worlds.tensor("y", world=world)[0]) == pytest.approx(y, abs=1e-5), world


def test_a_distribution_in_a_counterfactual_world_has_its_own_law_and_leaves_noise_downstream() -> (
    None
):
    worlds = cp.counterfactual(
        chain, {"x": N(10.0, 2.0)}, {"z": 0.5, "x": 1.0, "y": 3.0}, num_samples=4000, seed=0
    )()
    x, y = worlds.tensor("x", world="counterfactual"), worlds.tensor("y", world="counterfactual")
    assert x.shape == (4000,)
    assert float(x.mean()) == pytest.approx(10.0, abs=4 * 2 / math.sqrt(4000))
    assert float(x.std()) == pytest.approx(2.0, rel=0.06)
    torch.testing.assert_close(y, 2 * x + 1.0, rtol=1e-4, atol=1e-4)
    assert bool((worlds.tensor("x", world="factual") == 1.0).all())


# --- Forms --------------------------------------------------------------------------------------


def test_three_forms() -> None:
    expected = values(cp.do(chain, {"x": 3.0}))

    @cp.do({"x": 3.0})
    def decorated() -> torch.Tensor:
        return chain()

    def with_block() -> torch.Tensor:
        with cp.do({"x": 3.0}):
            return chain()

    assert values(decorated) == expected
    assert values(with_block) == expected
    with cp.do({"x": 3.0}):
        assert values(chain) == expected
    assert float(values(chain)["x"]) != 3.0
    assert pyro.poutine.runtime._PYRO_STACK == []


def test_a_context_manager_can_be_used_again() -> None:
    handler = cp.do({"x": 3.0})
    for _ in range(2):
        with handler:
            assert float(values(chain)["x"]) == 3.0


def test_arguments_and_the_return_value_pass_through() -> None:
    def model(a: float, *, b: float = 0.0) -> tuple[str, torch.Tensor]:
        x = pyro.sample("x", N(0.0, 1.0))
        return "result", x + a + b

    name, value = cp.do(model, {"x": 1.0})(10.0, b=100.0)
    assert name == "result" and float(value) == 111.0


def test_modules_and_bound_methods() -> None:
    class Model(pyro.nn.PyroModule):
        def forward(self, a: float) -> torch.Tensor:
            return pyro.sample("x", N(a, 1.0))

    model = Model()
    assert float(cp.do(model, {"x": 5.0})(0.0)) == 5.0
    assert float(cp.do(model.forward, {"x": 5.0})(0.0)) == 5.0


class Mine(Exception):
    pass


def test_a_users_exception_passes_through_unchanged() -> None:
    error = Mine("as it was")

    def model() -> None:
        pyro.sample("x", N(0.0, 1.0))
        raise error

    with pytest.raises(Mine) as caught:
        cp.do(model, {"x": 1.0})()
    assert caught.value is error
    # The unknown site is not what went wrong: the run never got to its end.
    with pytest.raises(Mine) as caught:
        cp.do(model, {"nowhere": 1.0})()
    assert caught.value is error
    assert pyro.poutine.runtime._PYRO_STACK == []


# --- Order --------------------------------------------------------------------------------------


def test_nested_interventions_the_outer_acts_on_the_inner() -> None:
    one, two = {"x": 1.0}, {"x": 2.0}
    assert float(values(cp.do(cp.do(chain, one), two))["x"]) == 2.0
    assert float(values(cp.do(cp.do(chain, two), one))["x"]) == 1.0
    assert float(values(cp.do(cp.do(chain, one), {"x": cp.shift(2.0)}))["x"]) == 3.0
    assert float(values(cp.do(cp.do(chain, {"x": cp.shift(2.0)}), one))["x"]) == 1.0
    shifted = values(cp.do(cp.do(chain, {"x": cp.shift(2.0)}), {"x": cp.shift(3.0)}))["x"]
    assert torch.allclose(shifted, values(chain)["x"] + 5)
    doubled = values(cp.do(cp.do(chain, {"x": cp.shift(2.0)}), {"x": lambda x: 2 * x}))["x"]
    assert torch.allclose(doubled, 2 * (values(chain)["x"] + 2))


def test_nested_interventions_on_a_deterministic_site() -> None:
    assert float(values(cp.do(cp.do(chain, {"d": 1.0}), {"d": cp.shift(2.0)}))["d"]) == 3.0


def test_nested_context_managers() -> None:
    with cp.do({"x": cp.shift(2.0)}), cp.do({"x": 1.0}):  # the second is the inner one
        assert float(values(chain)["x"]) == 3.0


def test_interventions_on_different_sites_commute() -> None:
    a = values(cp.do(cp.do(chain, {"x": 1.0}), {"z": 2.0}))
    b = values(cp.do(cp.do(chain, {"z": 2.0}), {"x": 1.0}))
    assert a == b == values(cp.do(chain, {"x": 1.0, "z": 2.0}))


def test_a_program_with_a_do_of_its_own_can_be_asked_counterfactuals() -> None:
    done = cp.do(chain, {"x": 1.0})
    worlds = cp.counterfactual(done, {"x": cp.shift(1.0)}, {"z": 0.0, "y": 2.5})()
    assert float(worlds.tensor("x", world="factual")[0]) == 1.0
    assert float(worlds.tensor("x", world="counterfactual")[0]) == 2.0
    assert float(worlds.tensor("y", world="counterfactual")[0]) == pytest.approx(4.5, abs=1e-5)


# --- Among Pyro's handlers ----------------------------------------------------------------------


def test_replay_does_not_undo_a_do() -> None:
    with torch.random.fork_rng():
        trace = poutine.trace(chain).get_trace()
    run = values(poutine.replay(cp.do(chain, {"x": 7.0}), trace=trace))
    assert float(run["x"]) == 7.0
    assert torch.equal(run["z"], trace.nodes["z"]["value"])
    assert torch.equal(run["y"], trace.nodes["y"]["value"])


def test_do_around_replay() -> None:
    with torch.random.fork_rng():
        trace = poutine.trace(chain).get_trace()
    run = values(cp.do(poutine.replay(chain, trace=trace), {"x": cp.shift(1.0)}))
    assert torch.allclose(run["x"], trace.nodes["x"]["value"] + 1)


def test_condition_elsewhere_composes_in_both_orders() -> None:
    data = {"z": torch.tensor(0.25), "y": torch.tensor(1.0)}
    for model in (
        poutine.condition(cp.do(chain, {"x": 1.0}), data=data),
        cp.do(poutine.condition(chain, data=data), {"x": 1.0}),
    ):
        trace = poutine.trace(model).get_trace()
        assert float(trace.nodes["x"]["value"]) == 1.0
        assert float(trace.nodes["z"]["value"]) == 0.25
        expected = N(0.0, 1.0).log_prob(data["z"]) + N(2.25, 1.0).log_prob(data["y"])
        assert float(trace.log_prob_sum()) == pytest.approx(float(expected), abs=1e-5)


def test_do_acts_on_what_an_inner_condition_gives() -> None:
    inner = poutine.condition(chain, data={"x": torch.tensor(1.0)})
    assert float(values(cp.do(inner, {"x": 5.0}))["x"]) == 5.0
    assert float(values(cp.do(inner, {"x": cp.shift(2.0)}))["x"]) == 3.0


def test_block_hides_a_set_site() -> None:
    run = values(poutine.block(cp.do(chain, {"x": 5.0}), hide=["x"]))
    assert "x" not in run and float(run["d"]) == 10.0


def test_scale_and_mask_outside() -> None:
    given = {"z": torch.tensor(0.3), "y": torch.tensor(2.0)}
    done = cp.do(chain, {"x": 1.0})
    once = log_prob(done, given)
    assert log_prob(poutine.scale(done, scale=3.0), given) == pytest.approx(3 * once, rel=1e-5)


def test_pyro_do_inside() -> None:
    assert (
        float(values(cp.do(poutine.do(chain, data={"z": torch.tensor(9.0)}), {"x": 1.0}))["x"])
        == 1.0
    )


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(parallel: bool) -> None:
    predictive = pyro.infer.Predictive(cp.do(chain, {"x": 2.0}), num_samples=400, parallel=parallel)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = predictive()
    assert found["y"].shape == (400,)
    assert float(found["y"].mean()) == pytest.approx(4.0, abs=4 * math.sqrt(2 / 400))


def test_predictive_with_posterior_samples() -> None:
    samples = {"z": torch.linspace(-1, 1, 5)}
    with torch.random.fork_rng():
        found = pyro.infer.Predictive(
            cp.do(chain, {"x": cp.policy(lambda v: v["z"] * 2)}),
            posterior_samples=samples,
            return_sites=["d"],
        )()
    assert torch.allclose(found["d"].flatten(), 4 * samples["z"])


def test_svi_and_importance_run_under_do() -> None:
    """A do'd program is a program: its joint has no intervened site for a guide to miss."""

    def guide() -> None:
        pyro.sample("z", N(pyro.param("m", torch.tensor(0.0)), 1.0))

    model = poutine.condition(cp.do(chain, {"x": 1.0}), data={"y": torch.tensor(3.0)})
    with pyro.get_param_store().scope():
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO())
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for _ in range(150):
                svi.step()
        assert float(pyro.param("m").detach()) == pytest.approx(0.5, abs=0.3)


def test_enumeration_of_a_discrete_site_beside_a_set_one() -> None:
    @pyro.infer.config_enumerate
    def model() -> None:
        a = pyro.sample("a", dist.Bernoulli(0.3))
        x = pyro.sample("x", dist.Bernoulli(0.1 + 0.8 * a))
        pyro.sample("y", dist.Bernoulli(0.2 + 0.3 * x + 0.3 * a), obs=torch.tensor(1.0))

    done = cp.do(model, {"x": 1.0})
    elbo = pyro.infer.TraceEnum_ELBO(max_plate_nesting=0)
    loss = elbo.loss(done, lambda: None)
    assert math.exp(-loss) == pytest.approx(0.7 * 0.5 + 0.3 * 0.8, abs=1e-5)


# --- Plates -------------------------------------------------------------------------------------


def subsampled() -> None:
    with pyro.plate("units", 10, subsample_size=4) as index:
        pyro.deterministic("index", index.float())
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", N(x, 1.0))


def test_a_value_of_the_plates_full_size_is_indexed_by_the_subsample() -> None:
    for seed in range(3):
        run = values(cp.do(subsampled, {"x": 100 + torch.arange(10.0)}), seed=seed)
        assert torch.equal(run["x"], 100 + run["index"])


def test_a_shift_and_a_mask_of_full_size_are_indexed_too() -> None:
    by = torch.arange(10.0)
    plain, run = values(subsampled), values(cp.do(subsampled, {"x": cp.shift(by)}))
    assert torch.equal(plain["index"], run["index"])
    assert torch.allclose(run["x"], plain["x"] + by[run["index"].long()])
    mask = by > 4
    run = values(cp.do(subsampled, {"x": cp.where(mask, 3.0)}))
    assert torch.equal(
        run["x"], torch.where(mask[run["index"].long()], torch.tensor(3.0), plain["x"])
    )


def test_a_number_in_a_subsampled_plate() -> None:
    run = values(cp.do(subsampled, {"x": 2.0}))
    assert run["x"].shape == (4,) and bool((run["x"] == 2).all())


def test_sequential_plates() -> None:
    def model() -> None:
        for i in pyro.plate("i", 3):
            pyro.sample(f"x_{i}", N(0.0, 1.0))

    run = values(cp.do(model, {"x_1": 5.0}))
    assert float(run["x_1"]) == 5 and float(run["x_0"]) != 5


def test_a_scale_of_a_subsampled_plate_stays_with_the_rest() -> None:
    def model() -> None:
        with pyro.plate("units", 10, subsample=torch.arange(5)):
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", N(x, 1.0), obs=torch.zeros(5))

    expected = 2 * N(1.0, 1.0).log_prob(torch.zeros(5)).sum()
    assert log_prob(cp.do(model, {"x": 1.0}), {}) == pytest.approx(float(expected), rel=1e-5)


@contextlib.contextmanager
def validation(on: bool) -> Iterator[None]:
    with pyro.validation_enabled(on):
        yield


@pytest.mark.parametrize("on", [True, False])
def test_with_and_without_validation(on: bool) -> None:
    with validation(on):
        assert float(values(cp.do(chain, {"x": 2.0}))["d"]) == 4.0
