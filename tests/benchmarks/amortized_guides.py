"""One forward pass of an amortized guide against the optimisation that it replaces: 500 steps of SVI on the sensor array.

Training a guide costs minutes, once, and is not in these times; how good its answers are is a matter of
``tests/models/test_sensor_array_causal.py`` and of the tutorial, so the guides timed here have hardly been trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal

import causalppl as cp
from models.sensor_array import model

from .harness import Case, Contender

__all__ = ["NAME", "TITLE", "cases"]

NAME = "amortized_guides"
TITLE = "Amortized guides: against 500 steps of SVI"

Values = dict[str, torch.Tensor]


def recordings(count: int) -> Values:
    """Data of so many machines, from the program."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nodes = pyro.poutine.trace(model).get_trace(count).nodes
    return {name: nodes[name]["value"] for name in ("damper", "signal")}


def by_svi(values: Values, steps: int) -> Callable[[], Any]:
    """A normal guide of these machines alone, all of them in one plate."""
    count = len(values["damper"])

    def run() -> dict[str, Any]:
        pyro.clear_param_store()
        conditioned = pyro.condition(model, data=values)
        guide = AutoNormal(conditioned)
        svi = SVI(conditioned, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
        for _ in range(steps):
            svi.step(count)
        return {}

    return run


def trained() -> Any:
    """A guide for any number of machines."""
    guide = cp.AmortizedGuide(model, observed=["damper", "signal"], seed=0)(1)
    guide.fit(steps=40, batch_size=64)
    return guide


@dataclass(frozen=True)
class _Task:
    machines: int
    draws: int
    steps: int

    @property
    def name(self) -> str:
        return f"{self.machines} machine{'s' if self.machines > 1 else ''}, {self.draws} draws"

    def build(self) -> Case:
        values, guide = recordings(self.machines), trained()

        def forward() -> dict[str, Any]:
            guide.draw(evidence, self.draws, 0)
            return {}

        def weighed() -> dict[str, Any]:
            method = cp.Amortized(guide, num_proposals=self.draws, refine=None)
            try:
                cp.abduct(model, values, method=method, num_samples=self.draws, seed=0)(
                    self.machines
                )
            except cp.errors.InferenceError:
                pass  # an untrained guide's weights collapse, after all the work is done
            return {}

        from causalppl.guides.evidence import evidence_of
        from causalppl.structural import StructuralForm

        form = StructuralForm(model, (self.machines,), {}, values, 0)
        evidence = evidence_of(guide.reading, form, True)
        goal = 0.01 if self.machines == 1 else None
        note = f"{self.steps} steps of SVI, AutoNormal, one plate"
        return Case(
            self.name,
            [
                Contender("SVI", by_svi(values, self.steps), note=note),
                Contender("guide, one forward pass", forward, same=False),
                Contender("cp.abduct(method=guide), weighed", weighed, same=False),
            ],
            goal,
            ["guide, one forward pass"],
        )


def cases(quick: bool = False) -> list[_Task]:
    """One new datum, and a thousand at once."""
    steps = 5 if quick else 500
    return [_Task(1, 100 if quick else 1000, steps), _Task(10 if quick else 1000, 100, steps)]
