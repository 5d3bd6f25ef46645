"""From text in the literature's notation to :mod:`~causalppl.query.terms`, and back.

The grammar is in ``grammar.lark`` beside this file; here its trees become values, and its errors become sentences with
a caret under the place where reading stopped.
"""

from __future__ import annotations

import functools
import re
from importlib import resources
from typing import Any

import lark

from ..errors import QueryError
from .terms import (
    Arithmetic,
    Comparison,
    Expectation,
    Expression,
    Number,
    Outcome,
    Probability,
    Setting,
    parts,
)

__all__ = ["parse", "to_text"]

EXAMPLE = "P(y[x=1] = 1 | x=0, y=0)"

#: Terminals of the grammar as a reader knows them; several names of one thing share a word.
_WORDS = {
    "PROBABILITY": "P(",
    "EXPECTATION": "E[",
    "DO": "do(",
    "NUMBER": "a number",
    "NAME": "a site's name",
    "QUOTED": "a site's name",
    "EQUAL": "=",
    "COMPARE": "a comparison (= != < <= > >=)",
    "PLUS": "+",
    "MINUS": "-",
    "TIMES": "*",
    "OVER": "/",
    "BAR": "|",
    "COMMA": ",",
    "LPAR": "(",
    "RPAR": ")",
    "LSQB": "[",
    "RSQB": "]",
    "$END": "the end",
}

_PLAIN = re.compile(r"[^\W\d]\w*([./]\w+)*")


@functools.cache
def _grammar() -> lark.Lark:
    text = resources.files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    return lark.Lark(text, parser="lalr", maybe_placeholders=True)


def parse(text: str) -> Expression:
    """Read a query.

    Args:
        text: terms ``P(event | given)`` and ``E[expression | given]``, combined by ``+ - * /``, parentheses and numbers.

    Returns:
        the query as values of :mod:`~causalppl.query.terms`; settings of a world are sorted by site.

    Raises:
        QueryError: the text does not follow the grammar, sets a site twice in one world, or holds no term.

    Example:
        >>> parse("E[y[x=1]] - E[y | x=1]").operator
        '-'
    """
    if not isinstance(text, str):
        raise QueryError(f"query: give the query as text, such as {EXAMPLE!r}, not {text!r}")
    try:
        tree = _grammar().parse(text)
    except lark.UnexpectedInput as error:
        raise _unreadable(text, error) from None
    try:
        found: Expression = _Reader().transform(tree)
    except QueryError as error:
        raise QueryError(f"query: in {text!r}, {error}") from None
    if not any(isinstance(part, Probability | Expectation) for part in parts(found)):
        raise QueryError(f"query: {text!r} holds no P(...) or E[...]; for example {EXAMPLE!r}")
    return found


def _unreadable(text: str, error: lark.UnexpectedInput) -> QueryError:
    ended = isinstance(error, lark.UnexpectedToken) and error.token.type == "$END"
    at = len(text) if ended else error.pos_in_stream or 0
    names = getattr(error, "accepts", None) or getattr(error, "expected", None)
    names = names or getattr(error, "allowed", None) or ()
    words = list(dict.fromkeys(_WORDS[n] for n in _WORDS if n in names))
    if "a comparison (= != < <= > >=)" in words:
        words.remove("=")
    expected = " or ".join(words)
    advice = ""
    if re.search(r"\bdo\s*$", text[:at]):
        advice = " do(...) stands after the bar only, as in E[y | do(x=1)]; before it, write y[x=1]."
    elif "==" in text[max(at - 1, 0) : at + 2]:
        advice = " Equality is a single =."
    elif text[at : at + 1] in ("]", ",", ")") and "a comparison (= != < <= > >=)" in words:
        advice = " A condition gives its site a value, as in z=1."
    line = text.replace("\n", " ").replace("\t", " ")
    return QueryError(
        f"query: cannot read {'past the end' if ended else f'character {at + 1}'} of\n    {line}\n    {' ' * at}^\n"
        f"expected {expected}.{advice} For example {EXAMPLE}; a site whose name has other characters than letters, digits, "
        "_ . / goes in quotes"
    )


