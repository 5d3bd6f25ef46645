"""Verdicts on identification: an estimand, or the structure that forbids one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from .formula import Formula

__all__ = ["Conflict", "Grounds", "Hedge", "Identification"]

#: What an answer rests on.
Grounds: TypeAlias = Literal["graph", "graph and couplings", "graph and parametric form", "prior"]


@dataclass(frozen=True)
class Hedge:
    """Why an effect is not identified: two models that agree on what is observed differ in it.

    Attributes:
        outer: the nodes of the larger C-forest, which meets the treatments.
        inner: the nodes of the smaller, which does not.
        roots: the nodes that both have as roots, all of them ancestors of the outcome.
    """

    outer: frozenset[str]
    inner: frozenset[str]
    roots: frozenset[str]

    def __str__(self) -> str:
        outer, inner, roots = (", ".join(sorted(s)) for s in (self.outer, self.inner, self.roots))
        return f"hedge: {{{outer}}} around {{{inner}}}, roots {{{roots}}}"


@dataclass(frozen=True)
class Conflict:
    """Why a counterfactual is not identified: worlds that no experiment shows together share their noise.

    Attributes:
        outcomes: the potential outcomes that share noise.
        site: a site that they need at two values at once.
        values: these values: numbers, or the potential outcomes whose values they are.
        sites: the sites of the outcomes.
    """

    outcomes: tuple[str, ...]
    site: str
    values: tuple[float | str, float | str]
    sites: frozenset[str]

    def __str__(self) -> str:
        shared = " and ".join(self.outcomes)
        verb = "share" if len(self.outcomes) > 1 else "has"
        one, other = (v if isinstance(v, str) else f"{v:g}" for v in self.values)
        return (
            f"conflict: {shared} {verb} noise and need {self.site} at {one} and at {other} at once"
        )


@dataclass(frozen=True)
class Identification:
    """The verdict on one question.

    Attributes:
        question: the question as text.
        estimand: a formula in the distribution of the observed sites; it prints as one. It may depend on the value of a
            further site: then any value with positive probability gives the same number.
        hedge: the structure that forbids one, where there is none: a hedge, or a conflict between worlds.
        why: a sentence, where the verdict needs one.
    """

    question: str
    estimand: Formula | None = None
    hedge: Hedge | Conflict | None = None
    why: str = ""

    @property
    def identified(self) -> bool:
        """Whether there is an estimand."""
        return self.estimand is not None
