"""The axioms of counterfactuals, on random programs, and the coupling of worlds against reference.py.

Composition: setting a site to the value it has changes nothing. Effectiveness: a site that is set has its value, and
what is not downstream stays. Reversibility: going there and back is staying. Each holds for *any* coupling of worlds,
a wrong one included, so every world is also compared, site by site, with an independently written coupling.
"""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import reference
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import causalppl as cp

pytestmark = pytest.mark.filterwarnings("ignore::causalppl.errors.ExecutorWarning")

CONTINUOUS = ("normal", "laplace", "exponential", "uniform", "half_normal", "log_normal", "weibull")
DISCRETE = ("bernoulli", "categorical")
OTHER = ("multivariate_normal", "delta", "deterministic")
EVENT = 3  # size of vector events
CATEGORIES = 4

# Quantile levels to place observations at: the middle, both 1e-6 tails, and beyond float32's probabilities.
LEVELS = (0.5, 0.3, 0.8, 1e-3, 1 - 1e-3, 1e-6, 1 - 1e-6)
FAR = 1e-12

checked = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@dataclasses.dataclass(frozen=True)
class Node:
    """One site: its family, whether it lives in the plate, whether it has a vector event, and its linear parents."""

    name: str
    family: str
    in_plate: bool
    vector: bool
    weights: tuple[tuple[str, float], ...]
    offset: float


@dataclasses.dataclass(frozen=True)
class Spec:
    """A random program: nodes in topological order, a plate size (0: no plate), a dtype, whether it breaks ``vmap``."""

    nodes: tuple[Node, ...]
    plate: int
    dtype: torch.dtype
    branches: bool = False

    def node(self, name: str) -> Node:
        return next(n for n in self.nodes if n.name == name)

    def descendants(self, name: str) -> set[str]:
        found = {name}
        for n in self.nodes:
            if any(parent in found for parent, _ in n.weights):
                found.add(n.name)
        return found - {name}


def family(node: Node, eta: torch.Tensor) -> Any:
    """The distribution of a node whose linear predictor is ``eta``: bounded, so that tails stay the drawn ones."""
    eta = 2 * torch.tanh(eta)
    positive = torch.exp(0.4 * eta)
    if node.vector and node.family != "multivariate_normal":
        steps = torch.arange(EVENT, dtype=eta.dtype)
        eta, positive = eta[..., None] + 0.1 * steps, positive[..., None] * (1 + 0.1 * steps)
    if node.family == "normal":
        fn = dist.Normal(eta, 0.5 * positive)
    elif node.family == "laplace":
        fn = dist.Laplace(eta, 0.5 * positive)
    elif node.family == "exponential":
        fn = dist.Exponential(positive)
    elif node.family == "uniform":
        fn = dist.Uniform(eta - positive, eta + 2 * positive)
    elif node.family == "half_normal":
        fn = dist.HalfNormal(positive)
    elif node.family == "log_normal":
        fn = dist.LogNormal(0.5 * eta, 0.4 * positive)
    elif node.family == "weibull":
        fn = dist.Weibull(positive, torch.full_like(positive, 1.5))
    elif node.family == "bernoulli":
        fn = dist.Bernoulli(logits=eta)
    elif node.family == "categorical":
        fn = dist.Categorical(
            logits=eta[..., None] * torch.linspace(-1, 1, CATEGORIES, dtype=eta.dtype)
        )
    elif node.family == "multivariate_normal":
        tril = torch.eye(EVENT, dtype=eta.dtype) + 0.3 * torch.ones(
            EVENT, EVENT, dtype=eta.dtype
        ).tril(-1)
        loc = eta[..., None] * torch.linspace(-1, 1, EVENT, dtype=eta.dtype)
        return dist.MultivariateNormal(loc, scale_tril=tril * positive[..., None, None])
    elif node.family == "delta":
        fn = dist.Delta(eta)
    else:
        raise KeyError(node.family)
    return fn.to_event(1) if node.vector else fn


