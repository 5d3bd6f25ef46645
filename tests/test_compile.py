"""Compiled questions: the same numbers as the program, at other values, and never those of a program that has changed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import causalppl as cp
from causalppl.structural import compiled as compiled_module
from causalppl.structural import tracing


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Traced graphs without machine code, which takes seconds: what is traced is what matters here. Lists the graphs made."""
    monkeypatch.setattr(compiled_module, "has_cpp_compiler", lambda: False)
    made: list[Any] = []
    of = compiled_module.Graph.of.__func__  # type: ignore[attr-defined]

    def counted(cls: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(of(cls, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(compiled_module.Graph, "of", classmethod(counted))
    return made


@pytest.fixture(autouse=True)
def own_params() -> Iterator[None]:
    with pyro.get_param_store().scope():
        yield


def same(a: cp.Worlds, b: cp.Worlds) -> None:
    for site in b:
        np.testing.assert_allclose(
            a[site].values, b[site].values, rtol=1e-5, atol=1e-6, err_msg=site
        )


def triangle(x: Tensor, y: Tensor) -> None:
    with pyro.plate("units", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        t = pyro.sample("t", dist.Bernoulli(logits=z + x))
        pyro.sample("y", dist.Normal(t * x + z, 0.5), obs=y)


def data(units: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, units, generator=generator)
    return x, y


def regression(x: Tensor, y: Tensor, slope: float = 2.0) -> None:
    with pyro.plate("units", len(x)):
        t = pyro.sample("t", dist.Normal(slope * x, 1.0), obs=x + 0.5)
        pyro.sample("y", dist.Normal(slope * t + x, 0.5), obs=y)


# --- The same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worlds", [1, 3])
def test_predict_by_a_graph_is_predict(graphs: list[Any], worlds: int) -> None:
    posterior = cp.abduct(triangle, num_samples=50, seed=1)(*data())
    asked = {f"w{k}": {"t": float(k % 2)} for k in range(worlds)}
    got = posterior.predict(worlds=asked, compile=True)
    assert got.diagnostics.executor == "compiled"
    same(got, posterior.predict(worlds=asked))
    assert len(graphs) == 1


def test_other_values_take_the_same_graph(graphs: list[Any]) -> None:
    posterior = cp.abduct(regression, seed=1)(*data())
    for value in (0.0, 1.0, -3.5):
        got = posterior.predict({"t": value}, compile=True)
        same(got, posterior.predict({"t": value}))
    doses = torch.linspace(0, 1, 6)
    same(posterior.predict({"t": doses}, compile=True), posterior.predict({"t": doses}))
    assert len(graphs) == 2  # a number is a view of one element, a tensor of doses is not


@pytest.mark.parametrize(
    "intervention",
    [
        cp.shift(0.7),
        lambda t: 1.5 * t + 0.1,
        cp.policy(lambda v: (v["z"] > 0).float()),
        cp.where(torch.tensor([True, False, True, False, True, False]), 1.0),
        dist.Normal(0.3, 2.0),
    ],
    ids=["shift", "functional", "policy", "where", "stochastic"],
)
def test_every_kind_of_intervention(graphs: list[Any], intervention: Any) -> None:
    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("units", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            t = pyro.sample("t", dist.Normal(z + x, 1.0))
            pyro.sample("y", dist.Normal(t * x + z, 0.5), obs=y)

    posterior = cp.abduct(model, num_samples=20, seed=1)(*data())
    got = posterior.predict({"t": intervention}, compile=True)
    assert got.diagnostics.executor == "compiled"
    same(got, posterior.predict({"t": intervention}))


def test_values_from_another_world(graphs: list[Any]) -> None:
    posterior = cp.abduct(triangle, num_samples=20, seed=1)(*data())
    worlds: dict[str, Any] = {"on": {"t": 1.0}, "mixed": {"t": 0.0, "y": cp.from_world("on")}}
    same(posterior.predict(worlds=worlds, compile=True), posterior.predict(worlds=worlds))


def test_a_new_shift_or_law_is_seen(graphs: list[Any]) -> None:
    posterior = cp.abduct(regression, num_samples=20, seed=1)(*data())
    for intervention in (
        cp.shift(1.0),
        cp.shift(-2.0),
        dist.Normal(0.0, 1.0),
        dist.Normal(5.0, 1.0),
    ):
        got = posterior.predict({"t": intervention}, compile=True)
        same(got, posterior.predict({"t": intervention}))


def test_compiled_question_of_new_data(graphs: list[Any]) -> None:
    plain = cp.counterfactual(regression, {"t": 1.0}, seed=3)
    fast = cp.compile(plain)
    for seed in range(4):
        got = fast(*data(seed=seed))
        assert got.diagnostics.executor == "compiled"
        same(got, plain(*data(seed=seed)))
        # by hand: the noise of y is what the data leave over
        x, y = data(seed=seed)
        expected = y - 2.0 * (x + 0.5) + 2.0
        torch.testing.assert_close(got.tensor("y", world="counterfactual")[0], expected)
    assert len(graphs) == 1
    same(fast(*data(units=9)), plain(*data(units=9)))
    assert len(graphs) == 2


def test_compiled_question_about_the_prior_and_discrete_sites(graphs: list[Any]) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("units", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            k = pyro.sample("k", dist.Categorical(logits=torch.stack([z, x, z * x], -1)))
            pyro.sample("y", dist.Poisson(torch.exp(0.3 * k + x)))

    plain = cp.counterfactual(model, {"z": 1.0}, num_samples=200, seed=3)
    fast = cp.compile(plain)
    for seed in range(3):
        same(fast(data(seed=seed)[0]), plain(data(seed=seed)[0]))
    assert len(graphs) == 1


def test_without_a_seed_draws_are_new(graphs: list[Any]) -> None:
    def model() -> None:
        pyro.sample("y", dist.Normal(pyro.sample("x", dist.Normal(0.0, 1.0)), 1.0))

    fast = cp.compile(cp.counterfactual(model, {"x": 1.0}, num_samples=5))
    first, second, third = (fast().tensor("y", world="factual") for _ in range(3))
    assert not torch.equal(first, second) and not torch.equal(second, third)


def test_inference_then_a_graph(graphs: list[Any]) -> None:
    plain = cp.counterfactual(triangle, {"t": 1.0}, num_samples=30, seed=3)
    fast = cp.compile(plain)
    for seed in range(2):
        got = fast(*data(seed=seed))
        assert got.diagnostics.executor == "compiled"
        same(got, plain(*data(seed=seed)))
    assert len(graphs) == 1


def test_from_noise_is_the_structural_form(graphs: list[Any]) -> None:
    def model() -> None:
        with pyro.plate("units", 4):
            x = pyro.sample("x", dist.Normal(1.0, 2.0))
            pyro.sample("y", dist.Normal(x**2, 1.0))

    noise = {"x": torch.randn(7, 4), "y": torch.randn(7, 4)}
    plain = cp.counterfactual(model, {"x": 3.0})
    for ask in (plain, cp.compile(plain)):
        worlds = ask.from_noise(noise)
        x = 1.0 + 2.0 * noise["x"]
        torch.testing.assert_close(worlds["factual"]["y"], x**2 + noise["y"])
        torch.testing.assert_close(worlds["counterfactual"]["y"], 9.0 + noise["y"])
    with pytest.raises(cp.errors.UnknownSiteError, match="no site 'w'"):
        plain.from_noise({"w": torch.zeros(1)})
    with pytest.raises(cp.errors.ShapeError, match=r"\[2, 3\]"):
        plain.from_noise({"x": torch.zeros(2, 4), "y": torch.zeros(3, 4)})
    with pytest.raises(cp.errors.NoMechanismError, match="'y' has no noise here"):
        plain.from_noise({"x": torch.zeros(2, 4)})


# --- Never stale -----------------------------------------------------------------------------------------------------


def asked(model: Callable[..., None], interventions: Any, *args: Any) -> Callable[[], None]:
    """Asserts at each call that the compiled question answers as the plain one, which reads the program anew."""
    plain = cp.counterfactual(model, interventions, num_samples=6, seed=0)
    fast = cp.compile(plain)

    def check() -> None:
        same(fast(*args), plain(*args))

    check()
    return check


def test_a_python_argument_that_changes(graphs: list[Any]) -> None:
    plain = cp.counterfactual(regression, {"t": 1.0}, seed=0)
    fast = cp.compile(plain)
    for slope in (2.0, -1.0, 2.0, 0.5):
        same(fast(*data(), slope), plain(*data(), slope))
        same(fast(*data(), slope=slope), plain(*data(), slope=slope))


SCALE = 1.0


def test_closures_globals_and_attributes_that_change(graphs: list[Any]) -> None:
    slope, table, weights = 2.0, {"shift": 0.5, "list": [1.0, 2.0]}, np.array([1.0, 2.0])
    fixed = torch.tensor([1.0, 2.0, 3.0])

    class Model:
        power = 2

        def __init__(self) -> None:
            self.bias = 0.5

        def __call__(self) -> None:
            with pyro.plate("units", 3):
                x = pyro.sample("x", dist.Normal(SCALE, 1.0))
                mean = slope * x**self.power + self.bias + table["shift"] + table["list"][1]
                pyro.sample("y", dist.Normal(mean + float(weights[0]) + fixed, 1.0))

    model = Model()
    check = asked(model, {"x": 1.0})
    slope = 3.0
    check()
    globals()["SCALE"] = 4.0
    check()
    globals()["SCALE"] = 1.0
    check()
    model.bias = -1.0
    check()
    Model.power = 3
    check()
    table["shift"] = 9.0
    check()
    table["list"][1] = 5.0  # type: ignore[index]
    check()
    weights[0] = 7.0
    check()
    fixed[1] = 10.0
    check()
    fixed = torch.tensor([5.0, 6.0, 7.0])
    check()


def test_networks_that_learn_or_are_replaced(graphs: list[Any]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))

    def model(x: Tensor) -> None:
        with pyro.plate("units", len(x)):
            t = pyro.sample("t", dist.Normal(x, 1.0))
            pyro.sample("y", dist.Normal(net(t.unsqueeze(-1)).squeeze(-1), 1.0))

    check = asked(model, {"t": 1.0}, data()[0])
    made = len(graphs)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(3):
        optimiser.zero_grad()
        net(torch.ones(3, 1)).sum().backward()
        optimiser.step()
        check()
    assert len(graphs) == made  # weights are inputs
    net[0].weight = nn.Parameter(torch.randn(4, 1))
    check()
    net[2] = nn.Linear(4, 1)
    check()
    net = nn.Linear(1, 1)
    check()


def test_dropout_is_found_when_it_comes_back(graphs: list[Any]) -> None:
    net = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1)).eval()

    def model(x: Tensor) -> None:
        with pyro.plate("units", len(x)):
            t = pyro.sample("t", dist.Normal(x, 1.0))
            pyro.sample("y", dist.Normal(net(t.unsqueeze(-1)).squeeze(-1), 1.0))

    fast = cp.compile(cp.counterfactual(model, {"t": 1.0}, num_samples=4, seed=0))
    assert fast(data()[0]).diagnostics.executor == "compiled"
    net.train()
    with pytest.raises(cp.errors.NondeterministicProgramError):
        fast(data()[0])


def test_pyro_params_that_change(graphs: list[Any]) -> None:
    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("units", len(x)):
            t = pyro.sample("t", dist.Normal(x, scale))
            pyro.sample("y", dist.Normal(t, scale))

    check = asked(model, {"t": 1.0}, data()[0])
    made = len(graphs)
    pyro.get_param_store()["scale"] = torch.tensor(3.0)
    check()
    assert len(graphs) == made
    pyro.get_param_store().clear()
    check()


def test_a_posterior_keeps_the_weights_that_it_has_read(graphs: list[Any]) -> None:
    net = nn.Linear(1, 1)

    def model(x: Tensor) -> None:
        with pyro.plate("units", len(x)):
            t = pyro.sample("t", dist.Normal(x, 1.0))
            pyro.sample("y", dist.Normal(net(t.unsqueeze(-1)).squeeze(-1), 1.0))

    posterior = cp.abduct(model, num_samples=4, seed=0)(data()[0])
    before = posterior.predict({"t": 1.0}, compile=True)
    with torch.no_grad():
        net.weight += 1.0
    same(posterior.predict({"t": 1.0}, compile=True), before)
    same(posterior.predict({"t": 1.0}), before)


def test_functions_of_interventions_are_watched(graphs: list[Any]) -> None:
    gain = 2.0
    posterior = cp.abduct(regression, num_samples=6, seed=0)(*data())

    def action(t: Tensor) -> Tensor:
        return gain * t

    for gain in (2.0, 5.0):  # noqa: B007
        got = posterior.predict({"t": action}, compile=True)
        same(got, posterior.predict({"t": action}))
    fast = cp.compile(cp.counterfactual(regression, {"t": action}, num_samples=6, seed=0))
    for gain in (2.0, 5.0):  # noqa: B007
        expected = cp.counterfactual(regression, {"t": action}, num_samples=6, seed=0)(*data())
        same(fast(*data()), expected)


def test_evidence_that_is_written_to(graphs: list[Any]) -> None:
    def model() -> None:
        with pyro.plate("units", 3):
            t = pyro.sample("t", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(t, 1.0))

    for t in (np.zeros(3), torch.zeros(3)):
        evidence = {"t": t, "y": torch.ones(3)}
        plain = cp.counterfactual(model, {"t": 1.0}, evidence, seed=0)
        fast = cp.compile(plain)
        same(fast(), plain())
        t += 5.0
        same(fast(), plain())


# --- What cannot be traced -----------------------------------------------------------------------------------------------


def refused(model: Callable[..., None], reason: str, *args: Any) -> None:
    plain = cp.counterfactual(model, {"x": 1.0}, num_samples=5, seed=0)
    fast = cp.compile(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cp.errors.ExecutorWarning)
        expected = plain(*args)
    with pytest.warns(cp.errors.ExecutorWarning, match=reason):
        got = fast(*args)
    assert got.diagnostics.executor != "compiled"
    same(got, expected)
    with warnings.catch_warnings():  # said once
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "the program cannot be batched")
        same(fast(*args), expected)


def test_values_that_become_numbers(graphs: list[Any]) -> None:
    def by_item() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x.item() ** 2, 1.0))

    def by_numpy() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(torch.tensor(np.sin(x.detach().numpy())), 1.0))

    def by_branch() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x if x > 0 else -2 * x, 1.0))

    for model in (by_item, by_numpy, by_branch):
        refused(model, "row by row|cannot be compiled")


