"""An outer bound of what a polynomial can be over all couplings, where several sites meet in one monomial.

References:
    Charnes, Cooper (1962), Programming with linear fractional functionals.
    Sherali, Adams (1990), A hierarchy of relaxations between the continuous and convex hull representations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .response_polynomials import Monomial, Polynomial
from .response_types import Block, Floats, TooManyTypes

if TYPE_CHECKING:
    from .response_programs import CouplingProgram

__all__ = ["OPTIONS", "Infeasible", "JointLaws", "Point"]

#: One coupling: for each block a law over its response types.
Point: TypeAlias = dict[Block, Floats]


class Infeasible(Exception):
    """The denominator is zero under every coupling."""


#: Of the solver.
OPTIONS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


class JointLaws:
    """The linear program over laws of each block and joint laws of the blocks that meet in a monomial.

    Of independence it keeps that, whatever the responses of the others, a site's own conditional probabilities hold.
    Where no two blocks meet nothing is lost.
    """

    def __init__(self, program: CouplingProgram, polynomials: Sequence[Polynomial]) -> None:
        self.program = program
        teams: dict[tuple[Block, ...], None] = {}
        for monomial in itertools.chain.from_iterable(polynomials):
            team = self._team(monomial)
            teams |= {(b,): None for b in team} | ({team: None} if team else {})
        self.columns: dict[tuple[Block, ...], slice] = {}
        width = 0
        for team in teams:
            size = math.prod(len(b.types) for b in team)
            self.columns[team] = slice(width, width := width + size)
            if len(team) > 1 and width > program.max_columns:
                raise TooManyTypes
        self.width = width
        self.matrix, self.right = self._constraints()

    def _team(self, monomial: Monomial) -> tuple[Block, ...]:
        return tuple(self.program.block(f) for f in monomial)

    def _constraints(self) -> tuple[Any, Floats]:
        from scipy import sparse

        rows, right = [], []
        for team, columns in self.columns.items():
            if len(team) == 1:
                rows.append(self._placed((columns, sparse.csr_array(team[0].matrix))))
                right.append(team[0].probabilities)
                continue
            for position, block in enumerate(team):
                own = block.matrix - block.probabilities[:, None]
                one = [sparse.eye_array(len(b.types)) for b in team]
                one[position] = sparse.csr_array(own)
                summed = [sparse.csr_array(np.ones((1, len(b.types)))) for b in team]
                summed[position] = sparse.eye_array(len(block.types))
                rows.append(self._placed((columns, _kron(one))))
                law = (self.columns[block,], -sparse.eye_array(len(block.types)))
                rows.append(self._placed((columns, _kron(summed)), law))
                right += [np.zeros(rows[-2].shape[0]), np.zeros(rows[-1].shape[0])]
        return sparse.vstack(rows, format="csr"), np.concatenate(right)

    def _placed(self, *parts: tuple[slice, Any]) -> Any:
        """Matrices at their columns, side by side."""
        from scipy import sparse

        total: Any = 0
        for columns, matrix in parts:
            found = sparse.coo_array(matrix)
            shape = (found.shape[0], self.width)
            moved = (found.data, (found.coords[0], found.coords[1] + columns.start))
            total = total + sparse.csr_array(moved, shape=shape)
        return total

    def _cost(self, polynomial: Polynomial) -> Floats:
        cost = np.zeros(self.width)
        for monomial, coefficient in polynomial.items():
            if monomial:
                shown: Any = np.ones(1)
                for f in monomial:
                    shown = np.kron(shown, self.program.indicator(f))
                cost[self.columns[self._team(monomial)]] += coefficient * shown
        return cost

    def least(self, top: Polynomial, bottom: Polynomial) -> tuple[float, Point]:
        """The least ``top / bottom`` and the laws of the blocks there, by the transformation of Charnes and Cooper.

        It has one more variable, for the scale.

        Raises:
            Infeasible: ``bottom`` is zero everywhere.
        """
        from scipy import sparse
        from scipy.optimize import linprog

        # The scale of a rare condition is taken out first, so that tolerances mean the same everywhere.
        size = self.program.ceiling(bottom)
        if size <= 0.0:
            raise Infeasible
        cost, below = self._cost(top) / size, self._cost(bottom) / size
        scaled = sparse.hstack([self.matrix, sparse.csr_array(-self.right[:, None])])
        condition = sparse.csr_array(np.append(below, bottom.get((), 0.0) / size)[None])
        found = linprog(
            np.append(cost, top.get((), 0.0) / size),
            A_eq=sparse.vstack([scaled, condition], format="csr"),
            b_eq=np.append(np.zeros(len(self.right)), 1.0),
            method="highs",
            options=OPTIONS,
        )
        if found.status == 2:
            raise Infeasible
        if found.status == 3:
            return -math.inf, {}
        if found.status != 0:
            raise TooManyTypes
        laws = {
            team[0]: np.maximum(found.x[columns], 0.0) / found.x[-1]
            for team, columns in self.columns.items()
            if len(team) == 1
        }
        return float(found.fun), laws


def _kron(matrices: Sequence[Any]) -> Any:
    from scipy import sparse

    return reduce(sparse.kron, matrices)
