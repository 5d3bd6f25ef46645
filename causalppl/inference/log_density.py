"""A log density with its gradient, as fast as it can be had and still be the same function.

A gradient-based sampler evaluates one function tens of thousands of times. Three executors give the
same numbers:

``"eager"``
    the function itself under autograd: always right, and for a Pyro program mostly overhead;
``"traced"``
    a graph of tensor operations recorded once by ``make_fx``: no handlers, no autograd tape;
``"compiled"``
    that graph turned into C++ by torch's inductor.

Tracing is silently wrong where a program turns tensor values into Python values: these are burned into
the graph as constants. So a faster form is used only after it has agreed with the plain function, in
value and gradient, at two or more further points with different values; and the sampler compares the
two again at its own draws.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..errors import ShapeError
from ..structural.tracing import compiled, has_cpp_compiler, small
from .traced_graphs import compiled_graph, folded

__all__ = [
    "Executor",
    "LogDensity",
    "ValueAndGradient",
    "agreement_error",
    "eager_value_and_gradient",
    "value_and_gradient",
    "worth_compiling",
]

#: A function of a position of shape ``(dim,)`` whose value is a log density, in nats, of shape ``()``.
LogDensity: TypeAlias = Callable[[Tensor], Tensor]
Evaluate: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
Executor: TypeAlias = Literal["compiled", "traced", "eager"]

# Measured on one CPU core: a traced graph costs about 2 microseconds an operation whatever the operation,
# as long as tensors are small; inductor needs about 3 s and 5 ms an operation with a warm cache of
# headers, some 10 s more the first time on a machine. Constants rather than a stopwatch, because the
# executor must not depend on how busy the machine is: rounding differs between executors, and a chain
# amplifies it, so that a seed would not reproduce its draws.
_SECONDS_PER_OPERATION = 2e-6
_SECONDS_PER_ELEMENT = 0.5e-9
_COMPILE_SECONDS = 3.0
_COMPILE_SECONDS_PER_OPERATION = 5e-3

# Largest differences between two executors, relative to the largest magnitude over the points compared.
# Values are held to less than gradients: a burned-in constant may change a large sum by a few nats only.
_VALUE_TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}
_GRADIENT_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-7}


@dataclass(frozen=True)
class ValueAndGradient:
    """A log density and its gradient.

    Args:
        evaluate: position of shape ``(dim,)`` to value, shape ``()``, and gradient, shape ``(dim,)``. A
            linear-algebra failure (a matrix that is not positive definite) gives NaN.
        executor: ``"compiled"``, ``"traced"`` or ``"eager"``.
        notes: why a faster executor could not be used; empty where none was refused.
    """

    evaluate: Evaluate
    executor: Executor
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def _plain_torch() -> Iterator[None]:
    """Gradients on, and distributions' argument checks off, both restored afterwards.

    A sampler's trajectory may leave the region where parameters are valid; that is a rejected proposal
    and not an error. The checks also read tensor values, which a trace cannot.
    """
    distribution = torch.distributions.Distribution
    before = distribution._validate_args
    distribution.set_default_validate_args(False)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        distribution.set_default_validate_args(before)


def _failing_as_nan(evaluate: Evaluate) -> Evaluate:
    """A factorisation that fails is a point outside the support: value and gradient are NaN."""

    def guarded(position: Tensor) -> tuple[Tensor, Tensor]:
        try:
            return evaluate(position)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # public, not in its stubs
            return position.new_full((), float("nan")), torch.full_like(position, float("nan"))

    return guarded


def eager_value_and_gradient(log_density: LogDensity) -> Evaluate:
    """The log density itself with autograd's gradient; zero where it does not depend on the position.

    Raises:
        ShapeError: the log density is not a scalar.
    """

    def evaluate(position: Tensor) -> tuple[Tensor, Tensor]:
        with _plain_torch():
            leaf = position.detach().clone().requires_grad_(True)
            value = log_density(leaf)
            if value.shape != ():
                raise ShapeError(
                    f"The log density has shape {tuple(value.shape)}; it must be a scalar, shape (). "
                    "Sum it over its axes."
                )
            gradient: Tensor | None = None
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
            return value.detach(), torch.zeros_like(leaf) if gradient is None else gradient.detach()

    return _failing_as_nan(evaluate)


def agreement_error(ours: Evaluate, reference: Evaluate, points: Tensor) -> float:
    """How far two executors differ at ``points``, in units of what is tolerated: at most 1 is agreement.

    The difference is relative to the largest magnitude of the reference over all points. A point where
    the reference is not finite must not be finite in ``ours`` either; one where the reference raises is
    left out.

    Args:
        points: shape ``(number, dim)``.

    Returns:
        The worst ratio over values and gradients; infinite where fewer than two points could be compared.
    """
    pairs = []
    for point in points:
        try:
            expected = reference(point)
        except (
            Exception
        ):  # the program's own complaint about an odd point says nothing about the trace
            continue
        pairs.append((ours(point), expected))
    finite = [p for p in pairs if bool(torch.isfinite(p[1][0]) & torch.isfinite(p[1][1]).all())]
    if any(bool(torch.isfinite(o[0])) for o, e in pairs if not bool(torch.isfinite(e[0]))):
        return float("inf")
    if len(finite) < 2:
        return float("inf")
    worst = 0.0
    for which, tolerances in ((0, _VALUE_TOLERANCE), (1, _GRADIENT_TOLERANCE)):
        expected_all = torch.stack([e[which] for _, e in finite])
        ours_all = torch.stack([o[which].to(expected_all) for o, _ in finite])
        scale = max(1.0, float(expected_all.abs().max()))
        error = float((ours_all - expected_all).abs().max()) / scale
        # A NaN of ours where the reference is finite must not slip through a comparison.
        worst = max(worst, error / tolerances[points.dtype]) if error == error else float("inf")
    return worst


def _check_points(reference: Evaluate, point: Tensor, given: Tensor | None) -> Tensor:
    """Points to prove a trace at: the caller's, and some at several distances, none the traced one."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(6, point.numel(), generator=generator, dtype=point.dtype).to(point.device)
    scales = torch.tensor([1.0, 1.0, 0.3, 0.1, 0.03], dtype=point.dtype, device=point.device)
    own = [point + scales[:, None] * noise[:5], (-point + 0.3 * noise[5])[None]]
    points = torch.cat(own if given is None else [given.to(point), *own])
    return points[(points != point).any(1)]


