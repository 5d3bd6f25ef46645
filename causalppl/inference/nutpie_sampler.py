"""The No-U-Turn sampler of nutpie on any log density written in torch.

nutpie runs the chain and calls back for values and gradients on a thread of its own. Two things follow.
A traced or compiled log density is a pure tensor function and is evaluated right there. A plain Python
one may use Pyro's handler stack or settings that torch keeps per thread (gradient mode, default device), so it is
evaluated on the caller's thread, which waits anyway. Nor may the callback raise: nutpie would abort its
thread and print the backtrace; the first error is kept, the chain cancelled, and the error raised as
it was.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InferenceError, MethodError, ShapeError
from ..progress import Progress, SilentProgress
from .log_density import (
    Evaluate,
    Executor,
    LogDensity,
    ValueAndGradient,
    agreement_error,
    eager_value_and_gradient,
    value_and_gradient,
)

__all__ = ["NutsDraws", "sample_nuts"]

_POLL_SECONDS = 0.05
# Only for the decision whether to compile: trees of 7 or 15 steps are usual once a chain has adapted.
_ASSUMED_STEPS_PER_DRAW = 10
_DRAWS_CHECKED_PER_CHAIN = 4


@dataclass(frozen=True)
class NutsDraws:
    """What a run of the sampler gives.

    Args:
        draws: shape ``(chains, num_samples, dim)``, in the dtype of the initial points; warmup is left out.
        divergences: divergent transitions after warmup, over all chains.
        warmup: warmup steps of each chain.
        step_sizes: adapted step size of each chain, shape ``(chains,)``.
        executor: how the log density was evaluated: ``"compiled"``, ``"traced"`` or ``"eager"``.
        notes: why a faster executor was refused; empty where none was.
        evaluations: how often value and gradient were computed, over all chains.
    """

    draws: Tensor
    divergences: int
    warmup: int
    step_sizes: Tensor
    executor: Executor
    notes: tuple[str, ...] = ()
    evaluations: int = 0


class _Callback:
    """The function that nutpie calls: ``(dim,)`` float64 array to value and gradient; it never raises.

    A value that is not finite ends the trajectory as a divergence, which nutpie recovers from.
    """

    def __init__(self, evaluate: Evaluate, like: Tensor, on_caller: bool) -> None:
        self._evaluate = evaluate
        self._dtype, self._device = like.dtype, like.device
        self._refusal = (float("nan"), np.zeros(like.numel()))
        self._requests: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[float, np.ndarray]] = queue.SimpleQueue()
        self.on_caller = on_caller
        self.closed = threading.Event()
        self.error: BaseException | None = None
        self.evaluations = 0
        self.draws = 0

    def __call__(self, position: np.ndarray) -> tuple[float, np.ndarray]:
        if self.closed.is_set():
            return self._refusal
        if not self.on_caller:
            return self._compute(position)
        self._requests.put(position)
        while (
            not self.closed.is_set()
        ):  # the caller may have left meanwhile, by an interrupt for example
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=_POLL_SECONDS)
        return self._refusal

    def expand(self, position: np.ndarray) -> dict[str, np.ndarray]:
        """Called once a draw, which is what progress counts."""
        self.draws += 1
        return {"position": np.array(position)}

    def serve(self) -> bool:
        """Compute one waiting request on this thread; whether there was one."""
        try:
            position = self._requests.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            return False
        self._answers.put(self._compute(position))
        return True

    def _compute(self, position: np.ndarray) -> tuple[float, np.ndarray]:
        self.evaluations += 1
        try:
            point = torch.tensor(position, dtype=self._dtype, device=self._device)
            value, gradient = self._evaluate(point)
            array = np.ascontiguousarray(gradient.detach().cpu().numpy(), dtype=np.float64)
            if not np.isfinite(array).all():
                return self._refusal
            return float(value), array
        except BaseException as error:  # raised again on the caller's thread
            self.error = error
            self.closed.set()
            return self._refusal


def _import_nutpie() -> Any:
    # It imports arviz, whose announcement of a coming version is no concern of a user of this library.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import nutpie
    return nutpie


def _start(callback: _Callback, initial: Tensor, settings: dict[str, Any]) -> Any:
    nutpie = _import_nutpie()
    start = initial.detach().cpu().numpy().astype(np.float64)
    model = nutpie.compiled_pyfunc.from_pyfunc(
        ndim=len(start),
        make_logp_fn=lambda: callback,
        make_expand_fn=lambda *_: callback.expand,
        expanded_dtypes=[np.dtype("float64")],
        expanded_shapes=[(len(start),)],
        expanded_names=["position"],
        make_initial_point_fn=lambda _: start.copy(),
    )
    return nutpie.sample(
        model, chains=1, cores=1, progress_bar=False, save_warmup=False, blocking=False, **settings
    )


def _finish(sampler: Any, callback: _Callback, progress: Progress, note: str) -> Any:
    """Wait for one chain, serving evaluations and reporting progress from the caller's thread."""
    told, told_at = 0, time.monotonic()
    try:
        while True:
            served = callback.on_caller and callback.serve()
            if time.monotonic() - told_at > _POLL_SECONDS:
                progress.advance(callback.draws - told, note)
                told, told_at = callback.draws, time.monotonic()
            if callback.error is not None:
                raise callback.error
            if served:
                continue
            with contextlib.suppress(TimeoutError):
                trace = sampler.wait(timeout=1e-3 if callback.on_caller else _POLL_SECONDS)
                break
        progress.advance(callback.draws - told, note)
        return trace
    finally:
        callback.closed.set()


