"""Traced graphs made smaller, and compiled ones kept: data and parameters are inputs, so that new data need no new compilation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

__all__ = ["compiled_graph", "folded"]

_KEPT: OrderedDict[Hashable, Callable[..., Any]] = OrderedDict()
_MOST_KEPT = 32


def _is_pure(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and not node.target._schema.is_mutable


def folded(graph: GraphModule) -> GraphModule:
    """The graph with every operation on constants alone carried out; unchanged where some operation writes to its arguments."""
    if not all(_is_pure(n) for n in graph.graph.nodes if n.op == "call_function"):
        return graph
    known: dict[Node, Any] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            known[node] = attrgetter(str(node.target))(graph)
        elif node.op == "call_function" and node.all_input_nodes:
            if not all(n in known for n in node.all_input_nodes):
                continue
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: known[n])
            with torch.no_grad():
                value = node.target(*args, **kwargs)  # type: ignore[operator]
            if not isinstance(value, Tensor):
                continue
            known[node] = value.clone()  # not a view of the user's data
            name = f"_folded{len(known)}"
            graph.register_buffer(name, known[node], persistent=False)
            with graph.graph.inserting_before(node):
                new = graph.graph.get_attr(name)
            new.meta = dict(node.meta)
            known[new] = known[node]
            node.replace_all_uses_with(new)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def _lifted(graph: GraphModule) -> tuple[GraphModule, list[Tensor]]:
    """The same function with the graph's constants as further arguments, and these."""
    new, known = Graph(), dict[Node, Node]()
    constants: dict[str, Tensor] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            known[node] = new.node_copy(node)
    inputs: dict[str, Node] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            name = str(node.target)
            if name not in inputs:
                constants[name] = attrgetter(name)(graph).detach()
                inputs[name] = new.placeholder(f"constant{len(inputs)}")
            known[node] = inputs[name]
        elif node.op != "placeholder":
            known[node] = new.node_copy(node, lambda n: known[n])
    return GraphModule({}, new), list(constants.values())


def compiled_graph(
    graph: GraphModule,
    point: Tensor,
    compile: Callable[[GraphModule, list[Tensor]], Callable[..., Any]],
    *settings: Hashable,
) -> Callable[[Tensor], Any]:
    """The graph compiled, or the compilation of an equal graph with its constants exchanged.

    Graphs are equal where their operations, the numbers in them, and the shapes, strides, dtypes and devices of all inputs are.

    Args:
        compile: graph and example inputs to a callable.
        settings: what else the compilation depends on.
    """
    lifted, constants = _lifted(graph)
    layout = tuple(
        (tuple(t.shape), t.stride(), t.dtype, str(t.device)) for t in (point, *constants)
    )
    key = (lifted.code, layout, settings)
    if key not in _KEPT:
        _KEPT[key] = compile(lifted, [point, *constants])
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)
    _KEPT.move_to_end(key)
    run = _KEPT[key]
    return lambda position: run(position, *constants)
