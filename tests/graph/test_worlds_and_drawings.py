"""Twin networks against the back-door criterion, graphs of the zoo against perturbation, drawings."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from test_criteria import random_graph, separated, subsets, without

import causalppl as cp
from causalppl.errors import GraphError
from causalppl.graph import CausalGraph


def test_a_twin_knows_ignorability() -> None:
    """y[x] and x are independent given non-descendants z of x just where z blocks all back-door paths."""
    verdicts = set()
    for seed in range(30):
        arrows, network, _ = random_graph(seed)
        graph = CausalGraph(arrows.arrows)
        for x, y in itertools.permutations(graph.nodes, 2):
            if y not in graph.descendants(x):
                continue
            twin = graph.twin({x: 1.0})
            no_out = without(network, network.out_edges(x))
            for z in subsets(set(graph.nodes) - {x, y} - graph.descendants(x)):
                expected = separated(no_out, {x}, {y}, z)
                verdicts.add(expected)
                assert twin.d_separated(x, f"counterfactual/{y}", z) is expected, (seed, x, y, z)
    assert verdicts == {True, False}


def test_a_twin_shares_what_does_not_change() -> None:
    twin = CausalGraph({"z": [], "x": ["z"], "y": ["x", "z"]}).twin(["x"])
    assert set(twin.nodes) == {"z", "x", "noise/y", "y", "counterfactual/x", "counterfactual/y"}
    assert twin.parents("counterfactual/y") == {"counterfactual/x", "z", "noise/y"}
    assert twin.intervened == {"counterfactual/x"} and "noise/y" in twin.latent
    two = CausalGraph({"x": [], "y": ["x"]}).twin({"a": {"x": 0.0}, "b": {"x": 1.0}})
    assert not two.d_separated("a/y", "b/y") and two.d_separated("a/y", "b/y", "noise/y")


def plated() -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("units", 3):
        x = pyro.sample("x", dist.Normal(mu, 1.0), obs=torch.zeros(3))
        m = pyro.deterministic("m", x**2)
        pyro.sample('y "quoted"', dist.Normal(m, 1.0), obs=torch.zeros(3))


def test_a_drawing_is_dot() -> None:
    source = cp.causal_graph(plated)().render().source
    assert "n0 [label=mu style=dashed]" in source
    assert "n1 [label=x fillcolor=lightgrey style=filled]" in source
    assert "shape=box" in source and "n1 -> n2" in source and "label=units" in source
    assert r"y \"quoted\"" in source
    assert source.index("subgraph") < source.index("n1 [") and source.index("n0 [") < source.index(
        "subgraph"
    )
    assert "peripheries=2" in cp.causal_graph(cp.do(plated, {"x": 1.0}))().render().source
    assert "peripheries=2" in CausalGraph({"x": [], "y": ["x"]}).do("x").render().source


@pytest.mark.skipif(shutil.which("dot") is not None, reason="dot is installed")
def test_without_dot_the_error_says_what_to_install() -> None:
    with pytest.raises(GraphError, match="apt-get install graphviz"):
        CausalGraph({"x": []}).render().svg()


def test_a_check_compares_with_the_program() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x * 2 + 0 * z, 1.0))

    graph = cp.causal_graph(model)()
    assert set(graph.edges) == {("x", "y"), ("z", "y")} and graph.check().arrows == {("x", "y")}
    with pytest.raises(GraphError, match="x -> y"):
        replace(graph, arrows={"x": [], "z": [], "y": []}).check()
    with pytest.raises(GraphError, match="read off a program"):
        CausalGraph({"x": []}).check()


@pytest.mark.filterwarnings("ignore::causalppl.errors.GraphWarning")
def test_a_check_sees_sites_of_other_branches() -> None:
    def model() -> None:
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("high" if k > 0 else "low", dist.Normal(0.0, 1.0))

    graph = cp.causal_graph(model)()
    assert set(graph.nodes) | graph.check(moves=12).new_sites == {"k", "high", "low"}
