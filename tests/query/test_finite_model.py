"""Finite programs as tables: what is read off a program, and which programs are none."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp
from causalppl.query.finite import FiniteModel, NotFinite
from causalppl.structural import StructuralForm


def read(model, *args):
    return FiniteModel(StructuralForm(model, args, {}, None, 0))


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_tables_of_a_program():
    def model():
        x = pyro.sample("x", dist.Categorical(double(0.2, 0.3, 0.5)))
        d = pyro.deterministic("d", (x > 0).double())
        z = pyro.sample("z", dist.Bernoulli(0.5 + 0 * d))
        return pyro.sample("y", dist.Binomial(2, double(0.1, 0.6)[d.long()] * z))

    finite = read(model)
    assert finite.nodes == ("x", "d", "z", "y")
    assert finite.supports == {"x": (0, 1, 2), "z": (0, 1), "y": (0, 1, 2)}
    assert finite.parents == {"x": (), "d": ("x",), "z": ("d",), "y": ("d", "z")}
    assert finite.effective_parents("z") == ()  # tracked, and of no effect
    assert finite.effective_parents("y") == ("d", "z")
    assert finite.values_of("d") == (0.0, 1.0)
    assert finite.conditional("d", {"x": 2.0}) == 1.0
    law = finite.conditional("y", {"d": 1.0, "z": 1.0})
    assert law.probabilities == pytest.approx((0.16, 0.48, 0.36), abs=1e-12)
    assert finite.conditional("y", {"d": 0.0, "z": 0.0}).probabilities == (1.0, 0.0, 0.0)
    # equal laws are one object
    assert finite.conditional("z", {"d": 0.0}) is finite.conditional("z", {"d": 1.0})


def test_float32_probabilities_are_taken_as_they_are():
    def model():
        return pyro.sample("x", dist.Categorical(torch.tensor([0.1, 0.2, 0.7])))

    law = read(model).conditional("x", {})
    given = torch.tensor([0.1, 0.2, 0.7]).double()
    assert law.probabilities == pytest.approx((given / given.sum()).tolist(), abs=1e-7)
    assert sum(law.probabilities) == pytest.approx(1.0, abs=1e-15)


def test_python_that_sees_values_is_tabulated_with_the_parents_that_matter():
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        z = pyro.sample("z", dist.Bernoulli(0.5))
        y = pyro.sample("y", dist.Bernoulli([0.1, 0.4][int(x)]))
        return pyro.sample("w", dist.Bernoulli([0.2, 0.9][int(y)] * z))

    finite = read(model)
    assert finite.tabulated
    assert not finite.branching
    assert finite.parents == {"x": (), "z": (), "y": ("x",), "w": ("z", "y")}


def test_branches_are_seen():
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        if x > 0:
            pyro.sample("m", dist.Bernoulli(0.5))

    finite = read(model)
    assert finite.branching
    assert set(finite.nodes) == {"x", "m"}
    assert [set(run.values) for run in finite.runs()] == [{"x"}, {"x", "m"}, {"x", "m"}]


def test_a_value_that_never_occurs_steers_the_program():
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        d = pyro.deterministic("d", 2 * x)
        return pyro.sample("y", dist.Bernoulli(0.9 if int(d) > 5 else 0.1))

    found = cp.query("E[y | do(d=7)]", model, seed=0)()
    assert not found.exact
    assert abs(float(found) - 0.9) < 4.5 * found.standard_error
    assert cp.query("E[y | do(d=2)]", model)().exact


def plate():
    with pyro.plate("n", 2):
        pyro.sample("x", dist.Bernoulli(0.5))


def masked():
    with pyro.poutine.mask(mask=torch.tensor(False)):
        pyro.sample("x", dist.Bernoulli(0.5))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: pyro.sample("x", dist.Normal(0.0, 1.0)), "Normal.*no finite support"),
        (lambda: pyro.sample("x", dist.Poisson(1.0)), "Poisson.*no finite support"),
        (lambda: pyro.sample("x", dist.OneHotCategorical(torch.ones(2) / 2)), "has shape"),
        (lambda: pyro.deterministic("x", torch.zeros(2)), "has shape"),
        (plate, "stands in the plate 'n'"),
        (masked, "weighed by a mask"),
    ],
)
def test_programs_that_are_not_finite(model, reason):
    with pytest.raises(NotFinite, match=reason):
        read(model)
