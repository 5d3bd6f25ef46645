"""Expressions and comparisons computed from the values of their outcomes: floats, or tensors over draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ..errors import QueryError
from .terms import Arithmetic, Comparison, Expression, Number, Outcome, parts

__all__ = ["check_finite", "compute", "divides_by_zero", "holds", "linear"]


def _divide(left: Any, right: Any) -> Any:
    if isinstance(left, torch.Tensor) or isinstance(right, torch.Tensor) or right != 0:
        return left / right
    return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left)


def compute(expression: Expression, value: Callable[[Any], Any]) -> Any:
    """The expression, where ``value`` gives that of an outcome or a term."""
    if isinstance(expression, Number):
        return expression.value
    if not isinstance(expression, Arithmetic):
        return value(expression)
    left, right = compute(expression.left, value), compute(expression.right, value)
    if expression.operator == "+":
        return left + right
    if expression.operator == "-":
        return left - right
    return left * right if expression.operator == "*" else _divide(left, right)


def holds(
    comparison: Comparison,
    value: Callable[[Outcome], Any],
    cast: Callable[[str, float], float] = lambda site, number: number,
) -> Any:
    """Whether the comparison is true; never where a side is NaN, which is what an absent site is.

    Args:
        cast: a site and a number that is compared with it, to the number as the site's dtype holds it.
    """
    left, right = compute(comparison.left, value), compute(comparison.right, value)
    if isinstance(comparison.left, Outcome) and isinstance(comparison.right, Number):
        right = cast(comparison.left.site, right)
    if isinstance(comparison.right, Outcome) and isinstance(comparison.left, Number):
        left = cast(comparison.right.site, left)
    if comparison.operator == "!=":
        return (left < right) | (left > right)
    if comparison.operator == "=":
        return left == right
    if comparison.operator in ("<", "<="):
        return left < right if comparison.operator == "<" else left <= right
    return left > right if comparison.operator == ">" else left >= right


def divides_by_zero(text: str) -> QueryError:
    """What to say of a query, or a term, that has no finite value."""
    return QueryError(
        f"query: {text!r} has no finite value, because it divides by zero; leave the zeros out by a condition after the bar, as in "
        "E[y / x | x != 0], or ask for numerator and denominator apart"
    )


def check_finite(value: Any, query: Expression, text: str) -> None:
    """Refuse a value that a division by zero has made infinite or undefined.

    Raises:
        QueryError: the query divides, and the value is not finite.
    """
    divides = any(isinstance(p, Arithmetic) and p.operator == "/" for p in parts(query))
    if divides and not bool(torch.isfinite(torch.as_tensor(value)).all()):
        raise divides_by_zero(text)


def linear(expression: Expression) -> tuple[dict[Outcome, float], float]:
    """Factors of the outcomes, and the constant, of an expression that is linear in them.

    Raises:
        ValueError: it is not.

    Example:
        >>> linear(Arithmetic("-", Outcome("y"), Number(2.0)))
        ({Outcome(site='y', settings=()): 1.0}, -2.0)
    """
    if isinstance(expression, Number):
        return {}, float(expression.value)
    if isinstance(expression, Outcome):
        return {expression: 1.0}, 0.0
    if not isinstance(expression, Arithmetic):
        raise ValueError
    (left, one), (right, other) = linear(expression.left), linear(expression.right)
    if expression.operator in ("+", "-"):
        sign = 1.0 if expression.operator == "+" else -1.0
        total = dict(left)
        for outcome, factor in right.items():
            total[outcome] = total.get(outcome, 0.0) + sign * factor
        return {o: f for o, f in total.items() if f != 0.0}, one + sign * other
    if expression.operator == "*" and not left:
        return {o: one * f for o, f in right.items() if one}, one * other
    if right or (expression.operator == "/" and other == 0.0):
        raise ValueError
    by = other if expression.operator == "*" else 1.0 / other
    return {o: by * f for o, f in left.items() if by}, one * by
