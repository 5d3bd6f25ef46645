"""What is typed after options: ``site=value`` and ``site<value``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .program_file import ProgramFileError

__all__ = ["Condition", "parse_assignments", "parse_condition", "world_name"]

_WORDS = {"true": 1, "false": 0}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Condition:
    """A condition on a unit's factual value of a site."""

    site: str
    relation: str
    value: float

    def __str__(self) -> str:
        return f"{self.site}{self.relation}{self.value:g}"

    def holds(self, values: Any) -> Any:
        """Whether it holds, entry by entry; an array of booleans."""
        return _COMPARISONS[self.relation](values, self.value)


def parse_assignments(option: str, texts: Sequence[str]) -> dict[str, float | list[float]]:
    """``["x=1", "z=0.5,1.5"]`` to ``{"x": 1, "z": [0.5, 1.5]}``; ``true`` and ``false`` are 1 and 0.

    Raises:
        ProgramFileError: an entry is not of that form, or a site is given twice.
    """
    values: dict[str, float | list[float]] = {}
    for text in texts:
        site, equals, value = (part.strip() for part in text.partition("="))
        numbers = [_number(part) for part in value.split(",")]
        found = [n for n in numbers if n is not None]
        if not (site and equals) or len(found) < len(numbers):
            raise ProgramFileError(
                f"{option}: {text!r} is not SITE=VALUE with a number as the value, such as {site or 'quit'}=1"
            )
        if site in values:
            raise ProgramFileError(f"{option}: the site {site!r} is given twice; give it once")
        values[site] = found if len(found) > 1 else found[0]
    return values


def parse_condition(option: str, text: str) -> Condition:
    """``"quit=0"``, ``"age>=50"`` to a condition.

    Raises:
        ProgramFileError: the text is not of that form.
    """
    match = re.fullmatch(r"\s*([^=<>!]+?)\s*(!=|<=|>=|=|<|>)\s*([^=<>!]+?)\s*", text)
    number = _number(match[3]) if match else None
    if match is None or number is None:
        raise ProgramFileError(
            f"{option}: {text!r} is not of the form SITE=VALUE with a number as the value, such as quit=0 "
            "(or with one of != < <= > >=)"
        )
    return Condition(match[1], match[2], number)


def world_name(texts: Sequence[str]) -> str:
    """A world is named by what makes it: ``"quit=1"``."""
    return ", ".join("=".join(part.strip() for part in text.split("=")) for text in texts).replace(
        "/", ":"
    )


def _number(text: str) -> float | None:
    word = text.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return None