def test_shapes_that_depend_on_data(graphs: list[Any]) -> None:
    def model(data: Tensor) -> None:
        kept = data[data > 0]
        with pyro.plate("units", len(kept)):
            x = pyro.sample("x", dist.Normal(kept, 1.0))
            pyro.sample("y", dist.Normal(x, 1.0))

    fast = cp.compile(cp.counterfactual(model, {"x": 1.0}, num_samples=4, seed=0))
    with pytest.warns(cp.errors.ExecutorWarning, match="cannot be inputs of a graph"):
        first = fast(torch.tensor([1.0, -1.0, 2.0]))
    assert first.tensor("y", world="factual").shape == (4, 2)
    plain = cp.counterfactual(model, {"x": 1.0}, num_samples=4, seed=0)
    for rows in ([1.0, 5.0, 2.0], [-1.0, -1.0, 3.0]):
        same(fast(torch.tensor(rows)), plain(torch.tensor(rows)))


def test_numbers_taken_from_arguments(graphs: list[Any]) -> None:
    def model(data: Tensor) -> None:
        top = float(data.max())
        x = pyro.sample("x", dist.Normal(top, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0))

    plain = cp.counterfactual(model, {"x": 1.0}, num_samples=4, seed=0)
    fast = cp.compile(plain)
    with pytest.warns(cp.errors.ExecutorWarning, match="cannot be inputs of a graph"):
        same(fast(torch.tensor([1.0, 2.0])), plain(torch.tensor([1.0, 2.0])))
    same(fast(torch.tensor([9.0, 2.0])), plain(torch.tensor([9.0, 2.0])))


