"""Random binary programs, and answers about them by a loop over all cells of their noise. Shares no code with the toolkit.

A site is 1 where its uniform noise falls below its probability, so noise matters only by which of the probabilities it falls between.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pyro
import pyro.distributions as dist
import torch

World = Mapping[str, int]


class NoiseTables:
    """A binary program given by each site's parents and its table of P(site = 1 | parents)."""

    def __init__(self, parents: Mapping[str, tuple[str, ...]], rng: np.random.Generator) -> None:
        self.parents = dict(parents)
        self.tables = {n: rng.uniform(0.05, 0.95, (2,) * len(ps)) for n, ps in parents.items()}

    def program(self) -> None:
        """The same as a Pyro program."""
        values: dict[str, torch.Tensor] = {}
        for name, parents in self.parents.items():
            table = torch.as_tensor(self.tables[name])
            p = table[tuple(values[q].long() for q in parents)] if parents else table
            values[name] = pyro.sample(name, dist.Bernoulli(p))

    def cells(self) -> list[tuple[dict[str, float], float]]:
        """A noise for each combination of cells, with its probability."""
        each = []
        for name in self.parents:
            edges = [0.0, *sorted(set(self.tables[name].reshape(-1))), 1.0]
            pairs = itertools.pairwise(edges)
            each.append([(name, (low + high) / 2, high - low) for low, high in pairs])
        return [
            (
                {name: middle for name, middle, _ in combination},
                float(np.prod([p for *_, p in combination])),
            )
            for combination in itertools.product(*each)
        ]

    def world(self, noise: Mapping[str, float], **done: int) -> dict[str, int]:
        """All values for one noise, some of them set."""
        values: dict[str, int] = {}
        for name, parents in self.parents.items():
            p = self.tables[name][tuple(values[q] for q in parents)]
            values[name] = done[name] if name in done else int(noise[name] < p)
        return values

    def mean(
        self,
        value: Callable[[Callable[..., World]], float],
        given: Callable[[Callable[..., World]], bool] = lambda w: True,
    ) -> float:
        """E[value | given]; both get a function from interventions to the world of one noise."""
        above = below = 0.0
        for noise, p in self.cells():

            def world(noise: Mapping[str, float] = noise, **done: int) -> World:
                return self.world(noise, **done)

            if given(world):
                above, below = above + p * value(world), below + p
        return above / below
