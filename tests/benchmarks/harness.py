"""Fair timing: contenders take turns, medians are compared, one thread, and the results say where they were made.

On a shared machine the speed drifts, so that timing one contender after the other compares moments rather than
code. Here each round times every contender once, in an order that rotates, and the ratio to the reference is the median
over rounds of the ratio **within** a round. Fast calls are repeated inside a round until the clock's resolution does
not matter. What is measured is the processor time of the process, so that waiting for others on the machine does not count.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["RESULTS", "Case", "Contender", "Row", "check", "measure", "report", "save", "table"]

#: Where results are kept, beside the code that made them.
RESULTS = Path(__file__).parent / "results"

_BATCH_SECONDS = 2e-3


@dataclass(frozen=True)
class Contender:
    """One way to compute a case: ``run()`` returns ``{world: {site: tensor}}``.

    Attributes:
        name: what the table calls it.
        run: the call that is timed.
        same: whether its numbers must equal the reference's (one that draws its own noise cannot).
        note: shown under the table.
    """

    name: str
    run: Callable[[], Any]
    same: bool = True
    note: str = ""


@dataclass(frozen=True)
class Case:
    """Contenders for one task, the reference first; those named in ``aims`` should keep to the ratio ``goal``."""

    name: str
    contenders: Sequence[Contender]
    goal: float | None = None
    aims: Sequence[str] = ()
    skipped: Sequence[str] = ()


@dataclass(frozen=True)
class Row:
    """The outcome of one contender: milliseconds per call and its ratio to the reference, with quartiles."""

    case: str
    contender: str
    milliseconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    goal: float | None = None
    note: str = field(default="", compare=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, the number given back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check(case: Case) -> None:
    """Refuse to time contenders that compute something else than the reference.

    Raises:
        ValueError: naming the case, the contender, the world and the site that differ.
    """
    reference = case.contenders[0].run()
    for contender in case.contenders[1:]:
        found = contender.run()
        for world, sites in reference.items() if contender.same else ():
            if world == "factual" and world not in found:
                continue  # a peer that gives the other worlds only
            for name, expected in sites.items():
                value = found[world][name].reshape(-1)
                want = expected.expand(value.shape) if expected.dim() == 0 else expected.reshape(-1)
                if not torch.allclose(value, want, rtol=1e-4, atol=1e-5):
                    raise ValueError(
                        f"{case.name}: {contender.name!r} differs at {world}/{name} by "
                        f"{(value - want).abs().max().item():.3g}"
                    )


def measure(case: Case, seconds: float = 6.0, rounds: int = 15) -> list[Row]:
    """Time all contenders of a case in turns.

    Args:
        case: what to time.
        seconds: about how long the whole case may take; at least five rounds are run.
        rounds: the number of rounds where time allows.
    """
    with one_thread():
        check(case)
        loops = [_loops(c.run) for c in case.contenders]
        times: list[list[float]] = [[] for _ in case.contenders]
        count, deadline, order = 0, time.perf_counter() + seconds, list(range(len(loops)))
        gc.collect()
        gc.disable()
        try:
            while count < 5 or (count < rounds and time.perf_counter() < deadline):
                for i in order[count % len(order) :] + order[: count % len(order)]:
                    times[i].append(_time(case.contenders[i].run, loops[i]))
                count += 1
                gc.collect()
        finally:
            gc.enable()
    rows = []
    for contender, own in zip(case.contenders, times, strict=True):
        ratios = [t / reference for t, reference in zip(own, times[0], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        rows.append(
            Row(
                case.name,
                contender.name,
                1e3 * statistics.median(own),
                middle,
                low,
                high,
                count,
                case.goal if contender.name in case.aims else None,
                contender.note,
            )
        )
    return rows


def _loops(run: Callable[[], Any]) -> int:
    run()
    return max(1, min(1000, int(_BATCH_SECONDS / max(_time(run, 1), 1e-7))))


def _time(run: Callable[[], Any], loops: int) -> float:
    # the processor's time and not the clock's: with one thread they are the same where nobody else is at work
    start = time.process_time()
    for _ in range(loops):
        run()
    return (time.process_time() - start) / loops


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table."""
    lines = [
        "| case | contender | ms | ratio | quartiles | goal |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for r in rows:
        goal = "" if r.goal is None else f"{r.goal:g} {'met' if r.ratio <= r.goal else 'missed'}"
        lines.append(
            f"| {r.case} | {r.contender} | {r.milliseconds:.3g} | {r.ratio:.3g} | "
            f"{r.ratio_low:.3g} to {r.ratio_high:.3g} | {goal} |"
        )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the numbers depend on, without anything that identifies the machine."""
    packages = {}
    for name in ("torch", "pyro-ppl", "numpy", "causalppl", "chirho", "dowhy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "absent"
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": 1,
        "system": platform.system(),
        "python": platform.python_version(),
        **packages,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def report(
    title: str, rows: Sequence[Row], notes: Sequence[str] = (), extra: Sequence[str] = ()
) -> str:
    """A result as Markdown: tables, where it was made, and what to know when reading it."""
    made = ", ".join(f"{key} {value}" for key, value in machine().items())
    remarks = dict.fromkeys([*(f"{r.contender}: {r.note}" for r in rows if r.note), *notes])
    lines = [f"# {title}", "", *extra, *([""] if extra else []), table(rows), ""]
    lines += [f"Made with: {made}.", ""]
    lines += ["Ratios are to the first contender of each case; quartiles are over rounds.", ""]
    return "\n".join(lines + [f"- {remark}" for remark in remarks]).rstrip() + "\n"


def save(
    name: str, title: str, rows: Sequence[Row], notes: Sequence[str] = (), extra: Sequence[str] = ()
) -> list[Path]:
    """Write ``results/<name>.json`` and ``results/<name>.md``; returns the paths."""
    RESULTS.mkdir(exist_ok=True)
    data = {
        "title": title,
        "machine": machine(),
        "rows": [asdict(r) for r in rows],
        "notes": [*notes],
    }
    paths = [RESULTS / f"{name}.json", RESULTS / f"{name}.md"]
    paths[0].write_text(json.dumps(data, indent=1) + "\n")
    paths[1].write_text(report(title, rows, notes, extra))
    return paths