def _trace(log_density: LogDensity, point: Tensor) -> torch.fx.GraphModule:
    from torch.fx.experimental.proxy_tensor import make_fx

    def value_first(position: Tensor) -> tuple[Tensor, Tensor]:
        gradient, value = torch.func.grad_and_value(log_density)(position)
        return value, gradient

    with _plain_torch(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph: torch.fx.GraphModule = make_fx(value_first)(point.detach())
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return folded(graph)


def _run_graph(graph: Callable[[Tensor], Any]) -> Evaluate:
    def evaluate(position: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            value, gradient = graph(position)
            return value, gradient

    return _failing_as_nan(evaluate)


def _operations(graph: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """The graph's operations whose result is one tensor."""
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    return [node for node in nodes if isinstance(node.meta.get("val"), Tensor)]


def worth_compiling(graph: torch.fx.GraphModule, evaluations: int) -> bool:
    """Whether compiling pays: the traced graph's estimated time exceeds twice that of compiling it.

    With ``n`` operations whose results have ``m`` elements together, the traced graph is taken to need
    ``evaluations * (n * 2 us + m * 0.5 ns)`` and compilation ``3 s + n * 5 ms`` (measured). The
    estimate is a function of the graph alone, so that the same seed takes the same executor.
    """
    operations = _operations(graph)
    elements = sum(node.meta["val"].numel() for node in operations)
    each = len(operations) * _SECONDS_PER_OPERATION + elements * _SECONDS_PER_ELEMENT
    cost = _COMPILE_SECONDS + len(operations) * _COMPILE_SECONDS_PER_OPERATION
    return bool(evaluations * each > 2 * cost)


def _compile(graph: torch.fx.GraphModule, point: Tensor) -> Callable[[Tensor], Any]:
    """Inductor's code, kept for graphs that differ in their constants alone."""
    one_thread = small(graph)

    def compile(lifted: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        return compiled(lifted, inputs, one_thread)

    return compiled_graph(graph, point, compile, one_thread)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def value_and_gradient(
    log_density: LogDensity,
    point: Tensor,
    *,
    evaluations: int,
    compile: bool = True,
    check_points: Tensor | None = None,
) -> ValueAndGradient:
    r"""The pair :math:`\log p(x)`, :math:`\nabla \log p(x)` by the fastest executor that is proved right.

    Args:
        log_density: position of shape ``(dim,)`` to a scalar, in nats. It must be deterministic.
        point: where to trace, shape ``(dim,)``; its dtype and device are those of the computation.
        evaluations: roughly how many calls will follow; decides whether to compile (:func:`worth_compiling`).
        compile: ``False`` stops at the traced graph.
        check_points: further points, shape ``(number, dim)``, where the trace must agree with the function;
            some around ``point`` are always added.

    Returns:
        A :class:`ValueAndGradient`; its notes say why a faster executor was refused.

    Raises:
        ShapeError: the log density is not a scalar.

    Example:
        >>> import torch
        >>> from causalppl.inference.log_density import value_and_gradient
        >>> pair = value_and_gradient(lambda x: -0.5 * (x**2).sum(), torch.tensor([1.0, 2.0]), evaluations=10)
        >>> pair.executor
        'traced'
        >>> pair.evaluate(torch.tensor([3.0, -1.0]))
        (tensor(-5.), tensor([-3.,  1.]))
    """
    reference = eager_value_and_gradient(log_density)
    reference(
        point
    )  # a shape error is the caller's to hear about, not a reason to go on without a trace
    try:
        graph = _trace(log_density, point)
    except Exception as error:
        note = f"the log density cannot be traced ({_reason(error)}); it runs as plain Python"
        return ValueAndGradient(reference, "eager", (note,))
    traced = _run_graph(graph)
    points = _check_points(reference, point, check_points)
    try:
        difference = agreement_error(traced, reference, points)
    except Exception:
        difference = float("inf")
    if difference > 1.0:
        note = (
            "a trace of the log density does not reproduce it at other points (tensor values become "
            "Python values in it); it runs as plain Python"
        )
        return ValueAndGradient(reference, "eager", (note,))
    plain = ValueAndGradient(traced, "traced")
    if not compile or point.device.type != "cpu" or not worth_compiling(graph, evaluations):
        return plain
    if not has_cpp_compiler():
        note = "no C++ compiler was found; the log density runs as a traced graph"
        return replace(plain, notes=(note,))
    try:
        run = _run_graph(_compile(graph, point))
        difference = agreement_error(run, reference, points)
    except Exception as error:
        note = f"compiling failed ({_reason(error)}); the log density runs as a traced graph"
        return replace(plain, notes=(note,))
    if difference > 1.0:
        note = "the compiled log density differs from the plain one; it runs as a traced graph"
        return replace(plain, notes=(note,))
    return replace(plain, evaluate=run, executor="compiled")