def test_what_new_data_bring(graphs: list[Any]) -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("units", len(y)):
            pyro.sample("y", dist.Exponential(1.0), obs=y)

    fast = cp.compile(cp.counterfactual(model, {"y": 1.0}, num_samples=4, seed=0))
    fast(torch.tensor([1.0, 2.0]))
    with pytest.raises(cp.CausalPPLError):
        fast(torch.tensor([1.0, -2.0]))
    missing = fast(torch.tensor([1.0, float("nan")]))
    assert "missing entries" in " ".join(missing.diagnostics.notes)
    assert missing.tensor("y", world="factual")[:, 1].unique().numel() == 4


def test_gradients_are_left_to_the_plain_program(graphs: list[Any]) -> None:
    posterior = cp.abduct(regression, seed=0)(*data())
    dose = torch.tensor(1.0, requires_grad=True)
    with pytest.warns(cp.errors.ExecutorWarning, match="gradients"):
        worlds = posterior.predict({"t": dose}, compile=True)
    worlds.tensor("y", world="counterfactual").sum().backward()
    assert dose.grad is not None and float(dose.grad) == pytest.approx(2.0 * 6)


def test_errors_are_those_of_the_plain_program(graphs: list[Any]) -> None:
    posterior = cp.abduct(regression, seed=0)(*data())
    with pytest.raises(cp.errors.UnknownSiteError, match="did you mean 't'"):
        posterior.predict({"tt": 1.0}, compile=True)
    with pytest.raises(cp.errors.InterventionError, match="gave NaN"):
        posterior.predict({"t": lambda t: t * float("nan")}, compile=True)
    with pytest.raises(cp.errors.MethodError, match=r"cp\.compile: .* is no question"):
        cp.compile(triangle)  # type: ignore[arg-type]


