"""The law suite over every family that is registered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mechanism_cases import CASES

from causalppl.mechanisms.laws import LAWS, MechanismCase


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_law(case: MechanismCase, law: Callable[[MechanismCase], None]) -> None:
    law(case)
