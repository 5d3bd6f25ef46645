"""The examples in the docstrings of effects, attribution and refutation run, and print what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "effects.average",
    "effects.conditional",
    "effects.dose_response",
    "effects.individual",
    "effects.mediation",
    "effects.path_specific",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    found = doctest.testmod(importlib.import_module(f"causalppl.{name}"))
    assert found.failed == 0 and found.attempted > 0