def _run_chain(
    callback: _Callback, initial: Tensor, settings: dict[str, Any], progress: Progress, note: str
) -> Any:
    sampler = _start(callback, initial, settings)
    try:
        return _finish(sampler, callback, progress, note)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            sampler.cancel()
        if callback.error is not None:
            raise callback.error from None
        # nutpie reports an aborted thread by an exception that derives from BaseException alone.
        if isinstance(error, RuntimeError) or type(error).__name__ == "PanicException":
            lines = str(error).splitlines() or [type(error).__name__]
            raise InferenceError(f"The NUTS sampler stopped: {lines[0]}") from error
        raise


def _run_chains(
    pair: ValueAndGradient,
    initial: Tensor,
    seed: int,
    settings: dict[str, Any],
    progress: Progress,
    reference: Evaluate | None,
) -> NutsDraws | None:
    """All chains, one after another; ``None`` where the executor disagrees with ``reference`` at draws."""
    draws, step_sizes, divergences, evaluations = [], [], 0, 0
    for chain, start in enumerate(initial):
        callback = _Callback(pair.evaluate, start, on_caller=pair.executor == "eager")
        own_seed = int(np.random.SeedSequence([seed, chain]).generate_state(1, np.uint64)[0])
        note = f"chain {chain + 1}/{len(initial)}"
        trace = _run_chain(callback, start, {**settings, "seed": own_seed}, progress, note)
        statistics = trace["sample_stats"]
        position = torch.tensor(trace["posterior"]["position"].values[0])
        draws.append(position.to(initial))
        step_sizes.append(float(statistics["step_size_bar"].values[0, -1]))
        divergences += int(statistics["diverging"].values.sum())
        evaluations += callback.evaluations
        if reference is not None:
            rows = torch.linspace(0, len(position) - 1, _DRAWS_CHECKED_PER_CHAIN).long()
            points = torch.cat([start[None], draws[-1][rows]])
            if agreement_error(pair.evaluate, reference, points) > 1.0:
                return None
    return NutsDraws(
        torch.stack(draws),
        divergences,
        settings["tune"],
        torch.tensor(step_sizes, dtype=initial.dtype),
        pair.executor,
        pair.notes,
        evaluations,
    )


def _check_arguments(initial: Tensor, num_samples: int, warmup: int, target_accept: float) -> None:
    if initial.dim() != 2 or 0 in initial.shape:
        raise ShapeError(
            f"initial has shape {tuple(initial.shape)}; it must be (chains, dim), neither of them 0."
        )
    if initial.dtype not in (torch.float32, torch.float64):
        raise MethodError(
            f"initial has dtype {initial.dtype}; NUTS needs torch.float32 or torch.float64. "
            "Convert it with initial.double()."
        )
    if num_samples < 1 or warmup < 1:
        raise MethodError(
            f"num_samples={num_samples} and warmup={warmup} were given; both must be at least 1 "
            "(a few hundred steps of warmup are usual: the step size is adapted in them)."
        )
    if not 0.0 < target_accept < 1.0:
        raise MethodError(f"target_accept={target_accept} must lie strictly between 0 and 1.")


def _finite(value: Tensor, gradient: Tensor) -> bool:
    return bool(torch.isfinite(value) & torch.isfinite(gradient).all())


