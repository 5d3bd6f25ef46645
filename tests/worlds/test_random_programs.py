"""Programs drawn at random: graphs, families, shapes and interventions, against a brute force written here.

Continuous programs are followed site by site in NumPy, coupled through scipy's quantiles. Discrete ones are enumerated:
every cell of every site's uniform noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.special
import scipy.stats
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from monte_carlo import assert_share

import causalppl as cp

RELAXED = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
# a failing share of draws shrinks to an unlucky seed, for minutes: what was found is small enough
UNSHRUNK = settings(RELAXED, max_examples=25, phases=(Phase.explicit, Phase.reuse, Phase.generate))

# --- Continuous programs ------------------------------------------------------------------------

UNITS, INNER, WIDTH = 3, 2, 2
SHAPES = {
    "global": (),
    "unit": (UNITS,),
    "vector": (UNITS, WIDTH),
    "nested": (INNER, UNITS),
}


@dataclass(frozen=True)
class Node:
    """One site: its law, its shape, and the weights of earlier sites."""

    name: str
    family: str
    shape: str
    constant: float
    parents: tuple[tuple[int, float], ...]


def brought(value: Any, source: str, target: str, xp: Any) -> Any:
    """A parent's value in the shape of a child: averaged over what the child lacks, repeated over what it has more."""
    if source == "vector":
        value = value.sum(-1)
    elif source == "nested":
        value = value.mean(0)
    if target == "global":
        return value.mean() if source != "global" else value
    if target == "vector":
        return value[..., None] if source != "global" else value
    return value


def location(node: Node, values: list[Any], nodes: list[Node], xp: Any) -> Any:
    total = xp.zeros(SHAPES[node.shape], dtype=xp.float64) + node.constant
    for index, weight in node.parents:
        part = brought(values[index], nodes[index].shape, node.shape, xp)
        total = total + weight * xp.tanh(part)
    return total


def law_of(node: Node, loc: torch.Tensor) -> Any:
    scale = torch.exp(0.3 * torch.sin(loc))
    families: dict[str, Callable[[], Any]] = {
        "normal": lambda: dist.Normal(loc, scale),
        "laplace": lambda: dist.Laplace(loc, scale),
        "gumbel": lambda: dist.Gumbel(loc, scale),
        "lognormal": lambda: dist.LogNormal(loc, scale),
        "exponential": lambda: dist.Exponential(torch.exp(loc)),
        "uniform": lambda: dist.Uniform(loc, loc + scale),
        "weibull": lambda: dist.Weibull(scale, 1 + scale),
        "falling": lambda: dist.TransformedDistribution(
            dist.Exponential(scale), [dist.transforms.AffineTransform(loc, -1.0)]
        ),
    }
    return families[node.family]()


def frozen_law(node: Node, loc: np.ndarray) -> Any:
    scale = np.exp(0.3 * np.sin(loc))
    return {
        "normal": lambda: scipy.stats.norm(loc, scale),
        "laplace": lambda: scipy.stats.laplace(loc, scale),
        "gumbel": lambda: scipy.stats.gumbel_r(loc, scale),
        "lognormal": lambda: scipy.stats.lognorm(scale, scale=np.exp(loc)),
        "exponential": lambda: scipy.stats.expon(scale=np.exp(-loc)),
        "uniform": lambda: scipy.stats.uniform(loc, scale),
        "weibull": lambda: scipy.stats.weibull_min(1 + scale, scale=scale),
        "falling": lambda: _Falling(loc, scale),
    }[node.family]()


class _Falling:
    """loc - Exponential(rate): its quantiles by hand."""

    def __init__(self, loc: np.ndarray, rate: np.ndarray) -> None:
        self.loc, self.law = loc, scipy.stats.expon(scale=1 / rate)

    def cdf(self, v: Any) -> Any:
        return self.law.sf(self.loc - v)

    def sf(self, v: Any) -> Any:
        return self.law.cdf(self.loc - v)

    def ppf(self, u: Any) -> Any:
        return self.loc - self.law.isf(u)

    def isf(self, u: Any) -> Any:
        return self.loc - self.law.ppf(u)


FAMILIES = (
    "normal",
    "laplace",
    "gumbel",
    "lognormal",
    "exponential",
    "uniform",
    "weibull",
    "falling",
)


