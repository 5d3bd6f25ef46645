"""Graphs read off programs: kinds of sites, parameters, control flow, and bad input."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp
from causalppl.errors import GraphWarning, UnknownSiteError


def hierarchy(observe: bool = True) -> None:
    data = torch.zeros(5) if observe else None
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    scale = pyro.deterministic("scale", mu.exp())
    with pyro.plate("units", 5):
        z = pyro.sample("z", dist.Normal(mu, scale))
        x = pyro.sample("x", dist.Normal(z, scale), obs=data)
        m = pyro.deterministic("m", x**2)
        pyro.sample("y", dist.Normal(m + mu, 1.0), obs=data)


def test_a_hierarchy() -> None:
    graph = cp.causal_graph(hierarchy)()
    assert graph.nodes == ("mu", "scale", "z", "x", "m", "y")
    assert set(graph.edges) == {
        ("mu", "scale"), ("mu", "z"), ("scale", "z"), ("z", "x"), ("scale", "x"), ("x", "m"),
        ("m", "y"), ("mu", "y"),
    }  # fmt: skip
    assert graph.latent == {"mu", "scale", "z"} and graph.parameters == {"mu"}
    assert graph.deterministic == {"scale", "m"}
    # neither the shared mu nor z, which reaches y through x only, confounds x and y
    assert str(graph.identify("P(y | do(x))").estimand) == "P(y | x)"
    assert graph.backdoor_sets("x", "y") == [frozenset()]
    assert not graph.d_separated("x", "y", "m") and graph.d_separated("x", "y", ["m", "mu"])


def test_the_observed_sites_can_be_named() -> None:
    graph = cp.causal_graph(hierarchy, observed=["x", "y"])(observe=False)
    assert graph.latent == {"mu", "scale", "z"} and graph.parameters == {"mu"}
    with pytest.raises(UnknownSiteError, match=r"no site.*did you mean 'scale'"):
        cp.causal_graph(hierarchy, observed="scal")()


def test_a_site_with_obs_mask_is_one_node() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        mask = torch.tensor([True, False])
        with pyro.plate("two", 2):
            y = pyro.sample("y", dist.Normal(x, 1.0), obs=torch.zeros(2), obs_mask=mask)
            pyro.sample("w", dist.Normal(y, 1.0))

    graph = cp.causal_graph(model)()
    assert graph.edges == (("x", "y"), ("y", "w")) and "y" not in graph.latent


def test_factors_are_no_nodes_but_select() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        y = pyro.sample("y", dist.Normal(0.0, 1.0))
        pyro.factor("f", x * y)

    graph = cp.causal_graph(model)()
    assert graph.nodes == ("x", "y") and not graph.d_separated("x", "y")


def test_control_flow_warns() -> None:
    def model() -> None:
        k = pyro.sample("k", dist.Bernoulli(0.5))
        loc = 1.0 if k > 0 else 0.0
        pyro.sample("y", dist.Normal(loc, 1.0))

    with pytest.warns(GraphWarning, match="Python saw the values of 'k'"):
        graph = cp.causal_graph(model)()
    assert graph.hidden == {"k"} and graph.edges == (("k", "y"),)


def test_reading_a_graph_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    cp.causal_graph(hierarchy)()
    assert torch.equal(before, torch.get_rng_state())


def test_a_delta_is_a_function() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        d = pyro.sample("d", dist.Delta(x**2))
        pyro.sample("y", dist.Normal(d, 1.0))

    graph = cp.causal_graph(model, observed=["x", "y"])()
    assert graph.deterministic == {"d"} and graph.latent == frozenset()
    assert graph.d_separated("d", "y", "x")  # constant given x