def test_noise_in_another_order_and_of_fewer_sites(graphs: list[Any]) -> None:
    """Noise is told apart by its site, not by its place."""

    def model(z: Tensor) -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0), obs=z)
        x = pyro.sample("x", dist.Normal(z, 1.0))
        pyro.sample("y", dist.Normal(2 * x, 1.0))

    z, plain = torch.tensor(0.3), cp.counterfactual(model, {"x": 1.0})
    noise = {
        n: torch.randn(4, generator=torch.Generator().manual_seed(i)) for i, n in enumerate("zxy")
    }
    ask = cp.compile(plain)
    orders = [("z", "x", "y"), ("y", "x", "z"), ("x", "y"), ("y", "x"), ("x", "y", "z")]
    for names in (*orders, *reversed(orders)):
        given = {n: noise[n] for n in names}
        found, expected = ask.from_noise(given, z), plain.from_noise(given, z)
        for world, sites in expected.items():
            for site, value in sites.items():
                torch.testing.assert_close(found[world][site], value, msg=f"{names} {world} {site}")
    assert len(graphs) == len(orders)


# --- Machine code ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not compiled_module.has_cpp_compiler(), reason="needs a C++ compiler")
def test_machine_code_gives_the_same_numbers() -> None:
    plain = cp.counterfactual(triangle, {"t": 1.0}, num_samples=20, seed=3)
    observed = cp.counterfactual(regression, {"t": 1.0}, seed=3)
    for ask, args in ((plain, data()), (observed, data())):
        got = cp.compile(ask)(*args)
        assert got.diagnostics.executor == "compiled"
        same(got, ask(*args))


