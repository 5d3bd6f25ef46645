"""What an estimate rests on, and what is said where that is a prior or a coupling that nobody chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ..errors import CouplingWarning, IdentificationWarning, site_list, warn_caller
from ..graph.knowledge import Knowledge
from ..graph.question import Question, questions_of
from ..notation.resolution import Arrows, Resolved, outcomes
from ..notation.terms import Expression, Outcome, Term, parts
from ..structural.form import StructuralForm
from .estimate import Estimate
from .scope import Scope

__all__ = ["Asked", "resting_on", "warn_of_couplings"]


@dataclass(frozen=True)
class Asked:
    """A query as a program reads it.

    Attributes:
        tree: the query as it was asked.
        terms: its terms.
        arrows: site to its direct parents.
        scope: whom the terms speak of.
        observed: the sites that count as observed; those with values where it is ``None``.
    """

    tree: Expression
    terms: Mapping[Term, Resolved]
    arrows: Arrows
    scope: Scope
    observed: Sequence[str] | None = None


def resting_on(
    estimate: Estimate,
    doubtful: Mapping[str, tuple[str, Sequence[str]]],
    asked: Asked,
    form: StructuralForm,
    verb: str = "query",
) -> Estimate:
    """The estimate, with ``diagnostics.identification`` to be found when it is read.

    Args:
        doubtful: sites whose default coupling the engine used, with its name and those of the family's others.
        verb: what the user called, for warnings.

    Warns:
        CouplingWarning: one of these couplings decides the answer.
        IdentificationWarning: nothing observed tells of something that the answer depends on.
    """
    known, questions = _knowledge(asked, form)
    if questions:
        _warn_of_priors(verb, known.uninformed(questions))
        identification = partial(known.grounds, questions)
        diagnostics = replace(estimate.diagnostics, identification=identification)
        estimate = replace(estimate, diagnostics=diagnostics)
    if doubtful and estimate.diagnostics.identification != "graph":
        warn_of_couplings(verb, doubtful)
    return estimate


def _knowledge(asked: Asked, form: StructuralForm) -> tuple[Knowledge, list[Question]]:
    """What is known of the program, and the query's terms of rungs 2 and 3."""
    scope = asked.scope
    observed = None if asked.observed is None else tuple(asked.observed)
    # what a query asks about is a variable, wherever it stands
    named = _named(asked.tree)
    parameters = tuple(n for n in scope.parameters if n not in named)
    known = Knowledge(form, parameters, asked.arrows, observed)
    questions: list[Question] = []
    for resolved in asked.terms.values():
        if resolved.rung > 1:
            # the average over many observed units is one over the population that they come from
            alone = scope.units is None and scope.observed(resolved)
            found = questions_of(resolved)
            questions += [known.with_data(q) for q in found] if alone else found
    return known, questions


def _named(tree: Expression) -> set[str]:
    """The sites in a query, those that it sets included."""
    found = {outcome.site for outcome in outcomes(tree)}
    for part in parts(tree):
        settings = part.settings if isinstance(part, Outcome) else getattr(part, "do", ())
        found |= {setting.site for setting in settings}
    return found


def _warn_of_priors(verb: str, sites: Sequence[str]) -> None:
    if sites:
        warn_caller(
            f"{verb}: the answer depends on {site_list(sites)}, and nothing that is observed comes from there, so it is the prior that "
            "speaks. Observe a site that comes from it, or report the answer as an assumption",
            IdentificationWarning,
        )


def warn_of_couplings(verb: str, doubtful: Mapping[str, tuple[str, Sequence[str]]]) -> None:
    """Name the sites whose default coupling decides an answer, and what can be done about it."""
    named = [
        f"{name!r} ({used}{'; also ' if others else ''}{', '.join(others)})"
        for name, (used, others) in doubtful.items()
    ]
    site = max(doubtful, key=lambda n: bool(doubtful[n][1]))
    used, others = doubtful[site]
    compare = (
        f"Compare the couplings with cp.mechanism_sensitivity(..., mechanisms={{{site!r}: {[used, *others]!r}}}), bound"
        if others
        else "Bound"
    )
    warn_caller(
        f"{verb}: the answer depends on how worlds are coupled at site {' and '.join(named)}, which no data can tell. {compare} "
        f"the answer with cp.bounds, or choose a coupling with cp.set_mechanism(model, {{{site!r}: {used!r}}})",
        CouplingWarning,
    )
