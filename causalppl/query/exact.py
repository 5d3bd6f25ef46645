"""Queries of finite programs: sums over tables, without sampling."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import ImpossibleEvidenceError, QueryError
from ..notation.arithmetic import check_finite, compute, divides_by_zero, holds
from ..notation.resolution import Resolved, outcomes
from ..notation.terms import Comparison, Expression, Number, Outcome, Probability, Setting, Term
from .couplings import Conditional, Fresh
from .estimate import Estimate, QueryDiagnostics
from .finite import FiniteModel, NotFinite
from .joint import Condition, FromWorld, Slot, World, joint_law
from .scope import Scope

__all__ = ["exact_answer"]

#: Batches of Gumbels, whose spread gives the standard error, where no closed form is known.
BATCHES = 20


@dataclass
class _Coupled:
    """Sites whose coupling mattered, over all terms."""

    laws: dict[str, Conditional]
    sampled: set[str]


def exact_answer(
    query: Expression,
    terms: Mapping[Term, Resolved],
    model: FiniteModel,
    scope: Scope,
    text: str,
) -> tuple[Estimate, dict[str, Conditional]]:
    """The answer, and the sites whose coupling it depends on.

    Raises:
        NotFinite, NoExactCoupling: this engine cannot serve the query.
        ImpossibleEvidenceError: a condition has probability zero.
        QueryError: an expectation over runs that lack the site.
    """
    observed = any(scope.observed(r) for r in terms.values())
    data = _data(model) if observed or scope.parameters else ()
    if model.has_factors and observed:
        raise NotFinite("the program has factors, which weigh the observed units")
    coupled = _Coupled({}, set())
    weights = _parameter_weights(model, scope, data)

    def answer(fresh: Fresh) -> tuple[float, tuple[float, float]]:
        values = {t: _term(model, r, scope, data, fresh, coupled) for t, r in terms.items()}
        found = {
            key: float(compute(query, lambda t: values[t].get(key, math.nan)))  # noqa: B023
            for key in weights
        }
        return _average(found, weights)

    value, interval = answer(Fresh(0, model.form.seed))
    error, notes = 0.0, list(scope.notes(terms.values()))
    check_finite(value, query, text)
    if coupled.sampled:
        more = [answer(Fresh(b, model.form.seed))[0] for b in range(1, BATCHES)]
        batches = np.array([value, *more])
        value, error = float(batches.mean()), float(batches.std(ddof=1) / math.sqrt(BATCHES))
        interval = (value - 2.093 * error, value + 2.093 * error)  # Student, 19 degrees of freedom
        notes.append(
            f"Gumbel-max sites with three or more different laws were sampled: {', '.join(sorted(coupled.sampled))}"
        )
    diagnostics = QueryDiagnostics(
        "exact",
        "all sites are finite; sums over their tables",
        {name: law.mechanism for name, law in coupled.laws.items()},
        tuple(notes),
    )
    rung = max((r.rung for r in terms.values()), default=1)
    exact = not coupled.sampled
    return Estimate(value, interval, error, None, rung, exact, diagnostics, text), coupled.laws


def _data(model: FiniteModel) -> tuple[Comparison, ...]:
    """What is known of the factual world."""
    for site in model.form.sites.values():
        if site.interval is not None:
            raise NotFinite(f"the evidence on {site.name!r} is a range")
    known = {
        **model.observed,
        **{name: float(value) for name, value in model.form.conditioned.items()},
    }
    return tuple(Comparison(Outcome(n), "=", Number(v)) for n, v in known.items())


def _parameter_weights(
    model: FiniteModel, scope: Scope, data: tuple[Comparison, ...]
) -> dict[tuple[float, ...], float]:
    if not scope.parameters:
        return {(): 1.0}
    if model.has_factors:
        raise NotFinite("the program has factors, which weigh the parameters")
    slots = [(name, 0) for name in scope.parameters]
    conditions = [_condition(model, c, {(): 0}) for c in data]
    law = joint_law(model, [{}], slots, conditions)
    total = sum(law.mass.values())
    if not total > 0:
        raise ImpossibleEvidenceError("evidence: the program gives it probability zero")
    return {key: mass / total for key, mass in law.mass.items() if mass > 0}


def _term(
    model: FiniteModel,
    resolved: Resolved,
    scope: Scope,
    data: tuple[Comparison, ...],
    fresh: Fresh,
    coupled: _Coupled,
) -> dict[tuple[float, ...], float]:
    """The term's value by the values of the parameters."""
    term = resolved.term
    given = term.given + (data if scope.observed(resolved) else ())
    event = term.event if isinstance(term, Probability) else (term.expression,)
    numbers: dict[tuple[Setting, ...], int] = {}
    worlds: list[World] = []
    if scope.parameters:
        _world((), model, numbers, worlds)
    for outcome in outcomes(*event, *given):
        _world(outcome.settings, model, numbers, worlds)
    slots = [(o.site, numbers[o.settings]) for o in outcomes(*event)]
    theta = [(name, 0) for name in scope.parameters]
    conditions = [_condition(model, c, numbers) for c in given]
    law = joint_law(model, worlds, [*theta, *slots], conditions, fresh)
    coupled.laws.update(law.coupled)
    coupled.sampled |= law.sampled
    above: dict[tuple[float, ...], float] = defaultdict(float)
    below: dict[tuple[float, ...], float] = defaultdict(float)
    for key, mass in law.mass.items():
        values = dict(zip(law.slots, key, strict=True))

        def value(outcome: Outcome, values: Mapping[Slot, float] = values) -> float:
            return values[outcome.site, numbers[outcome.settings]]

        if isinstance(term, Probability):
            happened = all(bool(holds(c, value, _cast(model))) for c in term.event)
            amount = float(happened)
        else:
            amount = float(compute(term.expression, value))
            if mass > 0:
                _check_amount(amount, resolved)
        at = key[: len(theta)]
        below[at] += mass
        above[at] += mass * amount if mass > 0 else 0.0
    if not any(mass > 0 for mass in below.values()):
        raise ImpossibleEvidenceError(
            f"query: the condition of {resolved.text!r} has probability zero under the program"
            + (" together with the evidence" if scope.observed(resolved) and data else "")
        )
    return {at: above[at] / mass for at, mass in below.items() if mass > 0}


