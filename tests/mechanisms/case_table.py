"""One case of two worlds for each mechanism of each family; the tables below add theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from causalppl.mechanisms import mechanism_names
from causalppl.mechanisms.laws import MechanismCase

Parameters = dict[str, object]

CASES: dict[str, MechanismCase] = {}

#: Cases whose graphs take seconds to trace. Their graphs are those of the shared quadrature, which stays in the default run.
SLOW_TRACES: set[str] = set()


def add(
    family: Callable[..., Any],
    first: Parameters,
    second: Parameters,
    label: str = "",
    couplings: bool = False,
    **options: Any,
) -> None:
    """A case for each of the family's mechanisms; the couplings that all families share where ``couplings`` says so."""
    names: list[str] = mechanism_names(family) if isinstance(family, type) else []
    if not couplings:
        names = [name for name in names if name not in ("antitone", "independent")]
    for name in names or [None]:
        title = f"{family.__name__}{label}-{name}" if name else f"{family.__name__}{label}"
        assert title not in CASES, title
        CASES[title] = MechanismCase(family, first, second, name, **options)
