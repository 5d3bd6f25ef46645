"""The answer as a person reads it: a table of averages with intervals, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..results import Worlds
from .program_file import ProgramFileError
from .words import Condition

__all__ = ["Answer", "answer", "picture"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """Averages over units, draw by draw, of an outcome in its worlds.

    Attributes:
        outcome: the site.
        treated, control: the worlds compared.
        columns: heading to quantity to draws: for everyone, and for those selected.
        units: positions of the units selected in most draws; ``None`` without a plate.
        diagnostics: how the draws came about.
    """

    outcome: str
    treated: str
    control: str
    columns: dict[str, dict[str, Array]]
    units: list[int] | None
    diagnostics: Any

    def show(self) -> None:
        """Print the table and the diagnostics."""
        from rich import box
        from rich.console import Console
        from rich.table import Table

        kind = "posterior mean" if self.units is None else "average"
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("world")
        for heading in self.columns:
            table.add_column(heading, justify="right")
        quantities = list(next(iter(self.columns.values())))
        for quantity in quantities:
            cells = [_cell(column[quantity]) for column in self.columns.values()]
            difference = quantity == quantities[-1]
            table.add_row(
                quantity,
                *cells,
                style="bold" if difference else None,
                end_section=quantity == quantities[-2],
            )
        console = Console(highlight=False)
        console.print(f"\n{kind} of {self.outcome}, with its 95% interval\n", markup=False)
        console.print(table)
        console.print()
        console.print(str(self.diagnostics), soft_wrap=True, markup=False)


def answer(
    result: Worlds, outcome: str, treated: str, control: str, conditions: Sequence[Condition]
) -> Answer:
    """The averages of an outcome in its worlds and their difference, over everyone and over those selected.

    Args:
        result: the worlds.
        outcome: a site; where it has several plates, a unit is one index of each.
        treated, control: the worlds compared, treated minus control.
        conditions: what must hold of a unit's factual values for it to be selected.

    Raises:
        ProgramFileError: a condition does not select units of the outcome's plates, or selects none.
    """
    data = result[outcome]
    plates = [str(d) for d in data.dims if d not in ("draw", "world")]
    of_units = " x ".join(plates)
    worlds = dict.fromkeys(("factual", treated, control))
    draws = {w: _rows(data.sel(world=w)) for w in worlds}
    draws[f"{treated} minus {control}"] = draws[treated] - draws[control]
    everyone = np.ones(draws["factual"].shape, dtype=bool)
    units = everyone.mean(axis=0)
    heading = f"all {len(units):,} {of_units}" if plates else "this run"
    columns = {heading: {q: _averages(v, everyone) for q, v in draws.items()}}
    if conditions:
        selected = np.logical_and.reduce([_holds(result, c, data) for c in conditions])
        words = ", ".join(str(c) for c in conditions)
        if not selected.any():
            raise ProgramFileError(
                f"--among: {words} holds for none of the {len(units):,} {of_units}"
            )
        units = selected.mean(axis=0)
        heading = f"{units.sum():,.0f} {of_units} with {words}"
        columns[heading] = {q: _averages(v, selected) for q, v in draws.items()}
    shown = [int(u) for u in np.flatnonzero(units > 0.5)]
    return Answer(outcome, treated, control, columns, shown if plates else None, result.diagnostics)


def picture(result: Worlds, found: Answer, path: Path, individuals: int = 4) -> None:
    """Save the worlds, with some individuals, beside the contrast."""
    from matplotlib.figure import Figure

    from .. import plots

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    units = None if found.units is None else found.units[:individuals]
    plots.worlds(result, found.outcome, ax=left, units=units)
    plots.contrast(result, found.outcome, found.treated, found.control, ax=right)
    figure.savefig(path, dpi=150)


def _rows(data: Any) -> Array:
    """One row per draw, one column per unit; a site without a plate has one unit."""
    values = np.asarray(data.values, dtype=float)
    return values.reshape(len(values), -1)


def _holds(result: Worlds, condition: Condition, outcome: Any) -> npt.NDArray[np.bool_]:
    """Whether a condition holds in fact, shaped as the outcome's rows."""
    data = result[condition.site].sel(world="factual", drop=True)
    factual = outcome.sel(world="factual", drop=True)
    if data.ndim < 2 or not set(data.dims) <= set(factual.dims):
        raise ProgramFileError(
            f"--among: {condition} selects no units, since the site {condition.site!r} is not in a plate of the outcome"
        )
    spread = data.broadcast_like(factual).transpose(*factual.dims)
    return np.asarray(condition.holds(_rows(spread)), dtype=bool)


def _averages(values: Array, selected: npt.NDArray[np.bool_]) -> Array:
    """Per draw, the mean over the units selected in that draw; draws that select none are left out."""
    counts = selected.sum(axis=1)
    totals = np.where(selected, values, 0.0).sum(axis=1)
    means: Array = totals[counts > 0] / counts[counts > 0]
    return means


def _cell(draws: Array) -> str:
    mean = float(draws.mean())
    if np.isnan(mean):
        return "not in this world"
    whole = bool(np.isin(draws, (-1.0, 0.0, 1.0)).all())
    if whole or np.ptp(draws) <= 1e-6 * max(1.0, abs(mean)):
        return _number(mean)  # certain, or an event, whose probability is all there is to say
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{_number(mean)} ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    if value == round(value) or abs(value) >= 1000:
        return f"{value + 0.0:,.0f}"  # adding zero takes the sign off a negative one
    return f"{value:#.3g}".rstrip(".")
