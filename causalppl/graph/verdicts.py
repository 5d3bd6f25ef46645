"""From a question and the graph of a unit to a verdict: one world by ID, several by ID* and IDC*."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .counterfactual_graph import Node
from .counterfactual_identification import Impossible, identify_counterfactual
from .formula import (
    Conditional,
    Experiment,
    Formula,
    Number,
    Value,
    Variable,
    conditionals,
    ratio,
    substitute,
    sum_out,
)
from .identification import effect, identify
from .question import Question
from .unit import Projection, UnitGraph
from .verdict import Conflict, Grounds, Hedge, Identification

__all__ = ["grounds", "verdict"]


def verdict(question: Question, unit: UnitGraph, experiments: bool = False) -> Identification:
    """Whether a question about observed sites has an estimand, and which."""
    return _verdict(question, unit, experiments)[0]


def grounds(question: Question, unit: UnitGraph) -> Grounds:
    """What the answer to a question about observed sites rests on.

    Couplings of the program's own mechanisms settle what the graph does not, if each of them is missing for one site at a time,
    whose law given its parents the data show: the site has no noise but its own, and the effect of its parents is identified.
    """
    found, failures, projection = _verdict(question, unit, False)
    if found.identified:
        return "graph"
    if not failures:
        return "graph and parametric form"
    for failure in failures:
        if isinstance(failure, Hedge) or len(failure.sites) > 1:
            return "graph and parametric form"
        (site,) = failure.sites
        parents = set(projection.mixed.directed.predecessors(site))
        if site not in projection.direct or isinstance(
            effect(projection.mixed, {site}, parents), Hedge
        ):
            return "graph and parametric form"
    return "graph and couplings"


def _verdict(
    question: Question, unit: UnitGraph, experiments: bool
) -> tuple[Identification, Sequence[Hedge | Conflict], Projection]:
    y, x, z = question.sites()
    projection = unit.projection(y | x | z)
    if question.contradicted == "given":
        return Identification(question.text, why="the condition contradicts itself"), [], projection
    if question.contradicted == "event" or not question.event:
        value = 0.0 if question.contradicted else 1.0
        return Identification(question.text, Number(value)), [], projection
    if question.world is not None and not y & z and not (y | z) & x:
        return _in_one_world(question, unit, projection, experiments)
    try:
        found, failures, nodes = identify_counterfactual(
            projection.mixed, question.event, question.given, projection.functions, experiments
        )
    except Impossible:
        return Identification(question.text, why="the condition contradicts itself"), [], projection
    if found is None:
        return Identification(question.text, hedge=failures[0]), failures, projection
    lacking = _without_overlap(found, unit, nodes)
    if lacking:
        return Identification(question.text, why=lacking), [], projection
    return Identification(question.text, found), [], projection


def _in_one_world(
    question: Question, unit: UnitGraph, projection: Projection, experiments: bool
) -> tuple[Identification, Sequence[Hedge | Conflict], Projection]:
    y, _, z = question.sites()
    world = dict(question.world or {})
    x = frozenset(world)
    found = identify(projection.mixed, y, x, z)
    if isinstance(found, Hedge) and experiments:
        found = _experiment(y | z, x, projection)
        found = ratio(found, sum_out(sorted(y), found)) if z else found
    if isinstance(found, Hedge):
        return Identification(question.text, hedge=found), [found], projection
    for conditional, bound in conditionals(found):
        # a treatment that is summed over has weight zero where it cannot be
        given = {v for v in conditional.given if isinstance(v, str)}
        for t in sorted((x & unit.deterministic & given) - bound):
            if t in unit.determined(given - {t}):
                return (
                    Identification(question.text, why=_no_overlap(conditional, t)),
                    [],
                    projection,
                )
    values = world | {o.site: v for o, v in (*question.event.items(), *question.given.items())}
    fixed: dict[str, Variable] = {n: Value(n, v) for n, v in values.items() if v is not None}
    return Identification(question.text, substitute(found, fixed)), [], projection


def _experiment(sites: Iterable[str], x: frozenset[str], projection: Projection) -> Formula:
    order = projection.mixed.order
    of, done = (tuple(n for n in order if n in names) for names in (set(sites), x))
    return Experiment(of, done)


def _without_overlap(formula: Formula, unit: UnitGraph, nodes: Iterable[Node]) -> str:
    """Why a conditional of the formula cannot be seen: a site behind its bar has a value that the others do not give it."""
    natural = [
        (n.site, n.known, frozenset(n.parents.items()))
        for n in nodes
        if n.site in unit.deterministic
    ]
    for conditional, _ in conditionals(formula):
        given = {_site(v): v if isinstance(v, str) else v.value for v in conditional.given}
        for t in sorted(given.keys() & unit.deterministic):
            rest = {s: k for s, k in given.items() if s != t}
            if t not in unit.determined(rest):
                continue
            if not any(
                site == t and known == given[t] and parents <= rest.items()
                for site, known, parents in natural
            ):
                return _no_overlap(conditional, t)
    return ""


def _no_overlap(conditional: Conditional, site: str) -> str:
    return (
        f"{conditional} would be needed, and {site} is a function of the other sites behind the bar"
    )


def _site(variable: Variable) -> str:
    return variable if isinstance(variable, str) else variable.site
