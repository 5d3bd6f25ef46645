"""Counts the programs of the zoo that pass every check, and prints the table at the end of the run."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

#: Program to check to outcome, in the order of the run.
_OUTCOMES: dict[str, dict[str, str]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Remembers how each check of a program ended."""
    report = yield
    entry = getattr(item, "callspec", None) and item.callspec.params.get("entry")
    if entry is not None and (report.when == "call" or report.failed):
        missing = report.outcome == "skipped" and hasattr(report, "wasxfail")
        outcome = "expected failure" if missing else report.outcome
        check = item.originalname.removeprefix("test_").replace("_", " ")
        _OUTCOMES.setdefault(entry.name, {})[check] = outcome
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """N of M programs, and for the others what failed."""
    if not _OUTCOMES:
        return
    terminalreporter.section("the zoo of programs")
    good = 0
    for name, checks in _OUTCOMES.items():
        failed = [f"{check} ({how})" for check, how in checks.items() if how != "passed"]
        good += not failed
        if failed:
            terminalreporter.write_line(f"{name:45s} {'; '.join(failed)}")
    terminalreporter.write_line(f"{good} of {len(_OUTCOMES)} programs pass every check")
