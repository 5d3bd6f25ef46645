"""Which site made the outlier: causalppl's and DoWhy's Shapley values, and the plain ranking of abducted noises.

Random additive-noise programs of 8 to 12 nodes, one noise set to four of its standard deviations at an ancestor of the target (or at
the target itself). All contenders know the true functions; DoWhy and causalppl get the same values. Two sets of cases: those whose target
is an outlier, its tail below 1% in a simulation, which is what attribution is for; and all of them, of which many have a target
that the unusual noise hardly moved, so that it explains nothing and the ranking of noises alone finds it. ``python -m
tests.benchmarks.anomalies_against_dowhy`` prints how often each ranks the injected noise first and the time that it takes; without
DoWhy it leaves DoWhy out and says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from .harness import RESULTS, machine, one_thread

__all__ = ["Anomaly", "Outcome", "compare", "random_anomaly"]

#: Nonlinear effects of one parent, by name.
SHAPES: dict[str, Callable[[Any], Any]] = {
    "linear": lambda v: v,
    "tanh": lambda v: 2 * torch.tanh(v),
    "softplus": lambda v: torch.nn.functional.softplus(v),
    "sine": lambda v: v + torch.sin(v),
}


@dataclass(frozen=True)
class Anomaly:
    """A random program and one observation of it with an unusual noise.

    Attributes:
        parents: node to its parents with weight and shape, nodes in causal order.
        scales: node to the standard deviation of its noise.
        target: the node that is explained, the last one.
        cause: the node whose noise was set to four standard deviations.
        values: node to its observed value.
        noises: node to its noise in standard deviations.
    """

    parents: Mapping[str, tuple[tuple[str, float, str], ...]]
    scales: Mapping[str, float]
    target: str
    cause: str
    values: Mapping[str, float]
    noises: Mapping[str, float]

    def location(self, node: str, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The node without its noise."""
        total = torch.zeros(())
        for parent, weight, shape in self.parents[node]:
            total = total + weight * SHAPES[shape](values[parent])
        return total

    def model(self) -> None:
        """The Pyro program."""
        values: dict[str, torch.Tensor] = {}
        for node in self.parents:
            location = self.location(node, values)
            values[node] = pyro.sample(node, dist.Normal(location, self.scales[node]))


def random_anomaly(seed: int) -> Anomaly:
    """A program of 8 to 12 nodes with one to three parents each, and an outlier of its last node."""
    rng = np.random.default_rng(seed)
    nodes = [f"n{i:02d}" for i in range(int(rng.integers(8, 13)))]
    parents: dict[str, tuple[tuple[str, float, str], ...]] = {}
    for i, node in enumerate(nodes):
        count = min(i, int(rng.integers(1, 4)))
        chosen = sorted(rng.choice(nodes[:i], size=count, replace=False)) if count else []
        parents[node] = tuple(
            (str(p), float(rng.choice([-1, 1]) * rng.uniform(0.5, 1.5)), str(rng.choice([*SHAPES])))
            for p in chosen
        )
    scales = {node: float(rng.uniform(0.5, 2.0)) for node in nodes}
    target, above = nodes[-1], {nodes[-1]}
    for node in reversed(nodes):
        if node in above:
            above |= {p for p, *_ in parents[node]}
    noises = {node: float(rng.normal()) for node in nodes}
    cause = str(rng.choice(sorted(above)))
    noises[cause] = float(rng.choice([-4.0, 4.0]))
    blank = Anomaly(parents, scales, target, cause, {}, noises)
    values: dict[str, torch.Tensor] = {}
    for node in nodes:
        values[node] = blank.location(node, values) + scales[node] * noises[node]
    found = {node: float(v) for node, v in values.items()}
    return Anomaly(parents, scales, target, cause, found, noises)


@dataclass(frozen=True)
class Outcome:
    """What one contender said of one case: the node it ranks first, and processor seconds."""

    first: str
    seconds: float


def by_causalppl(case: Anomaly, seed: int) -> Outcome:
    """:func:`causalppl.attribution.attribute_anomaly`."""
    import causalppl as cp

    start = time.process_time()
    found = cp.attribution.attribute_anomaly(
        case.model, target=case.target, evidence=dict(case.values), seed=seed
    )()
    seconds = time.process_time() - start
    return Outcome(max(found, key=lambda site: float(found[site])), seconds)


def by_noise(case: Anomaly, seed: int) -> Outcome:
    """The largest abducted noise, in its own standard deviations."""
    import causalppl as cp

    start = time.process_time()
    noise = cp.abduct(case.model, dict(case.values))().noise
    sizes = {node: abs(float(value)) for node, value in noise.items()}
    return Outcome(max(sizes, key=lambda site: sizes[site]), time.process_time() - start)


def by_raw_noise(case: Anomaly, seed: int) -> Outcome:
    """The largest abducted noise in the node's own unit, which is what residuals are."""
    import causalppl as cp

    start = time.process_time()
    noise = cp.abduct(case.model, dict(case.values))().noise
    sizes = {node: case.scales[node] * abs(float(value)) for node, value in noise.items()}
    return Outcome(max(sizes, key=lambda site: sizes[site]), time.process_time() - start)


