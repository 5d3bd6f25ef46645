"""Estimands against the truth in random finite models with latents, and hedges against their definition."""

from __future__ import annotations

import itertools
import random

import networkx as nx
import numpy as np
import pytest

from causalppl.errors import GraphError, QueryError, UnknownSiteError
from causalppl.graph import CausalGraph
from causalppl.graph.formula import Conditional, Product, Ratio, Sum

STANDARD = {
    # name: (arrows, latent, verdict on P(y | do(x)))
    "back door": ("z: x:z y:x,z", "", True),
    "front door": ("u: x:u m:x y:m,u", "u", True),
    "bow arc": ("u: x:u y:x,u", "u", False),
    "instrument": ("u: z: x:z,u y:x,u", "u", False),
    "M bias": ("u: v: m:u,v x:u y:x,v", "u v", True),
    "napkin": ("u: v: w:u,v z:w x:z,u y:x,v", "u v", True),
    "Verma": ("u: x: a:x b:a,u c:b y:c,u", "u", True),
    "confounded mediator": ("u: x:u m:x,u y:m", "u", False),
    "latent mediator": ("u: x:u m:x y:m", "m u", True),
    "two confounders of a chain": ("u: v: x:u m:x,v y:m,u,v", "u v", False),
}


def arrows(text: str) -> dict[str, list[str]]:
    pairs = (part.split(":") for part in text.split())
    return {node: [p for p in parents.split(",") if p] for node, parents in pairs}


