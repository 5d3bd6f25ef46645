"""Random finite models twice: as Pyro programs, and as loops over all cells of their noise. No code in common.

In the second form a node's noise is its *response*: which value it takes in each row of its table. A monotone node has one
uniform, cut where any row's value changes; a Gumbel-max node has at most two rows, and its pairs come from quadrature.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import reference
import torch


@dataclass(frozen=True)
class Node:
    """A site: its parents and one row of probabilities for each of their assignments, in product order."""

    parents: tuple[str, ...]
    table: np.ndarray  #: shape ``sizes of the parents + (values,)``
    coupling: str  #: "bernoulli", "inverse_cdf" or "gumbel_max"

    def rows(self) -> list[tuple[int, ...]]:
        """Assignments of the parents."""
        return list(itertools.product(*(range(size) for size in self.table.shape[:-1])))


Model = dict[str, Node]


def random_node(rng: Any, parents: Mapping[str, int], values: int, coupling: str) -> Node:
    """A node whose probabilities are uniform on the simplex."""
    shape = tuple(parents.values())
    return Node(tuple(parents), rng.dirichlet(np.ones(values), size=shape or None), coupling)


def binary_model(rng: Any) -> Model:
    """z, x, m, y, each with all earlier ones as parents."""
    names = ["z", "x", "m", "y"]
    return {
        n: random_node(rng, dict.fromkeys(names[:i], 2), 2, "bernoulli")
        for i, n in enumerate(names)
    }


def ternary_model(rng: Any) -> Model:
    """Binary z and x; ternary m and y, one of them Gumbel-max with the parent x, the other in order."""
    first = {
        "z": random_node(rng, {}, 2, "bernoulli"),
        "x": random_node(rng, {"z": 2}, 2, "bernoulli"),
    }
    if rng.random() < 0.5:
        m = random_node(rng, {"x": 2}, 3, "gumbel_max")
        y = random_node(rng, {"z": 2, "m": 3}, 3, "inverse_cdf")
    else:
        m = random_node(rng, {"z": 2, "x": 2}, 3, "inverse_cdf")
        y = random_node(rng, {"x": 2}, 3, "gumbel_max")
    return {**first, "m": m, "y": y}


def program(
    model: Model, index: Callable[[torch.Tensor], Any] = torch.Tensor.long
) -> Callable[[], None]:
    """The Pyro program, in float64; ``index`` makes an index of a value."""

    def run() -> None:
        values: dict[str, torch.Tensor] = {}
        for name, node in model.items():
            p = torch.tensor(node.table)
            for parent in node.parents:
                p = p[index(values[parent])]
            if node.coupling == "bernoulli":
                values[name] = pyro.sample(name, dist.Bernoulli(p[1]))
            else:
                infer = {"mechanism": node.coupling}
                values[name] = pyro.sample(name, dist.Categorical(p), infer=infer)

    return run


def responses(node: Node) -> dict[tuple[int, ...], float]:
    """The law of a node's noise: its value in every row, to probability."""
    rows = [node.table[row] for row in node.rows()]
    found: dict[tuple[int, ...], float] = {}
    if node.coupling == "gumbel_max" and len(rows) == 2:
        joint = reference.gumbel_max_joint(*rows)
        pairs = itertools.product(range(len(rows[0])), repeat=2)
        return {pair: joint[pair] for pair in pairs if joint[pair] > 0}
    assert node.coupling != "gumbel_max"
    edges = [np.cumsum(row)[:-1] for row in rows]
    for u, p in reference.uniform_cells([float(c) for cut in edges for c in cut]).items():
        answer = tuple(int((u > cut).sum()) for cut in edges)
        found[answer] = found.get(answer, 0.0) + p
    return found


class NoiseCells:
    """All noises of a model with their probabilities; worlds are evaluated in loops."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.laws = {name: responses(node) for name, node in model.items()}
        self._row = {name: {r: i for i, r in enumerate(n.rows())} for name, n in model.items()}

    def world(self, noise: Mapping[str, tuple[int, ...]], **do: float) -> dict[str, float]:
        """Values of all nodes in one world."""
        values: dict[str, float] = {}
        for name, node in self.model.items():
            if name in do:
                values[name] = do[name]
            else:
                row = tuple(int(values[p]) for p in node.parents)
                values[name] = noise[name][self._row[name][row]]
        return values

    def answer(
        self, event: Callable[..., float], given: Callable[..., bool] = lambda w: True
    ) -> float:
        """E[event | given]; both are functions of ``w``, where ``w(x=1)`` is a world's values."""
        above = below = 0.0
        for noise, p in reference.enumerate_noise(self.laws):

            def w(noise: Any = noise, **do: float) -> dict[str, float]:
                return self.world(noise, **do)

            if given(w):
                above += p * float(event(w))
                below += p
        return above / below
