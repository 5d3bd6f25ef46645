"""The answer as a person reads it: a table of averages with intervals, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ShapeError
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
        units: positions of the units selected, most of the time, and the plate's name, or ``None``.
        diagnostics: how the draws came about.
    """

    outcome: str
    treated: str
    control: str
    columns: dict[str, dict[str, Array]]
    units: list[int]
    plate: str | None
    diagnostics: Any

    def show(self) -> None:
        """Print the table and the diagnostics."""
        from rich import box
        from rich.console import Console
        from rich.table import Table

        kind = "average" if self.plate else "posterior mean"
        table = Table(
            box=box.SIMPLE_HEAD,
            title=f"{kind} of {self.outcome}, with its 95% interval",
            title_justify="left",
            title_style="",
            show_edge=False,
            pad_edge=False,
        )
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
        console.print()
        console.print(table)
        console.print()
        console.print(str(self.diagnostics), soft_wrap=True, markup=False)


def answer(
    result: Worlds, outcome: str, treated: str, control: str, conditions: Sequence[Condition]
) -> Answer:
    """The averages of an outcome in its worlds and their difference, over everyone and over those selected.

    Args:
        result: the worlds.
        outcome: a site with the dimensions ``(draw, world)`` or ``(draw, world, units)``.
        treated, control: the worlds compared, treated minus control.
        conditions: what must hold of a unit's factual values for it to be selected.

    Raises:
        ShapeError: the outcome has further dimensions.
        ProgramFileError: a condition does not select units of the outcome's plate, or selects none.
    """
    data = result[outcome]
    plates = [str(d) for d in data.dims if d not in ("draw", "world")]
    if len(plates) > 1:
        raise ShapeError(
            f"the outcome {outcome!r} has the dimensions {', '.join(plates)} and a table shows one at most; record the "
            "part you want as a site of its own with pyro.deterministic"
        )
    plate = plates[0] if plates else None
    worlds = dict.fromkeys(("factual", treated, control))
    draws = {w: np.asarray(data.sel(world=w).values, dtype=float) for w in worlds}
    draws[f"{treated} minus {control}"] = draws[treated] - draws[control]
    everyone = np.ones_like(draws["factual"], dtype=bool)
    units = np.ones(everyone.shape[1] if plate else 0)
    heading = f"all {len(units):,} {plate}" if plate else "this run"
    columns = {heading: {q: _averages(v, everyone) for q, v in draws.items()}}
    if conditions:
        selected = everyone & np.stack([_holds(result, c, plate) for c in conditions]).all(axis=0)
        words = ", ".join(str(c) for c in conditions)
        if not selected.any():
            raise ProgramFileError(f"--among: {words} holds for none of the {len(units):,} {plate}")
        units = selected.mean(axis=0)
        heading = f"{units.sum():,.0f} {plate} with {words}"
        columns[heading] = {q: _averages(v, selected) for q, v in draws.items()}
    shown = [int(u) for u in np.flatnonzero(units > 0.5)]
    return Answer(outcome, treated, control, columns, shown, plate, result.diagnostics)


def picture(result: Worlds, found: Answer, path: Path, individuals: int = 4) -> None:
    """Save the worlds, with some individuals, beside the contrast."""
    from matplotlib.figure import Figure

    from .. import plots

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    units = found.units[:individuals] if found.plate else None
    plots.worlds(result, found.outcome, ax=left, units=units)
    plots.contrast(result, found.outcome, found.treated, found.control, ax=right)
    figure.savefig(path, dpi=150)


def _holds(result: Worlds, condition: Condition, plate: str | None) -> Any:
    data = result[condition.site]
    if plate is None or plate not in data.dims or data.ndim != 3:
        where = (
            f"the plate {plate!r} of the outcome"
            if plate
            else "a plate, and the outcome is in none"
        )
        raise ProgramFileError(
            f"--among: {condition} selects no units, since {condition.site!r} is not in {where}"
        )
    return condition.holds(np.asarray(data.sel(world="factual").values, dtype=float))


def _averages(values: Array, selected: npt.NDArray[np.bool_]) -> Array:
    """Per draw, the mean over the units selected in that draw; draws that select none are left out."""
    if values.ndim == 1:
        return values
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
