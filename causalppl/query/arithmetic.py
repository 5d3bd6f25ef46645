"""Expressions and comparisons computed from the values of their outcomes: floats, or tensors over draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ..errors import QueryError
from .terms import Arithmetic, Comparison, Expression, Number, Outcome, parts

__all__ = ["check_finite", "compute", "divides_by_zero", "holds"]


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
