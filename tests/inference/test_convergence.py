"""Diagnostics on chains that have converged and chains that have not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from causalppl.errors import ShapeError
from causalppl.inference.convergence import convergence


def independent(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def autoregressive(rho: float, chains: int, draws: int) -> Tensor:
    noise = independent(chains, draws) * math.sqrt(1 - rho**2)
    x = [independent(chains, seed=1)]
    for step in noise.T:
        x.append(rho * x[-1] + step)
    return torch.stack(x[1:], 1)


def test_independent_draws() -> None:
    found = convergence(independent(4, 1000, 2, 3))
    assert found.rhat < 1.01
    assert found.ess_bulk > 3000
    assert found.ess == min(found.ess_bulk, found.ess_tail) > 2500


def test_effective_size_of_an_autoregression() -> None:
    rho, chains, draws = 0.8, 4, 20_000
    expected = chains * draws * (1 - rho) / (1 + rho)
    assert convergence(autoregressive(rho, chains, draws)).ess_bulk == pytest.approx(
        expected, rel=0.15
    )


def test_the_worst_coordinate_counts() -> None:
    draws = independent(4, 500, 3)
    draws[2, :, 1] += 5.0
    assert convergence(draws).rhat > 1.5
    assert convergence(draws).ess < 20
    assert convergence(draws[..., [0, 2]]).rhat < 1.02


def test_different_scales_are_seen() -> None:
    assert convergence(independent(4, 500) * torch.tensor([1.0, 1, 1, 6])[:, None]).rhat > 1.05


def test_one_chain_is_judged_by_its_halves() -> None:
    assert convergence(independent(1, 1001, 2)).rhat < 1.02
    trend = independent(1, 1001) + torch.linspace(0, 5, 1001)
    assert convergence(trend).rhat > 1.2


def test_chains_stuck_apart() -> None:
    stuck = torch.arange(3.0)[:, None].expand(3, 100)
    assert convergence(stuck).rhat == math.inf
    assert convergence(torch.full((2, 50, 1), math.nan)).rhat == math.inf


def test_coordinates_that_never_vary_are_left_out() -> None:
    draws = torch.stack([independent(2, 200), torch.ones(2, 200).double()], -1)
    assert convergence(draws) == convergence(draws[..., :1])
    for nothing in (torch.ones(2, 200), independent(2, 3), torch.zeros(2, 10, 0)):
        assert math.isnan(convergence(nothing).rhat)
        assert math.isnan(convergence(nothing).ess)


def test_integers_and_gradients_are_accepted() -> None:
    coins = (independent(4, 500) > 0).long()
    assert convergence(coins).rhat < 1.02
    assert convergence(independent(4, 500).requires_grad_()).rhat < 1.02


def test_misuse() -> None:
    with pytest.raises(ShapeError, match=r"draws\[None\]"):
        convergence(torch.zeros(10))
