"""Pictures of effects: estimates with their intervals in rows, and outcomes along doses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..effects import Profile
from ..errors import ShapeError
from ..query import Estimate
from .looks import LOOKS, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["dose_response", "forest"]

#: Rows that are still told apart.
MOST_ROWS = 100


def forest(
    estimates: Mapping[str, Estimate] | Estimate,
    *,
    ax: Axes | None = None,
    reference: float | None = 0.0,
) -> Axes:
    """A forest plot: each estimate a marker with its 95% interval, the first at the top.

    Exact estimates have hollow markers and no bar, unless parameters are uncertain.

    Args:
        estimates: label to estimate, or one estimate. One with several entries gives a row for each, labelled with its level or dose where
            it has these.
        ax: axes to draw into; new ones by default.
        reference: where a line is drawn, such as no effect; ``None`` for none.

    Returns:
        The axes.

    Raises:
        ShapeError: nothing to show, or too many rows to be told apart.

    References:
        S. Lewis, M. Clarke (2001), Forest plots: trying to see the wood and the trees.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     t = pyro.sample("t", dist.Bernoulli(0.5))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 + 0.5 * t))
        >>> effect = cp.effects.average_treatment_effect(model, treatment="t", outcome="y")()
        >>> axes = cp.plots.forest({"effect": effect})
        >>> [text.get_text() for text in axes.get_yticklabels()]
        ['effect']
    """
    named = {estimates.text: estimates} if isinstance(estimates, Estimate) else dict(estimates)
    rows = [row for label, estimate in named.items() for row in _rows(label, estimate)]
    if not 0 < len(rows) <= MOST_ROWS:
        raise ShapeError(
            f"forest: {len(rows)} rows; give between 1 and {MOST_ROWS} numbers, such as a part of an estimate's value"
        )
    axes = ax if ax is not None else new_axes()
    if ax is None:  # a row needs the height of its label
        axes.figure.set_figheight(max(2.0, 0.8 + 0.24 * len(rows)))  # type: ignore[union-attr]
    if reference is not None:
        axes.axvline(reference, color="0.5", linewidth=1, linestyle=":", zorder=0)
    look = LOOKS[0]
    for place, (_, value, low, high, exact) in enumerate(rows):
        axes.plot(
            [low, high], [place, place], color=look.colour, linewidth=2, solid_capstyle="butt"
        )
        face = "white" if exact else look.colour
        axes.plot(
            value,
            place,
            look.marker,
            color=look.colour,
            markerfacecolor=face,
            markersize=7,
            zorder=3,
        )
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("effect, with 95% interval")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return axes


def _rows(label: str, estimate: Estimate) -> Iterator[tuple[str, float, float, float, bool]]:
    """A label, the value and the ends of the interval for each entry of an estimate."""
    value = np.asarray(estimate.value, dtype=float)
    low, high = (
        np.broadcast_to(np.asarray(e, dtype=float), value.shape) for e in estimate.interval
    )
    for index in np.ndindex(value.shape):
        name = label
        if index and isinstance(estimate, Profile):
            rest = f" [{', '.join(map(str, index[1:]))}]" if index[1:] else ""
            name = f"{label}: {estimate.site} = {estimate.at[index[0]]:g}{rest}"
        elif index:
            name = f"{label} [{', '.join(map(str, index))}]"
        yield name, float(value[index]), float(low[index]), float(high[index]), estimate.exact


def dose_response(
    curves: Mapping[str, Estimate] | Estimate,
    doses: Sequence[float] | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """A dose-response curve, or an effect along the levels of a site, with its 95% band.

    Args:
        curves: what :func:`causalppl.effects.dose_response` or :func:`causalppl.effects.conditional_effect` returned, or label to
            such curves.
        doses: where the values lie, for an estimate that does not know.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.

    Raises:
        ShapeError: a curve that is no number for each dose, or doses that are missing.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     t = pyro.sample("t", dist.Binomial(2, 0.5))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 * t))
        >>> curve = cp.effects.dose_response(model, treatment="t", outcome="y", doses=[0, 1, 2])()
        >>> cp.plots.dose_response(curve).get_xlabel()
        't'
    """
    named = {"": curves} if isinstance(curves, Estimate) else dict(curves)
    if not named:
        raise ShapeError("dose_response: there is no curve to show")
    read = {label: _curve(curve, doses) for label, curve in named.items()}
    axes = ax if ax is not None else new_axes()
    for i, (label, (at, value, low, high)) in enumerate(read.items()):
        look = LOOKS[i % len(LOOKS)]
        axes.fill_between(at, low, high, color=look.colour, alpha=0.18, linewidth=0)
        axes.plot(
            at,
            value,
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markersize=5,
            label=label or None,
        )
    first = next(iter(named.values()))
    axes.set_xlabel(first.site if isinstance(first, Profile) else "dose")
    axes.set_ylabel(first.text or "outcome")
    axes.spines[["top", "right"]].set_visible(False)
    if any(read):
        axes.legend(frameon=False)
    return axes


def _curve(curve: Estimate, doses: Sequence[float] | None) -> tuple[Any, Any, Any, Any]:
    """Doses in order, with values and ends of the intervals."""
    value = np.asarray(curve.value, dtype=float)
    if value.ndim != 1:
        raise ShapeError(
            f"dose_response: the values have shape {value.shape}; a curve has one number for each dose, so ask for one entry of the outcome"
        )
    given = curve.at if doses is None and isinstance(curve, Profile) else doses
    if given is None or len(given) != len(value):
        raise ShapeError(
            f"dose_response: {len(value)} values and {0 if given is None else len(given)} doses; give doses=[...], one for each value"
        )
    at = np.asarray(given, dtype=float)
    order = np.argsort(at)
    low, high = (np.asarray(end, dtype=float)[order] for end in curve.interval)
    return at[order], value[order], low, high
