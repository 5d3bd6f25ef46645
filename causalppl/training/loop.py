"""The loop: gradients, guards, checks on held-out data, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from ..errors import MethodError, TrainingError
from ..progress import Progress, progress_from
from ..randomness import fresh_seed, isolated_rng, keyed_seed
from .checkpoint import read_checkpoint, write_checkpoint
from .history import History
from .schedules import schedule_from
from .trainee import Modules, Trainee

__all__ = ["train"]


def train(
    loss: Callable[[int], Tensor],
    modules: Modules,
    *,
    steps: int,
    learning_rate: float = 1e-3,
    schedule: str | Callable[[float], float] = "cosine",
    clip_norm: float | None = 10.0,
    held_out: Callable[[], Tensor | float] | None = None,
    check_every: int = 100,
    patience: int = 10,
    checkpoint: str | PathLike[str] | None = None,
    monitors: Callable[[], Mapping[str, float]] | None = None,
    seed: int | None = None,
    progress: bool | Progress = False,
    name: str = "training",
) -> History:
    r"""Minimise a loss by Adam, in place.

    Each step runs with torch's generators seeded by ``seed`` and the step's number, so a loss may draw from them as it likes, a
    seed reproduces the training, and one that is resumed from its checkpoint gives the numbers of one that was never broken off.
    The generators are left as they were, and so are the ``.grad`` of all tensors.

    Args:
        loss: from the number of the step, counted from 0, to a scalar; it makes its own batch, from this number or from torch's
            generators.
        modules: name to module, or to a tensor that requires gradients. In the modes that they have; in eval mode during checks. The
            mapping may grow in a step, where a parameter shows itself late: it is trained from that step on.
        steps: at most so many.
        learning_rate: Adam's, before the schedule.
        schedule: ``"constant"``; ``"cosine"``, half a wave from one to zero; ``"warmup_cosine"``, with a linear rise over the first
            twentieth; ``"settle"``, by tens where the loss has ceased to fall, to the end of the training the third time; or a
            function from the share of steps that are done to a factor.
        clip_norm: the largest norm of the gradient of all parameters together; ``None`` for no limit.
        held_out: the loss on data that are not trained on. The weights with the lowest are kept in the end. It is called without
            gradients, each time with the same seed.
        check_every: steps between checks, which look at ``held_out`` and ``monitors`` and write the checkpoint.
        patience: the training ends at so many checks in a row without a lower held-out loss.
        checkpoint: a path. Where the file exists, the training goes on from it.
        monitors: further numbers to watch, such as an effective sample size; called as ``held_out`` is.
        seed: an integer; ``None`` takes one from torch's generator, or from the checkpoint.
        progress: ``True`` draws a bar with the loss and the monitors.
        name: what is trained, for the bar, messages and the checkpoint.

    Returns:
        :class:`History`; the weights are in the modules.

    Raises:
        MethodError: settings that are out of range, or nothing to train.
        TrainingError: the loss, its gradient or the held-out loss is not finite; the weights are the last finite ones, and the
            error's ``history`` is that so far.
        ProgramError: the checkpoint is of another training.

    References:
        Diederik Kingma, Jimmy Ba (2015), Adam: A Method for Stochastic Optimization. https://arxiv.org/abs/1412.6980
        Ilya Loshchilov, Frank Hutter (2017), SGDR: Stochastic Gradient Descent with Warm Restarts. https://arxiv.org/abs/1608.03983

    Example:
        >>> import torch
        >>> from causalppl.training import train
        >>> centre = torch.zeros((), requires_grad=True)
        >>> history = train(lambda step: (centre - 3) ** 2, {"centre": centre}, steps=500, learning_rate=0.1, seed=0)
        >>> round(float(centre.detach()), 3), history.stopped
        (3.0, 'steps')
    """
    _check_settings(steps, learning_rate, clip_norm, check_every, patience)
    settings = {
        "name": name,
        "learning_rate": float(learning_rate),
        "schedule": schedule if isinstance(schedule, str) else "a function",
        "clip_norm": clip_norm,
        "check_every": check_every,
        "patience": patience,
    }
    if schedule not in ("constant", "settle"):  # with these a training may go on to more steps
        settings["steps"] = steps
    if seed is not None:
        settings["seed"] = fresh_seed(seed)
    saved = read_checkpoint(checkpoint, settings)
    settings["seed"] = saved["settings"]["seed"] if saved else fresh_seed(seed)
    run = _Run(Trainee(modules, float(learning_rate), clip_norm), settings, History(name))
    if saved:
        run.resume(saved, steps)
    report, began = progress_from(progress), time.perf_counter() - run.history.seconds
    factor_of, history = schedule_from(schedule, steps), run.history
    try:
        report.start(name, steps)
        report.advance(history.steps)
        while history.stopped == "running":
            factor = factor_of(history.steps, history.loss)
            if factor is None:
                history.stopped = "settled"
            elif history.steps >= steps:
                history.stopped = "steps"
            if factor is None or history.stopped != "running" or history.steps % check_every == 0:
                run.look(held_out, monitors)
                history.seconds = time.perf_counter() - began
                if checkpoint is not None:
                    write_checkpoint(checkpoint, run.content())
            if factor is not None and history.stopped == "running":
                run.step(loss, factor)
                report.advance(note=run.note())
    finally:
        report.stop()
    run.trainee.keep_best()
    return history


class _Run:
    """A training that is under way."""

    def __init__(self, trainee: Trainee, settings: dict[str, Any], history: History) -> None:
        self.trainee, self.settings, self.history = trainee, settings, history

    def step(self, loss: Callable[[int], Tensor], factor: float) -> None:
        """One step of Adam.

        Raises:
            TrainingError: the loss or its gradient is not finite.
        """
        history, count = self.history, self.history.steps
        with isolated_rng(keyed_seed(self.settings["seed"], "step", count)):
            with torch.inference_mode(False), torch.enable_grad():
                found = loss(count)
                if not isinstance(found, Tensor) or found.numel() != 1:
                    shown = tuple(found.shape) if isinstance(found, Tensor) else repr(found)
                    raise MethodError(
                        f"{history.name}: the loss is {shown}; give one number, a tensor without dims"
                    )
                value = float(found.detach())
                if not math.isfinite(value):
                    raise self._failure(f"the loss is {value}")
                rate = self.settings["learning_rate"] * factor
                blown = self.trainee.step(found, rate)
                if blown is not None:
                    raise self._failure(f"the gradient of {blown!r} is not finite")
        history.loss.append(value)
        history.learning_rate.append(rate)

    def look(
        self,
        held_out: Callable[[], Tensor | float] | None,
        monitors: Callable[[], Mapping[str, float]] | None,
    ) -> None:
        """A check, unless the checkpoint was written after it.

        Raises:
            TrainingError: the held-out loss is not finite.
        """
        history, seed = self.history, self.settings["seed"]
        if history.steps in history.checks[-1:]:
            return
        history.checks.append(history.steps)
        with self.trainee.judged():
            if monitors is not None:
                with isolated_rng(keyed_seed(seed, "monitors")):
                    for name, value in monitors().items():
                        history.monitors.setdefault(name, []).append(float(value))
            if held_out is None:
                return
            with isolated_rng(keyed_seed(seed, "held out")):
                value = float(held_out())
        if not math.isfinite(value):
            raise self._failure(f"the held-out loss is {value}")
        best = min(history.held_out, default=math.inf)
        history.held_out.append(value)
        if value < best:
            history.best_step = history.steps
            self.trainee.mark_best()
        since = len(history.checks) - 1 - history.checks.index(history.best_step or 0)
        if since >= self.settings["patience"] and history.stopped == "running":
            history.stopped = "held_out"

    def note(self) -> str:
        """What a bar shows."""
        history = self.history
        shown = {"loss": history.loss[-1]}
        if history.held_out:
            shown["held out"] = history.held_out[-1]
        shown |= {name: values[-1] for name, values in history.monitors.items()}
        return ", ".join(f"{name} {value:.4g}" for name, value in shown.items())

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "settings": self.settings,
            "history": vars(self.history),
            **self.trainee.content(),
        }

    def resume(self, saved: Mapping[str, Any], steps: int) -> None:
        """Go on from a checkpoint."""
        self.trainee.load(saved)
        for name, value in saved["history"].items():
            setattr(self.history, name, value)
        if self.history.stopped == "steps" and self.history.steps < steps:
            self.history.stopped = "running"

    def _failure(self, what: str) -> TrainingError:
        history = self.history
        rate = self.settings["learning_rate"]
        error = TrainingError(
            f"{history.name}: {what} after {history.steps} steps; the weights are those before it. Lower learning_rate (now {rate:g}) "
            "or clip_norm, or check the data against the supports of the program's sites"
        )
        error.history = history
        return error


def _check_settings(
    steps: int, learning_rate: float, clip_norm: float | None, check_every: int, patience: int
) -> None:
    for name, count in {"steps": steps, "check_every": check_every, "patience": patience}.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise MethodError(f"{name}={count!r}: give a positive integer")
    for name, size in {"learning_rate": learning_rate, "clip_norm": clip_norm}.items():
        if size is not None and not size > 0:
            raise MethodError(f"{name}={size!r}: give a positive number")
