"""Questions to a graph, as text: ``P(y | do(x), z)`` without values, or any probability in the notation of queries."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ..errors import QueryError
from ..notation.arithmetic import holds, linear
from ..notation.parser import parse
from ..notation.resolution import Arrows, Resolved, resolve
from ..notation.terms import (
    Arithmetic,
    Comparison,
    Expectation,
    Expression,
    Number,
    Outcome,
    Probability,
    parts,
)

__all__ = ["Event", "Question", "names_in", "question_of", "questions_of", "read_question"]

#: Potential outcomes and their values; ``None`` where a value is left open.
Event: TypeAlias = Mapping[Outcome, float | None]

_WORD = re.compile(
    r"([^\W\d]\w*(?:[./]\w+)*)\s*(?:=\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*)?"
)


@dataclass(frozen=True)
class Question:
    """What is asked of a graph.

    Attributes:
        text: the question as it was asked.
        event: potential outcomes before the bar.
        given: potential outcomes behind the bar.
        world: what is set in the one world that all of these are in; ``None`` where there are several.
        contradicted: the part that contradicts itself, ``"event"`` or ``"given"``.
    """

    text: str
    event: Event
    given: Event = field(default_factory=dict)
    world: Mapping[str, float | None] | None = None
    contradicted: str = ""

    def sites(self) -> list[frozenset[str]]:
        """The sites before the bar, set, and behind the bar."""
        done = set(self.world or ())
        for outcome in (*self.event, *self.given):
            for part in parts(outcome):
                if isinstance(part, Outcome):
                    done |= {s.site for s in part.settings}
        return [
            frozenset(o.site for o in self.event),
            frozenset(done),
            frozenset(o.site for o in self.given),
        ]


def names_in(text: str) -> frozenset[str]:
    """The sites that a question names, whether there are such or not.

    Raises:
        QueryError: the text cannot be read.
    """
    plain = _plain(text)
    if plain is not None:
        return frozenset().union(*plain)
    found: set[str] = set()
    for part in parts(parse(text)):
        if isinstance(part, Outcome):
            found.add(part.site)
        for setting in (*getattr(part, "settings", ()), *getattr(part, "do", ())):
            found.add(setting.site)
    return frozenset(found)


def read_question(text: str, arrows: Arrows) -> Question:
    """The question that a text asks of a graph with these arrows.

    Raises:
        QueryError: the text cannot be read, or is no single probability.
    """
    plain = _plain(text)
    if plain is not None:
        y, x, z = plain
        return Question(
            text,
            {Outcome(n): v for n, v in y.items()},
            {Outcome(n): v for n, v in z.items()},
            x,
        )
    tree = parse(text)
    one = isinstance(tree, Expectation) and isinstance(tree.expression, Outcome)
    if not isinstance(tree, Probability) and not one:
        raise QueryError(
            f"identify: {text!r} is no single probability; ask for its parts one by one, and for the law of an outcome rather than its mean"
        )
    _, terms = resolve(tree, arrows)
    return question_of(next(iter(terms.values())), text)


def question_of(resolved: Resolved, text: str = "") -> Question:
    """The question about a term of a query. What is no equality with a number leaves its outcomes' values open."""
    term = resolved.term
    event = (
        _event(term.event)
        if isinstance(term, Probability)
        else dict.fromkeys(_outermost(term.expression))
    )
    given = _event(term.given)
    contradicted = "given" if given is None else "event" if event is None else ""
    world = None if resolved.world is None else {s.site: s.value for s in resolved.world}
    return Question(text or resolved.text, event or {}, given or {}, world, contradicted)  # type: ignore[arg-type]


def questions_of(resolved: Resolved) -> list[Question]:
    """The questions that a term of a query comes to: the mean of a sum asks for one outcome at a time."""
    whole, term = question_of(resolved), resolved.term
    if isinstance(term, Expectation) and whole.world is None:
        with contextlib.suppress(ValueError):
            factors, _ = linear(term.expression)
            return [replace(whole, event={outcome: None}) for outcome in factors] or [whole]
    return [whole]


def _event(comparisons: Iterable[Comparison]) -> dict[Outcome, float | None] | None:
    """The values that comparisons give; ``None`` where they contradict each other."""
    found: dict[Outcome, float | None] = {}
    for comparison in comparisons:
        named = _outermost(comparison.left) + _outermost(comparison.right)
        left, right = comparison.left, comparison.right
        if isinstance(left, Number):
            left, right = right, left
        if not named:
            if not holds(comparison, _no_outcome):
                return None
        elif comparison.operator == "=" and isinstance(left, Outcome) and isinstance(right, Number):
            if found.get(left) not in (None, right.value):
                return None
            found[left] = right.value
        else:
            for outcome in named:
                found.setdefault(outcome, None)
    return found


def _no_outcome(outcome: Outcome) -> float:
    raise AssertionError(outcome)


def _outermost(expression: Expression) -> list[Outcome]:
    """The outcomes of an expression, without those in the settings of others."""
    if isinstance(expression, Outcome):
        return [expression]
    if isinstance(expression, Arithmetic):
        return _outermost(expression.left) + _outermost(expression.right)
    return []


def _plain(text: str) -> tuple[dict[str, float | None], ...] | None:
    """Sites before the bar, set, and behind the bar, each with its value if it has one; ``None`` for other texts."""
    match = (
        re.fullmatch(r"\s*P\s*\(([^|\[\]]*)(?:\|([^|\[\]]*))?\)\s*", text)
        if isinstance(text, str)
        else None
    )
    if match is None:
        return None
    rest = match[2] or ""
    doing = re.findall(r"\bdo\s*\(([^()]*)\)", rest)
    rest = re.sub(r"\bdo\s*\([^()]*\)", "", rest)
    found = []
    for part in (match[1], ",".join(doing), rest):
        values: dict[str, float | None] = {}
        for word in (w.strip() for w in part.split(",")):
            read = _WORD.fullmatch(word)
            if word and (read is None or read[1] in values):
                return None
            if read is not None:
                values[read[1]] = None if read[2] is None else float(read[2])
        found.append(values)
    return tuple(found) if found[0] else None
