"""Sums over finite variables by the graph of their factors: variable elimination, and exact draws on the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import MethodError

__all__ = ["Elimination", "Factor", "colouring", "eliminate"]


@dataclass(frozen=True)
class Factor:
    """A table of log values, ``(size of each variable, *unit sizes)``; without unit sizes where it stands outside the plates."""

    variables: tuple[str, ...]
    table: Tensor

    def over(self, variables: tuple[str, ...]) -> Tensor:
        """The table with a dim for each of ``variables``, of size one where it does not depend on it."""
        units = self.table.shape[len(self.variables) :]
        order = [self.variables.index(v) for v in variables if v in self.variables]
        moved = self.table.permute(*order, *range(len(order), self.table.dim()))
        sizes = iter(moved.shape[: len(order)])
        return moved.reshape(
            torch.Size([*(next(sizes) if v in self.variables else 1 for v in variables), *units])
        )

    def at(self, chosen: Mapping[str, Tensor]) -> Tensor:
        """The table at the indices of some variables, each a scalar or of shape ``unit sizes``; dims of the others stay."""
        table, dim = self.table, 0
        for name in self.variables:
            if name not in chosen:
                dim += 1
                continue
            index = chosen[name]
            if not index.dim():
                table = table.index_select(dim, index.reshape(1)).squeeze(dim)
                continue
            shape = [*table.shape[: table.dim() - index.dim()], *index.shape]
            shape[dim] = 1
            table = table.gather(dim, index.expand(torch.Size(shape))).squeeze(dim)
        return table


@dataclass(frozen=True)
class Elimination:
    """What is left when all variables are summed out, and the tables to draw them from.

    Attributes:
        rest: factors that no longer depend on a variable.
        steps: each variable with the sum of the factors that held it, the variable's own dim first; in the order of elimination.
    """

    rest: list[Factor]
    steps: list[tuple[str, Factor]]

    def draw(
        self, gumbels: Mapping[str, Tensor], given: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One exact draw of all variables, last eliminated first, from standard Gumbel noise.

        Args:
            gumbels: variable to noise of shape ``(size, *unit sizes)``.
            given: indices of variables that were left in the factors.

        Returns:
            variable to index, shape ``unit sizes``.
        """
        chosen = dict(given or {})
        for name, factor in reversed(self.steps):
            rest = Factor(factor.variables, factor.table).at(chosen)
            chosen[name] = (rest + gumbels[name]).argmax(0)
        return chosen


def eliminate(factors: list[Factor], names: list[str], most: int, method: str) -> Elimination:
    """Sum out ``names``, the one that makes the smallest table first.

    Raises:
        MethodError: a table would have more than ``most`` entries.
    """
    left, steps, todo = list(factors), [], list(names)
    sizes = {v: s for f in factors for v, s in zip(f.variables, f.table.shape, strict=False)}
    while todo:
        best = min(todo, key=lambda v: _size(v, left, sizes))
        if _size(best, left, sizes) > most:
            raise MethodError(
                f"{method}: {_size(best, left, sizes)} assignments of latent sites that depend on each other, more than {most}; use "
                "cp.ImportanceSampling()"
            )
        todo.remove(best)
        own = [f for f in left if best in f.variables]
        left = [f for f in left if best not in f.variables]
        scope = _scope(best, own)
        table: Tensor | float = 0.0
        for factor in own:
            table = table + factor.over(scope)
        if not isinstance(table, Tensor):
            continue  # nothing depends on it, which a latent site's own density rules out
        steps.append((best, Factor(scope, table)))
        left.append(Factor(scope[1:], table.logsumexp(0)))
    return Elimination(left, steps)


def _scope(name: str, factors: list[Factor]) -> tuple[str, ...]:
    others = dict.fromkeys(v for f in factors for v in f.variables if v != name)
    return (name, *others)


def _size(name: str, factors: list[Factor], sizes: dict[str, int]) -> int:
    total = 1
    for variable in _scope(name, [f for f in factors if name in f.variables]):
        total *= sizes.get(variable, 1)
    return total


def colouring(scopes: list[tuple[str, ...]], names: list[str]) -> dict[str, int]:
    """A colour for each variable, different for those that share a scope: all tables can be filled by varying colours."""
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(names)
    for scope in scopes:
        graph.add_edges_from((a, b) for i, a in enumerate(scope) for b in scope[:i])
    found: dict[str, int] = nx.greedy_color(graph, strategy="largest_first")
    return found
