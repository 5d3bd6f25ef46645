r"""Two worlds of a program against two worlds written by hand in torch: what does generality cost?

Model A, the triangle: z ~ N(0, 1), x ~ N(z, 1), y ~ N(xz + z/2, 1), do(x = 1).
Model B, the chain of d nodes: v_0 ~ N(0, 1), v_i ~ N(tanh v_{i-1}, 1), do(v_0 = 1).

From given noise to the factual and the counterfactual value of every node. By hand, a node that the intervention does
not reach is computed once and a set node is a view, as anybody in a hurry would write it; nothing is compiled.

``predict``: the question is asked of a posterior that has its factual world already (abduct once, ask many times), so
it evaluates one world while the hand-written code evaluates two. ``from noise``: the factual world is evaluated again
at each call. The goals are set for both, and only the second is like for like.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger

import causalppl as cp

from .harness import Case, Contender

__all__ = ["NAME", "TITLE", "cases", "chain", "triangle"]

NAME = "worlds_against_torch"
TITLE = "Two worlds: against hand-written torch"

Worlds = dict[str, dict[str, torch.Tensor]]
Noise = dict[str, torch.Tensor]

#: Units to the largest ratio aimed at.
GOALS = {100: 25.0, 10_000: 5.0, 1_000_000: 1.6}


def triangle(units: int | None = None) -> None:
    """Model A: ``units`` units in a plate, or one draw without a plate."""
    with nullcontext() if units is None else pyro.plate("units", units):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        x = pyro.sample("x", dist.Normal(z, 1.0))
        pyro.sample("y", dist.Normal(x * z + 0.5 * z, 1.0))


def chain(depth: int) -> Callable[..., None]:
    """Model B with ``depth`` nodes."""

    def model(units: int | None = None) -> None:
        with nullcontext() if units is None else pyro.plate("units", units):
            v = pyro.sample("v0", dist.Normal(0.0, 1.0))
            for i in range(1, depth):
                v = pyro.sample(f"v{i}", dist.Normal(torch.tanh(v), 1.0))

    return model


def triangle_by_hand(noise: Noise) -> Worlds:
    """Both worlds of the triangle."""
    with torch.no_grad():
        z = noise["z"]
        x = z + noise["x"]
        y = x * z + 0.5 * z + noise["y"]
        set_x = torch.ones(()).expand(z.shape)
        set_y = set_x * z + 0.5 * z + noise["y"]
        return {
            "factual": {"z": z, "x": x, "y": y},
            "counterfactual": {"z": z, "x": set_x, "y": set_y},
        }


def chain_by_hand(noise: Noise) -> Worlds:
    """Both worlds of the chain."""
    with torch.no_grad():
        factual, other = {"v0": noise["v0"]}, {"v0": torch.ones(()).expand(noise["v0"].shape)}
        for world in (factual, other):
            v = world["v0"]
            for i in range(1, len(noise)):
                v = world[f"v{i}"] = torch.tanh(v) + noise[f"v{i}"]
        return {"factual": factual, "counterfactual": other}


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


@dataclass(frozen=True)
class _Task:
    """One model, size and variant; ``build`` makes the inputs, so that only one case is in memory at a time."""

    label: str
    model: Callable[..., None]
    by_hand: Callable[[Noise], Worlds]
    target: str
    units: int
    plated: bool

    @property
    def name(self) -> str:
        return f"{self.label}, {'plate of' if self.plated else 'draws:'} {self.units:,}"

    def build(self) -> Case:
        args = (self.units,) if self.plated else ()
        draws = 1 if self.plated else self.units
        posterior = cp.abduct(self.model, num_samples=draws, seed=0)(*args)
        action = {self.target: 1.0}
        sites = list(posterior.latents)
        # All noise is standard normal here and the mechanisms are affine, so the noise follows from the values.
        noise = {n: t.reshape(-1).clone() for n, t in posterior.noise.items()}
        fixed = {self.target: torch.ones(()).expand(self.units)}

        def predict() -> Worlds:
            return _tensors(posterior.predict(action), sites)

        def from_noise() -> Worlds:
            posterior._evaluation._known = None
            return _tensors(posterior.predict(action), sites)

        def bare_row(noise: Noise, fixed: Noise) -> Noise:
            with _Bare(noise, fixed) as handler:
                self.model(*args)
            return handler.values

        def bare() -> Worlds:
            with torch.no_grad(), pyro.validation_enabled(False):
                run = bare_row if self.plated else torch.func.vmap(bare_row)
                return {"factual": run(noise, {}), "counterfactual": run(noise, fixed)}

        contenders = [
            Contender("by hand", lambda: self.by_hand(noise)),
            Contender("causalppl, predict", predict, note="the factual world is there already"),
            Contender("causalppl, from noise", from_noise, note="abducts the factual world anew"),
            Contender("bare handler", bare, note="ten lines, Gaussian sites only, validation off"),
        ]
        if self.plated:
            done = pyro.poutine.trace(pyro.poutine.do(self.model, {self.target: torch.tensor(1.0)}))

            def pyro_do() -> None:
                with torch.no_grad():
                    done.get_trace(*args)

            contenders.append(
                Contender("pyro.poutine.do", pyro_do, same=False, note="one world, nothing shared")
            )
        return Case(
            self.name,
            contenders,
            GOALS.get(self.units),
            ("causalppl, predict", "causalppl, from noise"),
            _absent_peers(),
        )


def _tensors(worlds: Any, sites: list[str]) -> Worlds:
    return {w: {n: worlds.tensor(n, world=w) for n in sites} for w in ("factual", "counterfactual")}


def _absent_peers() -> list[str]:
    peers = {"chirho": "ChiRho", "dowhy": "DoWhy"}
    return [
        f"{title} is {'installed but' if importlib.util.find_spec(module) else 'not installed and'} not measured here."
        for module, title in peers.items()
    ]


def cases(quick: bool = False) -> list[_Task]:
    """Both models at 100, 10,000 and a million units; the long chain stops at 10,000, where it fills a gigabyte."""
    tasks = []
    for label, model, by_hand, target, most in (
        ("A", triangle, triangle_by_hand, "x", 1_000_000),
        ("B20", chain(20), chain_by_hand, "v0", 1_000_000),
        ("B100", chain(100), chain_by_hand, "v0", 10_000),
    ):
        for units in (100, 10_000) if quick else (100, 10_000, 1_000_000):
            for plated in (True, False):
                if units <= most:
                    tasks.append(_Task(label, model, by_hand, target, units, plated))
    return tasks