def program(spec: Spec) -> Callable[[], dict[str, torch.Tensor]]:
    """The Pyro program of a spec. A parent with more dimensions than its child enters by its mean."""

    def value_of(node: Node, values: dict[str, torch.Tensor], parent: str) -> torch.Tensor:
        above, v = spec.node(parent), values[parent].to(spec.dtype)
        if above.vector:
            v = v.mean(-1)
        return v.mean(-1) if above.in_plate and not node.in_plate else v

    def visit(node: Node, values: dict[str, torch.Tensor]) -> None:
        eta = torch.tensor(node.offset, dtype=spec.dtype)
        for parent, weight in node.weights:
            eta = eta + weight * torch.tanh(value_of(node, values, parent))
        if node.family == "deterministic":
            values[node.name] = pyro.deterministic(node.name, torch.sin(eta) + eta)
        else:
            values[node.name] = pyro.sample(node.name, family(node, eta))
        if spec.branches and float(values[node.name].sum()) > 1e30:
            raise OverflowError(node.name)

    def model() -> dict[str, torch.Tensor]:
        values: dict[str, torch.Tensor] = {}
        for node in spec.nodes:
            if node.in_plate:
                with pyro.plate("units", spec.plate):
                    visit(node, values)
            else:
                visit(node, values)
        return values

    return model


@st.composite
def specs(draw: st.DrawFn, families: tuple[str, ...] = CONTINUOUS + DISCRETE + OTHER) -> Spec:
    count = draw(st.integers(2, 6))
    plate = draw(st.sampled_from([0, 3]))
    nodes: list[Node] = []
    for i in range(count):
        kind = draw(st.sampled_from(families))
        chosen = (
            draw(st.lists(st.sampled_from([n.name for n in nodes]), unique=True, max_size=3))
            if nodes
            else []
        )
        weight = st.sampled_from([-1.5, -0.7, 0.4, 1.0, 2.0])
        nodes.append(
            Node(
                name=f"v{i}",
                family=kind,
                in_plate=plate > 0 and draw(st.booleans()),
                vector=kind == "multivariate_normal"
                or (kind in (*CONTINUOUS, "bernoulli") and draw(st.integers(0, 3)) == 0),
                weights=tuple((p, draw(weight)) for p in chosen),
                offset=draw(st.sampled_from([-1.0, 0.0, 0.3, 1.0])),
            )
        )
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return Spec(tuple(nodes), plate, dtype)


def observe(spec: Spec, seed: int, levels: bool) -> dict[str, torch.Tensor]:
    """A factual record of every random site, with continuous values at chosen quantiles where ``levels``."""
    rng = np.random.default_rng(seed)
    record: dict[str, torch.Tensor] = {}
    model = program(dataclasses.replace(spec, branches=False))
    for node in spec.nodes:
        with torch.random.fork_rng():
            torch.manual_seed(int(rng.integers(2**31)))
            run = reference.run_at(model, (), record)
        fn = run.fns[node.name]
        if node.family in ("deterministic", "delta"):
            continue
        with torch.random.fork_rng():
            torch.manual_seed(int(rng.integers(2**31)))
            value = fn.sample()
        if levels and node.family in CONTINUOUS:
            level = rng.choice([*LEVELS, FAR], size=tuple(value.shape))
            upper = rng.random(tuple(value.shape)) < 0.5
            law = reference.frozen(fn)
            v = np.where(upper, law.isf(level), law.ppf(level))
            if node.family == "uniform":  # the support is half open, and rounding must not leave it
                base = reference.unwrap(fn)
                low, high = base.low, base.high
                value = torch.minimum(
                    torch.maximum(torch.as_tensor(v).to(low), low), torch.nextafter(high, low)
                )
            else:
                value = torch.as_tensor(v).to(value.dtype)
        record[node.name] = value
    return record


def row(worlds: Any, world: str, draw: int, spec: Spec) -> dict[str, torch.Tensor]:
    return {n.name: worlds.tensor(n.name, world=world)[draw] for n in spec.nodes}


