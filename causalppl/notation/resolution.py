"""What the terms of a query mean for one program: which variables, in which worlds, on which rung.

A setting that cannot reach its outcome is dropped: ``z[x=1]`` is ``z`` where no arrow leads from ``x`` to ``z``, and
``y[x=1, m=m[x=1]]`` is ``y[x=1]``. What is left tells the worlds apart, and a term is a counterfactual only if
it needs two of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..errors import EvidenceError, QueryError, UnknownSiteError, closest_name, site_list
from .parser import to_text
from .terms import (
    Arithmetic,
    Comparison,
    Expectation,
    Expression,
    Number,
    Outcome,
    Probability,
    Setting,
    Term,
    parts,
)

__all__ = ["Arrows", "Resolved", "outcomes", "resolve"]

#: Site to its direct parents.
Arrows = Mapping[str, Iterable[str]]


@dataclass(frozen=True)
class Resolved:
    """A term whose outcomes each name their own world.

    Attributes:
        term: the term, without ``do``: plain names are of the factual world.
        text: the term as it was asked.
        rung: 1, 2 or 3.
        world: the settings of the one world in which all of the term can be read; ``None`` where there is none (rung 3).
    """

    term: Term
    text: str
    rung: int
    world: tuple[Setting, ...] | None


def outcomes(*expressions: Expression | Comparison) -> tuple[Outcome, ...]:
    """All outcomes in these, those inside settings included, without repetition."""
    found: dict[Outcome, None] = {}
    for expression in expressions:
        sides = (
            (expression.left, expression.right)
            if isinstance(expression, Comparison)
            else (expression,)
        )
        for side in sides:
            for part in parts(side):
                if isinstance(part, Outcome):
                    found[part] = None
    return tuple(found)


def resolve(
    query: Expression, arrows: Arrows, arguments: Iterable[str] = ()
) -> tuple[Expression, dict[Term, Resolved]]:
    """Resolve every term of a query.

    A sum inside an expectation is taken apart where its parts then need one world at a time.

    Args:
        query: what the parser made.
        arrows: site to its direct parents, for every site of the program.
        arguments: names of the program's own arguments, for the error message.

    Returns:
        the query, whose terms are the keys of the second part.

    Raises:
        UnknownSiteError: a name is no site.
        EvidenceError: a condition on a site which the same world's ``do`` sets.
        QueryError: a nested setting gives a site the value of another site.
    """
    for part in parts(query):
        names = [part.site] if isinstance(part, Outcome) else []
        settings = part.settings if isinstance(part, Outcome) else getattr(part, "do", ())
        for name in (*names, *(s.site for s in settings)):
            if name not in arrows:
                raise _unknown(name, arrows, tuple(arguments))
        for setting in settings:
            if isinstance(setting.value, Outcome) and setting.value.site != setting.site:
                raise QueryError(
                    f"query: {to_text(setting)!r} sets {setting.site!r} to a value of another site; a nested setting gives a site its own "
                    f"value in another world, as in {setting.site}={setting.site}[x=0]"
                )
    found: dict[Term, Resolved] = {}

    def walk(expression: Expression) -> Expression:
        if isinstance(expression, Arithmetic):
            return Arithmetic(expression.operator, walk(expression.left), walk(expression.right))
        if not isinstance(expression, Probability | Expectation):
            return expression
        whole = _resolve(expression, arrows)
        if whole.rung == 3 and isinstance(expression, Expectation):
            split = _linear(expression.expression, expression)
            terms = [p for p in parts(split) if isinstance(p, Expectation)]
            pieces = [_resolve(term, arrows) for term in terms]
            if max(piece.rung for piece in pieces) < 3:
                found.update(zip(terms, pieces, strict=True))
                return split
        found[expression] = whole
        return expression

    return walk(query), found


def _resolve(term: Term, arrows: Arrows) -> Resolved:
    text = to_text(term)

    def variable(outcome: Outcome) -> Expression:
        return _reduce(_inhabit(outcome, term.do), arrows)

    for comparison in term.given:
        for outcome in outcomes(comparison):
            for setting in outcome.settings or term.do:
                if setting.site == outcome.site:
                    raise EvidenceError(
                        f"query: {text!r} conditions on {outcome.site!r} in a world where do sets it; evidence on a site needs a world "
                        f"that leaves it alone. Write {outcome.site} without the do, or leave the condition out"
                    )
    event = tuple(_substitute(c, variable) for c in getattr(term, "event", ()))
    given = tuple(_substitute(c, variable) for c in term.given)
    resolved: Term = (
        Probability(event, given)
        if isinstance(term, Probability)
        else Expectation(_replace(term.expression, variable), given)
    )
    found = outcomes(resolved)
    world = _one_world(found, arrows)
    if world is None:
        return Resolved(resolved, text, 3, None)
    mentioned = bool(term.do) or any(o.settings for o in outcomes(term))
    return Resolved(resolved, text, 2 if mentioned else 1, world)


def _inhabit(outcome: Outcome, do: tuple[Setting, ...]) -> Outcome:
    """A plain name, also inside a setting, belongs to the world of the term's ``do``."""
    inner = (
        Setting(s.site, _inhabit(s.value, do)) if isinstance(s.value, Outcome) else s
        for s in outcome.settings
    )
    return Outcome(outcome.site, tuple(inner) if outcome.settings else do)


