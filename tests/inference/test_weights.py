"""Importance weights against distributions whose tail is known, and resampling against its law."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from causalppl.errors import InferenceError, MethodError, ShapeError
from causalppl.inference.weights import effective_sample_size, pareto_smooth, resample

INF = math.inf
SMALLEST_P = 1e-4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pareto_logs(shape: float, number: int, units: int) -> Tensor:
    """Log weights u^-k: their tail is generalised Pareto with shape k exactly."""
    u = torch.rand(number, units, generator=generator(), dtype=torch.float64)
    return -shape * u.log()


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.7, 1.0, 1.5])
def test_k_hat_of_a_pareto_tail(shape: float) -> None:
    number, units = 10_000, 20
    _, k_hat = pareto_smooth(pareto_logs(shape, number, units))
    tail = 3 * math.sqrt(number)
    # The estimate is shrunk towards 1/2 as by ten further observations.
    expected = (tail * shape + 10 * 0.5) / (tail + 10)
    error = 5 * (1 + shape) / math.sqrt(tail * units)
    assert float(k_hat.mean()) == pytest.approx(expected, abs=error)


def test_good_and_bad_proposals() -> None:
    x = torch.randn(20_000, generator=generator(), dtype=torch.float64)
    target = torch.distributions.Normal(0.0, 1.0).log_prob

    def log_weights(scale: float) -> Tensor:
        return target(scale * x) - torch.distributions.Normal(0.0, scale).log_prob(scale * x)

    _, k_hat = pareto_smooth(torch.stack([log_weights(1.5), log_weights(0.2)], 1))
    assert float(k_hat[0]) < 0.5
    assert float(k_hat[1]) > 0.7


def test_smoothing_tames_the_largest_weight_and_keeps_the_order() -> None:
    logs = pareto_logs(0.7, 1000, 400)
    smoothed, _ = pareto_smooth(logs)
    assert smoothed.shape == logs.shape
    torch.testing.assert_close(smoothed.exp().sum(0), torch.ones(400).double())
    raw = torch.log_softmax(logs, 0)
    assert float(smoothed.max(0).values.exp().mean()) < float(raw.max(0).values.exp().mean())
    in_order = smoothed.gather(0, logs.argsort(0))
    assert bool((in_order.diff(dim=0) >= -1e-9).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_without_a_tail(dtype: torch.dtype) -> None:
    equal = torch.full((100,), -3.7, dtype=dtype)
    two_values = torch.where(torch.arange(100) % 2 == 0, math.log(0.9), math.log(0.1)).to(dtype)
    with_zeros = torch.where(torch.arange(100) % 10 == 0, 0.0, -INF).to(dtype)
    rounded = equal + 1e-6 * torch.rand(100, generator=generator()).to(dtype) * (
        dtype == torch.float32
    )
    logs = torch.stack([equal, two_values, with_zeros, rounded], 1)
    smoothed, k_hat = pareto_smooth(logs)
    assert k_hat.tolist() == [0.0, 0.0, 0.0, 0.0]
    assert smoothed.dtype == k_hat.dtype == dtype
    torch.testing.assert_close(smoothed, torch.log_softmax(logs, 0))


def test_too_few_weights_cannot_be_judged() -> None:
    logs = torch.full((200, 2), -INF)
    logs[:4, 0] = 0.0
    logs[0, 1] = 1.0
    smoothed, k_hat = pareto_smooth(logs)
    assert k_hat.tolist() == [INF, INF]
    assert float(smoothed[0, 0].exp()) == pytest.approx(0.25)
    assert float(smoothed[0, 1]) == 0.0


def test_impossible_proposals_keep_weight_zero() -> None:
    logs = pareto_logs(0.3, 2000, 3).clone()
    logs[::3] = -INF
    smoothed, k_hat = pareto_smooth(logs)
    assert bool((smoothed[::3] == -INF).all())
    assert bool(torch.isfinite(smoothed[1::3]).all() & (k_hat < 0.7).all())


def test_units_are_smoothed_on_their_own_in_any_shape() -> None:
    logs = pareto_logs(0.6, 500, 6).reshape(500, 2, 3)
    smoothed, k_hat = pareto_smooth(logs)
    assert k_hat.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            alone, k = pareto_smooth(logs[:, i, j] + 100.0)  # a constant factor is no matter
            assert k.shape == ()
            torch.testing.assert_close(alone, smoothed[:, i, j])
            torch.testing.assert_close(k, k_hat[i, j])
    one, k = pareto_smooth(torch.tensor([-5.0]))
    assert (float(one), float(k)) == (0.0, 0.0)


def test_kish() -> None:
    logs = torch.tensor([[0.0, 0.0], [0.0, -INF], [-INF, -INF], [math.log(2), -INF]]).double() - 800
    torch.testing.assert_close(
        effective_sample_size(logs), torch.tensor([16 / 6, 1.0], dtype=torch.float64)
    )


@pytest.mark.parametrize("number", [1, 3, 7])
def test_each_index_has_the_law_of_the_weights(number: int) -> None:
    weights = torch.tensor([0.05, 0.0, 0.3, 0.15, 0.5], dtype=torch.float64)
    units = 20_000
    logs = weights.log()[:, None].expand(5, units)
    indices = resample(logs, number, generator(1))
    assert indices.shape == (number, units)
    keep = weights > 0
    for position in range(number):
        counts = torch.bincount(indices[position], minlength=5)
        assert int(counts[1]) == 0
        test = stats.chisquare(counts[keep].numpy(), (weights[keep] * units).numpy())
        assert test.pvalue > SMALLEST_P


def test_counts_are_within_one_of_their_expectation() -> None:
    logs = torch.randn(30, 200, generator=generator(2), dtype=torch.float64)
    number = 100
    indices = resample(logs, number, generator(3))
    counts = torch.nn.functional.one_hot(indices, 30).sum(0).T
    assert bool(((counts - number * torch.softmax(logs, 0)).abs() < 1 + 1e-9).all())
    everyone = resample(torch.zeros(50, 4), 50, generator(4))
    assert torch.equal(everyone.sort(0).values, torch.arange(50)[:, None].expand(50, 4))


def test_units_are_not_coupled() -> None:
    logs = torch.linspace(0, 3, 40, dtype=torch.float64)[:, None].expand(40, 2)
    indices = resample(logs, 4000, generator(5)).double()
    correlation = float(torch.corrcoef(indices.T)[0, 1])
    assert abs(correlation) < 5 / math.sqrt(4000)


def test_the_generator_is_the_only_randomness() -> None:
    logs = torch.randn(20, 2, 3, generator=generator(6))
    state = torch.random.get_rng_state()
    first, second = resample(logs, 10, generator(7)), resample(logs, 10, generator(7))
    assert first.shape == (10, 2, 3)
    assert torch.equal(first, second)
    assert not torch.equal(first, resample(logs, 10, generator(8)))
    assert torch.equal(state, torch.random.get_rng_state())
    assert resample(torch.tensor([-1e4, 0.0]), 5, generator()).tolist() == [1] * 5


@pytest.mark.parametrize(
    ("logs", "error", "message"),
    [
        (torch.tensor([0.0, math.nan]), InferenceError, "NaN"),
        (torch.tensor([0.0, INF]), InferenceError, "plus infinity"),
        (torch.full((3,), -INF), InferenceError, "All 3 proposals have weight zero"),
        (torch.tensor([[0.0, -INF], [0.0, -INF]]), InferenceError, "in 1 of 2 units"),
        (torch.zeros(0, 2), ShapeError, r"\(0, 2\)"),
        (torch.tensor(0.0), ShapeError, r"\(\)"),
        (torch.zeros(3).long(), MethodError, "int64"),
    ],
)
def test_misuse(logs: Tensor, error: type[Exception], message: str) -> None:
    for call in (pareto_smooth, effective_sample_size, lambda w: resample(w, 2, generator())):
        with pytest.raises(error, match=message):
            call(logs)
    with pytest.raises(MethodError, match="num_samples=0"):
        resample(torch.zeros(3), 0, generator())


def test_weights_that_crowd_at_the_foot_of_their_tail() -> None:
    """Weights of 1 up to rounding but for one in fifty, up to 3.6: bounded and harmless. The fit alone says 5."""
    generator = torch.Generator().manual_seed(0)
    plain = 1e-4 * torch.rand(4000, 10, generator=generator).double()
    lump = torch.rand(4000, 10, generator=generator) < 0.02
    height = 1.28 * torch.rand(4000, 10, generator=generator).double().sqrt()
    log_weights = torch.where(lump, height, plain)
    smoothed, k_hat = pareto_smooth(log_weights)
    assert float(k_hat.max()) <= 0.5
    assert float(effective_sample_size(smoothed).min()) > 3000


@pytest.mark.parametrize("shape", [0.8, 1.2])
def test_truly_heavy_tails_are_never_taken_for_bounded(shape: float) -> None:
    uniform = torch.rand(2000, 400, generator=torch.Generator().manual_seed(0)).double()
    _, k_hat = pareto_smooth(-shape * uniform.log())
    assert float((k_hat > 0.5).double().mean()) > 0.99
