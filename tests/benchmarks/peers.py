"""The same programs as other libraries' documentation would have them written; each is skipped where it is not installed.

ChiRho (https://basisresearch.github.io/chirho): noise written out as sample sites, everything else deterministic, worlds by
``MultiWorldCounterfactual`` and ``do``, read with ``gather``. DoWhy (https://www.pywhy.org/dowhy): an
``InvertibleStructuralCausalModel`` of additive noise models with the true functions, asked by ``counterfactual_samples``
with the noise given. Both are in the ``bench`` extra.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from .programs import Noise, Program, Worlds

__all__ = ["PEERS", "absent", "chirho", "dowhy", "dowhy_from_data", "pyro_do"]

#: Module to the name of its distribution.
PEERS = {"chirho": "chirho", "dowhy": "dowhy"}


def absent() -> list[str]:
    """A note for each peer that is not installed."""
    return [
        f"{name} is not installed, so it is left out (the extra 'bench' has it)"
        for module, name in PEERS.items()
        if importlib.util.find_spec(module) is None
    ]


def versions() -> dict[str, str]:
    """The versions of the peers that are installed."""
    return {n: version(n) for m, n in PEERS.items() if importlib.util.find_spec(m) is not None}


Question = Mapping[str, Mapping[str, float]]


def chirho(program: Program, noise: Noise, worlds: Question) -> Callable[[], Worlds]:
    """All worlds, one set node each; K different nodes make ChiRho compute all 2^K combinations of them."""
    from chirho.counterfactual.handlers import MultiWorldCounterfactual
    from chirho.indexed.ops import IndexSet, gather
    from chirho.interventional.handlers import do

    units = len(next(iter(noise.values())))

    def model() -> Noise:
        values: Noise = {}
        with pyro.plate("units", units, dim=-1):
            for node, (parents, location) in program.assignments.items():
                own = pyro.sample(f"noise_{node}", dist.Normal(0.0, 1.0))
                value = location(*(values[p] for p in parents)) + own
                values[node] = pyro.deterministic(node, value, event_dim=0)
        return values

    known = pyro.condition(model, data={f"noise_{n}": v for n, v in noise.items()})
    values: dict[str, list[float]] = {}
    index = {"factual": IndexSet()}
    for world, action in worlds.items():
        ((node, value),) = action.items()
        values.setdefault(node, []).append(value)
        index[world] = IndexSet(**{node: {len(values[node])}})
    actions = {n: tuple(torch.tensor(v) for v in vs) for n, vs in values.items()}
    for world, chosen in index.items():
        rest = {n: {0} for n in actions if n not in chosen}
        index[world] = IndexSet(**chosen, **rest)

    def run() -> Worlds:
        with torch.no_grad(), MultiWorldCounterfactual(first_available_dim=-2), do(actions=actions):
            found = known()
            return {
                world: {n: gather(v, chosen, event_dim=0) for n, v in found.items()}
                for world, chosen in index.items()
            }

    return run


def dowhy(program: Program, noise: Noise, worlds: Question) -> Callable[[], Worlds]:
    """The counterfactual worlds one after another; DoWhy does not give the factual one from noise."""
    return _dowhy(program, noise, worlds, "noise_data")


def dowhy_from_data(program: Program, values: Noise, worlds: Question) -> Callable[[], Worlds]:
    """The same from observed values, whose noise DoWhy abducts."""
    return _dowhy(program, values, worlds, "observed_data")


def _dowhy(program: Program, given: Noise, worlds: Question, kind: str) -> Callable[[], Worlds]:
    import networkx
    import pandas as pd
    from dowhy import gcm
    from scipy import stats

    class Known(gcm.ml.PredictionModel):  # type: ignore[misc]
        """The true location of a node given its parents; nothing to fit."""

        def __init__(self, location: Any, order: list[int]) -> None:
            self.location, self.order = location, order

        def fit(self, X: Any, Y: Any) -> None:
            """Nothing."""

        def predict(self, X: Any) -> Any:
            columns = [torch.from_numpy(X[:, i].astype(np.float64)) for i in self.order]
            return self.location(*columns).numpy().reshape(-1, 1)

        def clone(self) -> Any:
            return Known(self.location, self.order)

    gcm.config.disable_progress_bars()
    graph = networkx.DiGraph()
    graph.add_nodes_from(program.assignments)
    graph.add_edges_from((p, n) for n, (ps, _) in program.assignments.items() for p in ps)
    model = gcm.InvertibleStructuralCausalModel(graph)
    normal = gcm.ScipyDistribution(stats.norm, loc=0.0, scale=1.0)
    for node, (parents, location) in program.assignments.items():
        if not parents:
            model.set_causal_mechanism(node, normal)
            continue
        # DoWhy hands parents over in alphabetical order
        order = [sorted(parents).index(p) for p in parents]
        model.set_causal_mechanism(node, gcm.AdditiveNoiseModel(Known(location, order), normal))
    frame = pd.DataFrame({n: v.numpy().astype(float) for n, v in given.items()})
    gcm.fit(model, frame.head(50))  # DoWhy asks for it; the functions are known, and noise is given

    def run() -> Worlds:
        found: Worlds = {}
        for world, action in worlds.items():
            setters = {n: (lambda _, value=value: value) for n, value in action.items()}
            sample = gcm.counterfactual_samples(model, setters, **{kind: frame})
            columns = {n: sample[n].to_numpy().astype(np.float32) for n in program.assignments}
            found[world] = {n: torch.from_numpy(c) for n, c in columns.items()}
        return found

    return run


def pyro_do(program: Program, units: int) -> Callable[[], None]:
    """Pyro's own ``poutine.do``: one world, drawn anew, nothing shared."""
    action = {program.target: torch.tensor(1.0)}
    intervened = pyro.poutine.trace(pyro.poutine.do(program.model, action))

    def run() -> None:
        with torch.no_grad():
            intervened.get_trace(units)

    return run