def magnitude(spec: Spec, values: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """What a relative error of a value is relative to: the value, and the location it is a difference from."""
    fn = reference.unwrap(reference.run_at(program(spec), (), values).fns[name])
    size = values[name].double().abs()
    for attribute in ("loc", "low", "high", "scale"):
        if hasattr(fn, attribute) and spec.node(name).family != "log_normal":
            size = size + torch.as_tensor(getattr(fn, attribute)).double().abs()
    return size


def same(
    spec: Spec,
    here: dict[str, torch.Tensor],
    there: dict[str, torch.Tensor],
    besides: Collection[str] = (),
) -> None:
    """Discrete sites exactly equal; continuous ones to 1e-5 relative in float32 (1e-9 in float64)."""
    tolerance = 1e-5 if spec.dtype == torch.float32 else 1e-9
    for node in spec.nodes:
        if node.name in besides:
            continue
        a, b = here[node.name], there[node.name]
        if node.family in DISCRETE:
            assert torch.equal(a, b), (node.name, a, b)
            continue
        assert bool(torch.isfinite(b).all()), (node.name, a, b)
        off = (a.double() - b.double()).abs()
        # Sites below carry what rounding their parents had: 1e-5 of a parent may be more of them.
        bound = tolerance * (magnitude(spec, here, node.name) + 1e-2 * bool(node.weights))
        assert bool((off <= bound).all()), (node.name, node.family, a, b)


def full(spec: Spec, record: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The record with its deterministic sites filled in."""
    run = reference.run_at(program(spec), (), record)
    values = dict(record)
    for node in spec.nodes:
        if node.name not in values:
            natural = run.natural[node.name]
            values[node.name] = (
                natural if natural is not None else reference.unwrap(run.fns[node.name]).v
            )
    return values


@checked
@given(spec=specs(), seed=st.integers(0, 10_000), data=st.data())
def test_composition(spec: Spec, seed: int, data: st.DataObject) -> None:
    """Setting any site to the value it has changes nothing anywhere, in any draw."""
    record = observe(spec, seed, levels=data.draw(st.booleans(), label="tails"))
    values = full(spec, record)
    posterior = cp.abduct(program(spec), evidence=record, num_samples=5, seed=seed)()
    targets = {f"null {n.name}": {n.name: values[n.name]} for n in spec.nodes}
    targets["null all"] = {n.name: values[n.name] for n in spec.nodes}
    worlds = posterior.predict(worlds={**targets, "nothing": {}})
    for draw in range(len(worlds.tensor("v0", world="factual"))):
        factual = row(worlds, "factual", draw, spec)
        for name, v in record.items():
            assert torch.equal(factual[name], v), name
        for world in (*targets, "nothing"):
            same(spec, factual, row(worlds, world, draw, spec))


@checked
@given(spec=specs(), seed=st.integers(0, 10_000), data=st.data())
def test_effectiveness_and_coupling(spec: Spec, seed: int, data: st.DataObject) -> None:
    """A set site has its value, nothing that is not downstream moves, and the rest moves as reference.py says."""
    record = observe(spec, seed, levels=False)
    target = data.draw(st.sampled_from([n.name for n in spec.nodes]), label="target")
    another = observe(spec, seed + 1, levels=False)
    value = full(spec, another)[target]
    model = program(spec)
    worlds = cp.counterfactual(model, {target: value}, record, num_samples=3, seed=seed)()
    below = spec.descendants(target)
    rtol = 2e-5 if spec.dtype == torch.float32 else 1e-8
    for draw in range(len(worlds.tensor("v0", world="factual"))):
        here = row(worlds, "factual", draw, spec)
        there = row(worlds, "counterfactual", draw, spec)
        assert torch.equal(there[target], value.to(there[target].dtype))
        same(spec, here, there, besides={target, *below})
        reference.check_row(model, (), here, there, {target}, rtol=rtol)


@checked
@given(spec=specs(CONTINUOUS + OTHER), seed=st.integers(0, 10_000), data=st.data())
def test_reversibility(spec: Spec, seed: int, data: st.DataObject) -> None:
    """Go to another world, take its record as the facts, set the site back: the first record returns."""
    settable = [n.name for n in spec.nodes if n.family not in ("delta", "deterministic")]
    assume(settable)
    record = observe(spec, seed, levels=False)
    target = data.draw(st.sampled_from(settable), label="target")
    moved = observe(spec, seed + 1, levels=False)[target]
    run = reference.run_at(program(spec), (), record)
    support = run.fns[target].support.check(moved)
    assume(bool(torch.as_tensor(support).all()))
    model = program(spec)
    there = cp.counterfactual(model, {target: moved}, record, seed=seed)()
    facts = {name: there.tensor(name, world="counterfactual")[0] for name in record}
    back = cp.counterfactual(model, {target: record[target]}, facts, seed=seed)()
    tolerance = {torch.float32: 2e-4, torch.float64: 1e-8}[spec.dtype]
    for name, v in record.items():
        torch.testing.assert_close(
            back.tensor(name, world="counterfactual")[0], v, rtol=tolerance, atol=tolerance
        )


@checked
@given(spec=specs(CONTINUOUS + OTHER), seed=st.integers(0, 10_000), data=st.data())
def test_composition_in_another_world(spec: Spec, seed: int, data: st.DataObject) -> None:
    """If m has the value m_x in the world do(x), then do(x, m = m_x) is that world."""
    names = [n.name for n in spec.nodes]
    x = data.draw(st.sampled_from(names), label="x")
    record = observe(spec, seed, levels=False)
    value = full(spec, observe(spec, seed + 1, levels=False))[x]
    posterior = cp.abduct(program(spec), evidence=record, seed=seed)()
    first = posterior.predict({x: value})
    m = data.draw(st.sampled_from([n for n in names if n != x]), label="m")
    second = posterior.predict({x: value, m: first.tensor(m, world="counterfactual")[0]})
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-9}[spec.dtype]
    for name in names:
        torch.testing.assert_close(
            second.tensor(name, world="counterfactual"),
            first.tensor(name, world="counterfactual"),
            rtol=tolerance,
            atol=tolerance,
        )


@checked
@given(spec=specs(), seed=st.integers(0, 10_000), data=st.data())
def test_worlds_together_are_worlds_apart_and_vmap_is_sequential(
    spec: Spec, seed: int, data: st.DataObject
) -> None:
    """The same noise, whether worlds are asked together or one by one, batched or row by row."""
    record = observe(spec, seed, levels=False)
    seen = {k: v for k, v in record.items() if data.draw(st.booleans(), label=f"see {k}")}
    seen = seen if not seen or len(seen) == len(record) else record
    names = [n.name for n in spec.nodes]
    one, two = (data.draw(st.sampled_from(names)) for _ in range(2))
    values = full(spec, observe(spec, seed + 1, levels=False))
    asked = {
        "one": {one: values[one]},
        "two": {two: values[two]},
        "both": {one: values[one], two: values[two]},
    }

    def ask(spec: Spec, worlds: dict[str, Any]) -> Any:
        return cp.abduct(program(spec), evidence=seen, num_samples=4, seed=seed)().predict(
            worlds=worlds
        )

    together = ask(spec, asked)
    slow = ask(dataclasses.replace(spec, branches=True), asked)
    assert slow.diagnostics.executor == "sequential"
    for world, interventions in asked.items():
        apart = ask(spec, {world: interventions})
        for name in names:
            a = together.tensor(name, world=world)
            torch.testing.assert_close(apart.tensor(name, world=world), a, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(slow.tensor(name, world=world), a, rtol=1e-5, atol=1e-6)
            if spec.node(name).family in DISCRETE:
                assert torch.equal(apart.tensor(name, world=world), a)
                assert torch.equal(slow.tensor(name, world=world), a)


# --- Named families, one edge each --------------------------------------------------------------

EDGES: dict[str, Callable[[torch.Tensor], Any]] = {
    "normal": lambda x: dist.Normal(x, torch.exp(0.5 * x)),
    "laplace": lambda x: dist.Laplace(x, torch.exp(0.5 * x)),
    "cauchy": lambda x: dist.Cauchy(x, torch.exp(0.5 * x)),
    "gumbel": lambda x: dist.Gumbel(x, torch.exp(0.5 * x)),
    "logistic": lambda x: dist.Logistic(x, torch.exp(0.5 * x)),
    "exponential": lambda x: dist.Exponential(torch.exp(x)),
    "uniform": lambda x: dist.Uniform(x, x + torch.exp(x)),
    "half_normal": lambda x: dist.HalfNormal(torch.exp(x)),
    "log_normal": lambda x: dist.LogNormal(x, torch.exp(0.5 * x)),
    "weibull": lambda x: dist.Weibull(torch.exp(x), 1.5 + 0.5 * x**2),
}

LOCATED = ("normal", "laplace", "cauchy", "gumbel", "logistic", "uniform")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", EDGES)
def test_one_edge_against_scipy(name: str, dtype: torch.dtype) -> None:
    """v' = F'^-1(F(v)) over both tails, and back at itself under do(x = its own value)."""
    make = EDGES[name]
    levels = torch.tensor([1e-6, 1e-4, 0.01, 0.3, 0.5, 0.9])
    x0, x1 = torch.tensor(0.2, dtype=dtype), torch.tensor(-0.9, dtype=dtype)
    law = reference.frozen(make(x0))
    v = torch.as_tensor(np.concatenate([law.ppf(levels), law.isf(levels)])).to(dtype)
    if name == "uniform":
        v = torch.minimum(torch.maximum(v, x0), torch.nextafter(x0 + torch.exp(x0), x0))

    def model() -> None:
        x = pyro.sample("x", dist.Normal(torch.zeros((), dtype=dtype), 1.0))
        with pyro.plate("units", len(v)):
            pyro.sample("y", make(x))

    posterior = cp.abduct(model, evidence={"x": x0, "y": v}, seed=0)()
    worlds = posterior.predict(worlds={"there": {"x": x1}, "here": {"x": x0}})
    got = worlds.tensor("y", world="there")[0]
    assert got.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    expected = reference.coupled(make(x0), make(x1), v)
    # Next to an end of a Uniform, and near 0 on the line, a quantile is only known to the rounding of the location.
    floor = tolerance if name in LOCATED else 0.0
    np.testing.assert_allclose(got.numpy(), expected, rtol=tolerance, atol=floor)
    torch.testing.assert_close(worlds.tensor("y", world="here")[0], v, rtol=tolerance, atol=floor)


@pytest.mark.parametrize(
    ("fn", "value"),
    [
        (dist.Normal(0.0, 1.0), 40.0),
        (dist.Cauchy(0.0, 1.0), 1e12),
        (dist.Laplace(0.0, 1.0), -80.0),
        (dist.Exponential(1.0), 18.0),
        (dist.Exponential(1.0), 100.0),
        (dist.Exponential(1.0), 1e-20),
        (dist.HalfNormal(1.0), 5.6),
        (dist.HalfNormal(1.0), 12.0),
        (dist.HalfNormal(1.0), 1e-20),
        (dist.Weibull(1.0, 1.5), 20.0),
        (dist.LogNormal(0.0, 1.0), 1e9),
        (dist.Uniform(0.0, 1.0), 1e-9),
    ],
)
def test_extreme_observations_survive_a_null_intervention(fn: Any, value: float) -> None:
    """A float32 probability of these is 0 or 1; the site's own value must come back all the same."""

    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", type(fn)(*_moved(fn, 0.0 * x)))

    worlds = cp.counterfactual(model, {"x": 3.0}, {"x": 0.5, "y": value})()
    got = float(worlds.tensor("y", world="counterfactual"))
    assert got == pytest.approx(value, rel=1e-5)


def _moved(fn: Any, zero: torch.Tensor) -> list[torch.Tensor]:
    """The distribution's own parameters, made to depend on a parent that does not change them."""
    names = {
        "Weibull": ("scale", "concentration"),
        "Exponential": ("rate",),
        "HalfNormal": ("scale",),
        "Uniform": ("low", "high"),
    }
    return [getattr(fn, n) + zero for n in names.get(type(fn).__name__, ("loc", "scale"))]


def test_multivariate_normal_keeps_its_triangular_noise() -> None:
    tril0 = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    tril1 = torch.tensor([[2.0, 0.0], [-1.0, 0.5]])

    def model() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        loc = torch.stack([x, -x], -1)
        pyro.sample("y", dist.MultivariateNormal(loc, scale_tril=tril0 + x * (tril1 - tril0)))

    y = torch.tensor([0.3, -1.2])
    worlds = cp.counterfactual(model, {"x": 1.0}, {"x": 0.0, "y": y})()
    expected = torch.tensor([1.0, -1.0]) + tril1 @ torch.linalg.solve(tril0, y)
    torch.testing.assert_close(
        worlds.tensor("y", world="counterfactual")[0], expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["masked", "expanded", "independent", "affine", "exp"])
def test_wrappers_and_transforms(kind: str) -> None:
    """Each is its base, moved: the answer is that of the base's residual."""
    from torch.distributions.transforms import AffineTransform, ExpTransform

    def model() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        base = dist.Normal(x, 1.0 + x)
        if kind == "masked":
            fn = (
                dist.Normal(x.expand(3), 1.0 + x)
                .mask(torch.tensor([True, False, True]))
                .to_event(1)
            )
        elif kind == "expanded":
            fn = base.expand([3]).to_event(1)
        elif kind == "independent":
            fn = dist.Normal(x + torch.zeros(3), 1.0 + x).to_event(1)
        elif kind == "affine":
            fn = dist.TransformedDistribution(
                base.expand([3]), [AffineTransform(1.0, 1.0 + x)]
            ).to_event(1)
        else:
            fn = dist.TransformedDistribution(base.expand([3]), [ExpTransform()]).to_event(1)
        pyro.sample("y", fn)

    y = torch.tensor([0.2, 1.5, 3.0])
    worlds = cp.counterfactual(model, {"x": 1.0}, {"x": 0.0, "y": y})()
    got = worlds.tensor("y", world="counterfactual")[0]
    residual = {"affine": y - 1.0, "exp": y.log()}.get(kind, y)
    moved = 1.0 + 2.0 * residual
    expected = {"affine": 1.0 + 2.0 * moved, "exp": moved.exp()}.get(kind, moved)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


# --- Seeds --------------------------------------------------------------------------------------


def mixed() -> None:
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    c = pyro.sample("c", dist.Categorical(logits=torch.stack([x, -x, 0 * x], -1)))
    pyro.sample("y", dist.Bernoulli(logits=x + c))


def test_a_seed_reproduces_and_leaves_the_callers_generators_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    runs = [
        cp.counterfactual(mixed, {"x": 1.0}, {"y": 1.0}, num_samples=50, seed=seed)()
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    for site in "xcy":
        for world in ("factual", "counterfactual"):
            a, b, _ = (r.tensor(site, world=world) for r in runs)
            assert torch.equal(a, b)
    assert not torch.equal(*(r.tensor("x", world="factual") for r in runs[1:]))


def test_the_global_seed_reproduces_too() -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(
            cp.counterfactual(mixed, {"x": 1.0}, num_samples=20)().tensor("c", world="factual")
        )
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_predict_is_a_function_of_the_posterior() -> None:
    """Asking twice, or asking something else between, gives the same noise."""
    posterior = cp.abduct(mixed, evidence={"y": 1.0}, num_samples=40, seed=0)()
    first = posterior.predict({"x": -1.0})
    posterior.predict({"c": 2})
    again = posterior.predict(worlds={"a": {"x": -1.0}, "b": {"x": 1.0}})
    for site in "xcy":
        assert torch.equal(
            first.tensor(site, world="counterfactual"), again.tensor(site, world="a")
        )
        assert torch.equal(first.tensor(site, world="factual"), again.tensor(site, world="factual"))


def test_noise_is_keyed_by_name_not_by_order() -> None:
    """A site that another world does not reach does not shift the noise of the sites after it."""

    def model() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        if x > 0:
            pyro.sample("extra", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(0.0, 1.0))

    worlds = cp.abduct(model, num_samples=30, seed=0)().predict(
        worlds={"on": {"x": 1.0}, "off": {"x": 0.0}}
    )
    y = worlds.tensor("y", world="factual")
    assert torch.equal(worlds.tensor("y", world="on"), y)
    assert torch.equal(worlds.tensor("y", world="off"), y)
    assert bool(worlds.tensor("extra", world="off").isnan().all())
    on, here = worlds.tensor("extra", world="on"), worlds.tensor("extra", world="factual")
    assert bool(on.isfinite().all())
    seen = here.isfinite()
    assert torch.equal(on[seen], here[seen])
    # What the factual world lacks is drawn once, by its law, for all worlds that have it.
    assert float(on[~seen].std()) > 0.3 and len(set(on.tolist())) == 30


def test_sites_of_equal_law_have_noises_of_their_own() -> None:
    def model() -> None:
        with pyro.plate("units", 2000):
            for name in "abc":
                pyro.sample(name, dist.Normal(0.0, 1.0))

    worlds = cp.abduct(model, num_samples=2, seed=0)().predict()
    rows = torch.cat([worlds.tensor(name, world="factual") for name in "abc"])
    correlation = torch.corrcoef(rows.double()) - torch.eye(6)
    assert float(correlation.abs().max()) < 5 / math.sqrt(2000)


def test_a_new_site_does_not_move_the_noise_of_the_others() -> None:
    def model(extra: bool) -> None:
        if extra:
            pyro.sample("extra", dist.Normal(0.0, 1.0))
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("k", dist.Categorical(logits=torch.stack([x, -x], -1)))

    posterior = cp.abduct(model, num_samples=30, seed=0)
    with_it, without = (posterior(extra).predict() for extra in (True, False))
    for site in "xk":
        assert torch.equal(
            with_it.tensor(site, world="factual"), without.tensor(site, world="factual")
        )


def test_a_seed_means_the_same_in_another_process() -> None:
    """Python's own hash of a string differs between processes; noise keyed by it would too."""
    code = (
        "import pyro, pyro.distributions as dist, causalppl as cp\n"
        "def model(): pyro.sample('k', dist.Categorical(logits=pyro.sample('x', dist.Normal(0., 1.).expand([3]).to_event(1))))\n"
        "w = cp.abduct(model, num_samples=5, seed=7)().predict({'x': 0.})\n"
        "print([w.tensor(s, world=v).tolist() for s in 'xk' for v in ('factual', 'counterfactual')])"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] and "[" in said[0]


# --- Random binary models against enumeration of noise cells ------------------------------------


@settings(checked, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_random_binary_models_against_noise_cells(seed: int) -> None:
    """P(any node of another world | evidence on some nodes) for monotone Bernoulli mechanisms, by cutting each node's uniform
    noise at its own probabilities: no sampling and no inference on the reference's side."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 5))
    parents = [[j for j in range(i) if rng.random() < 0.7] for i in range(count)]
    sure = rng.random() < 0.3  # tables with zeros and ones
    tables = [
        rng.choice([0.0, 0.3, 1.0], 2 ** len(p))
        if sure and p
        else rng.uniform(0.1, 0.9, 2 ** len(p))
        for p in parents
    ]

    def code(i: int, values: Any) -> Any:
        return sum(values[j] * 2**k for k, j in enumerate(parents[i]))

    def model() -> None:
        values: list[torch.Tensor] = []
        for i in range(count):
            index = torch.as_tensor(code(i, values)).long()
            probs = torch.tensor(tables[i], dtype=torch.float32)[index]
            values.append(pyro.sample(f"v{i}", dist.Bernoulli(probs)))

    def evaluate(noise: dict[str, float], do: dict[int, float]) -> list[float]:
        values: list[float] = []
        for i in range(count):
            natural = float(noise[f"u{i}"] < np.float32(tables[i][int(code(i, values))]))
            values.append(do.get(i, natural))
        return values

    laws = {
        f"u{i}": reference.uniform_cells([float(np.float32(t)) for t in tables[i]])
        for i in range(count)
    }
    facts = evaluate({f"u{i}": rng.random() for i in range(count)}, {})  # evidence that can happen
    seen = {i: facts[i] for i in range(count) if rng.random() < 0.6}
    target = int(rng.integers(count))
    do = {target: float(rng.integers(2))}

    n = 4000
    worlds = cp.counterfactual(
        model,
        {f"v{i}": v for i, v in do.items()},
        {f"v{i}": v for i, v in seen.items()},
        num_samples=n,
        seed=seed,
    )()

    def agrees(noise: dict[str, float]) -> bool:
        values = evaluate(noise, {})
        return all(values[i] == v for i, v in seen.items())

    for i in range(count):
        expected = reference.conditional(laws, lambda u, i=i: evaluate(u, do)[i], agrees)
        got = float(worlds.tensor(f"v{i}", world="counterfactual").double().mean())
        margin = 4.5 * math.sqrt(expected * (1 - expected) / n) + 1e-9
        assert got == pytest.approx(expected, abs=margin), (i, parents, tables, seen, do)
        both = reference.conditional(
            laws, lambda u, i=i: evaluate(u, do)[i] * evaluate(u, {})[i], agrees
        )
        joint = worlds.tensor(f"v{i}", world="counterfactual") * worlds.tensor(
            f"v{i}", world="factual"
        )
        margin = 4.5 * math.sqrt(both * (1 - both) / n) + 1e-9
        assert float(joint.double().mean()) == pytest.approx(both, abs=margin)


# --- Random linear Gaussian models with latents against matrix algebra --------------------------


@pytest.mark.parametrize("seed", [0, 1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_random_linear_models_with_latents_against_algebra(seed: int) -> None:
    """v = B v + e: noise given evidence is normal, and the other world is a linear map of it."""
    rng = np.random.default_rng(seed)
    d, units = 5, 4
    b = np.tril(rng.normal(size=(d, d)), -1).astype(np.float32).astype(float)
    sd = rng.uniform(0.5, 1.5, d).astype(np.float32).astype(float)
    seen = sorted(rng.choice(d, 3, replace=False).tolist())
    target = int(rng.integers(d - 1))
    forward = np.linalg.inv(np.eye(d) - b)
    facts = (forward @ (sd[:, None] * rng.normal(size=(d, units)))).astype(np.float32)

    def model() -> None:
        values: list[torch.Tensor] = []
        with pyro.plate("units", units):
            for i in range(d):
                loc = sum((float(b[i, j]) * values[j] for j in range(i)), torch.zeros(units))
                values.append(pyro.sample(f"v{i}", dist.Normal(loc, float(sd[i]))))

    # e given the seen rows of v = forward e
    rows = forward[seen]
    cov = np.diag(sd**2)
    gain = cov @ rows.T @ np.linalg.inv(rows @ cov @ rows.T)
    mean, left = gain @ facts[seen], cov - gain @ rows @ cov
    cut = b.copy()
    cut[target] = 0
    there = np.linalg.inv(np.eye(d) - cut)
    free = there @ np.diag(np.arange(d) != target)
    expected = free @ mean + 1.5 * there[:, [target]]
    spread = np.sqrt(np.maximum(np.diag(free @ left @ free.T), 0))

    n = 3000
    evidence = {f"v{i}": torch.tensor(facts[i]) for i in seen}
    worlds = cp.counterfactual(model, {f"v{target}": 1.5}, evidence, num_samples=n, seed=seed)()
    for i in range(d):
        got = worlds.tensor(f"v{i}", world="counterfactual").double().numpy()
        np.testing.assert_allclose(got.mean(0), expected[i], atol=0.13 * spread[i] + 1e-4)
        np.testing.assert_allclose(got.std(0), spread[i], atol=0.13 * spread[i] + 1e-4)
