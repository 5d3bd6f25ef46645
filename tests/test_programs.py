"""Programs as people write them: shapes that do not broadcast, branches on values, loops over plates.

Each is drawn from the prior, moved to another world, and every row of the answer is compared with one run of the
program by hand at that row (reference.check_row), whichever executor gave it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import reference
import torch
from pyro.nn import PyroModule, PyroSample

import causalppl as cp

pytestmark = pytest.mark.filterwarnings("ignore::causalppl.errors.ExecutorWarning")

N = dist.Normal


class Case(NamedTuple):
    """A program, the intervention to try, and the sites whose value is random and continuous."""

    model: Callable[..., Any]
    do: dict[str, Any]
    args: tuple[Any, ...] = ()
    executor: str | None = None  # where only one of them can be right


def cat_over_units() -> torch.Tensor:
    """Each unit is moved by the one before it: a torch.cat along the plate."""
    with pyro.plate("units", 5):
        x = pyro.sample("x", N(0.0, 1.0))
        before = torch.cat([torch.zeros(1), x[:-1]])
        return pyro.sample("y", N(x + 0.5 * before, 1.0))


def mean_over_units() -> torch.Tensor:
    with pyro.plate("units", 5):
        x = pyro.sample("x", N(0.0, 1.0))
        return pyro.sample("y", N(x - x.mean(), 0.5))


def attention_over_units() -> torch.Tensor:
    """Softmax weights between units, a matrix product: nothing about it broadcasts."""
    with pyro.plate("units", 4):
        x = pyro.sample("x", N(0.0, 1.0).expand([4, 3]).to_event(1))
        weights = torch.softmax(x @ x.T, -1)
        return pyro.sample("y", N(weights @ x, 1.0).to_event(1))


def convolution() -> torch.Tensor:
    kernel = torch.tensor([[[0.25, 0.5, 0.25]]])
    image = pyro.sample("image", N(0.0, 1.0).expand([8]).to_event(1))
    smooth = torch.nn.functional.conv1d(image[None, None], kernel, padding=1)[0, 0]
    return pyro.sample("blurred", N(smooth, 0.1).to_event(1))


def reshapes() -> torch.Tensor:
    a = pyro.sample("a", N(0.0, 1.0).expand([6]).to_event(1))
    table = a.reshape(2, 3).t().contiguous().view(3, 2)
    b = pyro.sample("b", N(table.flatten(), 1.0).to_event(1))
    return pyro.sample("c", N(torch.stack([b[:3], b[3:]]).sum(), 1.0))


def size_and_zeros() -> torch.Tensor:
    """Shapes read off values: x.shape[0], torch.zeros(x.shape), expand, cumsum, sort."""
    x = pyro.sample("x", N(0.0, 1.0).expand([4]).to_event(1))
    walk = torch.zeros(x.shape[0] + 1)[1:] + x.cumsum(0)
    top = x.sort(descending=True).values
    return pyro.sample("y", N(walk + top, torch.ones(x.size(0))).to_event(1))


def written_in_place() -> torch.Tensor:
    x = pyro.sample("x", N(0.0, 1.0))
    out = torch.zeros(3)
    out[0] = x
    out[1:] = 2 * x
    return pyro.sample("y", N(out, 1.0).to_event(1))


def rebuilt_from_numbers() -> torch.Tensor:
    """torch.tensor([...]) of values: a tracer would burn them in."""
    a = pyro.sample("a", N(0.0, 1.0))
    b = pyro.sample("b", N(a, 1.0))
    return pyro.sample("c", N(torch.tensor([a, b]).sum(), 1.0))


def through_numpy() -> torch.Tensor:
    x = pyro.sample("x", N(0.0, 1.0))
    return pyro.sample("y", N(torch.as_tensor(np.tanh(x.detach().numpy())), 1.0))


def counted() -> torch.Tensor:
    """len(x[x > 0]): a shape that depends on values."""
    x = pyro.sample("x", N(0.0, 1.0).expand([5]).to_event(1))
    return pyro.sample("y", N(float(len(x[x > 0])), 1.0))


def item() -> torch.Tensor:
    x = pyro.sample("x", N(0.0, 1.0))
    return pyro.sample("y", N(2.0 * x.item() + 1.0, 1.0))


def branch() -> torch.Tensor:
    x = pyro.sample("x", N(0.0, 1.0))
    if x > 0:
        return pyro.sample("y", N(x, 1.0))
    return pyro.sample("y", N(10.0 - x, 2.0))


def branch_on_sites() -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    if x > 0:
        high = pyro.sample("high", N(x, 1.0))
        pyro.sample("y", N(high, 1.0))
    else:
        pyro.sample("low", N(-x, 1.0))
        pyro.sample("y", N(x, 1.0))


def loop_over_plate() -> None:
    previous = torch.tensor(0.0)
    for i in pyro.plate("steps", 4):
        previous = pyro.sample(f"x_{i}", N(0.8 * previous, 1.0))


def markov_chain() -> None:
    x = torch.tensor(0.0)
    for t in pyro.markov(range(5)):
        x = pyro.sample(f"x_{t}", N(torch.tanh(2 * x), 1.0))
        pyro.sample(f"y_{t}", N(x, 0.5))


def nested_plates() -> None:
    with pyro.plate("schools", 3, dim=-2):
        level = pyro.sample("level", N(0.0, 1.0))
        with pyro.plate("pupils", 4, dim=-1):
            effort = pyro.sample("effort", N(level, 1.0))
            pyro.sample("score", N(level + effort - effort.mean(-1, keepdim=True), 1.0))


def crossed_plates() -> None:
    rows, columns = pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1)
    with rows:
        r = pyro.sample("r", N(0.0, 1.0))
    with columns:
        c = pyro.sample("c", N(0.0, 1.0))
    with rows, columns:
        pyro.sample("cell", N(r * c + r, 1.0))


def factor_and_mask() -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    pyro.factor("weight", -0.1 * x**2)
    with pyro.poutine.scale(scale=2.0), pyro.poutine.mask(mask=torch.tensor(True)):
        pyro.sample("y", N(x, 1.0))


def with_arguments(x: torch.Tensor, *, slope: float = 1.0) -> torch.Tensor:
    with pyro.plate("units", len(x)):
        m = pyro.sample("m", N(x, 1.0))
        return pyro.sample("y", N(slope * m, 1.0))


def varied_families() -> None:
    x = pyro.sample("x", dist.Exponential(1.0))
    w = pyro.sample("w", dist.Weibull(1.0 + x, 1.5))
    u = pyro.sample("u", dist.Uniform(-w, w + 1))
    h = pyro.sample("h", dist.HalfNormal(1.0 + u**2))
    pyro.sample("y", dist.LogNormal(0.1 * h, 0.5))


def only_the_branch_depends() -> None:
    """No value of x flows into y: which branch ran is all there is."""
    x = pyro.sample("x", N(0.0, 1.0))
    loc = 1.0 if x > 0 else 0.0
    pyro.sample("y", N(loc, 1.0))


def only_the_count_depends() -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    total = 0.0
    for _ in range(int(3 * x.abs())):
        total += 1.0
    pyro.sample("y", N(total, 1.0))


def looked_up() -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    pyro.sample("y", N({"yes": 3.0, "no": -3.0}["yes" if x > 0 else "no"], 1.0))


def written_and_read() -> None:
    """Through JSON, which no tracker can follow."""
    x = pyro.sample("x", N(0.0, 1.0))
    pyro.sample("y", N(json.loads(json.dumps({"x": x.tolist()}))["x"], 1.0))


def detached() -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    copy = torch.zeros(2)
    copy[1] = x.data.clone().detach()
    pyro.sample("y", N(copy.sum(), 1.0))


def only_the_scale_depends() -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    pyro.sample("y", N(0.0, torch.exp(x)))


def traced_inside() -> None:
    """A trace of a part of the program, read by the rest."""
    trace = pyro.poutine.trace(lambda: pyro.sample("x", N(0.0, 1.0))).get_trace()
    pyro.sample("y", N(2 * trace.nodes["x"]["value"], 1.0))


class Stateful(PyroModule):
    """A value kept on the module between its methods."""

    def forward(self) -> None:
        self.kept = pyro.sample("x", N(0.0, 1.0))
        self.rest()

    def rest(self) -> None:
        pyro.sample("y", N(2 * self.kept, 1.0))


class Network(PyroModule):
    """Layers without priors, as a decoder would be."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = torch.nn.Sequential(
                torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
            )

    def forward(self) -> torch.Tensor:
        z = pyro.sample("z", N(0.0, 1.0).expand([2]).to_event(1))
        return pyro.sample("y", N(self.body(z), 0.3).to_event(1))


