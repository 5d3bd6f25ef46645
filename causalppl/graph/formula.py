"""Estimands as values: sums, products and ratios of probabilities of observed sites."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "Conditional",
    "Experiment",
    "Formula",
    "Number",
    "Product",
    "Ratio",
    "Sum",
    "Value",
    "Variable",
    "conditionals",
    "free",
    "product",
    "ratio",
    "substitute",
    "sum_out",
]


@dataclass(frozen=True)
class Value:
    """A site at a number, or at the value of a variable that has another name than the site."""

    site: str
    value: float | str

    def __str__(self) -> str:
        return _atom(self, {})


#: A site at the value of the variable of its own name, or at another value.
Variable: TypeAlias = str | Value


@dataclass(frozen=True)
class Conditional:
    """``P(of | given)`` in the distribution of what is observed."""

    of: tuple[Variable, ...]
    given: tuple[Variable, ...] = ()

    def __str__(self) -> str:
        return _text(self, {})


@dataclass(frozen=True)
class Experiment:
    """``P(of | do(do))``, what an experiment on the sites of ``do`` shows."""

    of: tuple[Variable, ...]
    do: tuple[Variable, ...]

    def __str__(self) -> str:
        return _text(self, {})


@dataclass(frozen=True)
class Number:
    """A number that needs no data."""

    value: float

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
    """The sum of ``body`` over all values of the variables in ``over``."""

    over: tuple[Variable, ...]
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


Formula: TypeAlias = Conditional | Experiment | Number | Product | Sum | Ratio


def name_of(variable: Variable) -> str | None:
    """The name of a variable; ``None`` where it is a number."""
    if isinstance(variable, str):
        return variable
    return variable.value if isinstance(variable.value, str) else None


def _names(variables: Iterable[Variable]) -> frozenset[str]:
    return frozenset(n for n in map(name_of, variables) if n is not None)


def free(formula: Formula) -> frozenset[str]:
    """The variables that the formula is a function of."""
    if isinstance(formula, Conditional):
        return _names(formula.of + formula.given)
    if isinstance(formula, Experiment):
        return _names(formula.of + formula.do)
    if isinstance(formula, Product):
        return frozenset().union(*map(free, formula.factors))
    if isinstance(formula, Sum):
        return free(formula.body) - _names(formula.over)
    if isinstance(formula, Ratio):
        return free(formula.top) | free(formula.bottom)
    return frozenset()


def substitute(formula: Formula, values: Mapping[str, Variable]) -> Formula:
    """The formula with other values for some of its free variables, whose names no sum inside may bind."""

    def at(variables: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return tuple(values.get(v, v) if isinstance(v, str) else v for v in variables)

    if isinstance(formula, Conditional):
        return Conditional(at(formula.of), at(formula.given))
    if isinstance(formula, Experiment):
        return Experiment(at(formula.of), at(formula.do))
    if isinstance(formula, Product):
        return Product(tuple(substitute(f, values) for f in formula.factors))
    if isinstance(formula, Sum):
        inside = {n: v for n, v in values.items() if n not in _names(formula.over)}
        return Sum(formula.over, substitute(formula.body, inside))
    if isinstance(formula, Ratio):
        return Ratio(substitute(formula.top, values), substitute(formula.bottom, values))
    return formula


def conditionals(
    formula: Formula, bound: frozenset[str] = frozenset()
) -> Iterator[tuple[Conditional, frozenset[str]]]:
    """Every conditional probability in a formula, and the variables that sums around it bind."""
    if isinstance(formula, Conditional):
        yield formula, bound
    elif isinstance(formula, Product):
        for factor in formula.factors:
            yield from conditionals(factor, bound)
    elif isinstance(formula, Sum):
        yield from conditionals(formula.body, bound | _names(formula.over))
    elif isinstance(formula, Ratio):
        yield from conditionals(formula.top, bound)
        yield from conditionals(formula.bottom, bound)


def product(factors: Iterable[Formula]) -> Formula:
    """A product without nested products; one factor is itself."""
    flat: list[Formula] = []
    for factor in factors:
        flat.extend(factor.factors if isinstance(factor, Product) else (factor,))
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def sum_out(over: Iterable[Variable], formula: Formula) -> Formula:
    """The sum, without the variables whose conditional probability sums to one."""
    factors = list(formula.factors) if isinstance(formula, Product) else [formula]
    left = [v for v in over if name_of(v) in free(formula)]
    again = True
    while again:
        again = False
        for v in list(left):
            holding = [i for i, f in enumerate(factors) if name_of(v) in free(f)]
            only = factors[holding[0]] if len(holding) == 1 else None
            if isinstance(only, Conditional | Experiment) and v in only.of:
                rest = tuple(o for o in only.of if o != v)
                behind = only.given if isinstance(only, Conditional) else only.do
                factors[holding[0] : holding[0] + 1] = [type(only)(rest, behind)] if rest else []
                left.remove(v)
                again = True
    # What an earlier factor depended on may be gone; summing over what nothing depends on would multiply.
    bound = _names(left)
    outside = [f for f in factors if not free(f) & bound]
    inside = [f for f in factors if free(f) & bound]
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


def _atom(variable: Variable, names: Mapping[str, str]) -> str:
    if isinstance(variable, str):
        return names.get(variable, variable)
    if isinstance(variable.value, str):
        return names.get(variable.value, variable.value)
    return f"{variable.site}={variable.value:g}"


def _text(formula: Formula, names: Mapping[str, str]) -> str:
    if isinstance(formula, Conditional | Experiment):
        of = ", ".join(_atom(v, names) for v in formula.of)
        behind = formula.given if isinstance(formula, Conditional) else formula.do
        given = ", ".join(_atom(v, names) for v in behind)
        if isinstance(formula, Experiment):
            given = f"do({given})"
        return f"P({of} | {given})" if behind else f"P({of})"
    if isinstance(formula, Number):
        return f"{formula.value:g}"
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
    inside = dict(names)
    for variable in formula.over:
        site = variable if isinstance(variable, str) else variable.site
        taken = set(inside.values())
        primed = inside.get(site, site) + "'" if isinstance(variable, str) else site + "'"
        while primed in taken:
            primed += "'"
        inside[str(name_of(variable))] = primed
    primes = ", ".join(inside[str(name_of(v))] for v in formula.over)
    return f"sum_{{{primes}}} {_text(formula.body, inside)}"