def _one_world(found: Iterable[Outcome], arrows: Arrows) -> tuple[Setting, ...] | None:
    """Settings under which every outcome is what it is: of one of the outcomes, or of all together."""
    candidates = [(), *(o.settings for o in found)]
    merged: dict[str, Setting] = {}
    for outcome in found:
        for setting in outcome.settings:
            merged.setdefault(setting.site, setting)
    candidates.append(tuple(sorted(merged.values(), key=lambda s: s.site)))
    for world in dict.fromkeys(candidates):
        if any(isinstance(setting.value, Outcome) for setting in world):
            continue
        if all(_reduce(Outcome(o.site, world), arrows) == o for o in found):
            return world
    return None


def _reduce(outcome: Outcome, arrows: Arrows) -> Expression:
    """The outcome without settings that have no effect on it; a set site is its value."""
    settings = {
        s.site: _reduce(s.value, arrows) if isinstance(s.value, Outcome) else Number(s.value)
        for s in outcome.settings
    }
    if outcome.site in settings:
        return settings[outcome.site]
    for site, value in list(settings.items()):
        # composition: a site held at the value that it has there anyway is not held
        if isinstance(value, Outcome):
            others = _as_settings({n: v for n, v in settings.items() if n != site})
            if _reduce(Outcome(site, others), arrows) == value:
                del settings[site]
    reached = _reaching(outcome.site, settings, arrows)
    return Outcome(outcome.site, _as_settings({n: v for n, v in settings.items() if n in reached}))


def _as_settings(values: Mapping[str, Expression]) -> tuple[Setting, ...]:
    made = []
    for site in sorted(values):
        value = values[site]
        if isinstance(value, Number):
            made.append(Setting(site, value.value))
        elif isinstance(value, Outcome):
            made.append(Setting(site, value))
    return tuple(made)


def _reaching(site: str, cut: Iterable[str], arrows: Arrows) -> set[str]:
    """Ancestors of a site where arrows into the sites of ``cut`` are taken away."""
    stop, found, todo = set(cut), set(), [site]
    while todo:
        for parent in arrows[todo.pop()]:
            if parent not in found:
                found.add(parent)
                if parent not in stop:
                    todo.append(parent)
    return found


def _replace(expression: Expression, variable: Callable[[Outcome], Expression]) -> Expression:
    if isinstance(expression, Outcome):
        return variable(expression)
    if isinstance(expression, Arithmetic):
        left, right = _replace(expression.left, variable), _replace(expression.right, variable)
        return Arithmetic(expression.operator, left, right)
    return expression


def _substitute(comparison: Comparison, variable: Callable[[Outcome], Expression]) -> Comparison:
    left, right = _replace(comparison.left, variable), _replace(comparison.right, variable)
    return Comparison(left, comparison.operator, right)


def _linear(expression: Expression, term: Expectation) -> Expression:
    """Expectations of the parts of a sum, with constant factors outside."""
    if isinstance(expression, Arithmetic):
        left, right = expression.left, expression.right
        if expression.operator in ("+", "-"):
            return Arithmetic(expression.operator, _linear(left, term), _linear(right, term))
        if isinstance(right, Number):
            return Arithmetic(expression.operator, _linear(left, term), right)
        if isinstance(left, Number) and expression.operator == "*":
            return Arithmetic("*", left, _linear(right, term))
    if isinstance(expression, Number) and not term.given:
        return expression
    return Expectation(expression, term.given, term.do)


def _unknown(name: str, arrows: Arrows, arguments: tuple[str, ...]) -> UnknownSiteError:
    pieces = name.split("/")
    if len(pieces) > 1 and all(p in arrows or p.isdigit() for p in pieces):
        return UnknownSiteError(
            f"query: the program has no site {name!r}; a / inside a name belongs to it, so write {' / '.join(pieces)} to divide"
        )
    if name in arguments:
        return UnknownSiteError(
            f"query: {name!r} is an argument of the program, not a site; to make it one, write "
            f'{name} = pyro.deterministic("{name}", {name}) at the top of the program'
        )
    near = closest_name(name, arrows)
    hint = f"; did you mean {near!r}?" if near else "."
    return UnknownSiteError(
        f"query: the program has no site {name!r}{hint} Its sites: {site_list(arrows)}"
    )
