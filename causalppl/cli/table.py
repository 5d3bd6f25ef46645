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

        table = Table(box=box.SIMPLE_HEAD, title_justify="left", show_edge=False, pad_edge=False)
        kind = "average" if self.plate else "posterior mean"
        table.add_column(f"{kind} of {self.outcome} (95% interval)")
        for heading in self.columns:
            table.add_column(heading, justify="right", no_wrap=True)
        quantities = list(next(iter(self.columns.values())))
        for position, quantity in enumerate(quantities):
            last = position == len(quantities) - 1
            cells = [_cell(column[quantity]) for column in self.columns.values()]
            table.add_row(quantity, *cells, style="bold" if last else None, end_section=position == len(quantities) - 2)
        console = Console(highlight=False)
        console.print()
        console.print(table)
        console.print()
        console.print(str(self.diagnostics), soft_wrap=True, markup=False)
