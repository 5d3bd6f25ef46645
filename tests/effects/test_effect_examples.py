"""The examples in the docstrings of effects, attribution and refutation run, and print what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "attribution.actual_causes",
    "attribution.anomaly",
    "attribution.probabilities",
    "attribution.shapley",
    "attribution.tian_pearl",
    "diagnostics.confounding",
    "diagnostics.independence",
    "diagnostics.refutation",
    "effects.average",
    "effects.conditional",
    "effects.dose_response",
    "effects.individual",
    "effects.mediation",
    "effects.path_specific",
    "plots.of_effects",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    found = doctest.testmod(importlib.import_module(f"causalppl.{name}"))
    assert found.failed == 0 and found.attempted > 0