def by_dowhy(case: Anomaly, seed: int) -> Outcome:
    """``dowhy.gcm.attribute_anomalies`` with the true functions and laws of noise; building and fitting do not count."""
    import networkx
    import pandas as pd
    from dowhy import gcm
    from scipy import stats

    class Known(gcm.ml.PredictionModel):  # type: ignore[misc]
        def __init__(self, node: str) -> None:
            self.node = node
            self.order = sorted(p for p, *_ in case.parents[node])

        def fit(self, X: Any, Y: Any) -> None:
            """Nothing: the function is known."""

        def predict(self, X: Any) -> Any:
            values = {
                p: torch.from_numpy(X[:, i].astype(np.float64)) for i, p in enumerate(self.order)
            }
            return case.location(self.node, values).numpy().reshape(-1, 1)

        def clone(self) -> Any:
            return Known(self.node)

    gcm.config.disable_progress_bars()
    gcm.config.set_default_n_jobs(1)
    gcm.util.general.set_random_seed(seed)
    graph = networkx.DiGraph()
    graph.add_nodes_from(case.parents)
    graph.add_edges_from((p, n) for n, ps in case.parents.items() for p, *_ in ps)
    model = gcm.InvertibleStructuralCausalModel(graph)
    for node, parents in case.parents.items():
        law = gcm.ScipyDistribution(stats.norm, loc=0.0, scale=case.scales[node])
        mechanism = gcm.AdditiveNoiseModel(Known(node), law) if parents else law
        model.set_causal_mechanism(node, mechanism)
    frame = pd.DataFrame({n: [v] for n, v in case.values.items()})
    gcm.fit(model, pd.concat([frame] * 20))  # asked for; nothing is learnt from it
    start = time.process_time()
    found = gcm.attribute_anomalies(model, case.target, frame)
    seconds = time.process_time() - start
    return Outcome(max(found, key=lambda node: float(found[node][0])), seconds)


CONTENDERS: dict[str, Callable[[Anomaly, int], Outcome]] = {
    "causalppl": by_causalppl,
    "dowhy": by_dowhy,
    "noises in standard deviations": by_noise,
    "noises in the nodes' units": by_raw_noise,
}


def is_outlier(case: Anomaly, draws: int = 20_000, tail: float = 0.01) -> bool:
    """Whether the target is as far from its median in less than 1% of simulated draws."""
    rng = np.random.default_rng(0)
    values: dict[str, torch.Tensor] = {}
    for node in case.parents:
        noise = torch.from_numpy(rng.normal(size=draws)).float()
        values[node] = case.location(node, values) + case.scales[node] * noise
    y = values[case.target]
    far = (y - y.median()).abs() >= abs(case.values[case.target] - float(y.median()))
    return float(far.float().mean()) < tail


def chosen_cases(count: int, outliers: bool, first_seed: int = 0) -> list[tuple[int, Anomaly]]:
    """The first cases, or the first whose target is an outlier, with their seeds."""
    found, seed = [], first_seed
    while len(found) < count:
        case = random_anomaly(seed)
        if not outliers or is_outlier(case):
            found.append((seed, case))
        seed += 1
    return found


def compare(
    cases: list[tuple[int, Anomaly]], left_out: tuple[str, ...] = ()
) -> tuple[dict[str, list[bool]], dict[str, list[float]], list[str]]:
    """Hits and processor seconds of each contender, and a note for each that is missing."""
    notes = []
    names = [name for name in CONTENDERS if name not in left_out]
    if "dowhy" in names and importlib.util.find_spec("dowhy") is None:
        names.remove("dowhy")
        notes.append("dowhy is not installed, so it is left out (the extra 'bench' has it)")
    hits: dict[str, list[bool]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed, case in cases:
            for name in names:
                found = CONTENDERS[name](case, seed)
                hits[name].append(found.first == case.cause)
                seconds[name].append(found.seconds)
    return hits, seconds, notes


def table(hits: Mapping[str, list[bool]], seconds: Mapping[str, list[float]]) -> list[str]:
    """Rows of a Markdown table."""
    rows = [
        "| contender | injected noise ranked first | median seconds | all seconds |",
        "|---|---|---|---|",
    ]
    for name, found in hits.items():
        median, total = statistics.median(seconds[name]), sum(seconds[name])
        rows.append(f"| {name} | {sum(found)} of {len(found)} | {median:.3f} | {total:.1f} |")
    return rows


def main() -> None:
    """Compare, print and keep the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100, help="of each set")
    parser.add_argument("--keep", action="store_true", help="write results/anomalies_against_dowhy")
    chosen = parser.parse_args()
    lines: list[str] = ["# Which noise made the outlier", ""]
    kept: dict[str, Any] = {"machine": machine()}
    for title, outliers in (("targets that are outliers", True), ("all cases", False)):
        hits, seconds, notes = compare(chosen_cases(chosen.cases, outliers))
        lines += [f"{chosen.cases} programs, {title}:", "", *table(hits, seconds), "", *notes]
        kept[title] = {"hits": hits, "seconds": seconds, "notes": notes}
        print("\n".join(lines), flush=True)
    if chosen.keep:
        made = ", ".join(f"{key} {value}" for key, value in machine().items())
        text = "\n".join(lines).rstrip() + f"\n\nMade with: {made}.\n"
        (RESULTS / "anomalies_against_dowhy.md").write_text(text)
        (RESULTS / "anomalies_against_dowhy.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
