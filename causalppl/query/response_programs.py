r"""The least and the greatest value of a polynomial, or of a ratio of two, over all couplings.

With one open site per monomial the value is linear in the laws of the response types, and a ratio is made linear by the
transformation of Charnes and Cooper. With several, their independence makes it multilinear: with all sites but one held
fixed it is linear in that one, so that an optimum lies at vertices of all their polytopes. Small programs are searched
vertex by vertex, ratios by Dinkelbach's iteration. Larger ones get an outer bound: a linear program over joint laws of the
response types of the sites that appear together, which keeps only part of what independence says.

References:
    Charnes, Cooper (1962), Programming with linear fractional functionals.
    Dinkelbach (1967), On nonlinear fractional programming.
    Sherali, Adams (1990), A hierarchy of relaxations between the continuous and convex hull representations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .response_polynomials import Config, Factor, Monomial, Polynomial, add, constant_of, scale
from .response_relaxation import OPTIONS, Infeasible, JointLaws, Point
from .response_types import Block, Floats, TooManyTypes, shape_of

__all__ = ["CouplingProgram", "Extremes"]


@dataclass(frozen=True)
class Extremes:
    """Least and greatest value, and whether couplings attain them."""

    low: float
    high: float
    sharp: bool


@dataclass
class CouplingProgram:
    """Optimises over the couplings of some blocks.

    Attributes:
        blocks: the block of each site and configurations that a factor shows.
        max_bases: bases tried at most to list the vertices of one block.
        max_combinations: combinations of vertices of different blocks tried at most.
        max_columns: joint response types at most in the linear program of the outer bound.
        exact: search for the optimum where several sites meet; otherwise only the outer bound.
    """

    blocks: Mapping[tuple[str, tuple[Config, ...]], Block]
    max_bases: int = 60_000
    max_combinations: int = 400
    max_columns: int = 3_000
    exact: bool = True
    _indicators: dict[Factor, Floats] = field(default_factory=dict)

    def extremes(self, top: Polynomial, bottom: Polynomial) -> Extremes:
        r"""The range of ``top / bottom`` over the couplings that make ``bottom`` positive.

        Args:
            top: any polynomial.
            bottom: one that is nowhere negative.

        Raises:
            Infeasible: ``bottom`` is zero under every coupling.
            TooManyTypes: the program is too large even for the outer bound.
        """
        fixed = constant_of(bottom)
        if fixed is not None:
            if fixed <= 0.0:
                raise Infeasible
            top, bottom = scale(top, 1.0 / fixed), {(): 1.0}
            value = constant_of(top)
            if value is not None:
                return Extremes(value, value, True)
        try:
            relaxed = JointLaws(self, [top, bottom])
        except TooManyTypes:
            if not self.exact:
                raise
            relaxed = None
        low = self._end(top, bottom, relaxed)
        high = self._end(scale(top, -1.0), bottom, relaxed)
        return Extremes(low[0], -high[0], low[1] and high[1])

    def _end(
        self, top: Polynomial, bottom: Polynomial, relaxed: JointLaws | None
    ) -> tuple[float, bool]:
        """The least ratio, or less, and whether it is certain that a coupling attains it."""
        if relaxed is None:
            return self._ratio(top, bottom), True
        outer, laws = relaxed.least(top, bottom)
        if all(len(m) <= 1 for m in (*top, *bottom)):
            return outer, True
        if not self.exact or not math.isfinite(outer):
            return outer, False
        # The outer bound often is the optimum; a coupling that attains it proves it, and spares the search.
        if self._descended(top, bottom, laws) <= outer + 1e-9 * (1.0 + abs(outer)):
            return outer, True
        try:
            return self._ratio(top, bottom), True
        except TooManyTypes:
            return outer, False

    def indicator(self, factor: Factor) -> Floats:
        """Which types of its block a factor shows."""
        if factor not in self._indicators:
            self._indicators[factor] = self.block(factor).shows(factor)
        return self._indicators[factor]

    def block(self, factor: Factor) -> Block:
        """The block that a factor belongs to."""
        return self.blocks[shape_of(factor)]

    def ceiling(self, polynomial: Polynomial) -> float:
        """A number that no coupling exceeds, and that is not far above the greatest value, of non-negative terms."""
        return math.fsum(
            abs(c) * math.prod(min(self._marginal(f, r) for r in f[1]) for f in monomial)
            for monomial, c in polynomial.items()
        )

    def _marginal(self, factor: Factor, response: tuple[Config, float]) -> float:
        block = self.block(factor)
        return block.tables[block.configs.index(response[0])][response[1]]

    def value(self, polynomial: Polynomial, point: Point) -> float:
        """A polynomial at one coupling."""
        return math.fsum(
            c * math.prod(float(self.indicator(f) @ point[self.block(f)]) for f in monomial)
            for monomial, c in polynomial.items()
        )

    def _ratio(self, top: Polynomial, bottom: Polynomial) -> float:
        """The least ``top / bottom``, by Dinkelbach's iteration over exact searches."""
        _, point = self._least(scale(bottom, -1.0))
        point = {b: self._any(b) for b in set(self.blocks.values())} | point
        ratio, tiny = math.inf, 1e-12 * self.ceiling(bottom)
        for _ in range(100):
            below = self.value(bottom, point)
            if below <= tiny:
                break
            ratio = min(ratio, self.value(top, point) / below)
            gap, better = self._least(add(top, bottom, -ratio))
            if gap >= -tiny * (1.0 + abs(ratio)):
                break  # no coupling has top < ratio * bottom
            point = point | better
        if ratio == math.inf:
            raise Infeasible
        return ratio

    def _descended(self, top: Polynomial, bottom: Polynomial, point: Point) -> float:
        """A ratio that a coupling attains, improved one site at a time."""
        ratio, tiny = math.inf, 1e-12 * self.ceiling(bottom)
        sites = dict.fromkeys(block.site for block in point)
        for _ in range(20):
            below = self.value(bottom, point)
            now = self.value(top, point) / below if below > tiny else math.inf
            if not now < ratio - 1e-12 * (1.0 + abs(now)):
                break
            ratio = now
            for site in sites:
                costs, _ = self._costs(add(top, bottom, -ratio), site, point)
                point = point | {b: _solved(b, cost[None])[1][0] for b, cost in costs.items()}
        return ratio

    def _costs(
        self, polynomial: Polynomial, site: str, point: Point
    ) -> tuple[dict[Block, Floats], float]:
        """A polynomial as a linear function of the laws of one site, the others held fixed: costs and the rest."""
        costs: dict[Block, Floats] = {}
        loose = 0.0
        for monomial, coefficient in polynomial.items():
            mine = [f for f in monomial if f[0] == site]
            rest = {tuple(f for f in monomial if f[0] != site): coefficient}
            number = self.value(rest, point)
            if mine:
                block = self.block(mine[0])
                share = number * self.indicator(mine[0])
                costs[block] = costs[block] + share if block in costs else share
            else:
                loose += number
        return costs, loose

    def _any(self, block: Block) -> Floats:
        return _solved(block, np.zeros((1, len(block.types))))[1][0]

    def _least(self, polynomial: Polynomial) -> tuple[float, Point]:
        """The least value of a multilinear polynomial and where it is; parts without a common block apart."""
        rest, point = self._settled(polynomial)
        total = rest.get((), 0.0)
        for part in self._parts(rest):
            value, where = self._search(part)
            total += value
            point |= where
        return total, point

    def _settled(self, polynomial: Polynomial) -> tuple[Polynomial, Point]:
        """Blocks whose monomials agree in all other factors, a number that is not negative, can choose for themselves."""
        point: Point = {}
        rest = dict(polynomial)
        changed = True
        while changed:
            changed = False
            users: dict[Block, list[Monomial]] = {}
            for monomial in rest:
                for factor in monomial:
                    users.setdefault(self.block(factor), []).append(monomial)
            for block, monomials in users.items():
                others = {tuple(f for f in m if self.block(f) is not block) for m in monomials}
                if len(others) > 1 or any(m not in rest for m in monomials):
                    continue
                cost = np.zeros(len(block.types))
                for monomial in monomials:
                    (factor,) = (f for f in monomial if self.block(f) is block)
                    cost += rest.pop(monomial) * self.indicator(factor)
                values, laws = _solved(block, cost[None])
                point[block] = laws[0]
                rest = add(rest, {others.pop(): float(values[0])})
                changed = True
        return rest, point

    def _parts(self, polynomial: Polynomial) -> Iterator[Polynomial]:
        import networkx as nx

        graph: Any = nx.Graph()
        for monomial in polynomial:
            blocks = [self.block(f) for f in monomial]
            graph.add_nodes_from(blocks)
            graph.add_edges_from(itertools.pairwise(blocks))
        for members in nx.connected_components(graph):
            yield {m: c for m, c in polynomial.items() if m and self.block(m[0]) in members}

    def _search(self, part: Polynomial) -> tuple[float, Point]:
        """All vertices of all sites but one, and the best response of that one."""
        sites: dict[str, list[Block]] = {}
        for block in dict.fromkeys(self.block(f) for m in part for f in m):
            sites.setdefault(block.site, []).append(block)
        last = max(sites, key=lambda s: math.fsum(math.log(b.bases) for b in sites[s]))
        listed = [b for s, blocks in sites.items() if s != last for b in blocks]
        if any(b.bases > self.max_bases for b in listed):
            raise TooManyTypes
        if math.prod(len(b.vertices) for b in listed) > self.max_combinations:
            raise TooManyTypes
        points = [
            dict(zip(listed, vertices, strict=True))
            for vertices in itertools.product(*(b.vertices for b in listed))
        ]
        found = [self._costs(part, last, point) for point in points]
        totals = np.array([loose for _, loose in found])
        laws: dict[Block, Floats] = {}
        for block in sites[last]:
            costs = np.stack([costs[block] for costs, _ in found])
            values, laws[block] = _solved(block, costs)
            totals += values
        best = int(totals.argmin())
        return float(totals[best]), points[best] | {b: law[best] for b, law in laws.items()}


def _solved(block: Block, costs: Floats, batch: int = 32) -> tuple[Floats, Floats]:
    """The least of ``law @ cost`` over the laws of a block and where it is, for each row of costs."""
    if "vertices" in vars(block):
        values = costs @ block.vertices.T
        return values.min(1), block.vertices[values.argmin(1)]
    from scipy import sparse
    from scipy.optimize import linprog

    laws = []
    # A call costs more than its pivots do, so that several programs are solved side by side in one.
    for start in range(0, len(costs), batch):
        part = costs[start : start + batch]
        found = linprog(
            part.ravel(),
            A_eq=sparse.kron(sparse.eye_array(len(part)), block.matrix, format="csr"),
            b_eq=np.tile(block.probabilities, len(part)),
            method="highs",
            options=OPTIONS,
        )
        if found.status != 0:
            raise TooManyTypes
        laws.append(np.asarray(found.x).reshape(part.shape))
    where = np.concatenate(laws)
    return (where * costs).sum(1), where
