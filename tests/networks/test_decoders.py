"""Decoders' laws, their mechanisms, and counterfactuals through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import causalppl as cp
from causalppl.mechanisms.laws import LAWS, MechanismCase
from causalppl.networks import (
    BernoulliHead,
    Decoder,
    DiscretizedLogistic,
    DiscretizedLogisticHead,
    GaussianHead,
)


def rating(loc: torch.Tensor, scale: torch.Tensor) -> DiscretizedLogistic:
    return DiscretizedLogistic(loc, scale, -2, 5)


CASES = {
    "wide": MechanismCase(rating, {"loc": 1.3, "scale": 2.0}, {"loc": -0.7, "scale": 0.6}),
    "narrow": MechanismCase(
        rating, {"loc": [1.0, 9.0], "scale": 0.05}, {"loc": [1.5, -4.0], "scale": 0.3}
    ),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_mechanism(case: MechanismCase, law: Callable[[MechanismCase], None]) -> None:
    law(case)


def test_probabilities_are_those_of_rounded_logistic_values() -> None:
    """Against scipy's logistic law, in both tails, and summing to one."""
    stats = pytest.importorskip("scipy.stats")
    law = DiscretizedLogistic(*torch.tensor([3.2, 0.8], dtype=torch.float64), 0, 30)
    counts = law.enumerate_support()
    edges = np.concatenate([[-np.inf], np.arange(30) + 0.5, [np.inf]])
    above, below = edges[1:], edges[:-1]
    exact = stats.logistic.cdf(above, 3.2, 0.8) - stats.logistic.cdf(below, 3.2, 0.8)
    mirrored = stats.logistic.sf(below, 3.2, 0.8) - stats.logistic.sf(above, 3.2, 0.8)
    found = law.log_prob(counts).exp().numpy()
    np.testing.assert_allclose(found[:15], exact[:15], rtol=1e-9)
    np.testing.assert_allclose(found[15:], mirrored[15:], rtol=1e-6)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    draws = law.sample(torch.Size([20_000]))
    frequency = np.bincount(draws.long().numpy(), minlength=31) / 20_000
    np.testing.assert_allclose(frequency, found, atol=5 * np.sqrt(0.25 / 20_000))


def test_gradients_are_finite_where_a_value_is_far_away() -> None:
    loc = torch.tensor([-100.0, 0.0, 400.0], requires_grad=True)
    raw = torch.tensor(0.01, requires_grad=True)
    for value in (0.0, 7.0, 16.0):
        total = DiscretizedLogistic(loc, raw, 0, 16).log_prob(torch.tensor(value)).sum()
        gradients = torch.autograd.grad(total, [loc, raw])
        assert all(bool(g.isfinite().all()) for g in gradients)


def test_values_outside_are_refused() -> None:
    law = DiscretizedLogistic(torch.tensor(0.0), torch.tensor(1.0), 0, 3, validate_args=True)
    for value in (-1.0, 0.5, 4.0):
        with pytest.raises(ValueError, match="support"):
            law.log_prob(torch.tensor(value))
    assert law.expand([2, 3]).sample().shape == (2, 3)


HEADS: list[Any] = [
    lambda: GaussianHead((2, 3)),
    lambda: GaussianHead((), heteroscedastic=True),
    lambda: BernoulliHead((4,)),
    lambda: DiscretizedLogisticHead((2, 2), 0, 16),
    lambda: DiscretizedLogisticHead((2,), 1, 5, heteroscedastic=True),
]


@pytest.mark.parametrize("make", HEADS)
def test_counterfactuals_through_a_decoder(make: Callable[[], nn.Module]) -> None:
    """A null intervention changes nothing; another keeps the noise: it is the law's own mechanism that carries it over."""
    head = make()
    decoder = Decoder([0, 2], head)

    def model() -> None:
        with pyro.plate("units", 6):
            x = pyro.sample("x", dist.Bernoulli(0.5))
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("v", decoder(x, z))

    x, z = torch.arange(6) % 2.0, torch.randn(6, 2)
    law, other = decoder(x, z), decoder(1 - x, z)
    assert law.batch_shape == (6,) and law.event_shape == head.event_shape
    value = law.sample()
    posterior = cp.abduct(model, {"x": x, "z": z, "v": value}, num_samples=50, seed=0)()
    worlds = posterior.predict(worlds={"same": {"x": x}, "other": {"x": 1 - x}})
    same = worlds.tensor("v", world="same")
    torch.testing.assert_close(same, value.expand(same.shape), rtol=1e-6, atol=1e-6)
    moved = worlds.tensor("v", world="other")
    if isinstance(head, GaussianHead):  # in closed form
        scale, new = law.base_dist.scale if len(head.event_shape) else law.scale, other.mean
        residual = (value - law.mean) / scale
        spread = other.base_dist.scale if len(head.event_shape) else other.scale
        torch.testing.assert_close(moved[0], (new + spread * residual).detach(), rtol=0, atol=1e-4)
    else:
        # monotone: where the law moves up, no value moves down
        up = other.base_dist.mean if isinstance(head, BernoulliHead) else other.base_dist.loc
        now = law.base_dist.mean if isinstance(head, BernoulliHead) else law.base_dist.loc
        if not getattr(head, "heteroscedastic", False):
            change = (moved - value) * torch.sign(up - now)
            assert bool((change >= 0).all())
        assert bool(other.support.check(moved).all())


def test_a_decoder_is_fitted() -> None:
    """A mechanism that is linear in its parents on the scale of the logits: the rates of the cells, by counting."""
    x = (torch.arange(400) % 2).float()
    y = torch.where(
        x == 1, (torch.arange(400) % 10 < 6).float(), (torch.arange(400) % 10 < 3).float()
    )
    decoder = Decoder([0], BernoulliHead(), width=4)

    def model() -> None:
        with pyro.plate("units", 400):
            given = pyro.sample("x", dist.Bernoulli(0.5))
            pyro.sample("y", decoder(given))

    cp.fit(model, {"x": x, "y": y}, steps=200, schedule="cosine", learning_rate=0.05, seed=0)()
    found = decoder(torch.tensor([0.0, 1.0])).probs.detach()
    exact = [float(y[x == v].mean()) for v in (0, 1)]
    np.testing.assert_allclose(found, exact, atol=5e-3)
