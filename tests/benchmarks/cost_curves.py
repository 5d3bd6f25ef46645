r"""How cost grows: with units, draws, nodes, worlds of one node, and worlds of different nodes.

Each curve varies one size and times the same question, from given noise to all worlds. The exponent is the slope of
:math:`\log(\text{time})` on :math:`\log(\text{size})` over the upper half of the sizes, where fixed costs matter least:
1 is linear. ``cp.compile`` is left out, because each size would be compiled anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .harness import Case, Contender, Row
from .peers import absent, chirho, dowhy
from .programs import Program, ask, chain, triangle

__all__ = ["NAME", "TITLE", "cases", "exponents", "figure"]

NAME = "cost_curves"
TITLE = "Cost curves"

#: Curve to what its horizontal axis counts.
AXES = {
    "units": "units in a plate (triangle, two worlds)",
    "draws": "draws without a plate (triangle, two worlds)",
    "nodes": "nodes of a chain (100 units, two worlds)",
    "values": "worlds: values of one node (triangle, 10,000 units)",
    "targets": "worlds: different nodes of a chain of 20 (1,000 units)",
}
#: ChiRho has 2^K worlds for K different nodes: beyond this it does not end within a minute.
_MOST_TARGETS = 10


@dataclass(frozen=True)
class _Point:
    """One size on one curve."""

    curve: str
    size: int

    @property
    def name(self) -> str:
        return f"{self.curve} {self.size}"

    def _question(self) -> tuple[Program, int, dict[str, dict[str, float]]]:
        one = {"counterfactual": {"x": 1.0}}
        if self.curve == "nodes":
            return chain(self.size), 100, {"counterfactual": {"v0": 1.0}}
        if self.curve == "values":
            return triangle, 10_000, {f"w{k}": {"x": float(k)} for k in range(1, self.size + 1)}
        if self.curve == "targets":
            return chain(20), 1_000, {f"w{k}": {f"v{k - 1}": 1.0} for k in range(1, self.size + 1)}
        return triangle, self.size, one

    def build(self) -> Case:
        program, units, worlds = self._question()
        plate, noise = self.curve != "draws", program.noise(units)
        contenders = [
            Contender("by hand", lambda: program.by_hand(noise, worlds)),
            Contender("causalppl", ask(program, noise, worlds, plate=plate)),
        ]
        if plate:
            contenders += _peers(program, noise, worlds, " ".join(absent()))
        return Case(self.name, contenders, skipped=absent())


def _peers(
    program: Program, noise: Any, worlds: Mapping[str, Mapping[str, float]], missing: str
) -> list[Contender]:
    """ChiRho and DoWhy, as far as they end within seconds."""
    several = len({n for action in worlds.values() for n in action}) > 1
    found = []
    if "chirho" not in missing and (not several or len(worlds) <= _MOST_TARGETS):
        note = "K different nodes are 2^K worlds" if several else ""
        found.append(Contender("ChiRho", chirho(program, noise, worlds), note=note))
    if "dowhy" not in missing and len(worlds) <= 16:
        found.append(Contender("DoWhy", dowhy(program, noise, worlds)))
    return found


def cases(quick: bool = False) -> list[_Point]:
    """All points of all curves."""
    sizes: dict[str, Sequence[int]] = {
        "units": (100, 1_000, 10_000, 100_000, 1_000_000),
        "draws": (100, 1_000, 10_000, 100_000, 1_000_000),
        "nodes": (5, 10, 20, 50, 100, 200),
        "values": (1, 4, 16, 64, 256),
        "targets": (2, 5, 10, 20),
    }
    return [_Point(c, s) for c, own in sizes.items() for s in (own[:3] if quick else own)]


def curves(rows: Sequence[Row]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Curve to contender to pairs of size and milliseconds."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        curve, size = row.case.split()
        points = found.setdefault(curve, {}).setdefault(row.contender, [])
        points.append((int(size), row.milliseconds))
    return found


def exponents(rows: Sequence[Row]) -> list[str]:
    """The fitted exponents as a Markdown table."""
    lines = ["| curve | contender | exponent | from | to |", "|---|---|---:|---:|---:|"]
    for curve, contenders in curves(rows).items():
        for name, points in contenders.items():
            upper = points[max(0, min(len(points) // 2, len(points) - 2)) :]
            if len(upper) > 1:
                lines.append(
                    f"| {AXES[curve]} | {name} | {slope(upper):.2f} | {upper[0][0]:,} | {upper[-1][0]:,} |"
                )
    return lines


def _short(size: int) -> str:
    """A size as a tick says it: 1M, 10k, 200."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)


def slope(points: Sequence[tuple[int, float]]) -> float:
    """Least squares of log time on log size."""
    xs, ys = ([math.log(v) for v in part] for part in zip(*points, strict=True))
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum(
        (a - x) ** 2 for a in xs
    )


def figure(rows: Sequence[Row], path: Path) -> None:
    """All curves in one picture, a panel each, both axes logarithmic."""
    import matplotlib.pyplot as plt

    from causalppl.plots.looks import LOOKS

    found = curves(rows)
    names = list(dict.fromkeys(n for contenders in found.values() for n in contenders))
    looks = dict(zip(names, LOOKS, strict=False))
    columns = 3
    count = -(-len(found) // columns)
    drawn, axes = plt.subplots(count, columns, figsize=(11, 3.3 * count), layout="constrained")
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    for ax, (curve, contenders) in zip(axes.flat, found.items(), strict=False):
        for name, points in contenders.items():
            sizes, times = zip(*points, strict=True)
            look = looks[name]
            ax.plot(
                sizes, times, color=look.colour, linestyle=look.line, marker=look.marker,
                markersize=4, label=name,
            )  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        ticks = sorted({size for points in contenders.values() for size, _ in points})
        ax.set_xticks(ticks, [_short(t) for t in ticks])
        ax.set_xticks([], minor=True)
        what, _, where = AXES[curve].partition(" (")
        ax.set_title(where.rstrip(")"), fontsize="small", color="0.35")
        ax.set_xlabel(what)
        ax.set_ylabel("milliseconds")
        ax.grid(True, which="major", color="0.92")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    (axes.flat[len(found)] if len(found) < axes.size else axes.flat[0]).legend(
        handles, labels, frameon=False, loc="center", title="one thread"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=130)
    plt.close(drawn)
