"""Finite structural causal models as sums over their noise: what is observed, what experiments show, and counterfactuals.

Every noisy site draws one of several functions of its parents at random, each with all of its shifts, so that all of its
values have positive probability. Nothing here knows of graphs' criteria or formulas.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cached_property

import numpy as np

World = dict[str, np.ndarray]


class NoiseModel:
    """A model over sites with a few values.

    Args:
        parents: site to parents, in causal order.
        latent: sites that are not observed; those without parents have three values.
        functions: sites without noise.
        levels: values of each site.
        bases: functions that a noisy site draws from, shifts not counted.
    """

    def __init__(
        self,
        parents: Mapping[str, list[str]],
        latent: frozenset[str],
        rng: np.random.Generator,
        functions: frozenset[str] = frozenset(),
        levels: int = 2,
        bases: int = 2,
    ) -> None:
        self.parents, self.latent, self.levels = dict(parents), latent, levels
        self.observed = [n for n in parents if n not in latent]
        self.sizes = {n: 3 if n in latent and not p else levels for n, p in parents.items()}
        self.tables: dict[str, np.ndarray] = {}
        self.choices: dict[str, int] = {}
        for n, own in parents.items():
            shape = tuple(self.sizes[p] for p in own)
            if n in latent and not own:
                self.choices[n] = 3
                self.tables[n] = np.arange(3)
            elif n in functions:
                self.choices[n] = 1
                self.tables[n] = rng.integers(0, levels, size=(1, *shape))
            else:
                base = rng.integers(0, levels, size=(bases, *shape))
                self.choices[n] = bases * levels
                self.tables[n] = np.concatenate([(base + k) % levels for k in range(levels)])
        self.states = np.array(list(itertools.product(*(range(c) for c in self.choices.values()))))
        self.laws = [rng.dirichlet(np.full(c, 4.0)) for c in self.choices.values()]

    @cached_property
    def weights(self) -> np.ndarray:
        """The probability of every state of the noise."""
        return np.prod([law[self.states[:, i]] for i, law in enumerate(self.laws)], axis=0)

    def world(self, do: Mapping[str, float | np.ndarray] | None = None) -> World:
        """The value of every site in every state."""
        values: World = {}
        for i, n in enumerate(self.parents):
            if do and n in do:
                values[n] = np.broadcast_to(np.asarray(do[n]), len(self.states)).astype(int)
            else:
                values[n] = self.tables[n][
                    (self.states[:, i], *(values[p] for p in self.parents[n]))
                ]
        return values

    def cells(self, do: Mapping[str, float] | None = None) -> np.ndarray:
        """Which values of the observed sites every state shows, as a number."""
        world = self.world(do)
        number = np.zeros(len(self.states), dtype=int)
        for n in self.observed:
            number = self.levels * number + world[n]
        return number

    def experiment(self, do: Mapping[str, float] | None = None) -> dict:
        """The distribution of what is observed, one axis for each site, under an intervention."""
        p = np.bincount(self.cells(do), self.weights, self.levels ** len(self.observed))
        return {"names": self.observed, "p": p.reshape((self.levels,) * len(self.observed))}

    @cached_property
    def joint(self) -> dict:
        """The same without intervention."""
        return self.experiment()

    def experiments(self) -> list[np.ndarray]:
        """The cells of all experiments on observed sites."""
        found = [self.cells()]
        for k in range(1, len(self.observed)):
            for sites in itertools.combinations(self.observed, k):
                for values in itertools.product(range(self.levels), repeat=k):
                    found.append(self.cells(dict(zip(sites, values, strict=True))))
        return found

    def answer(self, event: np.ndarray, given: np.ndarray) -> float:
        """``P(event | given)``, both as masks over the states."""
        return float(self.weights[event & given].sum() / self.weights[given].sum())

    def is_determined(self, event: np.ndarray, given: np.ndarray, shown: list[np.ndarray]) -> bool:
        """Whether, to first order, no change of the noise's law that leaves alone what is shown moves the answer.

        Args:
            event, given: masks over the states.
            shown: the cells of the distributions that are known.
        """
        w, top, bottom = self.weights, event & given, given
        slopes, rows = [], []
        for i, law in enumerate(self.laws):
            for j, p in enumerate(law):
                change = w * ((self.states[:, i] == j) - p)  # the derivative by a logit
                whole = w[bottom].sum()
                slopes.append(
                    change[top].sum() / whole - w[top].sum() * change[bottom].sum() / whole**2
                )
                rows.append(np.concatenate([np.bincount(c, change, c.max() + 1) for c in shown]))
        slope, matrix = np.array(slopes), np.array(rows)
        if np.abs(slope).max() < 1e-10:
            return True
        residual = slope - matrix @ np.linalg.lstsq(matrix, slope, rcond=1e-10)[0]
        return bool(np.linalg.norm(residual) < 1e-6 * np.linalg.norm(slope))
