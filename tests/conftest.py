"""What holds for every test: a fresh parameter store and seed before it, and nothing global changed after it."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before anything draws: no test opens a window

import networkx  # noqa: F401
import numpy as np
import pyro
import pytest
import torch
import xarray  # noqa: F401

with warnings.catch_warnings():
    # Some packages add filters or announce their next version when they are first imported, which is
    # no change that a test made.
    warnings.simplefilter("ignore")
    import arviz  # noqa: F401
    import h5netcdf  # noqa: F401
    import matplotlib.pyplot
    import nutpie  # noqa: F401
    import scipy.stats  # noqa: F401


def global_state() -> dict[str, Any]:
    """The settings of the process that a library must leave as it found them."""
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": str(torch.get_default_device()),
        "torch's argument validation": torch.distributions.Distribution._validate_args,
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "numpy's floating-point errors": np.geterr(),
        "pyro's settings": pyro.settings.get(),
        "pyro's handler stack": list(pyro.poutine.runtime._PYRO_STACK),
        "the warnings filters": list(warnings.filters),
        "matplotlib's backend": matplotlib.get_backend(),
        "matplotlib's settings": dict(matplotlib.rcParams),
    }


def restore(state: dict[str, Any]) -> None:
    """Put back what later tests depend on most."""
    torch.set_default_dtype(state["torch's default dtype"])
    torch.distributions.Distribution.set_default_validate_args(state["torch's argument validation"])
    torch.set_grad_enabled(state["torch's gradient mode"])
    if torch.get_num_threads() != state["torch's number of threads"]:
        torch.set_num_threads(
            state["torch's number of threads"]
        )  # not for nothing: it slows small products
    pyro.settings.set(**state["pyro's settings"])
    pyro.poutine.runtime._PYRO_STACK[:] = state["pyro's handler stack"]


@pytest.fixture(autouse=True)
def fresh_start() -> Generator[None]:
    """Tests do not depend on each other's parameters, random numbers or open figures."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    matplotlib.pyplot.close("all")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fails a test that leaves a global setting changed. Around the call, where pytest's own filters are in force."""
    before = global_state()
    try:
        return (yield)
    finally:
        after = global_state()
        restore(before)
        # A package may add filters of its own when a test is the first to import a part of it; those that
        # were there have to stay, in their order.
        kept = iter(after["the warnings filters"])
        if all(entry in kept for entry in before["the warnings filters"]):
            after["the warnings filters"] = before["the warnings filters"]
        changed = [name for name, value in before.items() if after[name] != value]
        if changed:
            pytest.fail(f"{pyfuncitem.nodeid} changed {', '.join(changed)}", pytrace=False)


# --- What the zoo of programs comes to -------------------------------------------------------------------------------

#: Program to check to outcome, in the order of the run.
_OUTCOMES: dict[str, dict[str, str]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Notes how a check of one of the zoo's programs ended on its report, which travels where tests run in other processes."""
    report = yield
    entry = getattr(item, "callspec", None) and item.callspec.params.get("entry")
    if hasattr(entry, "program") and (report.when == "call" or report.failed):
        missing = report.outcome == "skipped" and hasattr(report, "wasxfail")
        outcome = "expected failure" if missing else report.outcome
        check = item.originalname.removeprefix("test_").replace("_", " ")
        report.user_properties.append(("zoo", [entry.name, check, outcome]))
    return report


def pytest_runtest_logreport(report: Any) -> None:
    """Collects the notes."""
    for key, value in report.user_properties:
        if key == "zoo" and (report.when == "call" or report.failed):
            name, check, outcome = value
            _OUTCOMES.setdefault(name, {})[check] = outcome


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """N of M programs, and for the others what failed; K of L distributions."""
    if not _OUTCOMES:
        return
    from causalppl.mechanisms.table import table

    terminalreporter.section("the zoo of programs")
    good = 0
    for name, checks in _OUTCOMES.items():
        failed = [f"{check} ({how})" for check, how in checks.items() if how != "passed"]
        good += not failed
        if failed:
            terminalreporter.write_line(f"{name:45s} {'; '.join(failed)}")
    counted = next(line for line in table().splitlines() if " distributions of " in line)
    terminalreporter.write_line(
        f"{good} of {len(_OUTCOMES)} programs pass every check; {counted.partition(' of `')[0]}"
    )
