"""Two worlds of a program against two worlds written by hand in torch: what does generality cost?

From given noise to the factual and the counterfactual value of every node of the triangle (A) and of chains (B20, B100), under
the intervention that sets one node to 1. By hand, a node that the intervention does not reach is computed once and a set
node is a view, as anybody in a hurry would write it; nothing is compiled.

``from noise`` is like for like; ``compiled`` is the same after ``cp.compile``. ``predict`` asks a posterior that has its
factual world already (abduct once, ask many times), so that it evaluates one world while the hand-written code evaluates two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger

import causalppl as cp

from .harness import Case, Contender
from .peers import absent, chirho, dowhy, pyro_do
from .programs import Noise, Program, Worlds, ask, chain, triangle

__all__ = ["NAME", "TITLE", "cases"]

NAME = "worlds_against_torch"
TITLE = "Two worlds: against hand-written torch"

#: Units to the largest ratio aimed at.
GOALS = {100: 25.0, 10_000: 5.0, 1_000_000: 1.6}


class _Bare(Messenger):
    """The least that a Pyro handler can do: v = loc + scale * noise, or the value that is set."""

    def __init__(self, noise: Noise, fixed: Noise) -> None:
        super().__init__()
        self.noise, self.fixed, self.values = noise, fixed, {}

    def _pyro_sample(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        if name in self.noise:
            value = self.fixed.get(name)
            if value is None:
                base = getattr(fn, "base_dist", fn)
                value = base.loc + base.scale * self.noise[name]
            self.values[name] = msg["value"] = value
            msg["done"] = True


def bare_handler(program: Program, noise: Noise, plate: bool) -> Callable[[], Worlds]:
    """Two runs of the program under a handler of ten lines."""
    units = len(next(iter(noise.values())))
    args = (units,) if plate else ()
    fixed = {program.target: torch.ones(()).expand(units)}

    def row(noise: Noise, fixed: Noise) -> Noise:
        with _Bare(noise, fixed) as handler:
            program.model(*args)
        return handler.values

    def run() -> Worlds:
        with torch.no_grad(), pyro.validation_enabled(False):
            both = row if plate else torch.func.vmap(row)
            return {"factual": both(noise, {}), "counterfactual": both(noise, fixed)}

    return run


def predicted(program: Program, noise: Noise, plate: bool) -> Callable[[], Worlds]:
    """One more question to a posterior whose factual world is known."""
    args = (len(next(iter(noise.values()))),) if plate else ()
    rows = 1 if plate else len(next(iter(noise.values())))
    factual = {
        n: v.unsqueeze(0) if plate else v for n, v in program.by_hand(noise, {})["factual"].items()
    }
    method = cp.PosteriorSamples(factual)
    posterior = cp.abduct(program.model, method=method, num_samples=rows, seed=0)(*args)

    def run() -> Worlds:
        worlds = posterior.predict({program.target: 1.0})
        return {
            w: {n: worlds.tensor(n, world=w) for n in program.assignments}
            for w in ("factual", "counterfactual")
        }

    return run


@dataclass(frozen=True)
class _Task:
    """One program, size and variant; ``build`` makes the inputs, so that only one case is in memory at a time."""

    program: Program
    units: int
    plate: bool
    compiled: bool

    @property
    def name(self) -> str:
        return f"{self.program.name}, {'plate of' if self.plate else 'draws:'} {self.units:,}"

    def build(self) -> Case:
        program, noise, plate = self.program, self.program.noise(self.units), self.plate
        worlds = {"counterfactual": {program.target: 1.0}}
        contenders = [
            Contender("by hand", lambda: program.by_hand(noise, worlds)),
            Contender("causalppl, from noise", ask(program, noise, worlds, plate=plate)),
            Contender(
                "causalppl, predict",
                predicted(program, noise, plate),
                note="the factual world is there already",
            ),
            Contender(
                "bare handler",
                bare_handler(program, noise, plate),
                note="ten lines, Gaussian sites only, validation off",
            ),
        ]
        if self.compiled:
            run = ask(program, noise, worlds, plate=plate, compiled=True)
            contenders.insert(1, Contender("causalppl, compiled", run))
        missing = " ".join(absent())
        if plate:
            note = "one world, drawn anew, nothing shared"
            contenders.append(
                Contender("pyro.poutine.do", pyro_do(program, self.units), same=False, note=note)
            )
            if "chirho" not in missing:
                note = "two worlds, noise written out by the user"
                contenders.append(Contender("ChiRho", chirho(program, noise, worlds), note=note))
            if "dowhy" not in missing:
                note = "the counterfactual world only, functions and noise given"
                contenders.append(Contender("DoWhy", dowhy(program, noise, worlds), note=note))
        aims = [c.name for c in contenders if c.name.startswith("causalppl")]
        return Case(self.name, contenders, GOALS.get(self.units), aims, absent())


def cases(quick: bool = False) -> list[_Task]:
    """All programs at 100, 10,000 and a million units; the long chain stops at 10,000, where it fills a gigabyte."""
    return [
        _Task(program, units, plate, compiled=not quick)
        for program, most in ((triangle, 1_000_000), (chain(20), 1_000_000), (chain(100), 10_000))
        for units in ((100, 10_000) if quick else (100, 10_000, 1_000_000))
        for plate in (True, False)
        if units <= most
    ]
