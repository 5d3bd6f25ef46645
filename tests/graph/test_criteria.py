"""D-separation and the graphical criteria against enumeration of paths and of all subsets."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import networkx as nx
import pytest

from causalppl.errors import GraphError, UnknownSiteError
from causalppl.graph import CausalGraph


def closure(graph: nx.DiGraph, given: set[str], functions: set[str]) -> set[str]:
    found = set(given)
    for _ in graph:
        found |= {n for n in functions if set(graph.predecessors(n)) <= found}
    return found


def blocked(graph: nx.DiGraph, path: list[str], given: set[str], known: set[str]) -> bool:
    for before, node, after in zip(path, path[1:], path[2:], strict=False):
        collider = graph.has_edge(before, node) and graph.has_edge(after, node)
        if collider and not ({node} | nx.descendants(graph, node)) & given:
            return True
        if not collider and node in known:
            return True
    return False


def separated(
    graph: nx.DiGraph,
    a: Iterable[str],
    b: Iterable[str],
    given: Iterable[str],
    functions: Iterable[str] = (),
) -> bool:
    """By the definition: every path is blocked. What is determined is constant."""
    given = set(given)
    known = closure(graph, given, set(functions))
    skeleton = graph.to_undirected()
    return all(
        blocked(graph, path, given, known)
        for u in set(a) - known
        for v in set(b) - known
        for path in nx.all_simple_paths(skeleton, u, v)
    )


def random_graph(seed: int, size: int = 5) -> tuple[CausalGraph, nx.DiGraph, set[str]]:
    rng = random.Random(seed)
    names = [f"n{i}" for i in range(size)]
    parents = {n: [p for p in names[:i] if rng.random() < 0.45] for i, n in enumerate(names)}
    graph = nx.DiGraph([(p, n) for n in names for p in parents[n]])
    graph.add_nodes_from(names)
    functions = {n for n in names if parents[n] and rng.random() < 0.35}
    return CausalGraph(parents, deterministic=frozenset(functions)), graph, functions


def subsets(names: Iterable[str]) -> list[frozenset[str]]:
    names = sorted(names)
    return [frozenset(s) for k in range(len(names) + 1) for s in itertools.combinations(names, k)]


def minimal(sets: list[frozenset[str]]) -> set[frozenset[str]]:
    return {s for s in sets if not any(t < s for t in sets)}


def without(graph: nx.DiGraph, edges: Iterable[tuple[str, str]]) -> nx.DiGraph:
    cut = graph.copy()
    cut.remove_edges_from(list(edges))
    return cut


@pytest.mark.parametrize("plain", [True, False])
def test_separation_is_that_of_the_paths(plain: bool) -> None:
    for seed in range(40):
        graph, network, functions = random_graph(seed)
        if plain:
            graph, functions = CausalGraph(graph.arrows), set()
        for a, b in itertools.combinations(graph.nodes, 2):
            for given in subsets(set(graph.nodes) - {a, b}):
                expected = separated(network, {a}, {b}, given, functions)
                assert graph.d_separated(a, b, given) is expected, (seed, a, b, given)
                if plain:
                    assert nx.is_d_separator(network, {a}, {b}, set(given)) is expected


def with_latents(seed: int) -> tuple[CausalGraph, nx.DiGraph, set[str]]:
    graph, network, _ = random_graph(seed, 6)
    latent = set(random.Random(seed).sample(graph.nodes, 2))
    return CausalGraph(graph.arrows, latent=frozenset(latent)), network, set(graph.nodes) - latent


def test_criteria_against_all_subsets() -> None:
    counts = {"backdoor": 0, "frontdoor": 0, "instrument": 0}
    for seed in range(100):
        graph, network, observed = with_latents(seed)
        for x, y in itertools.permutations(sorted(observed), 2):
            rest = observed - {x, y}
            after = nx.descendants(network, x)
            no_out = without(network, network.out_edges(x))
            no_in = without(network, network.in_edges(x))
            sets = [z for z in subsets(rest - after) if separated(no_out, {x}, {y}, z)]
            found = graph.backdoor_sets(x, y)
            assert len(found) == len(set(found)) and set(found) == minimal(sets), (seed, x, y)
            counts["backdoor"] += len(found)

            directed = list(nx.all_simple_paths(network, x, y))
            sets = [
                m
                for m in subsets(rest)
                if all(set(path) & m for path in directed)
                and separated(no_out, {x}, m, ())
                and separated(without(network, network.out_edges(m)), m, {y}, {x})
            ]
            assert set(graph.frontdoor_sets(x, y)) == minimal(sets), (seed, x, y)
            counts["frontdoor"] += bool(directed and sets)

            expected = {}
            for z in rest - after:
                sets = [
                    w
                    for w in subsets(rest - after - {z})
                    if not separated(network, {z}, {x}, w) and separated(no_in, {z}, {y}, w)
                ]
                if sets:
                    expected[z] = minimal(sets)
            found_instruments = {z: set(w) for z, w in graph.instruments(x, y).items()}
            assert found_instruments == expected, (seed, x, y)
            counts["instrument"] += len(expected)
    assert min(counts.values()) > 10, counts


def test_do_cuts_the_arrows_into_a_node() -> None:
    graph = CausalGraph({"z": [], "x": ["z"], "y": ["x", "z"]}, latent=frozenset("xz"))
    done = graph.do("x")
    assert done.edges == (("z", "y"), ("x", "y")) and done.latent == {"z"}
    assert done.d_separated("x", "z") and not graph.d_separated("x", "z")
    assert graph.parents("y") == {"x", "z"}
    assert graph.ancestors("y") == {"x", "z"} and graph.descendants("z") == {"x", "y"}


def test_bad_input() -> None:
    with pytest.raises(GraphError, match="cycle"):
        CausalGraph({"a": ["b"], "b": ["a"]})
    with pytest.raises(UnknownSiteError, match="no node 'smoke'"):
        CausalGraph({"smoking": ["smoke"]})
    graph = CausalGraph({"smoking": [], "cancer": ["smoking"]})
    with pytest.raises(UnknownSiteError, match="did you mean 'smoking'"):
        graph.do("smokin")
    with pytest.raises(GraphError, match="two of the three"):
        graph.d_separated("smoking", "cancer", "cancer")
