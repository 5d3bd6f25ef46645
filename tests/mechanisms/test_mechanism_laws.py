"""The law suite over every family that is registered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mechanism_cases import CASES, SLOW_TRACES

from causalppl.mechanisms.laws import LAWS, MechanismCase, traces

#: Case-major, so that the laws of one case find its draws.
_PAIRS = [
    pytest.param(
        case,
        law,
        id=f"{name}-{law.__name__}",
        marks=[pytest.mark.slow] if law is traces and name in SLOW_TRACES else [],
    )
    for name, case in CASES.items()
    for law in LAWS
]


@pytest.mark.parametrize(("case", "law"), _PAIRS)
def test_law(case: MechanismCase, law: Callable[[MechanismCase], None]) -> None:
    law(case)
