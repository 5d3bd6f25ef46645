"""Values of every kind of site come back from the networks' side, with the right Jacobian, in whatever plates they stand."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

from causalppl.guides.encoding import RealVector, indices, values_at
from causalppl.guides.reading import SiteShape
from causalppl.structural import StructuralForm

N = dist.Normal
CONTINUOUS: dict[str, Any] = {
    "scalar": N(0.0, 2.0),
    "vector": N(torch.zeros(3), 1.0).to_event(1),
    "half line": dist.LogNormal(0.0, 1.0),
    "interval": dist.Uniform(-2.0, 3.0),
    "simplex": dist.Dirichlet(torch.ones(4)),
    "cholesky": dist.LKJCholesky(3, 1.0),
}


def site_of(fn: Any, nested: bool = True) -> Any:
    """The site in an inner and an outer plate, with a gap between their dims."""

    def model() -> None:
        if not nested:
            pyro.sample("v", fn)
            return
        with pyro.plate("outer", 5, dim=-1), pyro.plate("inner", 2, dim=-3):
            pyro.sample("v", fn)

    return StructuralForm(model, (), {}, None, 0).sites["v"]


@pytest.mark.parametrize("kind", CONTINUOUS)
@pytest.mark.parametrize("nested", [False, True])
def test_continuous_values(kind: str, nested: bool) -> None:
    site = site_of(CONTINUOUS[kind], nested)
    shape = SiteShape.of(site)
    torch.manual_seed(0)
    values = torch.stack([site.fn.sample() for _ in range(6)])
    vector = RealVector(shape, values, site.fn.support)
    x, log_det = vector(values, site.fn.support)
    units = (5, 2) if nested else ()
    assert x.shape == (6, *units, vector.size) and log_det.shape == (6, *units)
    back, same = vector.inverse(x, site.fn.support, values.dtype)
    assert back.shape == values.shape and torch.allclose(back, values, atol=1e-4)
    assert torch.allclose(same, log_det, atol=1e-3)


@pytest.mark.parametrize("kind", ["scalar", "half line", "interval"])
def test_the_jacobian_is_that_of_differences(kind: str) -> None:
    site = site_of(CONTINUOUS[kind], nested=False)
    shape, support = SiteShape.of(site), site.fn.support
    torch.manual_seed(0)
    values = site.fn.sample((200,))
    vector = RealVector(shape, values, support)
    value = torch.tensor([0.7])
    step = 1e-3
    rise = (vector(value + step, support)[0] - vector(value - step, support)[0]) / (2 * step)
    assert float(vector(value, support)[1]) == pytest.approx(float(rise.squeeze().log()), abs=1e-2)


DISCRETE: dict[str, Any] = {
    "bernoulli": dist.Bernoulli(0.3),
    "categorical": dist.Categorical(torch.ones(4) / 4),
    "one-hot": dist.OneHotCategorical(torch.ones(3) / 3),
    "binomial": dist.Binomial(5, torch.tensor(0.4)),
    "count": dist.Poisson(3.0),
    "several": dist.Bernoulli(torch.tensor([0.2, 0.7, 0.5])).to_event(1),
}


@pytest.mark.parametrize("kind", DISCRETE)
def test_discrete_values(kind: str) -> None:
    site = site_of(DISCRETE[kind])
    shape = SiteShape.of(site)
    torch.manual_seed(0)
    values = torch.stack([site.fn.sample() for _ in range(6)])
    index = indices(shape, shape.units_first(values))
    assert index.shape[:3] == (6, 5, 2) and not index.is_floating_point()
    back = shape.units_back(values_at(shape, index, values.dtype))
    assert torch.equal(back, values)


def test_plates_are_named_from_the_outside_in() -> None:
    shape = SiteShape.of(site_of(N(torch.zeros(3), 1.0).to_event(1)))
    assert shape.plates == ("outer", "inner") and shape.inner == (1, 3)
    assert shape.units_first(torch.zeros(7, 2, 1, 5, 3)).shape == (7, 5, 2, 1, 3)