def _check_amount(amount: float, resolved: Resolved) -> None:
    if math.isnan(amount):
        raise QueryError(
            f"query: {resolved.text!r} averages over runs that lack one of its sites, or divides zero by zero; add a condition "
            "after the bar that selects the runs that have it"
        )
    if math.isinf(amount):
        raise divides_by_zero(resolved.text)


def _world(
    settings: tuple[Setting, ...],
    model: FiniteModel,
    numbers: dict[tuple[Setting, ...], int],
    worlds: list[World],
) -> int:
    """The number of a world, after those that its settings refer to."""
    if settings not in numbers:
        made: dict[str, float | FromWorld] = {}
        for setting in settings:
            if isinstance(setting.value, Outcome):
                made[setting.site] = FromWorld(
                    _world(setting.value.settings, model, numbers, worlds)
                )
            else:
                made[setting.site] = model.cast(setting.site, setting.value)
        numbers[settings] = len(worlds)
        worlds.append(made)
    return numbers[settings]


def _cast(model: FiniteModel) -> Callable[[str, float], float]:
    return lambda site, number: model.cast(site, number, "compare")


def _condition(
    model: FiniteModel, comparison: Comparison, numbers: Mapping[tuple[Setting, ...], int]
) -> Condition:
    slots = frozenset((o.site, numbers[o.settings]) for o in outcomes(comparison))

    def check(values: Mapping[Slot, float]) -> bool:
        return bool(holds(comparison, lambda o: values[o.site, numbers[o.settings]], _cast(model)))

    return Condition(slots, check)


def _average(
    values: Mapping[tuple[float, ...], float], weights: Mapping[tuple[float, ...], float]
) -> tuple[float, tuple[float, float]]:
    """Posterior mean over the parameters, and the 95% interval of the values."""
    pairs = sorted((values[k], weights[k]) for k in values if not math.isnan(values[k]))
    if len(values) == 1 or not pairs:
        only = next(iter(values.values()))
        return only, (only, only)
    total = sum(w for _, w in pairs)
    return sum(v * w for v, w in pairs) / total, (
        _quantile(pairs, 0.025 * total),
        _quantile(pairs, 0.975 * total),
    )


def _quantile(pairs: Iterable[tuple[float, float]], mass: float) -> float:
    reached, value = 0.0, math.nan
    for found, weight in pairs:
        reached, value = reached + weight, found
        if reached >= mass:
            break
    return value