class _Reader(lark.Transformer[Any, Any]):
    """Trees to values, bottom up. Rules from templates are told apart by the tree's own name."""

    def __default__(self, data: Any, children: list[Any], meta: Any) -> Any:
        name = str(data).split("{")[0]
        if name == "start":
            return children[0]
        return getattr(self, f"_{name}")(*children)

    def _add(self, left: Any, operator: Any, right: Any) -> Arithmetic:
        return Arithmetic(str(operator), left, right)  # type: ignore[arg-type]

    _multiply = _add

    def _negative(self, _: Any, value: Expression) -> Expression:
        if isinstance(value, Number):
            return Number(-value.value)
        return Arithmetic("-", Number(0.0), value)

    def _number(self, token: Any) -> Number:
        return Number(float(token))

    def _constant(self, sign: Any, token: Any) -> float:
        return -float(token) if sign == "-" else float(token)

    def _site(self, token: Any) -> str:
        if token.type == "QUOTED":
            return re.sub(r"\\(.)", r"\1", str(token)[1:-1])
        return str(token)

    def _setting(self, site: str, _: Any, value: Any) -> Setting:
        return Setting(site, value)

    def _settings(self, *settings: Setting) -> tuple[Setting, ...]:
        names = [setting.site for setting in settings]
        for name in names:
            if names.count(name) > 1:
                raise QueryError(f"site {name!r} is set twice in one world; set it once")
        return tuple(sorted(settings, key=lambda setting: setting.site))

    def _outcome(self, site: str, settings: Any) -> Outcome:
        return Outcome(site, settings or ())

    def _comparison(self, left: Any, operator: Any, right: Any) -> Comparison:
        return Comparison(left, str(operator), right)  # type: ignore[arg-type]

    def _do(self, _: Any, settings: tuple[Setting, ...]) -> tuple[Setting, ...]:
        return settings

    def _event(self, *comparisons: Comparison) -> tuple[Comparison, ...]:
        return comparisons

    def _given(self, *items: Any) -> tuple[tuple[Comparison, ...], tuple[Setting, ...]]:
        conditions = tuple(item for item in items if isinstance(item, Comparison))
        done = [s for item in items if not isinstance(item, Comparison) for s in item]
        return conditions, self._settings(*done) if done else ()

    def _probability(self, _: Any, event: Any, bar: Any, given: Any) -> Probability:
        conditions, done = given or ((), ())
        return Probability(event, conditions, done)

    def _expectation(self, _: Any, expression: Any, bar: Any, given: Any) -> Expectation:
        conditions, done = given or ((), ())
        return Expectation(expression, conditions, done)


def to_text(expression: Expression | Comparison | Setting) -> str:
    """The text that :func:`parse` reads as this expression, with every nested operation in parentheses.

    Example:
        >>> to_text(parse("E[y[m=m[x=0],x=1]]-E[y|do(x=0)]"))
        'E[y[m=m[x=0], x=1]] - E[y | do(x=0)]'
    """
    if isinstance(expression, Setting):
        value = expression.value
        given = to_text(value) if isinstance(value, Outcome) else _digits(value)
        return f"{_name(expression.site)}={given}"
    if isinstance(expression, Comparison):
        return f"{to_text(expression.left)} {expression.operator} {to_text(expression.right)}"
    if isinstance(expression, Number):
        return _digits(expression.value)
    if isinstance(expression, Outcome):
        return _name(expression.site) + (_list(expression.settings, "[", "]"))
    if isinstance(expression, Arithmetic):
        left, right = (
            f"({to_text(side)})" if isinstance(side, Arithmetic) else to_text(side)
            for side in (expression.left, expression.right)
        )
        return f"{left} {expression.operator} {right}"
    given = [to_text(c) for c in expression.given]
    if expression.do:
        given.insert(0, _list(expression.do, "do(", ")"))
    bar = f" | {', '.join(given)}" if given else ""
    if isinstance(expression, Probability):
        return f"P({', '.join(map(to_text, expression.event))}{bar})"
    return f"E[{to_text(expression.expression)}{bar}]"


def _list(settings: tuple[Setting, ...], left: str, right: str) -> str:
    return f"{left}{', '.join(map(to_text, settings))}{right}" if settings else ""


def _digits(value: float) -> str:
    return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _name(site: str) -> str:
    if _PLAIN.fullmatch(site) and site not in ("P", "E", "do"):  # quoted for the reader's sake
        return site
    escaped = re.sub(r"([\\'])", r"\\\1", site)
    return f"'{escaped}'"

