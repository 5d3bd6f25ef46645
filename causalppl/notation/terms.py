"""What a query says, as values: potential outcomes, events, terms, and arithmetic of terms.

``P(y[x=1] = 1 | x=0)`` is a :class:`Probability` whose event compares the :class:`Outcome` ``y`` in the world
``x=1`` with 1. Nothing here knows a program; the parser makes these values, the engines read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "Arithmetic",
    "Comparison",
    "Expectation",
    "Expression",
    "Lookup",
    "Number",
    "Outcome",
    "Probability",
    "Setting",
    "Term",
    "parts",
]


@dataclass(frozen=True)
class Setting:
    """One assignment of a world: ``x=1``, or ``m=m[x=0]``, the value that a site has in another world."""

    site: str
    value: float | Outcome


@dataclass(frozen=True)
class Outcome:
    """A site in a world: ``y`` is factual, ``y[x=1, m=m[x=0]]`` a potential outcome. Settings are sorted by site."""

    site: str
    settings: tuple[Setting, ...] = ()


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True)
class Arithmetic:
    """``left op right``, of outcomes inside an expectation or comparison, or of whole terms."""

    operator: Literal["+", "-", "*", "/"]
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Comparison:
    """``left op right``; an event is a conjunction of these."""

    left: Expression
    operator: Literal["=", "!=", "<", "<=", ">", ">="]
    right: Expression


@dataclass(frozen=True)
class Probability:
    r""":math:`P(\text{event} \mid \text{given}, do(\text{do}))`, all factual names then being of the world ``do``."""

    event: tuple[Comparison, ...]
    given: tuple[Comparison, ...] = ()
    do: tuple[Setting, ...] = ()


@dataclass(frozen=True)
class Expectation:
    r""":math:`E[\text{expression} \mid \text{given}, do(\text{do})]`."""

    expression: Expression
    given: tuple[Comparison, ...] = ()
    do: tuple[Setting, ...] = ()


@dataclass(frozen=True, eq=False)
class Lookup:
    """A function of outcomes and numbers that the notation has no word for; engines make it, the parser never does."""

    arguments: tuple[Outcome | Number, ...]
    function: Callable[[tuple[float, ...]], float]


Term: TypeAlias = Probability | Expectation
#: Inside a term: outcomes, numbers and their arithmetic. A whole query: terms, numbers and their arithmetic.
Expression: TypeAlias = Outcome | Number | Arithmetic | Probability | Expectation | Lookup


def parts(expression: Expression) -> Iterator[Expression]:
    """The expression itself and everything in it, settings of worlds included, outermost first."""
    yield expression
    if isinstance(expression, Arithmetic):
        yield from parts(expression.left)
        yield from parts(expression.right)
    elif isinstance(expression, Outcome):
        for setting in expression.settings:
            if isinstance(setting.value, Outcome):
                yield from parts(setting.value)
    elif isinstance(expression, Probability | Expectation):
        if isinstance(expression, Expectation):
            yield from parts(expression.expression)
        events = (
            expression.event if isinstance(expression, Probability) else ()
        ) + expression.given
        for comparison in events:
            yield from parts(comparison.left)
            yield from parts(comparison.right)
        for setting in expression.do:
            if isinstance(setting.value, Outcome):
                yield from parts(setting.value)
