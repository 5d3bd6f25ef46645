"""``python -m tests.benchmarks``: run the benchmarks, print their tables and save them."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from . import (
    abduction_against_torch,
    amortized_guides,
    cost_curves,
    harness,
    worlds_against_torch,
)

_MODULES = {
    module.NAME: module
    for module in (worlds_against_torch, abduction_against_torch, amortized_guides, cost_curves)
}
_FIGURE = Path(__file__).parents[2] / "docs" / "figures" / "cost_curves.png"


def main() -> None:
    """Parse the command line and run what it asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"of {', '.join(_MODULES)}; all by default"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and few rounds, nothing saved"
    )
    parser.add_argument(
        "--match", default="", help="only cases whose name contains this; nothing saved"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="time a case, about (default 6)")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in _MODULES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(_MODULES)}")
    warnings.simplefilter("ignore")
    for name in chosen.names or _MODULES:
        run(name, chosen.match, 1.5 if chosen.quick else chosen.seconds, chosen.quick)


def run(name: str, match: str, seconds: float, quick: bool) -> None:
    """One benchmark: measured, printed and, if it is complete, saved."""
    module = _MODULES[name]
    rows: list[harness.Row] = []
    notes: dict[str, None] = {}
    for task in module.cases(quick):
        if match not in task.name:
            continue
        case = task.build()
        notes.update(dict.fromkeys(case.skipped))
        rows += harness.measure(case, seconds)
        print(f"{case.name}: done", flush=True)
    extra = cost_curves.exponents(rows) if module is cost_curves else []
    print(harness.report(module.TITLE, rows, list(notes), extra))
    if not (quick or match):
        harness.save(module.NAME, module.TITLE, rows, list(notes), extra)
        if module is cost_curves:
            cost_curves.figure(rows, _FIGURE)


if __name__ == "__main__":
    main()
