"""Bounds on a whole query of a finite program: its terms, and sums, differences, products and ratios of terms.

What can be written as one polynomial, or one ratio of two, is bounded in one piece, so that the terms share a coupling.
The rest is put together by interval arithmetic, which lets each term choose its own: valid, but not sharp.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..errors import ImpossibleEvidenceError, MethodError
from ..notation.terms import Arithmetic, Expectation, Expression, Number, Probability, Term
from .response_polynomials import (
    CouplingPolynomials,
    Factor,
    FiniteProgram,
    Polynomial,
    TooManyStates,
    add,
    constant_of,
    scale,
)
from .response_programs import CouplingProgram, Extremes
from .response_relaxation import Infeasible
from .response_types import TooManyTypes, blocks_of
from .site_laws import NoLaw

__all__ = ["INTERVALS", "Interval", "Meaning", "QueryBounds", "Weighted"]

Interval: TypeAlias = tuple[float, float]

_ONE: Polynomial = {(): 1.0}


@dataclass(frozen=True)
class _Piece:
    """``top / bottom``, of which nothing but ``known`` is sure where it is too large to be written out."""

    known: Interval
    top: Polynomial | None = None
    bottom: Polynomial = field(default_factory=lambda: dict(_ONE))
    sharp: bool = False

    def number(self) -> float | None:
        """Its value where no coupling matters."""
        if self.top is None or constant_of(self.bottom) is None:
            return None
        return constant_of(self.top)  # the bottom of such a piece is 1


@dataclass(frozen=True, eq=False)
class Weighted:
    r"""A term whose outcomes are all finite sites, weighed by functions of them.

    .. math:: E[\text{both} \cdot \text{top} \cdot 1\{\text{event}\} \mid \text{given}] / E[\text{both} \mid \text{given}]
    """

    term: Term
    top: Expression | None = None
    both: Expression | None = None


@dataclass(frozen=True, eq=False)
class Meaning:
    """What a term comes to for the finite part of a program.

    Attributes:
        known: a range that it never leaves.
        low: its least value over the couplings of the sites that are left out, as a term of the others; ``None`` where unknown.
        high: its greatest, if that is another.
        sharp: whether couplings of the sites that are left out attain these, asked after both were computed.
    """

    known: Interval
    low: Weighted | None = None
    high: Weighted | None = None
    sharp: Callable[[], bool] = lambda: True


@dataclass
class QueryBounds:
    """Bounds the terms of one program.

    Attributes:
        program: the program.
        monotone: sites whose responses do not decrease in any parent that changes between worlds.
        exact: search for the optimum where the couplings of several sites meet; otherwise only the outer bound.
        meanings: terms that stand for others; the rest stand for themselves.
        coupled: after :meth:`extremes`, the sites whose coupling the bounds range over.
    """

    program: FiniteProgram
    monotone: Collection[str] = ()
    exact: bool = True
    meanings: Mapping[Term, Meaning] = field(default_factory=dict)
    coupled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.polynomials = CouplingPolynomials(self.program, frozenset(self.monotone))

    def extremes(self, expression: Expression) -> Extremes:
        """Least and greatest value of a query over all couplings.

        Raises:
            ImpossibleEvidenceError: a condition has probability zero under every coupling.
            IncompatibleMechanismError: the program contradicts the assumption that a site is monotone.
        """
        return self._solved(self._piece(expression))

    def _piece(self, expression: Expression) -> _Piece:
        if isinstance(expression, Number):
            value = float(expression.value)
            return _Piece((value, value), {(): value})
        if isinstance(expression, Probability | Expectation):
            return self._term(expression)
        if isinstance(expression, Arithmetic):
            left, right = self._piece(expression.left), self._piece(expression.right)
            return self._combined(expression.operator, left, right)
        raise MethodError(
            f"bounds: {expression!r} stands outside of P(...) and E[...]; a query is made of terms such as "
            "'P(y[x=1] = 1, y[x=0] = 0)' or 'E[y[x=1]] - E[y[x=0]]'"
        )

    def _term(self, term: Term) -> _Piece:
        meaning = self.meanings.get(term)
        if meaning is None:
            known = (0.0, 1.0) if isinstance(term, Probability) else (-math.inf, math.inf)
            return self._weighted(Weighted(term), known)
        if meaning.low is None:
            return _Piece(meaning.known)
        one = self._weighted(meaning.low, meaning.known)
        if meaning.high is None:
            return one
        low, high = self._solved(one), self._solved(self._weighted(meaning.high, meaning.known))
        return _Piece((low.low, high.high), sharp=low.sharp and high.sharp and meaning.sharp())

    def _weighted(self, weighted: Weighted, known: Interval) -> _Piece:
        term, make = weighted.term, self.polynomials.polynomial
        weight = _product(weighted.top, weighted.both)
        try:
            bottom = make(weighted.both, term.given, term.do)
            if not bottom or constant_of(bottom) == 0.0:
                if weighted.both is not None:  # a density so far out that it is zero in float64
                    return _Piece(known)
                raise Infeasible
            if isinstance(term, Probability):
                top = make(weight, (*term.event, *term.given), term.do)
            else:
                top = {}
                for factor, piece in _summands(term.expression):
                    top = add(top, make(_product(piece, weight), term.given, term.do), factor)
        except (TooManyStates, NoLaw):
            return _Piece(known)
        except Infeasible:
            raise _impossible() from None
        if not all(math.isfinite(c) for c in top.values()):
            raise MethodError(
                "bounds: an expectation divides by a site that is zero with positive probability"
            )
        fixed = constant_of(bottom)
        if fixed is not None:
            top, bottom = scale(top, 1.0 / fixed), dict(_ONE)
        return _Piece(known, top, bottom)

    def _combined(self, operator: str, left: _Piece, right: _Piece) -> _Piece:
        known = INTERVALS[operator](left.known, right.known)
        if left.top is not None and right.top is not None:
            whole = self._written_as_one(operator, left, right, known)
            if whole is not None:
                return whole
        one, other = self._solved(left), self._solved(right)
        found = INTERVALS[operator]((one.low, one.high), (other.low, other.high))
        # What two wide ranges come to may not be attained by one coupling; with a number there is no such doubt.
        number = one.low == one.high or other.low == other.high
        number &= operator != "/" or not other.low <= 0.0 <= other.high
        return _Piece(_both(found, known), sharp=number and one.sharp and other.sharp)

    def _written_as_one(
        self, operator: str, left: _Piece, right: _Piece, known: Interval
    ) -> _Piece | None:
        assert left.top is not None and right.top is not None
        first, second = left.number(), right.number()
        if operator in "+-":
            sign = 1.0 if operator == "+" else -1.0
            if _same(left.bottom, right.bottom):
                return _Piece(known, add(left.top, right.top, sign), left.bottom)
            if second is not None:
                return _Piece(known, add(left.top, left.bottom, sign * second), left.bottom)
            if first is not None:
                top = add(scale(right.top, sign), right.bottom, first)
                return _Piece(known, top, right.bottom)
        if operator == "*" and second is not None:
            return _Piece(known, scale(left.top, second), left.bottom)
        if operator == "*" and first is not None:
            return _Piece(known, scale(right.top, first), right.bottom)
        if operator == "/" and second is not None and second != 0.0:
            return _Piece(known, scale(left.top, 1.0 / second), left.bottom)
        if operator == "/" and second is None and _same(left.bottom, right.bottom):
            return self._quotient(left.top, right.top, known)
        return None

    def _quotient(self, top: Polynomial, bottom: Polynomial, known: Interval) -> _Piece | None:
        """One ratio where the lower part keeps its sign."""
        size = self._solved(_Piece((-math.inf, math.inf), bottom))
        if size.low > 0.0:
            return _Piece(known, top, bottom)
        if size.high < 0.0:
            return _Piece(known, scale(top, -1.0), scale(bottom, -1.0))
        return None

    def _solved(self, piece: _Piece) -> Extremes:
        if piece.top is None:
            return Extremes(*piece.known, piece.sharp)
        factors = list(_factors([piece.top, piece.bottom]))
        open_sites = [s for s in self.program.sites if any(s == name for name, _ in factors)]
        self.coupled = tuple(dict.fromkeys((*self.coupled, *open_sites)))
        found = None
        for split in (False, True):
            blocks = blocks_of(factors, self.polynomials.tables, self.monotone, split)
            try:
                for block in set(blocks.values()):
                    block.check()
                program = CouplingProgram(blocks, exact=self.exact or split)
                found = program.extremes(piece.top, piece.bottom)
            except TooManyTypes:
                continue
            except Infeasible:
                raise _impossible() from None
            break
        if found is None:
            return Extremes(*piece.known, False)
        low, high = _both((found.low, found.high), piece.known)
        return Extremes(low, high, found.sharp and (not split or low == high))


def _product(left: Expression | None, right: Expression | None) -> Expression | None:
    if left is None or right is None:
        return right if left is None else left
    return Arithmetic("*", left, right)


def _impossible() -> ImpossibleEvidenceError:
    return ImpossibleEvidenceError(
        "bounds: the condition has probability zero under every coupling; check what stands after the bar"
    )


def _factors(polynomials: Sequence[Polynomial]) -> Iterator[Factor]:
    for monomial in itertools.chain.from_iterable(polynomials):
        yield from monomial


def _summands(expression: Expression) -> Iterator[tuple[float, Expression]]:
    """The parts of a sum, each with its numeric factor: an expectation is linear."""
    if isinstance(expression, Arithmetic):
        left, right = expression.left, expression.right
        if expression.operator in "+-":
            yield from _summands(left)
            sign = 1.0 if expression.operator == "+" else -1.0
            yield from ((sign * factor, part) for factor, part in _summands(right))
            return
        if isinstance(right, Number) and (expression.operator == "*" or right.value != 0.0):
            by = right.value if expression.operator == "*" else 1.0 / right.value
            yield from ((by * factor, part) for factor, part in _summands(left))
            return
        if isinstance(left, Number) and expression.operator == "*":
            yield from ((left.value * factor, part) for factor, part in _summands(right))
            return
    yield 1.0, expression


def _same(left: Polynomial, right: Polynomial) -> bool:
    return left.keys() == right.keys() and all(
        math.isclose(c, right[m], rel_tol=1e-12) for m, c in left.items()
    )


def _both(one: Interval, other: Interval) -> Interval:
    low, high = max(one[0], other[0]), min(one[1], other[1])
    return (low, high) if low <= high else (0.5 * (low + high),) * 2


def _plus(a: Interval, b: Interval) -> Interval:
    return a[0] + b[0], a[1] + b[1]


def _minus(a: Interval, b: Interval) -> Interval:
    return a[0] - b[1], a[1] - b[0]


def _times(a: Interval, b: Interval) -> Interval:
    ends = [x * y if x and y else 0.0 for x in a for y in b]
    return min(ends), max(ends)


def _over(a: Interval, b: Interval) -> Interval:
    if b[0] <= 0.0 <= b[1]:
        return -math.inf, math.inf
    return _times(a, (1.0 / b[1], 1.0 / b[0]))


#: Interval arithmetic, by operator.
INTERVALS = {"+": _plus, "-": _minus, "*": _times, "/": _over}
