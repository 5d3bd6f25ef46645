r"""The programs of all benchmarks, written for Pyro, by hand, and for each peer; and the one way to ask causalppl.

Model A, the triangle: :math:`z \sim N(0, 1), x \sim N(z, 1), y \sim N(xz + z/2, 1)`.
Model B, the chain of d nodes: :math:`v_0 \sim N(0, 1), v_i \sim N(\tanh v_{i-1}, 1)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch

import causalppl as cp

__all__ = ["Noise", "Program", "Worlds", "ask", "chain", "triangle"]

Noise = dict[str, torch.Tensor]
Worlds = dict[str, dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Program:
    """One structural causal model in every form that the benchmarks need.

    Attributes:
        model: the Pyro program; ``units`` in a plate, or one draw without a plate.
        assignments: node to its parents and to its location given their values; in causal order, noise is added.
        by_hand: from noise and worlds, one set node each, to the values of all nodes in all worlds, as anybody in a hurry would write
            it in torch: what the intervention does not reach is computed once, a set node is a view, nothing is compiled.
        target: the node that the usual intervention sets, to 1.
    """

    name: str
    model: Callable[..., None]
    assignments: Mapping[str, tuple[tuple[str, ...], Callable[..., Any]]]
    by_hand: Callable[[Noise, Mapping[str, Mapping[str, float]]], Worlds]
    target: str

    def noise(self, units: int, seed: int = 0) -> Noise:
        """Standard normal noise of every node, shape ``(units,)``."""
        generator = torch.Generator().manual_seed(seed)
        return {n: torch.randn(units, generator=generator) for n in self.assignments}


def ask(
    program: Program,
    noise: Noise,
    worlds: Mapping[str, Mapping[str, float]],
    *,
    plate: bool = True,
    compiled: bool = False,
) -> Callable[[], Worlds]:
    """From given noise to all worlds with causalppl: the only place that says how it is asked.

    Args:
        plate: units in a plate of one draw; otherwise units are draws of the program without a plate.
        compiled: with ``cp.compile``; compilation happens at the first call.
    """
    question = cp.counterfactual(program.model, worlds=worlds)
    if compiled:
        question = cp.compile(question)
    units = len(next(iter(noise.values())))
    rows = {n: v.unsqueeze(0) if plate else v for n, v in noise.items()}
    args = (units,) if plate else ()
    return lambda: question.from_noise(rows, *args)


def _triangle(units: int | None = None) -> None:
    with nullcontext() if units is None else pyro.plate("units", units):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        x = pyro.sample("x", dist.Normal(z, 1.0))
        pyro.sample("y", dist.Normal(x * z + 0.5 * z, 1.0))


def _triangle_by_hand(noise: Noise, worlds: Mapping[str, Mapping[str, float]]) -> Worlds:
    with torch.no_grad():
        z = noise["z"]
        x = z + noise["x"]
        found = {"factual": {"z": z, "x": x, "y": x * z + 0.5 * z + noise["y"]}}
        for world, action in worlds.items():
            x = torch.tensor(action["x"]).expand(z.shape)
            found[world] = {"z": z, "x": x, "y": x * z + 0.5 * z + noise["y"]}
        return found


def _chain_by_hand(noise: Noise, worlds: Mapping[str, Mapping[str, float]]) -> Worlds:
    with torch.no_grad():
        v = noise["v0"]
        factual = {"v0": v}
        for i in range(1, len(noise)):
            v = factual[f"v{i}"] = torch.tanh(v) + noise[f"v{i}"]
        found = {"factual": factual}
        for world, action in worlds.items():
            ((target, value),) = action.items()
            values = dict(factual)
            v = values[target] = torch.tensor(value).expand(v.shape)
            for i in range(int(target[1:]) + 1, len(noise)):
                v = values[f"v{i}"] = torch.tanh(v) + noise[f"v{i}"]
            found[world] = values
        return found


triangle = Program(
    "A",
    _triangle,
    {
        "z": ((), lambda: 0.0),
        "x": (("z",), lambda z: z),
        "y": (("x", "z"), lambda x, z: x * z + 0.5 * z),
    },
    _triangle_by_hand,
    "x",
)


def chain(depth: int) -> Program:
    """Model B with ``depth`` nodes."""

    def model(units: int | None = None) -> None:
        with nullcontext() if units is None else pyro.plate("units", units):
            v = pyro.sample("v0", dist.Normal(0.0, 1.0))
            for i in range(1, depth):
                v = pyro.sample(f"v{i}", dist.Normal(torch.tanh(v), 1.0))

    later = {f"v{i}": ((f"v{i - 1}",), torch.tanh) for i in range(1, depth)}
    return Program(f"B{depth}", model, {"v0": ((), lambda: 0.0), **later}, _chain_by_hand, "v0")
