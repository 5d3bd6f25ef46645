"""Traced graphs: what is constant is computed once, and what was compiled is used again, with the data of the moment."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from causalppl.inference.log_density import value_and_gradient
from causalppl.inference.target import Target
from causalppl.inference.traced_graphs import compiled_graph, folded
from causalppl.structural.form import StructuralForm


def model(x: torch.Tensor, y: torch.Tensor, scale: float = 1.0) -> None:
    b = pyro.sample("b", dist.Normal(torch.zeros(3), scale).to_event(1))
    s = pyro.sample("s", dist.HalfNormal(1.0))
    with pyro.plate("people", len(y)):
        pyro.sample("y", dist.Normal(x @ b, s), obs=y)


def data(seed: int, people: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(people, 3, generator=generator)
    return x, x.sum(1)


def graph_of(*args: Any) -> tuple[torch.fx.GraphModule, Any]:
    target = Target(StructuralForm(model, args, {}, None, 0), "test")
    with torch.no_grad():
        graph = make_fx(lambda v: torch.func.grad_and_value(target.log_density)(v))(torch.zeros(4))
    return graph, target.log_density


class Compiler:
    """Runs the graph as it is, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.calls += 1
        return graph


POINT = torch.tensor([0.3, -0.2, 0.9, 0.1])


def test_new_data_of_the_same_shape_is_not_compiled_again() -> None:
    compiler, marker = Compiler(), object()
    for seed in range(3):
        graph, density = graph_of(*data(seed))
        run = compiled_graph(folded(graph), torch.zeros(4), compiler, marker)
        torch.testing.assert_close(run(POINT)[1], density(POINT))
        expected = torch.func.grad(density)(POINT)
        torch.testing.assert_close(run(POINT)[0], expected)
    assert compiler.calls == 1


@pytest.mark.parametrize(
    "other", [(*data(0, people=11),), (*data(0), 2.0)], ids=["shape", "number"]
)
def test_another_shape_is_compiled_and_another_number_gives_its_own_density(other: Any) -> None:
    compiler, marker = Compiler(), object()
    first, _ = graph_of(*data(0))
    compiled_graph(folded(first), torch.zeros(4), compiler, marker)
    graph, density = graph_of(*other)
    run = compiled_graph(folded(graph), torch.zeros(4), compiler, marker)
    torch.testing.assert_close(run(POINT)[1], density(POINT))
    if len(other[1]) == 11:
        assert compiler.calls == 2


def test_folding_keeps_the_function_and_drops_what_is_constant() -> None:
    graph, density = graph_of(*data(0))
    before = sum(n.op == "call_function" for n in graph.graph.nodes)
    folded(graph)
    after = sum(n.op == "call_function" for n in graph.graph.nodes)
    assert after < 0.9 * before
    torch.testing.assert_close(graph(POINT)[1], density(POINT))


def test_folded_constants_do_not_share_memory_with_data() -> None:
    x = torch.ones(3)
    graph = folded(make_fx(lambda v: v * x[1:].sum() + x[0])(torch.zeros(())))
    value = float(graph(torch.tensor(2.0)))
    x.fill_(100.0)
    assert float(graph(torch.tensor(2.0))) == value == 5.0


def test_a_graph_that_writes_to_its_constants_is_left_alone() -> None:
    def density(v: torch.Tensor) -> torch.Tensor:
        buffer = torch.zeros(3)
        buffer[0] = 2.0
        buffer.add_(1.0)
        return v * buffer.sum()

    graph = make_fx(density)(torch.ones(()))
    assert float(folded(graph)(torch.tensor(2.0))) == float(density(torch.tensor(2.0))) == 10.0


@pytest.mark.slow
def test_inductor_is_asked_once() -> None:
    """The whole way: the second potential of the same program takes the first one's code, and is right."""
    import torch._inductor

    own, calls = torch._inductor.compile, []

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return own(*args, **kwargs)

    torch._inductor.compile = counting
    try:
        for seed in range(2):
            _, density = graph_of(*data(seed, people=13))
            pair = value_and_gradient(density, torch.zeros(4), evaluations=10**8)
            assert pair.executor == "compiled"
            torch.testing.assert_close(pair.evaluate(POINT)[0], density(POINT))
    finally:
        torch._inductor.compile = own
    assert len(calls) == 1
