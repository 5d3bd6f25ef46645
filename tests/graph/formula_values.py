"""Estimands computed from distributions: what is observed, and what experiments show."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from causalppl.graph.formula import (
    Conditional,
    Experiment,
    Formula,
    Number,
    Product,
    Ratio,
    Sum,
    Variable,
)


class Shown(Protocol):
    """What is known of a model: tables with the names of their axes."""

    levels: int

    @property
    def joint(self) -> dict[str, Any]: ...
    def experiment(self, do: Mapping[str, float]) -> dict[str, Any]: ...


def mass(table: dict[str, Any], at: Mapping[str, int]) -> float:
    """The probability that the sites have these values."""
    return float(table["p"][tuple(at.get(n, slice(None)) for n in table["names"])].sum())


def name(variable: Variable) -> str:
    return variable if isinstance(variable, str) else str(variable.value)


def evaluate(formula: Formula, shown: Shown, at: Mapping[str, int]) -> float:
    """A formula where its free variables have the values ``at``."""

    def values(variables: tuple[Variable, ...]) -> dict[str, int]:
        found = {}
        for v in variables:
            if isinstance(v, str):
                found[v] = at[v]
            else:
                found[v.site] = at[v.value] if isinstance(v.value, str) else int(v.value)
        return found

    if isinstance(formula, Conditional):
        of, given = values(formula.of), values(formula.given)
        return mass(shown.joint, of | given) / mass(shown.joint, given)
    if isinstance(formula, Experiment):
        return mass(shown.experiment(values(formula.do)), values(formula.of))
    if isinstance(formula, Number):
        return formula.value
    if isinstance(formula, Product):
        return float(np.prod([evaluate(f, shown, at) for f in formula.factors]))
    if isinstance(formula, Sum):
        names = [name(v) for v in formula.over]
        return sum(
            evaluate(formula.body, shown, {**at, **dict(zip(names, v, strict=True))})
            for v in itertools.product(range(shown.levels), repeat=len(names))
        )
    assert isinstance(formula, Ratio)
    return evaluate(formula.top, shown, at) / evaluate(formula.bottom, shown, at)
