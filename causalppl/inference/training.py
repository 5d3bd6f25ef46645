"""One loop for everything that maximises an ELBO: when it stops, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import InferenceError
from ..progress import Progress

__all__ = ["Training", "train"]

_WINDOW = 200
_ENDS = 3


@dataclass(frozen=True)
class Training:
    """How an ELBO rose.

    Attributes:
        history: the ELBO's estimate at every step, in nats.
        converged: whether the rule of :func:`train` ended it, and not the number of steps.
    """

    history: list[float]
    converged: bool

    def note(self) -> str:
        """First and last values, means over a tenth of the steps each, in words."""
        tenth = max(1, len(self.history) // 10)
        means = [
            sum(part) / len(part)
            for part in (self.history[i : i + tenth] for i in range(0, len(self.history), tenth))
        ]
        shown = ", ".join(f"{m:.4g}" for m in means)
        return f"ELBO in nats, averaged over each tenth of {len(self.history)} steps: {shown}" + (
            "" if self.converged else "; it had not settled"
        )


def train(
    step: Callable[[], float],
    optimiser: torch.optim.Optimizer,
    steps: int,
    progress: Progress,
    method: str,
) -> Training:
    """Steps until the ELBO settles.

    Every 200 steps the mean ELBO of the last 200 is compared with that of the 200 before. Where it has risen by less than twice the
    standard error of the difference, the learning rate is divided by ten; the third time, training ends.

    Args:
        step: computes gradients and returns the ELBO; the optimiser's step follows.
        steps: at most so many.

    Raises:
        InferenceError: the ELBO is not a number.
    """
    history: list[float] = []
    settled = 0
    progress.start(method, steps)
    for count in range(1, steps + 1):
        optimiser.zero_grad(set_to_none=True)
        history.append(step())
        if not math.isfinite(history[-1]):
            raise InferenceError(
                f"{method}: the ELBO is {history[-1]} after {count} steps; lower learning_rate, or check the evidence against the "
                "program's supports"
            )
        optimiser.step()
        progress.advance(note=f"ELBO {history[-1]:.4g}")
        if count % _WINDOW or count < 2 * _WINDOW or not _settled(history):
            continue
        settled += 1
        if settled == _ENDS:
            return Training(history, True)
        for group in optimiser.param_groups:
            group["lr"] /= 10
    return Training(history, False)


def _settled(history: list[float]) -> bool:
    before, now = (
        torch.tensor(part, dtype=torch.float64)
        for part in (history[-2 * _WINDOW : -_WINDOW], history[-_WINDOW:])
    )
    error = ((before.var() + now.var()) / _WINDOW).sqrt()
    return bool(now.mean() - before.mean() < 2 * error + 1e-6 * before.mean().abs())
