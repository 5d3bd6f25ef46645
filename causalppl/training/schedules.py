"""How the learning rate changes, as a function of the step and of the losses so far: nothing to remember, so resuming is exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from ..errors import MethodError, site_list

__all__ = ["SCHEDULES", "Schedule", "schedule_from"]

#: The schedules by name; "settle" ends a training by itself.
SCHEDULES = ("constant", "cosine", "warmup_cosine", "settle")

_WARMUP = 0.05  # of all steps
_WINDOW = 200
_ENDS = 3


class Schedule(Protocol):
    """What the learning rate is multiplied with."""

    def __call__(self, step: int, losses: Sequence[float]) -> float | None:
        """The factor of step number ``step``, counted from 0, after ``losses``; ``None`` ends the training."""


def schedule_from(given: str | Callable[[float], float], steps: int) -> Schedule:
    """A schedule by name, or from a function of the share of steps that are done, in [0, 1).

    Raises:
        MethodError: another name.
    """
    if callable(given):
        function = given
        return lambda step, losses: float(function(step / steps))
    if given == "settle":
        return _Settle()
    curves: dict[str, Callable[[float], float]] = {
        "constant": lambda done: 1.0,
        "cosine": _cosine,
        "warmup_cosine": lambda done: min(1.0, (done + 1 / steps) / _WARMUP) * _cosine(done),
    }
    if given not in curves:
        raise MethodError(
            f"schedule={given!r} is not known; give one of {site_list(SCHEDULES)}, or a function of the share of steps done"
        )
    curve = curves[given]
    return lambda step, losses: curve(step / steps)


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


class _Settle:
    """Every 200 steps the mean loss of the last 200 is compared with that of the 200 before. Where it has fallen by less than
    twice the standard error of the difference, the learning rate is divided by ten; the third time, training ends."""

    def __init__(self) -> None:
        self._looked, self._settled = _WINDOW, 0

    def __call__(self, step: int, losses: Sequence[float]) -> float | None:
        while self._looked + _WINDOW <= len(
            losses
        ):  # more than once only where a training is resumed
            self._looked += _WINDOW
            self._settled += _has_settled(losses[self._looked - 2 * _WINDOW : self._looked])
            if self._settled == _ENDS:
                return None
        return 10.0**-self._settled


def _has_settled(losses: Sequence[float]) -> bool:
    before, now = torch.tensor(losses, dtype=torch.float64).split(_WINDOW)
    error = ((before.var() + now.var()) / _WINDOW).sqrt()
    return bool(before.mean() - now.mean() < 2 * error + 1e-6 * before.mean().abs())
