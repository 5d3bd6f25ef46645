"""A function of tensors as a plain graph (``make_fx``), and that graph as machine code (inductor)."""

from __future__ import annotations

import copy
import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["compiled", "has_cpp_compiler", "small", "traced"]

#: A graph with a larger tensor than this, in elements, is compiled for torch's own number of threads.
_LARGE_TENSOR = 2**18


def traced(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> GraphModule:
    """The operations of one evaluation, without the operations that nothing depends on.

    What turns a tensor into a Python number burns it in: the caller has to compare the graph with the function at other
    inputs.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    with warnings.catch_warnings(), torch.no_grad(), torch.inference_mode(False):
        warnings.simplefilter("ignore")
        graph = make_fx(function)(*inputs)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def has_cpp_compiler() -> bool:
    """Whether a C++ compiler that inductor would find is on this machine (``CXX``, or the usual names)."""
    names = [os.environ.get("CXX", ""), "g++", "c++", "clang++", "cl"]
    return any(shutil.which(name) is not None for name in names if name)


def small(graph: GraphModule) -> bool:
    """Whether no tensor of the graph, data included, is large enough for threads to pay."""
    values = [node.meta.get("val") for node in graph.graph.nodes]
    held = [*vars(graph).values(), *graph.parameters(), *graph.buffers()]
    sizes = [t.numel() for t in [*values, *held] if isinstance(t, Tensor)]
    return max(sizes, default=0) <= _LARGE_TENSOR


def compiled(
    graph: GraphModule, inputs: Sequence[Tensor], one_thread: bool | None = None
) -> Callable[..., Sequence[Tensor]]:
    """The graph by inductor directly: no dynamo, hence no guards and none of its global caches.

    Inputs of later calls must have the shapes, strides and dtypes of these, which nothing checks.

    Args:
        one_thread: whether its code is for one thread; by default where the graph is :func:`small`.
    """
    import torch._inductor
    import torch._inductor.config as inductor_config

    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    # One thread where tensors are small: as fast on an idle machine, and measured 4 times faster on a busy one, where
    # threads wait for each other. torch.set_num_threads would do the same for every executor, but cannot be undone:
    # setting the old number again made MKL use threads that it did not use before, and small products 30 times slower
    # for the rest of the process. One compile thread: a pool of worker processes would outlive the call.
    one_thread = small(graph) if one_thread is None else one_thread
    threads = {"cpp.threads": 1} if one_thread else {}
    try:
        with (
            warnings.catch_warnings(),
            inductor_config.patch({"compile_threads": 1, "size_asserts": False, **threads}),
            torch.inference_mode(False),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            own, recipes = _without_views(_rewritten(graph, inputs))
            found: Callable[..., Sequence[Tensor]] = torch._inductor.compile(own, list(inputs))
            # without the wrapper that keeps dynamo away, which is not running: it costs as much as a small graph
            found = getattr(found, "_torchdynamo_orig_callable", found)
            found(*inputs)
        return _with_views(found, recipes)
    finally:
        logger.setLevel(level)


@dataclass(frozen=True)
class _Recipe:
    """How a result is had: from an input, from a result of machine code, or from a constant of the graph; and as which view."""

    given: int | None = None
    computed: int | None = None
    constant: Tensor | None = None
    view: tuple[Any, Any, int] | None = None  # size, strides, offset

    def result(self, inputs: Sequence[Tensor], computed: Sequence[Tensor]) -> Tensor:
        if (
            self.constant is not None
        ):  # copied, so that who writes into a result changes the result only
            return self.constant.clone().as_strided(*self.view)  # type: ignore[misc]
        base = inputs[self.given] if self.given is not None else computed[self.computed]  # type: ignore[index]
        if self.view is None:
            return base
        size, strides, offset = self.view
        return base.as_strided(size, strides, base.storage_offset() + offset)


def _without_views(graph: GraphModule) -> tuple[GraphModule, list[_Recipe]]:
    """The graph with results that are inputs, constants, views, or the same tensor twice left out, and how to have them.

    Machine code that returns such results is wrapped by torch in code that takes longer than small graphs do.
    """
    import torch.fx

    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    (output,) = graph.graph.find_nodes(op="output")
    origins = [(result, _base(result)) for result in output.args[0]]
    bases: dict[Any, int] = {}
    recipes: list[_Recipe] = []
    for result, base in origins:
        if base.op == "get_attr":
            recipes.append(_constant(_viewed(attrgetter(str(base.target))(graph), base, result)))
            continue
        siblings = [r for r, b in origins if b is base]
        view = _geometry(result, base)
        if base.op == "placeholder":
            recipes.append(_Recipe(given=inputs.index(base), view=view))
        elif all(_geometry(r, base) == view for r in siblings):
            recipes.append(_Recipe(computed=bases.setdefault(siblings[0], len(bases))))
        elif base.meta["val"].is_contiguous():
            recipes.append(_Recipe(computed=bases.setdefault(base, len(bases)), view=view))
        else:
            return graph, []
    if len(bases) == len(recipes) or not bases:
        return graph, []
    new, own = torch.fx.Graph(), dict[Any, Any]()
    for node in graph.graph.nodes:
        if node.op != "output":
            own[node] = new.node_copy(node, lambda n: own[n])
    new.output([own[base] for base in bases])
    new.eliminate_dead_code()
    return torch.fx.GraphModule(graph, new), recipes


def _base(node: Any) -> Any:
    """What a node is a view of."""
    while node.op == "call_function" and getattr(node.target, "is_view", False):
        if node.all_input_nodes != [node.args[0]]:
            break
        node = node.args[0]
    return node


def _viewed(tensor: Tensor, base: Any, node: Any) -> Tensor:
    """The views that lead from a base to a node, of a tensor in place of the base."""
    if node is base:
        return tensor
    source = _viewed(tensor, base, node.args[0])
    return node.target(source, *node.args[1:], **node.kwargs)  # type: ignore[no-any-return]


def _geometry(node: Any, base: Any) -> tuple[Any, Any, int] | None:
    """Size, strides and offset of a node as a view of its base; a trace does not keep offsets."""
    if node is base:
        return None
    known = base.meta["val"]
    own = torch.empty_strided(known.shape, known.stride(), dtype=known.dtype, device="meta")
    view = _viewed(own, base, node)
    return view.shape, view.stride(), int(view.storage_offset())


def _constant(found: Tensor) -> _Recipe:
    """A result that depends on nothing: what is expanded is kept once."""
    kept = found
    for dim, stride in enumerate(found.stride()):
        if stride == 0 and found.shape[dim] > 1:
            kept = kept.narrow(dim, 0, 1)
    kept = kept.clone(memory_format=torch.contiguous_format)
    strides = [
        0 if stride == 0 else own for stride, own in zip(found.stride(), kept.stride(), strict=True)
    ]
    return _Recipe(constant=kept, view=(found.shape, strides, 0))


def _with_views(
    found: Callable[..., Sequence[Tensor]], recipes: list[_Recipe]
) -> Callable[..., Sequence[Tensor]]:
    if not recipes:
        return found

    def call(*inputs: Tensor) -> list[Tensor]:
        computed = found(*inputs)
        return [recipe.result(inputs, computed) for recipe in recipes]

    return call


def _rewritten(graph: GraphModule, inputs: Sequence[Tensor]) -> GraphModule:
    """The graph without the functions that inductor's vector code has wrong, or slow."""
    if not any(node.target in _REWRITES for node in graph.graph.nodes):
        return copy.copy(graph)
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(graph, decomposition_table=dict(_REWRITES))(*inputs)


def _expm1(x: Tensor) -> Tensor:
    """Inductor's is ``exp(x) - 1``, whose relative error near 0 is 1: the tails of distributions would be lost."""
    if not x.is_floating_point():
        return NotImplemented  # type: ignore[no-any-return]
    return (x.exp() + 1) * torch.tanh(x / 2)


def _erf(x: Tensor) -> Tensor:
    """Inductor's has an absolute error of 1e-7, which is no digit near 0: there the series, with a relative error of 1e-7."""
    if x.dtype != torch.float32:
        return NotImplemented  # type: ignore[no-any-return]
    square = x * x
    series = 1 + square * (-1 / 3 + square * (1 / 10 + square * (-1 / 42 + square / 216)))
    return torch.where(x.abs() < 0.3, 2 / math.sqrt(math.pi) * x * series, 1 - torch.erfc(x))


def _tanh(x: Tensor) -> Tensor:
    """Half the time of inductor's, with a relative error of 3e-7."""
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return NotImplemented  # type: ignore[no-any-return]
    fall, square = torch.exp(-2 * x.abs()), x * x
    series = 1 + square * (-1 / 3 + square * (2 / 15 - square * 17 / 315))
    far = torch.copysign((1 - fall) / (1 + fall), x)
    return torch.where(x.abs() < 0.1, x * series, far)


_REWRITES: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.expm1.default: _expm1,
    torch.ops.aten.erf.default: _erf,
    torch.ops.aten.tanh.default: _tanh,
}