@st.composite
def programs(draw: st.DrawFn) -> list[Node]:
    nodes: list[Node] = []
    for i in range(draw(st.integers(2, 6))):
        chosen = [j for j in range(i) if draw(st.booleans())]
        weights = [draw(st.sampled_from([-1.5, -0.7, 0.5, 1.0, 2.0])) for _ in chosen]
        nodes.append(
            Node(
                f"s{i}",
                draw(st.sampled_from(FAMILIES)),
                draw(st.sampled_from(sorted(SHAPES))),
                draw(st.sampled_from([-0.5, 0.0, 0.4])),
                tuple(zip(chosen, weights, strict=True)),
            )
        )
    return nodes


def program(nodes: list[Node]) -> Callable[[], None]:
    def model() -> None:
        units = pyro.plate("units", UNITS, dim=-1)
        inner = pyro.plate("inner", INNER, dim=-2)
        values: list[Any] = []
        for node in nodes:
            law = law_of(node, location(node, values, nodes, torch))
            if node.shape == "global":
                values.append(pyro.sample(node.name, law))
            elif node.shape == "nested":
                with inner, units:
                    values.append(pyro.sample(node.name, law))
            else:
                with units:
                    values.append(
                        pyro.sample(node.name, law.to_event(1) if node.shape == "vector" else law)
                    )

    return model


@st.composite
def interventions(draw: st.DrawFn, nodes: list[Node]) -> dict[str, tuple[str, float]]:
    """Site to a kind and an amount."""
    found = {}
    for node in nodes:
        if draw(st.integers(0, 2)) == 0:
            kind = draw(st.sampled_from(["hard", "shift", "halve", "half hard"]))
            if node.family in ("exponential", "lognormal", "weibull", "uniform", "falling"):
                kind = "halve" if kind == "hard" else kind
            found[node.name] = kind, draw(st.sampled_from([0.25, 1.0]))
    return found


def mask_of(shape: str) -> np.ndarray:
    return (np.arange(math.prod(SHAPES[shape])) % 2 == 0).reshape(SHAPES[shape])