class Bayesian(PyroModule):
    """A linear layer whose weights are sites."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = PyroModule[torch.nn.Linear](2, 1)
        self.layer.weight = PyroSample(N(0.0, 1.0).expand([1, 2]).to_event(2))
        self.layer.bias = PyroSample(N(0.0, 1.0).expand([1]).to_event(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.layer(x).squeeze(-1)
        with pyro.plate("units", len(x)):
            return pyro.sample("y", N(mean, 0.5))


X = torch.tensor([0.3, -1.0, 2.0])
CASES: dict[str, Case] = {
    "cat": Case(cat_over_units, {"x": torch.linspace(-1, 1, 5)}),
    "mean over a plate": Case(mean_over_units, {"x": torch.tensor([3.0, 0.0, 0.0, 1.0, -1.0])}),
    "attention": Case(
        attention_over_units, {"x": torch.ones(4, 3) * torch.tensor([1.0, 0.0, -1.0])}
    ),
    "conv1d": Case(convolution, {"image": torch.linspace(-1, 1, 8)}),
    "reshape": Case(reshapes, {"a": torch.arange(6.0)}),
    "reshape, middle": Case(reshapes, {"b": torch.arange(6.0)}),
    "shapes of values": Case(size_and_zeros, {"x": torch.tensor([3.0, 1.0, 2.0, 0.0])}),
    "in place": Case(written_in_place, {"x": 2.0}),
    "torch.tensor of values": Case(rebuilt_from_numbers, {"a": 2.0}, executor="sequential"),
    "numpy": Case(through_numpy, {"x": 2.0}, executor="sequential"),
    "count": Case(counted, {"x": torch.tensor([1.0, 1.0, -1.0, 1.0, 1.0])}, executor="sequential"),
    "item": Case(item, {"x": 2.0}, executor="sequential"),
    "branch": Case(branch, {"x": 0.7}, executor="sequential"),
    "loop over a plate": Case(loop_over_plate, {"x_1": 2.0}),
    "markov": Case(markov_chain, {"x_2": 2.0}),
    "nested plates": Case(nested_plates, {"level": 1.5}),
    "nested plates, inner": Case(nested_plates, {"effort": torch.arange(4.0)}),
    "crossed plates": Case(crossed_plates, {"r": torch.tensor([[1.0], [0.0], [-1.0]])}),
    "factor, scale and mask": Case(factor_and_mask, {"x": 1.0}),
    "arguments": Case(with_arguments, {"m": torch.tensor([1.0, 2.0, 3.0])}, (X,)),
    "families": Case(varied_families, {"x": 0.5}),
    "nn.Sequential": Case(Network(), {"z": torch.tensor([1.0, -1.0])}),
    "branch only": Case(only_the_branch_depends, {"x": 1.7}, executor="sequential"),
    "count only": Case(only_the_count_depends, {"x": 1.7}, executor="sequential"),
    "looked up": Case(looked_up, {"x": 1.7}, executor="sequential"),
    "through JSON": Case(written_and_read, {"x": 1.7}, executor="sequential"),
    "detached": Case(detached, {"x": 1.7}),
    "scale only": Case(only_the_scale_depends, {"x": 1.7}),
    "traced inside": Case(traced_inside, {"x": 1.7}),
    "kept on a module": Case(Stateful(), {"x": 1.7}),
    "PyroSample weights": Case(
        Bayesian(), {"layer.bias": torch.tensor([2.0])}, (torch.arange(6.0).reshape(3, 2),)
    ),
}


def sites(model: Callable[..., Any], args: tuple[Any, ...]) -> list[str]:
    with torch.random.fork_rng():
        trace = pyro.poutine.trace(model).get_trace(*args)
    return [
        name
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and type(node["fn"]).__name__ not in ("_Subsample", "Unit")
    ]


def one_row(worlds: Any, names: list[str], world: str, draw: int) -> dict[str, torch.Tensor]:
    return {name: worlds.tensor(name, world=world)[draw] for name in names}


@pytest.mark.parametrize("name", CASES)
def test_every_row_is_one_run_by_hand(name: str) -> None:
    case = CASES[name]
    names = sites(case.model, case.args)
    worlds = cp.counterfactual(case.model, case.do, num_samples=8, seed=0)(*case.args)
    factual = one_row(worlds, names, "factual", 0)
    assert not torch.equal(factual[names[0]], one_row(worlds, names, "factual", 1)[names[0]])
    for draw in range(8):
        here = one_row(worlds, names, "factual", draw)
        there = one_row(worlds, names, "counterfactual", draw)
        reference.check_row(case.model, case.args, here, there, case.do, rtol=2e-5)
        for target, value in case.do.items():
            if isinstance(value, (float, torch.Tensor)):
                wanted = torch.as_tensor(value).expand_as(there[target])
                torch.testing.assert_close(there[target], wanted)
    if case.executor is not None:
        assert worlds.diagnostics.executor == case.executor


@pytest.mark.parametrize("name", CASES)
def test_a_null_intervention_changes_nothing(name: str) -> None:
    case = CASES[name]
    names = sites(case.model, case.args)
    worlds = cp.counterfactual(case.model, {}, num_samples=6, seed=1)(*case.args)
    for site in names:
        torch.testing.assert_close(
            worlds.tensor(site, world="counterfactual"),
            worlds.tensor(site, world="factual"),
            rtol=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("name", CASES)
def test_fully_observed_programs_need_no_inference(name: str) -> None:
    """Evidence on everything: one draw, the same couplings, and the record itself in the factual world."""
    case = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        trace = pyro.poutine.trace(case.model).get_trace(*case.args)
    names = sites(case.model, case.args)
    evidence = {name: trace.nodes[name]["value"] for name in names}
    worlds = cp.counterfactual(case.model, case.do, evidence, seed=0)(*case.args)
    assert worlds["y" if "y" in names else names[-1]].sizes["draw"] == 1
    here, there = (one_row(worlds, names, w, 0) for w in ("factual", "counterfactual"))
    for site in names:
        assert torch.equal(here[site], evidence[site]), site
    reference.check_row(case.model, case.args, here, there, case.do, rtol=2e-5)


def test_programs_that_batch_are_batched() -> None:
    for name in (
        "cat",
        "mean over a plate",
        "attention",
        "conv1d",
        "reshape",
        "nn.Sequential",
        "nested plates",
        "markov",
    ):
        case = CASES[name]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            worlds = cp.counterfactual(case.model, case.do, num_samples=8, seed=0)(*case.args)
        assert worlds.diagnostics.executor == "vmap", name


def test_the_fall_back_is_announced_once() -> None:
    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", N(float(x), 1.0))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posterior = cp.abduct(model, num_samples=5, seed=0)()
        for value in (0.0, 1.0):
            worlds = posterior.predict({"x": value})
    assert worlds.diagnostics.executor == "sequential"
    said = [w for w in caught if issubclass(w.category, cp.errors.ExecutorWarning)]
    assert len(said) == 1, [str(w.message) for w in caught]
    assert said[0].filename == __file__, "a warning points at the caller's line"


def test_sites_of_one_branch_are_nan_in_the_other() -> None:
    worlds = cp.abduct(branch_on_sites, num_samples=40, seed=0)().predict(
        worlds={"up": {"x": 1.0}, "down": {"x": -1.0}}
    )
    x = worlds.tensor("x", world="factual")
    assert bool((x > 0).any()) and bool((x <= 0).any())
    high, low = worlds.tensor("high", world="factual"), worlds.tensor("low", world="factual")
    assert torch.equal(high.isnan(), x <= 0) and torch.equal(low.isnan(), x > 0)
    assert bool(worlds.tensor("low", world="up").isnan().all())
    assert bool(worlds.tensor("high", world="down").isnan().all())
    # y's noise survives the change of branch: y = high + e above, y = x + e below.
    e = torch.where(
        x > 0, worlds.tensor("y", world="factual") - high, worlds.tensor("y", world="factual") - x
    )
    torch.testing.assert_close(worlds.tensor("y", world="down"), -1.0 + e, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        worlds.tensor("y", world="up"), worlds.tensor("high", world="up") + e, rtol=1e-5, atol=1e-5
    )
    # and so does high's, where both worlds have it
    kept = high[x > 0] - x[x > 0] + 1.0
    torch.testing.assert_close(worlds.tensor("high", world="up")[x > 0], kept, rtol=1e-5, atol=1e-5)


def test_a_branch_with_everything_observed() -> None:
    worlds = cp.counterfactual(branch, {"x": -1.0}, {"x": 0.5, "y": 0.8})()
    # residual (.8 - .5) / 1, then 10 - (-1) + 2 * .3
    assert float(worlds.tensor("y", world="counterfactual")) == pytest.approx(11.6, abs=1e-5)


def test_a_branch_under_evidence_with_latents() -> None:
    """Posterior inference over a program that cannot be batched at all."""
    worlds = cp.counterfactual(
        branch, {"x": 1.0}, {"y": 2.0}, num_samples=300, seed=0, method=cp.ImportanceSampling()
    )()
    x, y = worlds.tensor("x", world="factual"), worlds.tensor("y", world="counterfactual")
    assert bool((worlds.tensor("y", world="factual") == 2).all())
    expected = torch.where(x > 0, 1 + (2 - x), 1 + (2 - (10 - x)) / 2)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_keyword_arguments_reach_the_program() -> None:
    worlds = cp.counterfactual(with_arguments, {"m": 1.0}, {"m": X, "y": X})(X, slope=3.0)
    got = worlds.tensor("y", world="counterfactual")[0]
    torch.testing.assert_close(got, X + 3.0 * (1.0 - X))


def test_parameters_of_the_store_are_used_and_snapshotted() -> None:
    def model() -> None:
        slope = pyro.param("slope", torch.tensor(2.0))
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", N(slope * x, 1.0))

    with pyro.get_param_store().scope():
        posterior = cp.abduct(model, evidence={"x": 1.0, "y": 2.5})()
        assert set(pyro.get_param_store().keys()) == {"slope"}
        with torch.no_grad():
            pyro.param("slope").fill_(5.0)
        worlds = posterior.predict({"x": 2.0})
        assert float(worlds.tensor("y", world="counterfactual")) == pytest.approx(4.5)
        fresh = cp.counterfactual(model, {"x": 2.0}, {"x": 1.0, "y": 2.5})()
        assert float(fresh.tensor("y", world="counterfactual")) == pytest.approx(7.5)


def test_module_parameters_are_snapshotted() -> None:
    network = Network()
    evidence = {"z": torch.tensor([0.1, 0.2]), "y": torch.zeros(3)}
    posterior = cp.abduct(network, evidence=evidence)()
    before = posterior.predict({"z": torch.ones(2)}).tensor("y", world="counterfactual").clone()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1.0)
    after = posterior.predict({"z": torch.ones(2)}).tensor("y", world="counterfactual")
    torch.testing.assert_close(after, before)


def test_a_subsampled_plate_uses_one_subsample_for_all_worlds() -> None:
    full = torch.arange(10.0)

    def model() -> None:
        with pyro.plate("units", 10, subsample_size=4) as index:
            x = pyro.sample("x", N(full[index], 0.01))
            pyro.sample("y", N(2 * x, 1.0))

    worlds = cp.abduct(model, num_samples=5, seed=0)().predict({"x": cp.shift(1.0)})
    x0, x1 = worlds.tensor("x", world="factual"), worlds.tensor("x", world="counterfactual")
    assert x0.shape == (5, 4)
    torch.testing.assert_close(x1, x0 + 1, rtol=1e-5, atol=1e-5)
    y0, y1 = worlds.tensor("y", world="factual"), worlds.tensor("y", world="counterfactual")
    torch.testing.assert_close(y1, y0 + 2, rtol=1e-5, atol=1e-4)


def test_gradients_reach_the_intervention() -> None:
    value = torch.tensor(1.0, requires_grad=True)
    worlds = cp.counterfactual(markov_chain, {"x_0": value}, num_samples=10, seed=0)()
    worlds.tensor("y_1", world="counterfactual").sum().backward()
    slope = 2 * (1 - torch.tanh(torch.tensor(2.0)) ** 2)
    assert float(value.grad) == pytest.approx(10 * float(slope), rel=1e-4)


def test_a_program_that_catches_runtime_errors() -> None:
    """Inside vmap ``if x > 0`` raises RuntimeError: a program with its own ``except`` must not take that for its own."""

    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        try:
            loc = 0.0 if x > 0 else 1.0
        except RuntimeError:
            loc = 5.0
        pyro.sample("y", N(loc, 1.0))

    worlds = cp.abduct(model, num_samples=6, seed=0)().predict(
        worlds={"up": {"x": 1.0}, "down": {"x": -1.0}}
    )
    moved = worlds.tensor("y", world="down") - worlds.tensor("y", world="up")
    torch.testing.assert_close(moved, torch.ones(6), rtol=0, atol=1e-5)


def test_randomness_that_only_another_world_shows() -> None:
    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", N(x + torch.rand(()) if x > 0.5 else x, 1.0))

    with pytest.raises(cp.errors.NondeterministicProgramError):
        cp.counterfactual(model, {"x": 1.0}, {"x": 0.0, "y": 0.0}, seed=0)()


def test_asking_does_not_change_a_module() -> None:
    class Normalised(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(2)

        def forward(self) -> None:
            x = pyro.sample("x", N(torch.zeros(4, 2), 1.0).to_event(2))
            pyro.sample("y", N(self.norm(x), 1.0).to_event(2))

    program = Normalised()
    before = {name: b.clone() for name, b in program.named_buffers()}
    cp.counterfactual(program, {"x": torch.arange(8.0).reshape(4, 2)}, num_samples=3, seed=0)()
    for name, b in program.named_buffers():
        assert torch.equal(b, before[name]), name


def test_masked_and_partly_observed_sites() -> None:
    """obs_mask and poutine.mask: the entries left out are latent, or weigh nothing."""
    y, seen = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, False, True])

    def partly() -> None:
        with pyro.plate("units", 3):
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", N(x, 1.0), obs=y, obs_mask=seen)

    def masked() -> None:
        with pyro.plate("units", 3):
            x = pyro.sample("x", N(0.0, 1.0))
            with pyro.poutine.mask(mask=seen):
                pyro.sample("y", N(x, 1.0), obs=y)

    for model in (partly, masked):
        worlds = cp.abduct(model, num_samples=3000, seed=0)().predict()
        x = worlds.tensor("x", world="factual")
        expected = torch.where(seen, y / 2, torch.zeros(3))
        assert float((x.mean(0) - expected).abs().max()) < 0.09
        assert float((x.var(0) - torch.where(seen, 0.5, 1.0)).abs().max()) < 0.12
    worlds = cp.counterfactual(partly, {"x": 0.0}, {"x": torch.ones(3)}, num_samples=3000, seed=0)()
    here, there = (worlds.tensor("y", world=w) for w in ("factual", "counterfactual"))
    torch.testing.assert_close(there, here - 1, rtol=1e-5, atol=1e-5)
    assert bool((here[:, seen] == y[seen]).all())
    assert float(here[:, 1].mean()) == pytest.approx(1.0, abs=0.09)


# --- Branches that the reference run does not take ---------------------------------------------------------------------


def switch() -> None:
    """Python chooses which of two sites the outcome listens to."""
    a = pyro.sample("a", dist.Bernoulli(0.5))
    b = pyro.sample("b", dist.Bernoulli(0.5))
    c = pyro.sample("c", dist.Bernoulli(0.5))
    pyro.deterministic("chosen", b if a > 0 else c)
    p = (0.9 if b > 0 else 0.2) if a > 0 else (0.3 if c > 0 else 0.6)
    pyro.sample("y", dist.Bernoulli(p))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.filterwarnings("ignore::causalppl.errors.ExecutorWarning")
def test_interventions_reach_what_other_branches_read(seed: int) -> None:
    """A run in which a is 1 shows no arrow from c, and one in which it is 0 none from b."""
    n = 300
    worlds = cp.counterfactual(
        switch, worlds={"b": {"b": 1.0}, "c": {"c": 0.0}}, num_samples=n, seed=seed
    )()
    a, b, c, y = (worlds.tensor(name, world="factual") for name in "abcy")
    on = a == 1
    torch.testing.assert_close(worlds.tensor("chosen", world="b"), torch.where(on, 1.0, c))
    torch.testing.assert_close(worlds.tensor("chosen", world="c"), torch.where(on, b, 0.0))
    under_b, under_c = worlds.tensor("y", world="b"), worlds.tensor("y", world="c")
    assert torch.equal(under_b[~on | (b == 1)], y[~on | (b == 1)])
    assert torch.equal(under_c[on | (c == 0)], y[on | (c == 0)])
    assert bool((under_b >= y).all()) and bool((under_c >= y).all())  # .9 > .2, and .6 > .3
    gained = float((under_b - y).mean())
    assert gained == pytest.approx(0.5 * 0.5 * 0.7, abs=4.5 * (0.175 * 0.825 / n) ** 0.5)


@pytest.mark.filterwarnings("ignore::causalppl.errors.CouplingWarning")
@pytest.mark.parametrize("seed", range(6))
def test_exact_answers_of_programs_that_branch_do_not_depend_on_the_seed(seed: int) -> None:
    for text, expected in {
        "P(y=1)": 0.25 * (0.9 + 0.2 + 0.3 + 0.6),
        "P(chosen=1 | do(b=1))": 0.5 + 0.5 * 0.5,
        "P(y=1 | do(b=1))": 0.5 * 0.9 + 0.25 * (0.3 + 0.6),
        "P(y=1 | c=1)": 0.25 * (0.9 + 0.2) + 0.5 * 0.3,
        "P(y[b=1]=1 | y=0, b=0)": 1 - (0.5 * 0.1 + 0.5 * 0.55) / (0.5 * 0.8 + 0.5 * 0.55),
    }.items():
        assert float(cp.query(text, switch, seed=seed)()) == pytest.approx(expected, abs=1e-6), text


@pytest.mark.parametrize("seed", range(4))
def test_a_site_and_its_copy_are_both_kept(seed: int) -> None:
    """Neither makes a difference that the other does not, and together they are all there is."""

    def model() -> None:
        a = pyro.sample("a", dist.Bernoulli(0.3))
        b = pyro.deterministic("b", a)
        p = 0.9 if a + b > 1 else 0.2
        pyro.sample("y", dist.Bernoulli(p))

    assert float(cp.query("P(y=1)", model, seed=seed)()) == pytest.approx(0.41, abs=1e-6)
    assert float(cp.query("P(y=1 | do(b=0))", model, seed=seed)()) == pytest.approx(0.2, abs=1e-6)