@pytest.mark.skipif(not compiled_module.has_cpp_compiler(), reason="needs a C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_machine_code_keeps_the_digits_of_small_numbers(dtype: torch.dtype) -> None:
    """Left to itself, inductor computes expm1(x) as exp(x) - 1: 1e-9 becomes 0."""
    sizes = torch.logspace(-12, 1.5, 4_001, dtype=torch.float64)
    x = torch.cat([-sizes, sizes]).to(dtype)

    def functions(x: torch.Tensor) -> list[torch.Tensor]:
        return [torch.expm1(x), torch.erf(x), torch.tanh(x), torch.log1p(x.abs())]

    machine = tracing.compiled(tracing.traced(functions, [x]), [x])
    eps = torch.finfo(dtype).eps
    for found, exact in zip(machine(x), functions(x.double()), strict=True):
        error = (found.double() - exact).abs() / exact.abs()
        assert float(error.max()) < (4 * eps if dtype == torch.float32 else 16 * eps)


@pytest.mark.skipif(not compiled_module.has_cpp_compiler(), reason="needs a C++ compiler")
def test_machine_code_with_results_that_are_views() -> None:
    """Results that are inputs, constants, parts of one tensor, or the same twice are had without machine code."""
    table, number = torch.arange(6.0).reshape(2, 3), torch.tensor(7.0)

    def function(x: Tensor, y: Tensor) -> list[Tensor]:
        both = torch.sin(x) + y
        parts = [both[0], both[1], both[:, 1:], both.t(), both, both]
        return [*parts, x, x[1], (x * 2)[1], table[1], number.expand(2, 3), table + 0]

    inputs = [torch.randn(2, 3), torch.randn(2, 3)]
    machine = tracing.compiled(tracing.traced(function, inputs), inputs)
    for _ in range(2):
        given = [torch.randn(2, 3), torch.randn(2, 3)]
        found = machine(*given)
        for own, expected in zip(found, function(*given), strict=True):
            torch.testing.assert_close(own, expected)
        found[9].zero_()  # a result is the user's to write into
        found[10][0, 0] = 0.0


@pytest.mark.skipif(not compiled_module.has_cpp_compiler(), reason="needs a C++ compiler")
def test_machine_code_of_many_worlds() -> None:
    worlds = {f"dose {k}": {"t": float(k)} for k in range(5)}
    plain = cp.counterfactual(regression, worlds=worlds, seed=3)
    got = cp.compile(plain)(*data())
    assert got.diagnostics.executor == "compiled"
    same(got, plain(*data()))
