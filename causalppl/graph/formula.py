"""Estimands as values: sums, products and ratios of conditional probabilities of observed sites."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "Conditional",
    "Formula",
    "Product",
    "Ratio",
    "Sum",
    "free",
    "product",
    "ratio",
    "sum_out",
]


@dataclass(frozen=True)
class Conditional:
    """``P(of | given)`` in the distribution of what is observed."""

    of: tuple[str, ...]
    given: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _text(self, {})


@dataclass(frozen=True)
class Product:
    """The product of its factors; 1 where there is none."""

    factors: tuple[Formula, ...]

    def __str__(self) -> str:
        return _text(self, {})


@dataclass(frozen=True)
class Sum:
    """The sum of ``body`` over all values of the sites in ``over``."""

    over: tuple[str, ...]
    body: Formula

    def __str__(self) -> str:
        return _text(self, {})


@dataclass(frozen=True)
class Ratio:
    """``top / bottom``."""

    top: Formula
    bottom: Formula

    def __str__(self) -> str:
        return _text(self, {})


Formula: TypeAlias = Conditional | Product | Sum | Ratio


def free(formula: Formula) -> frozenset[str]:
    """The sites whose values the formula is a function of."""
    if isinstance(formula, Conditional):
        return frozenset(formula.of + formula.given)
    if isinstance(formula, Product):
        return frozenset().union(*map(free, formula.factors))
    if isinstance(formula, Sum):
        return free(formula.body) - set(formula.over)
    return free(formula.top) | free(formula.bottom)


def product(factors: Iterable[Formula]) -> Formula:
    """A product without nested products; one factor is itself."""
    flat: list[Formula] = []
    for factor in factors:
        flat.extend(factor.factors if isinstance(factor, Product) else (factor,))
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def sum_out(over: Iterable[str], formula: Formula) -> Formula:
    """The sum, without the sites whose conditional probability sums to one."""
    factors = list(formula.factors) if isinstance(formula, Product) else [formula]
    left = [v for v in over if v in free(formula)]
    again = True
    while again:
        again = False
        for v in list(left):
            holding = [i for i, f in enumerate(factors) if v in free(f)]
            only = factors[holding[0]] if len(holding) == 1 else None
            if isinstance(only, Conditional) and v in only.of:
                rest = tuple(o for o in only.of if o != v)
                factors[holding[0] : holding[0] + 1] = (
                    [Conditional(rest, only.given)] if rest else []
                )
                left.remove(v)
                again = True
    # What an earlier factor depended on may be gone; summing over what nothing depends on would multiply.
    outside = [f for f in factors if not free(f) & set(left)]
    inside = [f for f in factors if free(f) & set(left)]
    return product([*outside, Sum(tuple(left), product(inside))]) if left else product(factors)


def ratio(top: Formula, bottom: Formula) -> Formula:
    """The quotient, factors that both sides have cancelled."""
    above: list[Formula] = list(top.factors) if isinstance(top, Product) else [top]
    below = []
    for factor in bottom.factors if isinstance(bottom, Product) else (bottom,):
        if factor in above:
            above.remove(factor)
        else:
            below.append(factor)
    return Ratio(product(above), product(below)) if below else product(above)


def _text(formula: Formula, names: dict[str, str]) -> str:
    if isinstance(formula, Conditional):
        of = ", ".join(names.get(v, v) for v in formula.of)
        given = ", ".join(names.get(v, v) for v in formula.given)
        return f"P({of} | {given})" if given else f"P({of})"
    if isinstance(formula, Product):
        return (
            " ".join(
                f"[{_text(f, names)}]" if isinstance(f, Sum | Ratio) else _text(f, names)
                for f in formula.factors
            )
            or "1"
        )
    if isinstance(formula, Ratio):
        return f"[{_text(formula.top, names)}] / [{_text(formula.bottom, names)}]"
    primed = {v: names.get(v, v) + "'" for v in formula.over}
    return f"sum_{{{', '.join(primed.values())}}} {_text(formula.body, {**names, **primed})}"