def _start_points(reference: Evaluate, initial: Tensor) -> Tensor:
    """The initial points, checked; a coordinate whose gradient is exactly zero is moved a little.

    nutpie scales its first mass matrix by the gradient and refuses zeros, which a start at the mode has.
    """
    starts = []
    for chain, start in enumerate(initial):
        value, gradient = reference(start)
        if not _finite(value, gradient):
            raise InferenceError(
                f"The log density at the initial point of chain {chain} is {float(value)} (or its "
                "gradient is not finite); NUTS has to start where both are finite. "
                "Give other initial points."
            )
        moved = start
        for step in (1e-3, -1e-3, 1e-2, -1e-2, 1e-1, -1e-1):
            if bool((gradient != 0).all()):
                break
            there = torch.where(gradient == 0, start + step * (1.0 + start.abs()), moved)
            value, new_gradient = reference(there)
            if _finite(value, new_gradient):
                moved, gradient = there, new_gradient
        if bool((gradient == 0).any()):
            flat = torch.nonzero(gradient == 0).flatten().tolist()
            raise InferenceError(
                f"The log density does not depend on coordinates {flat[:10]} around the initial point "
                f"of chain {chain}; NUTS cannot sample them. Give other initial points, or a proper "
                "prior to what is flat."
            )
        starts.append(moved)
    return torch.stack(starts)


def sample_nuts(
    log_density: LogDensity,
    initial: Tensor,
    *,
    num_samples: int,
    warmup: int,
    seed: int,
    target_accept: float = 0.8,
    progress: Progress | None = None,
    compile: bool = True,
    check_points: Tensor | None = None,
) -> NutsDraws:
    """Draws from the distribution whose unnormalised log density is given, by the No-U-Turn sampler.

    Step size and diagonal mass matrix are adapted in warmup (nutpie's default, from draws and gradients).
    Chains run one after another. A seed reproduces its draws exactly on the same machine with the same
    number of torch threads. No random generator of torch or NumPy is touched. Argument checks of
    torch's distributions are off while the density is evaluated (values that are not finite end a
    trajectory instead) and restored.

    Args:
        log_density: position of shape ``(dim,)`` to a scalar, in nats, differentiable and deterministic.
            It may be NaN or minus infinity outside the support.
        initial: first points, shape ``(chains, dim)``, one a chain, with finite log density; float32 or
            float64, which is the dtype that the density is evaluated in.
        num_samples: draws to keep of each chain.
        warmup: adaptation steps of each chain, at least 1.
        seed: any integer; a chain's stream is a function of the seed and the chain's number.
        target_accept: acceptance rate that the step size is adapted to; larger takes smaller steps.
        progress: told of every step, warmup included, from the caller's thread.
        compile: whether inductor may be used; see :mod:`causalppl.inference.log_density`.
        check_points: further points, ``(number, dim)``, where a trace must agree with the function.

    Returns:
        A :class:`NutsDraws`. Convergence is for the caller to judge.

    Raises:
        ShapeError: ``initial`` is not ``(chains, dim)`` or the log density not a scalar.
        MethodError: a setting outside its range.
        InferenceError: an initial point without finite log density, or a failure inside the sampler.
            An exception of ``log_density`` itself passes through unchanged.

    References:
        Matthew D. Hoffman, Andrew Gelman (2014), The No-U-Turn Sampler: Adaptively Setting Path Lengths
        in Hamiltonian Monte Carlo. https://jmlr.org/papers/v15/hoffman14a.html

    Example:
        >>> import torch
        >>> from causalppl.inference.nutpie_sampler import sample_nuts
        >>> result = sample_nuts(
        ...     lambda x: -0.5 * (x**2).sum(), torch.zeros(2, 3), num_samples=50, warmup=50, seed=0
        ... )
        >>> result.draws.shape, result.executor
        (torch.Size([2, 50, 3]), 'traced')
    """
    _check_arguments(initial, num_samples, warmup, target_accept)
    reference = eager_value_and_gradient(log_density)
    initial = _start_points(reference, initial.detach())
    chains = len(initial)
    others = initial[1:]
    if check_points is not None:
        others = torch.cat([check_points.detach().to(initial), others])
    steps = chains * (warmup + num_samples)
    pair = value_and_gradient(
        log_density,
        initial[0],
        evaluations=steps * _ASSUMED_STEPS_PER_DRAW,
        compile=compile,
        check_points=others,
    )
    settings = {"draws": num_samples, "tune": warmup, "target_accept": target_accept}
    report = SilentProgress() if progress is None else progress
    run_seed = seed % 2**64
    report.start("NUTS", total=steps)
    try:
        proof = None if pair.executor == "eager" else reference
        result = _run_chains(pair, initial, run_seed, settings, report, proof)
        if result is None:
            note = (
                f"the {pair.executor} log density disagreed with the plain one at draws of the chain; "
                "all chains were run again as plain Python"
            )
            pair = ValueAndGradient(reference, "eager", (*pair.notes, note))
            report.start("NUTS, again", total=steps)
            result = _run_chains(pair, initial, run_seed, settings, report, None)
    finally:
        report.stop()
    assert result is not None  # without a reference nothing is compared
    return result
