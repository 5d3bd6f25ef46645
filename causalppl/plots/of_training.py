"""Pictures of a training: how its loss fell, on the data and on what was held out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import MethodError, UnknownSiteError, site_list
from ..training import History
from .looks import LOOKS, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["history"]

_BANDS = 50


def history(training: History, quantity: str = "loss", *, ax: Axes | None = None) -> Axes:
    r"""The loss at every step in grey, its running mean in black, the held-out loss, and the step whose weights were kept.

    A held-out loss that rises while the loss falls means that the training data are learned by heart. The first steps, whose loss
    may be far higher than all others, do not decide the scale.

    Args:
        training: what ``cp.fit(...)(...)`` has as ``.history``, and any other training.
        quantity: ``"loss"``, ``"learning_rate"``, or the name of a monitor.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.

    Raises:
        MethodError: no step was done.
        UnknownSiteError: there is no monitor of that name.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model():
        ...     pyro.sample("x", dist.Normal(pyro.param("mean", torch.tensor(0.0)), 1.0))
        >>> found = cp.fit(model, {"x": 2.0}, steps=100, schedule="cosine", seed=0)()
        >>> cp.plots.history(found.history).get_xlabel()
        'steps'
    """
    if not training.loss:
        raise MethodError("plots: the history has no steps; train first")
    axes = new_axes() if ax is None else ax
    if quantity == "loss":
        _draw_loss(axes, training)
        label = "loss"
    elif quantity == "learning_rate":
        rates = training.learning_rate
        axes.plot(np.arange(len(rates)), rates, color="black", linewidth=1.5)
        axes.set_yscale("log")
        label = "learning rate"
    elif quantity in training.monitors:
        values = training.monitors[quantity]
        look = LOOKS[6]
        checks = training.checks[-len(values) :]
        axes.plot(checks, values, color=look.colour, marker=look.marker, markersize=4, linewidth=1.5)  # fmt: skip
        label = quantity
    else:
        known = ["loss", "learning_rate", *training.monitors]
        raise UnknownSiteError(f"plots: no quantity {quantity!r}; there are {site_list(known)}")
    if training.best_step is not None:
        axes.axvline(
            training.best_step, color="grey", linewidth=0.8, linestyle=":",
            label=f"weights kept, after {training.best_step} steps",
        )  # fmt: skip
    axes.set_xlim(0, max(1, training.steps))
    axes.set_xlabel("steps")
    axes.set_ylabel(label)
    axes.set_title(f"{training.name}: {training.reason().split(';')[0]}", fontsize="medium")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=False, fontsize="small", loc="upper right" if quantity == "loss" else "best"
        )
    return axes


def _draw_loss(axes: Axes, training: History) -> None:
    losses = np.asarray(training.loss)
    steps = np.arange(1, len(losses) + 1)
    width = max(1, len(losses) // _BANDS)
    means = _running_mean(losses, width)
    centres = np.arange(len(means)) + 1 + (width - 1) / 2
    axes.plot(steps, losses, color="0.75", linewidth=0.6, label="loss of each step")
    axes.plot(centres, means, color="black", linewidth=1.6, label=f"mean of {width} steps")
    shown = [means]
    if training.held_out:
        look = LOOKS[1]
        held_out = np.asarray(training.held_out)
        axes.plot(
            training.checks[-len(held_out) :], held_out, color=look.colour, linestyle=look.line,
            marker=look.marker, markersize=4, linewidth=1.4, label="held out",
        )  # fmt: skip
        shown.append(held_out[len(held_out) > 1 :])
    # the rest is seen where the highest tenth of the means does not decide the scale
    late = losses[len(losses) // 2 :]
    lows = [float(np.quantile(late, 0.002)), *(float(part.min()) for part in shown if part.size)]
    highs = [float(np.quantile(means, 0.9)), float(np.quantile(late, 0.998))]
    highs += [float(part.max()) for part in shown[1:] if part.size]
    low, high = min(lows), max(highs)
    room = (high - low) or 1.0
    axes.set_ylim(low - 0.05 * room, high + 0.35 * room)


def _running_mean(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    total = np.cumsum(np.concatenate([[0.0], values]))
    found: npt.NDArray[np.float64] = (total[width:] - total[:-width]) / width
    return found
