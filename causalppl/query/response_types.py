r"""Response types of a site, and the polytope of all couplings of its worlds.

A response type is a function from the configurations of a site's parents, those that the worlds of a query can show, to the
site's values. A coupling is a law over the types that gives each configuration the site's own conditional probabilities.

Two configurations matter to each other only where one assignment can show both of them. So the configurations of a site fall
into blocks, the couplings of different blocks being free of each other: with a confounder ``z`` shared by the worlds, one
block for each value of ``z``. The monotone assumption also ties configurations that no assignment shows together.

References:
    Balke, Pearl (1994), Counterfactual probabilities: computational methods, bounds and applications.
    Frangakis, Rubin (2002), Principal stratification in causal inference.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import IncompatibleMechanismError
from .response_polynomials import Config, Factor

__all__ = ["Block", "TooManyTypes", "blocks_of", "shape_of"]

Floats = NDArray[np.float64]


class TooManyTypes(Exception):
    """A block has more response types than can be listed."""


@dataclass(frozen=True, eq=False)
class Block:
    """Configurations of one site whose joint response is open, and the response types over them.

    Attributes:
        site: its name.
        configs: the configurations, sorted.
        tables: the site's probabilities at each of them.
        monotone: only types that do not decrease in any parent.
        max_types: how many types are listed at most.
    """

    site: str
    configs: tuple[Config, ...]
    tables: tuple[Mapping[float, float], ...]
    monotone: bool = False
    max_types: int = 50_000

    @cached_property
    def types(self) -> tuple[tuple[float, ...], ...]:
        """Each type's values, in the order of ``configs``.

        Raises:
            TooManyTypes: they are more than ``max_types``.
        """
        found: list[tuple[float, ...]] = [()]
        for position, table in enumerate(self.tables):
            # Sorted configurations: whatever lies below this one has its value already.
            below = [j for j in range(position) if self._below(j, position)]
            found = [
                (*start, value)
                for start in found
                for value in table
                if all(start[j] <= value for j in below)
            ]
            if len(found) > self.max_types:
                raise TooManyTypes
        return tuple(found)

    def _below(self, first: int, second: int) -> bool:
        pairs = zip(self.configs[first], self.configs[second], strict=True)
        return self.monotone and all(a <= b for a, b in pairs)

    @cached_property
    def marginals(self) -> tuple[tuple[int, float, float], ...]:
        """``(index of the configuration, value, probability)``, for each value at each configuration."""
        return tuple(
            (i, value, p) for i, table in enumerate(self.tables) for value, p in table.items()
        )

    @cached_property
    def matrix(self) -> Floats:
        """Types to marginals, 0 or 1; shape ``(marginals, types)``."""
        types = np.asarray(self.types)
        return np.stack([types[:, i] == value for i, value, _ in self.marginals]).astype(float)

    @cached_property
    def probabilities(self) -> Floats:
        """The right-hand side of :attr:`matrix`, shape ``(marginals,)``."""
        return np.array([p for *_, p in self.marginals])

    def shows(self, factor: Factor) -> Floats:
        """Which types have the responses of a factor, 0 or 1; shape ``(types,)``."""
        types = np.asarray(self.types)
        columns = {config: i for i, config in enumerate(self.configs)}
        agree = [types[:, columns[config]] == value for config, value in factor[1]]
        return np.logical_and.reduce(agree).astype(float)

    def check(self) -> None:
        """Refuse the monotone assumption where the program's own probabilities contradict it.

        Raises:
            IncompatibleMechanismError: the probability of large values falls as the parents rise.
        """
        # Values are in one order, so that a monotone law exists where every pair is in order: that of one uniform.
        for first, second in itertools.combinations(range(len(self.configs)), 2):
            if self._below(first, second):
                self._check_pair(first, second)

    def _check_pair(self, first: int, second: int) -> None:
        lower, upper = self.tables[first], self.tables[second]
        for value in lower:
            tail = [math.fsum(p for v, p in t.items() if v >= value) for t in (lower, upper)]
            if tail[0] > tail[1] + 1e-9:
                raise IncompatibleMechanismError(
                    f"assume: {self.site!r} cannot be monotone, since P({self.site} >= {value:g}) falls from {tail[0]:.6g} to "
                    f"{tail[1]:.6g} as its parents rise from {_shown(self.configs[first])} to {_shown(self.configs[second])}; "
                    f"leave {self.site!r} out of assume"
                )

    @cached_property
    def bases(self) -> int:
        """How many bases :meth:`vertices` would have to try."""
        return math.comb(len(self.types), int(np.linalg.matrix_rank(self.matrix)))

    @cached_property
    def vertices(self) -> Floats:
        """All extreme couplings, shape ``(vertices, types)``, by trying every basis."""
        rows = _independent_rows(self.matrix)
        matrix, right = self.matrix[rows], self.probabilities[rows]
        size, count = matrix.shape
        found: dict[tuple[float, ...], Floats] = {}
        every = itertools.combinations(range(count), size)
        while batch := list(itertools.islice(every, 4096)):
            columns = np.array(batch)
            square = matrix[:, columns].transpose(1, 0, 2)
            # Entries are 0 and 1, so that a determinant is an integer.
            regular = np.abs(np.linalg.det(square)) > 0.5
            columns, square = columns[regular], square[regular]
            if not len(columns):
                continue
            solved = np.linalg.solve(
                square, np.broadcast_to(right[:, None], (len(columns), size, 1))
            )
            feasible = (solved[..., 0] >= -1e-12).all(1)
            for chosen, weights in zip(columns[feasible], solved[feasible, :, 0], strict=True):
                vertex = np.zeros(count)
                vertex[chosen] = np.maximum(weights, 0.0)
                found.setdefault(tuple(np.round(vertex, 10) + 0.0), vertex)
        return np.stack(list(found.values()))


def _independent_rows(matrix: Floats) -> list[int]:
    rows: list[int] = []
    for i in range(len(matrix)):
        if np.linalg.matrix_rank(matrix[[*rows, i]]) == len(rows) + 1:
            rows.append(i)
    return rows


def _shown(config: Config) -> str:
    return "(" + ", ".join(f"{v:g}" for v in config) + ")"


def _changing(site: str, factors: Iterable[Factor]) -> set[int]:
    """Positions of the parents whose values differ between worlds somewhere."""
    return {
        i
        for name, shown in factors
        if name == site
        for i, values in enumerate(zip(*(config for config, _ in shown), strict=True))
        if len(set(values)) > 1
    }


def blocks_of(
    factors: Iterable[Factor],
    tables: Mapping[tuple[str, Config], Mapping[float, float]],
    monotone: Collection[str] = (),
    split: bool = False,
) -> dict[tuple[str, tuple[Config, ...]], Block]:
    """The blocks of all sites, by site and configurations that a factor shows.

    Args:
        factors: the factors of the query's polynomials.
        tables: the program's probabilities at each configuration.
        monotone: the sites assumed monotone.
        split: give every set of configurations that an assignment shows a block of its own. Laws of two blocks need not
            fit together then, so that what comes of it is an outer bound.
    """
    factors = list(factors)
    shapes = list(dict.fromkeys(shape_of(f) for f in factors))
    if split:
        groups = [({shape}, set(shape[1])) for shape in shapes]
    else:
        groups = _connected(shapes, {site: _changing(site, factors) for site in monotone})
    blocks: dict[tuple[str, tuple[Config, ...]], Block] = {}
    for members, union in groups:
        (site,) = {name for name, _ in members}
        configs = tuple(sorted(union))
        block = Block(site, configs, tuple(tables[site, c] for c in configs), site in monotone)
        blocks |= {member: block for member in members}
    return blocks


def shape_of(factor: Factor) -> tuple[str, tuple[Config, ...]]:
    """The site of a factor and the configurations that it shows."""
    return factor[0], tuple(config for config, _ in factor[1])


def _connected(
    shapes: Sequence[tuple[str, tuple[Config, ...]]], changing: Mapping[str, Collection[int]]
) -> list[tuple[set[tuple[str, tuple[Config, ...]]], set[Config]]]:
    """Shapes whose responses are tied to each other, and their configurations."""
    import networkx as nx

    graph: Any = nx.Graph()
    for site, configs in shapes:
        for config in configs:
            graph.add_edge((site, configs), (site, "at", config))
            if site in changing:
                fixed = tuple(v for i, v in enumerate(config) if i not in changing[site])
                graph.add_edge((site, configs), (site, "fixed", fixed))
    known = set(shapes)
    groups = []
    for component in nx.connected_components(graph):
        members = {node for node in component if node in known}
        groups.append((members, {config for _, configs in members for config in configs}))
    return groups
