"""The examples in docstrings of graphs, notation and queries run as they are printed."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import sys

import pytest

PACKAGES = ("causalppl.graph", "causalppl.notation", "causalppl.query")


def modules() -> list[str]:
    for name in PACKAGES:
        importlib.import_module(name)
    return [
        f"{name}.{m.name}"
        for name in PACKAGES
        for m in pkgutil.iter_modules(sys.modules[name].__path__)
    ]


@pytest.mark.parametrize("name", modules())
@pytest.mark.filterwarnings("ignore::causalppl.errors.CouplingWarning")
def test_the_examples_of_a_module_run(name: str) -> None:
    importlib.import_module(name)
    assert not doctest.testmod(sys.modules[name]).failed


def test_there_are_examples() -> None:
    found = [len(doctest.DocTestFinder().find(sys.modules[n])) for n in map(_imported, modules())]
    assert sum(found) > 30


def _imported(name: str) -> str:
    importlib.import_module(name)
    return name
