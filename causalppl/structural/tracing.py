"""A function of tensors as a plain graph (``make_fx``), and that graph as machine code (inductor)."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

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

    Inputs of later calls have the shapes, strides and dtypes of these.

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
            inductor_config.patch({"compile_threads": 1, **threads}),
            torch.inference_mode(False),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            found: Callable[..., Sequence[Tensor]] = torch._inductor.compile(
                copy.copy(graph), list(inputs)
            )
            # without the wrapper that keeps dynamo away, which is not running: it costs as much as a small graph
            found = getattr(found, "_torchdynamo_orig_callable", found)
            found(*inputs)
        return found
    finally:
        logger.setLevel(level)
