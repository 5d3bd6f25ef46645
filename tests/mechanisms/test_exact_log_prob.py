"""Exact log probabilities: what torch clamps, what it refuses, and agreement with it everywhere else."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from mechanism_cases import CASES
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor, tensor

from causalppl.mechanisms import exact_log_prob, possible, value_dtype
from causalppl.mechanisms.law_cases import expanded

INF = math.inf


def other_log_prob(fn: Any, value: Tensor) -> Tensor:
    """Pyro's own, or scipy's where torch's mixes dtypes in float64."""
    if isinstance(fn, torch.distributions.GeneralizedPareto):
        found = scipy.stats.genpareto.logpdf(value, fn.concentration, fn.loc, fn.scale)
        return torch.as_tensor(found)
    return fn.log_prob(value)  # type: ignore[no-any-return]


#: Torch's own density of a stack has the wrong shape; it is compared with a Jacobian in test_flow_inverses.
_RIGHT = {name: case for name, case in CASES.items() if name != "flow StackTransform"}


@pytest.mark.parametrize("case", _RIGHT.values(), ids=_RIGHT.keys())
def test_agrees_with_torch_on_the_support(case: Any) -> None:
    torch.manual_seed(0)
    fn = case.distribution(torch.float64 if torch.float64 in case.dtypes else torch.float32)
    close = 1e-9 if torch.float64 in case.dtypes else 1e-4
    value = fn.sample()
    expected = other_log_prob(fn, value)
    torch.testing.assert_close(exact_log_prob(fn, value), expected, rtol=close, atol=close)
    if isinstance(fn, dist.GaussianScaleMixture):
        return  # Pyro's density takes one point
    # some families cannot be expanded once they have been used
    fresh = case.distribution(expected.dtype)
    # Pyro's flows know the density of what they have just drawn only: rows are compared with rows
    rows = torch.stack([value, value, value])
    wide = expanded(fresh, 3).to_event(1)
    found = exact_log_prob(wide, rows)
    assert found.shape == wide.batch_shape
    total = 3 * (expected.sum() if fn.batch_shape else expected)
    torch.testing.assert_close(found.sum(), total, rtol=10 * close, atol=10 * close)


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize(
    ("make", "value", "expected"),
    [
        (lambda v: dist.Bernoulli(tensor([0.0, 0, 1, 1]), validate_args=v), [0.0, 1, 0, 1], [0, -INF, -INF, 0]),
        (lambda v: dist.Bernoulli(tensor(0.3), validate_args=v), [0.5, 2.0], [-INF, -INF]),
        (lambda v: dist.Categorical(tensor([0.0, 1.0]), validate_args=v), [0, 1, 2, -1], [-INF, 0, -INF, -INF]),
        (lambda v: dist.OneHotCategorical(tensor([0.0, 1.0]), validate_args=v), [[0.0, 1], [1, 0], [1, 1]], [0, -INF, -INF]),
        (lambda v: dist.Binomial(3, tensor([0.0, 0, 1, 1, 0.5]), validate_args=v), [0.0, 1, 3, 2, 4], [0, -INF, 0, -INF, -INF]),
        (lambda v: dist.Geometric(tensor([1.0, 1.0]), validate_args=v), [0.0, 2.0], [0, -INF]),
        (lambda v: dist.Poisson(tensor([0.0, 0.0, 2.0]), validate_args=v), [0.0, 1, 1.5], [0, -INF, -INF]),
        (lambda v: dist.Exponential(tensor(1.0), validate_args=v), [-1.0, 2.0], [-INF, -2.0]),
        (lambda v: dist.Uniform(0.0, 1.0, validate_args=v), [-0.5, 0.5, 1.5], [-INF, 0, -INF]),
        (lambda v: dist.LogNormal(tensor(0.0), tensor(1.0), validate_args=v), [-1.0], [-INF]),
        (lambda v: dist.Beta(tensor(1.0), tensor(1.0), validate_args=v), [-0.1, 0.3, 1.1], [-INF, 0, -INF]),
        (lambda v: dist.Dirichlet(tensor([1.0, 1.0]), validate_args=v), [[0.4, 0.6], [0.4, 0.4], [-0.2, 1.2]], [0, -INF, -INF]),
        (lambda v: dist.Delta(tensor(1.0), validate_args=v), [1.0, 2.0], [0, -INF]),
    ],
)  # fmt: skip
def test_zero_and_one_are_exact_and_nothing_raises(
    make: Any, value: Any, expected: Any, validate: bool
) -> None:
    fn, values = make(validate), tensor(value)
    found = exact_log_prob(fn, values)
    torch.testing.assert_close(found, tensor(expected, dtype=found.dtype), rtol=1e-6, atol=1e-6)
    rows = [fn] * len(values) if fn.batch_shape == () else None
    if rows is not None:
        batched = torch.func.vmap(lambda one: exact_log_prob(make(False), one))(values)
        torch.testing.assert_close(batched, found)