def tables(parents: dict[str, list[str]], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {n: rng.uniform(0.05, 0.95, size=(2,) * len(p)) for n, p in parents.items()}


def joint(parents, law, do=()) -> np.ndarray:
    """P over all nodes, one axis each, in the order of ``parents``; nodes in ``do`` have weight 1 at every value."""
    names = list(parents)
    out = np.zeros((2,) * len(names))
    for values in itertools.product((0, 1), repeat=len(names)):
        at = dict(zip(names, values, strict=True))
        weight = 1.0
        for n in names:
            if n not in do:
                p = law[n][tuple(at[q] for q in parents[n])]
                weight *= p if at[n] else 1 - p
        out[values] = weight
    return out


def evaluate(formula, observed: dict, at: dict[str, int]) -> float:
    """A formula at the values ``at``, from the table of the observed distribution alone."""
    if isinstance(formula, Conditional):
        given = {n: at[n] for n in formula.given}
        both = given | {n: at[n] for n in formula.of}
        return mass(observed, both) / mass(observed, given)
    if isinstance(formula, Product):
        return float(np.prod([evaluate(f, observed, at) for f in formula.factors]))
    if isinstance(formula, Sum):
        return sum(
            evaluate(formula.body, observed, {**at, **dict(zip(formula.over, v, strict=True))})
            for v in itertools.product((0, 1), repeat=len(formula.over))
        )
    assert isinstance(formula, Ratio)
    return evaluate(formula.top, observed, at) / evaluate(formula.bottom, observed, at)


def mass(table: dict, at: dict[str, int]) -> float:
    return float(table["p"][tuple(at.get(n, slice(None)) for n in table["names"])].sum())


def check_estimand(parents, latent, y, x, z, estimand, rng) -> None:
    law = tables(parents, rng)
    names = list(parents)
    hidden = tuple(i for i, n in enumerate(names) if n in latent)
    seen = [n for n in names if n not in latent]
    observed = {"names": seen, "p": joint(parents, law).sum(axis=hidden)}
    truth = {"names": names, "p": joint(parents, law, do=x)}
    for values in itertools.product((0, 1), repeat=len(seen)):
        # values of sites outside the question must not matter
        at = dict(zip(seen, values, strict=True))
        asked = {n: at[n] for n in x | z}
        expected = mass(truth, asked | {n: at[n] for n in y}) / mass(truth, asked)
        assert evaluate(estimand, observed, at) == pytest.approx(expected, abs=1e-10)


def check_hedge(parents, latent, y, x, hedge) -> None:
    """The definition of Shpitser and Pearl (2006), on the latent projection made here from the definition."""
    observed = [n for n in parents if n not in latent]
    full = nx.DiGraph([(p, n) for n in parents for p in parents[n]])
    full.add_nodes_from(parents)

    def through(start: str) -> set[str]:
        return {
            v
            for v in observed
            if v != start and nx.has_path(full.subgraph({start, v} | set(latent)), start, v)
        }

    directed = nx.DiGraph([(u, v) for u in observed for v in through(u)])
    directed.add_nodes_from(observed)
    both = nx.Graph([pair for u in latent for pair in itertools.combinations(through(u), 2)])
    both.add_nodes_from(observed)
    assert hedge.inner < hedge.outer
    assert hedge.outer & x and not hedge.inner & x
    for forest in (hedge.inner, hedge.outer):
        assert nx.is_connected(both.subgraph(forest))
        inside = directed.subgraph(forest)
        for node in forest:  # a forest of arrows with these roots exists
            assert any(nx.has_path(inside, node, root) for root in hedge.roots)
    assert hedge.roots <= hedge.inner
    assert not any(directed.subgraph(hedge.inner).out_degree(r) for r in hedge.roots)
    cut = directed.copy()
    cut.remove_edges_from(list(directed.in_edges(x)))
    above = y.union(*(nx.ancestors(cut, n) for n in y))
    assert hedge.roots <= above


@pytest.mark.parametrize("name", STANDARD)
def test_standard_graphs(name: str) -> None:
    text, latent, verdict = STANDARD[name]
    parents = arrows(text)
    hidden = frozenset(latent.split())
    found = CausalGraph(parents, latent=hidden).identify("P(y | do(x))")
    assert found.identified is verdict
    if verdict:
        for seed in range(3):
            rng = np.random.default_rng(seed)
            check_estimand(parents, hidden, {"y"}, {"x"}, set(), found.estimand, rng)
    else:
        check_hedge(parents, hidden, {"y"}, {"x"}, found.hedge)


def random_case(seed: int):
    rng = random.Random(seed)
    nodes = [f"v{i}" for i in range(rng.choice([3, 4, 5]))]
    pairs = list(itertools.combinations(nodes, 2))
    parents: dict[str, list[str]] = {}
    confounded = [p for p in pairs if rng.random() < 0.35][:4]
    for i, _ in enumerate(confounded):
        parents[f"u{i}"] = []
    for n in nodes:
        parents[n] = [a for a, b in pairs if b == n and rng.random() < 0.5]
        parents[n] += [f"u{i}" for i, pair in enumerate(confounded) if n in pair]
    latent = frozenset(n for n in parents if n.startswith("u"))
    rest = rng.sample(nodes, len(nodes))
    x = set(rest[: rng.choice([1, 1, 2])])
    y = {rest[len(x)]}
    z = set(rest[len(x) + 1 :][: rng.choice([0, 0, 1])])
    return parents, latent, y, x, z


@pytest.mark.parametrize("block", range(6))
def test_random_graphs(block: int) -> None:
    verdicts = []
    for seed in range(40 * block, 40 * block + 40):
        parents, latent, y, x, z = random_case(seed)
        behind = ", ".join([f"do({', '.join(sorted(x))})", *sorted(z)])
        found = CausalGraph(parents, latent=latent).identify(f"P({', '.join(y)} | {behind})")
        verdicts.append(found.identified)
        if found.identified:
            rng = np.random.default_rng(seed)
            check_estimand(parents, latent, y, x, z, found.estimand, rng)
        elif not z:
            check_hedge(parents, latent, y, x, found.hedge)
    assert 5 < sum(verdicts) < 40


def test_a_function_without_noise_confounds_nothing() -> None:
    shared = {"z": [], "d": ["z"], "x": ["d"], "y": ["d", "x"]}
    as_function = CausalGraph(shared, deterministic=frozenset("d"))
    assert str(as_function.identify("P(y | do(x))").estimand) == "sum_{z'} P(z') P(y | z', x)"
    assert not CausalGraph(shared, latent=frozenset("d")).identify("P(y | do(x))").identified


def test_a_treatment_that_is_a_function_of_a_confounder_has_no_overlap() -> None:
    graph = CausalGraph({"s": [], "x": ["s"], "y": ["s", "x"]}, deterministic=frozenset("x"))
    found = graph.identify("P(y | do(x))")
    assert not found.identified and "x is a function" in found.why
    assert graph.backdoor_sets("x", "y") == []


def test_parameters_are_no_confounders() -> None:
    shared = {"mu": [], "x": ["mu"], "y": ["mu", "x"]}
    graph = CausalGraph(shared, latent=frozenset(["mu"]), parameters=frozenset(["mu"]))
    assert str(graph.identify("P(y | do(x))").estimand) == "P(y | x)"
    assert graph.backdoor_sets("x", "y") == [frozenset()]


@pytest.mark.parametrize(
    ("question", "error", "match"),
    [
        ("y given x", QueryError, "cannot read character 1"),
        ("P( | do(x))", QueryError, "cannot read character 4"),
        ("P(y, y[x=1] | do(x))", QueryError, "cannot read character 4"),
        ("P(yy | do(x))", UnknownSiteError, "did you mean 'y'"),
        ("P(y | do(y))", GraphError, "named twice"),
        ("P(y | do(u))", GraphError, "latent"),
    ],
)
def test_bad_questions(question: str, error: type[Exception], match: str) -> None:
    graph = CausalGraph(arrows("u: x:u y:x,u"), latent=frozenset("u"))
    with pytest.raises(error, match=match):
        graph.identify(question)


def test_factors_select() -> None:
    graph = CausalGraph({"x": [], "y": []}, selection={"f": ["x", "y"]})
    assert not graph.d_separated("x", "y")
    with pytest.raises(GraphError, match="factor 'f' selects"):
        graph.backdoor_sets("x", "y")