def given_to_library(nodes: list[Node], chosen: dict[str, tuple[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in nodes:
        if node.name in chosen:
            kind, amount = chosen[node.name]
            found[node.name] = {
                "hard": lambda a=amount: a,
                "shift": lambda a=amount: cp.shift(a),
                "halve": lambda a=amount: lambda v: v / 2 + a,
                "half hard": lambda a=amount, n=node: cp.where(
                    torch.from_numpy(mask_of(n.shape)), cp.shift(a)
                ),
            }[kind]()
    return found


def brute_force(
    nodes: list[Node], facts: list[np.ndarray], chosen: dict[str, tuple[str, float]]
) -> list[np.ndarray]:
    """The world of the interventions, one site after the other."""
    there: list[np.ndarray] = []
    for node, fact in zip(nodes, facts, strict=True):
        here = frozen_law(node, location(node, facts, nodes, np))
        law = frozen_law(node, location(node, there, nodes, np))
        low, high = here.cdf(fact), here.sf(fact)
        value = np.where(low < high, law.ppf(low), law.isf(high))
        if node.name in chosen:
            kind, a = chosen[node.name]
            if kind == "hard":
                value = np.full(SHAPES[node.shape], a)
            elif kind == "shift":
                value = value + a
            elif kind == "halve":
                value = value / 2 + a
            else:
                value = np.where(mask_of(node.shape), value + a, value)
        there.append(value)
    return there


@RELAXED
@given(data=st.data())
def test_continuous_programs_site_by_site(data: st.DataObject) -> None:
    nodes = data.draw(programs())
    worlds = {f"w{k}": data.draw(interventions(nodes)) for k in range(data.draw(st.integers(1, 4)))}
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    facts: list[np.ndarray] = []
    for node in nodes:
        u = rng.uniform(0.01, 0.99, SHAPES[node.shape])
        facts.append(np.asarray(frozen_law(node, location(node, facts, nodes, np)).ppf(u)))
    evidence = {n.name: torch.from_numpy(np.array(v)) for n, v in zip(nodes, facts, strict=True)}
    asked = {w: given_to_library(nodes, chosen) for w, chosen in worlds.items()}

    found = cp.counterfactual(program(nodes), evidence=evidence, worlds=asked)()
    twin = pyro.condition(cp.multi_world(program(nodes), asked), data=evidence)
    trace = pyro.poutine.trace(twin).get_trace()
    for world, chosen in worlds.items():
        for node, value in zip(nodes, brute_force(nodes, facts, chosen), strict=True):
            for drawn in (
                found.tensor(node.name, world)[0],
                trace.nodes[f"{world}/{node.name}"]["value"],
            ):
                np.testing.assert_allclose(
                    drawn.numpy(), value, rtol=1e-6, atol=1e-8, err_msg=f"{world} {node}"
                )


# --- Discrete programs --------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A site with two or three values, and its probabilities for every setting of its parents."""

    name: str
    size: int
    parents: tuple[int, ...]
    rows: dict[tuple[int, ...], tuple[float, ...]]


@st.composite
def tables(draw: st.DrawFn) -> list[Table]:
    found: list[Table] = []
    for i in range(draw(st.integers(2, 4))):
        size = draw(st.integers(2, 3))
        parents = tuple(j for j in range(i) if draw(st.booleans()))
        rows = {}
        for setting in itertools.product(*(range(found[j].size) for j in parents)):
            weights = [draw(st.sampled_from([0.0, 1.0, 2.0, 5.0])) for _ in range(size)]
            weights = [w + (sum(weights) == 0) for w in weights]
            rows[setting] = tuple(w / sum(weights) for w in weights)
        found.append(Table(f"s{i}", size, parents, rows))
    return found


def discrete_program(tables: list[Table]) -> Callable[[], None]:
    def model() -> None:
        values: list[torch.Tensor] = []
        for table in tables:
            probabilities = torch.tensor(
                [table.rows[k] for k in sorted(table.rows)], dtype=torch.float64
            )
            index = torch.zeros((), dtype=torch.long)
            for j in table.parents:
                index = index * tables[j].size + values[j].long()
            row = probabilities[index]
            law = dist.Bernoulli(row[1]) if table.size == 2 else dist.Categorical(row)
            values.append(pyro.sample(table.name, law, infer={"mechanism": "inverse_cdf"}).long())

    return model


def outcome(table: Table, setting: tuple[int, ...], u: float) -> int:
    """Bernoulli: one where u < p. Categories in order: the first whose cumulative probability exceeds u."""
    row = table.rows[setting]
    if table.size == 2:
        return int(u < row[1])
    return int(np.searchsorted(np.cumsum(row), u, side="right"))


def noise_cells(table: Table) -> list[tuple[float, float]]:
    """Midpoints and lengths of the intervals of u on which nothing changes, whatever the parents."""
    cuts = {0.0, 1.0}
    for row in table.rows.values():
        cuts |= {row[1]} if table.size == 2 else set(np.cumsum(row)[:-1].tolist())
    edges = sorted(c for c in cuts if 0 <= c <= 1)
    return [((a + b) / 2, b - a) for a, b in itertools.pairwise(edges) if b - a > 1e-12]


def solve(tables: list[Table], u: tuple[float, ...], do: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for table, own in zip(tables, u, strict=True):
        setting = tuple(found[tables[j].name] for j in table.parents)
        found[table.name] = do.get(table.name, outcome(table, setting, own))
    return found


@UNSHRUNK
@given(data=st.data())
def test_discrete_programs_against_all_noise_cells(data: st.DataObject) -> None:
    """Evidence in the factual world and in another; all sites in a third."""
    nodes = data.draw(tables())
    does = [
        {
            t.name: data.draw(st.integers(0, t.size - 1))
            for t in nodes
            if data.draw(st.integers(0, 2)) == 0
        }
        for _ in range(2)
    ]
    worlds = dict(zip(("a", "b"), does, strict=True))
    grid = [
        (tuple(c[0] for c in cell), math.prod(c[1] for c in cell))
        for cell in itertools.product(*map(noise_cells, nodes))
    ]
    truth = [(w, {"": solve(nodes, u, {}), **{k: solve(nodes, u, d) for k, d in worlds.items()}})
             for u, w in grid]  # fmt: skip
    # evidence that is possible: taken from one cell, in fact and in world "a"
    _, seen = truth[data.draw(st.integers(0, len(truth) - 1))]
    evidence = {
        (f"{w}/" if w else "") + t.name: float(seen[w][t.name])
        for w in ("", "a")
        for t in nodes
        if t.name not in worlds.get(w, {}) and data.draw(st.integers(0, 2)) == 0
    }

    def agrees(row: dict[str, dict[str, int]]) -> bool:
        return all(
            row[key.rpartition("/")[0]][key.rpartition("/")[2]] == value
            for key, value in evidence.items()
        )

    total = sum(w for w, row in truth if agrees(row))
    assume(total > 0.02)
    posterior = cp.abduct(
        discrete_program(nodes), evidence, worlds=worlds, num_samples=1000, seed=0
    )()
    found = posterior.predict(worlds=worlds)
    for world in ("", "a", "b"):
        for table in nodes:
            draws = found.tensor(table.name, world or "factual")
            for k in range(table.size):
                p = sum(w for w, row in truth if agrees(row) and row[world][table.name] == k)
                assert_share(draws == k, min(p / total, 1.0))
