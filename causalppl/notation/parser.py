"""From text in the literature's notation to :mod:`~causalppl.notation.terms`, and back.

The grammar is in ``grammar.lark`` beside this file; the reader turns its trees into values, and its errors into sentences
with a caret under the place where reading stopped.
"""

from __future__ import annotations

import re

from ..errors import QueryError
from .terms import (
    Arithmetic,
    Comparison,
    Expectation,
    Expression,
    Lookup,
    Number,
    Outcome,
    Probability,
    Setting,
    parts,
)

__all__ = ["parse", "to_text"]

_PLAIN = re.compile(r"[^\W\d]\w*([./]\w+)*")


def parse(text: str) -> Expression:
    """Read a query.

    Args:
        text: terms ``P(event | given)`` and ``E[expression | given]``, combined by ``+ - * /``, parentheses and numbers.

    Returns:
        the query as values of :mod:`~causalppl.notation.terms`; settings of a world are sorted by site.

    Raises:
        QueryError: the text does not follow the grammar, sets a site twice in one world, or holds no term.

    Example:
        >>> parse("E[y[x=1]] - E[y | x=1]").operator
        '-'
    """
    from .reader import EXAMPLE, read  # lark is loaded where it is used

    if not isinstance(text, str):
        raise QueryError(f"query: give the query as text, such as {EXAMPLE!r}, not {text!r}")
    found = read(text)
    if not any(isinstance(part, Probability | Expectation) for part in parts(found)):
        raise QueryError(f"query: {text!r} holds no P(...) or E[...]; for example {EXAMPLE!r}")
    return found


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
    if isinstance(expression, Lookup):
        return f"f({', '.join(map(to_text, expression.arguments))})"
    after = [_list(expression.do, "do(", ")")] if expression.do else []
    after += [to_text(c) for c in expression.given]
    bar = f" | {', '.join(after)}" if after else ""
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