@pytest.mark.parametrize(
    ("fn", "values"),
    [
        (dist.Bernoulli(tensor([0.0, 0.3, 1.0])), [0.0, 1.0, 0.5, 2.0, math.nan]),
        (dist.Bernoulli(logits=tensor([-INF, 0.3, INF]), validate_args=False), [0.0, 1.0, 0.5]),
        (dist.Bernoulli(tensor([math.nan, 0.3, 1.0]), validate_args=False), [0.0, 1.0]),
        (dist.Bernoulli(tensor([0.0, 0.3, 1.0])).to_event(1), [0.0, 1.0, 0.5]),
        (dist.Bernoulli(tensor(0.0)).expand([3]).mask(tensor([True, False, True])), [0.0, 1.0]),
        (dist.Normal(tensor([0.0, 1e30, -1.0]), 1.0), [0.0, 1e25, INF, -INF, math.nan]),
        (dist.Normal(0.0, tensor([1e-15, 1.0, INF]), validate_args=False), [0.0, 1e-3, 2.0]),
        (dist.Normal(0.0, tensor([1e-15, 1.0])).to_event(1), [0.0, 1.0]),
        (dist.Exponential(tensor([1.0, 2.0])), [-1.0, 0.5]),
        (dist.Delta(tensor([1.0, 2.0])), [1.0, 2.0]),
    ],
)
def test_what_is_possible_is_what_has_a_density(fn: Any, values: list[float]) -> None:
    for value in values:
        given = torch.full(fn.shape(), value)
        exact, found = exact_log_prob(fn, given), possible(fn, given)
        assert found.shape == exact.shape
        assert torch.equal(found > -INF, exact > -INF), (fn, value)


def test_exactness_survives_caches_and_expansion() -> None:
    for make in (dist.Bernoulli, dist.Geometric):
        fn = make(tensor([1.0, 0.5]))
        _ = fn.logits  # torch caches the clamped logits beside the probabilities
        assert exact_log_prob(fn.expand([2]), tensor([1.0, 1.0]) * (make is dist.Bernoulli)).tolist() == [
            0.0, pytest.approx(math.log(0.5))]  # fmt: skip
    fn = dist.Categorical(tensor([0.0, 1.0]))
    _ = fn.logits
    assert exact_log_prob(fn.expand([2]), tensor([0, 1])).tolist() == [-INF, 0]
    fn = dist.Bernoulli(logits=tensor([-200.0, 200.0, 17.0]))
    _ = fn.probs
    assert exact_log_prob(fn.expand([3]), tensor([1.0, 0.0, 0.0])).tolist() == pytest.approx(
        [-200.0, -200.0, -17.0]
    )


def test_wrappers_sum_and_mask() -> None:
    inner = dist.Bernoulli(tensor([0.0, 1.0]))
    assert exact_log_prob(inner.to_event(1), tensor([0.0, 1.0])) == 0
    assert exact_log_prob(inner.to_event(1), tensor([1.0, 1.0])) == -INF
    assert exact_log_prob(inner.mask(tensor([False, True])), tensor([1.0, 1.0])).tolist() == [0, 0]
    assert exact_log_prob(inner.mask(False), tensor([1.0, 1.0])).tolist() == [0, 0]
    assert exact_log_prob(ExpandedDistribution(inner, (3, 2)), torch.ones(3, 2)).shape == (3, 2)
    flat = dist.TransformedDistribution(
        dist.Uniform(tensor([0.0, 0]), 1.0), [dist.transforms.AffineTransform(1.0, 2.0)]
    )
    assert exact_log_prob(flat.to_event(1), tensor([1.5, 2.0])) == pytest.approx(-2 * math.log(2))
    assert exact_log_prob(flat.to_event(1), tensor([0.5, 2.0])) == -INF


def test_a_subclass_keeps_its_own_density() -> None:
    class Doubled(dist.Bernoulli):  # type: ignore[misc]
        def log_prob(self, value: Tensor) -> Tensor:
            return 2 * super().log_prob(value)

    assert exact_log_prob(Doubled(tensor(0.5)), tensor(1.0)) == pytest.approx(2 * math.log(0.5))


def test_gradients_are_finite_at_exact_probabilities() -> None:
    probs = tensor([0.0, 1.0, 0.3], requires_grad=True)
    exact_log_prob(dist.Bernoulli(probs), tensor([0.0, 1.0, 1.0])).sum().backward()
    assert bool(probs.grad.isfinite().all())  # type: ignore[union-attr]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_value_dtype_is_that_of_a_draw(case: Any) -> None:
    for dtype in case.dtypes:
        fn = case.distribution(dtype)
        wide = expanded(case.distribution(dtype), 2).to_event(1)
        for wrapped in (fn, wide, dist.MaskedDistribution(fn, False)):
            assert value_dtype(wrapped) == fn.sample().dtype


def test_value_dtype_of_other_families() -> None:
    concentration = torch.ones(2, dtype=torch.float64)
    for fn in (
        dist.Delta(tensor([1, 2])),
        dist.MixtureSameFamily(dist.Categorical(concentration), dist.Poisson(concentration)),
        dist.BetaBinomial(concentration, concentration, total_count=tensor(4)),
        dist.Multinomial(3, concentration),
        dist.OrderedLogistic(tensor(0.0), tensor([0.0, 1.0])),
        dist.StudentT(concentration),
        dist.VonMises(concentration, concentration),
        dist.ZeroInflatedPoisson(concentration, gate=concentration / 2),
        dist.Dirichlet(concentration),
        dist.LKJCholesky(2, concentration),
    ):
        assert value_dtype(fn) == fn.sample().dtype, fn
