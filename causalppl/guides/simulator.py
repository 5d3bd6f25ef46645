"""Runs of a program in bulk, and which of their data a guide is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from torch import Tensor

from ..errors import MethodError
from ..structural.form import ROW, StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from .reading import Reading, SiteShape

__all__ = ["Simulations", "random_masks"]

#: Steps that share one evaluation of the program; in a program that runs row by row, steps that share its runs.
_STEPS, _REUSED = 8, 32
_FEWEST = 2048


class Simulations:
    r"""Fresh runs from the structural form, :math:`v = f(\text{noise})`, those of several steps in one batched evaluation.

    A program that runs row by row is run as often as for an eighth of the steps, and each run is used about four times.

    Args:
        reading: the program.
        batch: runs in a step.
        seed: fixes all runs of all steps.
    """

    def __init__(self, reading: Reading, batch: int, seed: int) -> None:
        self.reading, self.batch, self.seed = reading, batch, seed
        self._bank: tuple[int, dict[str, Tensor]] | None = None

    def of_step(self, step: int) -> dict[str, Tensor]:
        """Site to values, ``(batch,) + site shape``; fixed by the seed and the step, in whatever order steps are asked for."""
        slow = self.reading.form.executor.sequential_because is not None
        together = _REUSED if slow else _STEPS
        number, place = divmod(step, together)
        rows = max(self.batch, _FEWEST // 2, self.batch * _STEPS) if slow else self.batch * together
        if self._bank is None or self._bank[0] != number:
            self._bank = number, simulated(self.reading.form, rows, self.seed, "bank", number)
        bank = self._bank[1]
        if slow:
            generator = torch.Generator().manual_seed(keyed_seed(self.seed, "choice", step))
            index = torch.randperm(rows, generator=generator)[: self.batch]
            return {n: v[index] for n, v in bank.items()}
        here = slice(place * self.batch, (place + 1) * self.batch)
        return {n: v[here] for n, v in bank.items()}


@torch.no_grad()
def simulated(form: StructuralForm, rows: int, *key: object) -> dict[str, Tensor]:
    """Sample site to values of independent runs, ``(rows,) + site shape``; fixed by the form's seed and the key.

    Raises:
        MethodError: runs differ in their sites or shapes.
    """
    if any(s.mechanism is None for s in form.latent.values()):
        return _traced(form, rows, *key)
    noise = form.prior_noise(rows, *key)
    with form.modules.restored():
        found = form.executor.map(form.simulate, rows, noise, torch.arange(rows), kind="guide")
    if isinstance(found, list):
        found = {n: torch.stack([row[n] for row in found]) for n in found[0]}
    return {n: v for n, v in found.items() if n != ROW}


def _traced(form: StructuralForm, rows: int, *key: object) -> dict[str, Tensor]:
    """Pyro's own draws, where a site has no mechanism."""
    runs: list[dict[str, Any]] = []
    with isolated_rng(keyed_seed(form.seed, *key)), form.modules.restored():
        for _ in range(rows):
            nodes = pyro.poutine.trace(form.model).get_trace(*form.args, **form.kwargs).nodes
            runs.append({n: nodes[n]["value"] for n in form.latent if n in nodes})
    if any(run.keys() != runs[0].keys() for run in runs):
        raise MethodError(
            "AmortizedGuide: the program's sites differ from run to run; pad them, so that every run shows the same ones"
        )
    return {n: torch.stack([run[n] for run in runs]) for n in runs[0]}


def random_masks(
    shapes: Mapping[str, SiteShape],
    observed: tuple[str, ...],
    values: Mapping[str, Tensor],
    arbitrary: bool,
) -> dict[str, Tensor]:
    """Which values each run shows: site to ``(rows,) + units``. From torch's generator.

    A third of the runs shows all. Another shows each site with probability one half. In the last, each unit of a site in plates is
    shown with a probability of the run's own.
    """
    rows = len(values[observed[0]])
    kind = torch.randint(3, (rows,))
    share = torch.rand(rows)
    found = {}
    for name in observed:
        units = [values[name].shape[1 + a] for a in shapes[name].axes]
        if not arbitrary:
            found[name] = torch.ones((rows, *units), dtype=torch.bool)
            continue

        def wide(flags: Tensor, units: list[int] = units) -> Tensor:
            return flags.reshape(-1, *[1] * len(units)).expand(rows, *units)

        whole = torch.rand(rows) < 0.5
        single = torch.rand(rows, *units) < wide(share) if units else whole
        found[name] = torch.where(
            wide(kind == 0), True, torch.where(wide(kind == 1), wide(whole), single)
        )
    return found
