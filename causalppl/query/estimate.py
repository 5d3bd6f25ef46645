"""What a query returns: a number, how sure it is, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..results.later import Later

__all__ = ["Estimate", "QueryDiagnostics"]


@dataclass(frozen=True)
class QueryDiagnostics:
    """How an estimate was computed.

    Attributes:
        method: the engine or inference method.
        why: why it was chosen.
        identification: what the answer rests on, found when it is first read. ``"graph"``: the distribution of what is observed
            and the graph settle it. ``"graph and couplings"``: so do they together with the mechanisms' couplings of sites whose
            laws the data show. ``"graph and parametric form"``: it takes the form of the program's distributions, of what is
            latent too. ``"prior"``: it depends on a parameter, and nothing observed comes from there. ``None`` for
            rung 1. Where a program observes nothing, its own law takes the place of the data.
        mechanisms: sites whose mechanism the answer depends on, because their parents differ between the worlds asked
            about, with the mechanism's name.
        notes: what else a reader should know.
    """

    method: str
    why: str = ""
    mechanisms: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    identification: Later = Later()  # noqa: RUF009

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "identification": self.identification}

    def __str__(self) -> str:
        coupled = ", ".join(f"{site}: {name}" for site, name in self.mechanisms.items())
        rows = [("method", self.method), ("why", self.why), ("mechanisms", coupled)]
        rows += [("rests on", self.identification or "")]
        rows += [("note" if i == 0 else "", note) for i, note in enumerate(self.notes)]
        return "\n".join(f"{name:<12}{text}" for name, text in rows if text)


@dataclass(frozen=True, eq=False)
class Estimate:
    """The answer to a query.

    Attributes:
        value: the estimand, in its own unit; an array where the site asked about has event dims.
        interval: 95% interval of the estimand: Monte Carlo error and the posterior uncertainty of parameters, not the spread of outcomes.
        standard_error: of the Monte Carlo error; zero where the answer is exact.
        draws: the estimand in each draw of the parameters, shape ``(draws,)`` + shape of ``value``; ``None`` where no parameter varies.
        rung: the highest rung of the causal ladder among the query's terms: 1 seeing, 2 doing, 3 imagining.
        exact: whether neither sampling nor inference stands between the program and the value.
        diagnostics: how it was computed, and which mechanisms mattered.
        text: the query.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Bernoulli(0.5))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
        >>> cp.query("E[y | do(x=1)]", model)()
        Estimate(0.75, exact, rung 2: E[y | do(x=1)])
    """

    value: float | np.ndarray[Any, Any]
    interval: tuple[Any, Any]
    standard_error: float | np.ndarray[Any, Any]
    draws: np.ndarray[Any, Any] | None
    rung: int
    exact: bool
    diagnostics: QueryDiagnostics
    text: str = ""

    def __float__(self) -> float:
        if np.ndim(self.value):
            raise ShapeError(
                f"the estimate has shape {np.shape(self.value)}; take a part of its .value"
            )
        return float(self.value)

    def __repr__(self) -> str:
        low, high = self.interval
        sure = "exact" if self.exact else f"95% interval {_short(low)} to {_short(high)}"
        if self.exact and not np.array_equal(low, high):
            sure = f"exact, parameters' 95% interval {_short(low)} to {_short(high)}"
        return f"Estimate({_short(self.value)}, {sure}, rung {self.rung}: {self.text})"


def _short(value: Any) -> str:
    if np.ndim(value):
        return np.array2string(np.asarray(value), precision=4, threshold=6)
    number = float(value)
    return f"{number:.6g}" if math.isfinite(number) else str(number)
