"""The grammar of queries and its reader: loaded with lark, where a query is first read."""

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
)

__all__ = ["EXAMPLE", "read"]

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


@functools.cache
def _grammar() -> lark.Lark:
    text = resources.files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    return lark.Lark(text, parser="lalr", maybe_placeholders=True)


def read(text: str) -> Expression:
    """The values that a text stands for.

    Raises:
        QueryError: the text does not follow the grammar, or sets a site twice in one world.
    """
    try:
        tree = _grammar().parse(text)
    except lark.UnexpectedInput as error:
        raise _unreadable(text, error) from None
    try:
        found: Expression = _Reader().transform(tree)
    except QueryError as error:
        raise QueryError(f"query: in {text!r}, {error}") from None
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
        advice = (
            " do(...) stands after the bar only, as in E[y | do(x=1)]; before it, write y[x=1]."
        )
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
