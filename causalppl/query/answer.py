"""One question to one program: which engine answers it, and what is said of its couplings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import (
    MethodError,
    QueryError,
    UnknownSiteError,
    closest_name,
    site_list,
)
from ..inference import Method
from ..interventions import program_arguments
from ..notation.resolution import Arrows, Resolved, outcomes, resolve
from ..notation.terms import Expression, Outcome, Term, parts
from ..structural.form import StructuralForm
from .couplings import NoExactCoupling
from .estimate import Estimate
from .finite import FiniteModel, NotFinite
from .grounds import Asked, resting_on
from .relevance import arrows_of, relevance
from .scope import Scope, read_scope

__all__ = ["Request", "answer"]


@dataclass(frozen=True)
class Request:
    """What :func:`~causalppl.query.query` was given, besides the program.

    Raises:
        QueryError, MethodError: an argument of the wrong kind.
    """

    text: str
    tree: Expression
    method: Method | None
    num_samples: int
    units: str | None
    parameters: Sequence[str] | None
    over: Literal["sample", "population"] | None
    observed: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.over not in (None, "sample", "population"):
            raise QueryError(f"query: over={self.over!r}; give 'sample', 'population' or None")
        if not isinstance(self.num_samples, int) or self.num_samples < 1:
            raise MethodError(f"num_samples={self.num_samples!r}: give a positive integer")
        if isinstance(self.parameters, str):
            raise QueryError(f"query: give parameters as a list, as in [{self.parameters!r}]")
        if isinstance(self.observed, str):
            raise QueryError(f"query: give observed as a list, as in [{self.observed!r}]")
        method = self.method
        if method is not None and (isinstance(method, type) or not hasattr(method, "sample")):
            raise MethodError(
                f"method={method!r} is no inference method; give cp.Exact(), cp.NUTS(), ... or None"
            )


@dataclass(frozen=True)
class _Reading:
    """What a request means for a program.

    Attributes:
        arrows: site to its direct parents.
        query: the query, its terms resolved.
        terms: the terms.
        scope: whom they speak of.
        whole: the program as tables, where Python sees values and it is finite.
        why: why there are no tables then.
    """

    arrows: Arrows
    query: Expression
    terms: Mapping[Term, Resolved]
    scope: Scope
    whole: FiniteModel | None
    why: str


def answer(request: Request, form: StructuralForm) -> Estimate:
    """The answer: by sums over tables where the sites that matter are finite, otherwise by draws.

    Warns:
        CouplingWarning: the answer depends on a default coupling of a discrete site.
        IdentificationWarning: nothing observed tells of something that the answer depends on.
    """
    reading = _read(request, form)
    found = _exact(request, reading, form)
    if isinstance(found, str):
        found = _sampled(request, reading, form, found)
    estimate, doubtful = found
    asked = Asked(request.tree, reading.terms, reading.arrows, reading.scope, request.observed)
    return resting_on(estimate, doubtful, asked, form)


#: An answer, and the sites whose default coupling it depends on, with this coupling and the family's others.
_Found = tuple[Estimate, Mapping[str, tuple[str, Sequence[str]]]]


def _read(request: Request, form: StructuralForm) -> _Reading:
    whole, why = None, ""
    if request.method is None and form.dependencies.hidden:
        try:
            whole = FiniteModel(form)
        except NotFinite as reason:
            why = str(reason)
        if whole is not None and not _knows(whole, request.tree):
            whole, why = None, "do sets a site to a value that it never has in the program"
    arrows = arrows_of(form) if whole is None else whole.parents
    query, terms = resolve(request.tree, arrows, program_arguments(form.model))
    for name in request.observed or ():
        if name not in arrows:
            near = closest_name(name, arrows)
            raise UnknownSiteError(
                f"query: observed names {name!r}, which is no site; the sites are {site_list(arrows)}"
                + (f"; did you mean {near!r}?" if near else "")
            )
    asked = [outcome.site for outcome in outcomes(request.tree)]
    scope = read_scope(form, arrows, asked, request.over, request.units, request.parameters)
    return _Reading(arrows, query, terms, scope, whole, why)


def _knows(model: FiniteModel, tree: Expression) -> bool:
    """Whether the tables say what follows from the query's interventions."""
    return all(model.knows(*setting) for setting in _settings(tree, model.nodes))


def _settings(tree: Expression, nodes: Collection[str]) -> Iterator[tuple[str, float]]:
    """Sites that exist, and the numbers that they are set to."""
    for part in parts(tree):
        for setting in (*getattr(part, "settings", ()), *getattr(part, "do", ())):
            if isinstance(setting.value, float) and setting.site in nodes:
                yield setting.site, setting.value


def _exact(request: Request, reading: _Reading, form: StructuralForm) -> _Found | str:
    """The answer by sums, or why there is none."""
    if request.method is not None:
        return f"method={type(request.method).__name__} was given"
    if reading.why:
        return reading.why
    from .exact import exact_answer  # each engine loads where it is used

    scope = reading.scope
    try:
        model = reading.whole
        if model is None:
            scope, needed = _needed(request, reading, form)
            model = FiniteModel(form, relevance(needed, reading.arrows))
        estimate, coupled = exact_answer(reading.query, reading.terms, model, scope, request.text)
    except NotFinite as reason:
        return str(reason)
    except NoExactCoupling as site:
        return f"the mechanism of site {str(site)!r} has no closed form for two worlds"
    return estimate, {
        name: (law.mechanism, law.others) for name, law in coupled.items() if not law.chosen
    }


def _needed(
    request: Request, reading: _Reading, form: StructuralForm
) -> tuple[Scope, list[Outcome]]:
    """The scope without parameters that no term depends on, and all outcomes that the sums are about."""
    scope = reading.scope
    found: list[Outcome] = []
    for resolved in reading.terms.values():
        found += outcomes(resolved.term)
    if request.parameters is None:
        own = relevance(found, reading.arrows).laws
        scope = replace(scope, parameters=tuple(n for n in scope.parameters if n in own))
    found += [Outcome(name) for name in scope.parameters]
    if scope.parameters or any(map(scope.observed, reading.terms.values())):
        known = [n for n, s in form.sites.items() if s.observed and s.kind == "sample"]
        found += [Outcome(name) for name in (*known, *form.conditioned)]
    return scope, found


def _sampled(request: Request, reading: _Reading, form: StructuralForm, why: str) -> _Found:
    from .sampled import sampled_answer  # an engine that exact queries do not need

    return sampled_answer(
        reading.query,
        reading.terms,
        form,
        reading.arrows,
        reading.scope,
        request.text,
        request.method,
        request.num_samples,
        why,
    )
