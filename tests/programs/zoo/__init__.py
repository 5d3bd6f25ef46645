"""A zoo of ordinary Pyro programs. Nothing in this package imports the library that is tested on it."""

from __future__ import annotations

import importlib

from .entry import Entry

__all__ = ["ENTRIES", "Entry"]

ENTRIES: tuple[Entry, ...] = tuple(
    entry
    for kind in (
        "hierarchies",
        "regressions",
        "sequences",
        "mixtures",
        "networks",
        "designs",
        "forms",
    )
    for entry in importlib.import_module(f".{kind}", __name__).ENTRIES
)
