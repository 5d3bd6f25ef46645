"""Each law against a mechanism that breaks it and nothing simpler: the suite has to notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import pytest
import torch

from causalppl.mechanisms import laws
from causalppl.mechanisms.discrete import GumbelMax, MonotoneBernoulli
from causalppl.mechanisms.location_scale import Affine

_NORMAL: Any = ({"loc": 1.0, "scale": 2.0}, {"loc": -0.7, "scale": 0.6})
_CATEGORICAL: Any = ({"probs": [0.2, 0.3, 0.5]}, {"probs": [0.5, 0.3, 0.2]})


@dataclass(frozen=True)
class _Normal(Affine):
    standard: Callable[..., Any] = dist.Normal


class ForgetsScale(_Normal):
    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        return value - fn.loc


class WrongScale(_Normal):
    def forward(self, fn: Any, noise: Any) -> Any:
        return fn.loc + 1.3 * fn.scale * noise

    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        return (value - fn.loc) / (1.3 * fn.scale)


class NoiseOfParents(_Normal):
    def noise(self, fn: Any) -> Any:
        return fn

    def forward(self, fn: Any, noise: Any) -> Any:
        return noise

    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        return value


class Detached(_Normal):
    def forward(self, fn: Any, noise: Any) -> Any:
        return super().forward(fn, noise) - fn.loc + fn.loc.detach()


class ReadsValues(_Normal):
    def forward(self, fn: Any, noise: Any) -> Any:
        return fn.loc.item() + fn.scale * noise if noise.dim() == 0 else super().forward(fn, noise)


class BurnsIn(_Normal):
    def forward(self, fn: Any, noise: Any) -> Any:
        return torch.tensor(fn.loc.tolist(), dtype=noise.dtype) + fn.scale * noise


class SharedNoise(_Normal):
    def noise(self, fn: Any) -> Any:
        return dist.Normal(fn.loc.new_zeros(()), 1.0).expand(fn.batch_shape[:1] or ())


class ScoreOfHalfLine(MonotoneBernoulli):
    """Puts the noise at a point of its cell: right values, wrong law."""

    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        return torch.where(value > 0.5, 1.0, -1.0) - fn.logits


class UntruncatedGumbels(GumbelMax):
    """Lifts the winner above the others instead of truncating them."""

    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        scores = fn.logits + base
        wins = value.unsqueeze(-1) == torch.arange(scores.shape[-1])
        top = scores.max(-1, keepdim=True).values + 1
        return torch.where(wins, top, scores) - fn.logits


@pytest.mark.parametrize(
    ("law", "mechanism", "family", "worlds"),
    [
        (laws.round_trip, ForgetsScale(), dist.Normal, _NORMAL),
        (laws.value_law, WrongScale(), dist.Normal, _NORMAL),
        (laws.noise_law, WrongScale(), dist.Normal, _NORMAL),
        (laws.exogenous, NoiseOfParents(), dist.Normal, _NORMAL),
        (laws.batches, SharedNoise(), dist.Normal, _NORMAL),
        (laws.gradients, Detached(), dist.Normal, _NORMAL),
        (laws.noise_law, ScoreOfHalfLine(), dist.Bernoulli, ({"probs": 0.7}, {"probs": 0.4})),
        (laws.noise_law, UntruncatedGumbels(), dist.Categorical, _CATEGORICAL),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_law_notices(law: Any, mechanism: Any, family: Any, worlds: Any) -> None:
    with pytest.raises(laws.LawError, match=f"law {law.__name__!r} fails"):
        law(laws.MechanismCase(family, *worlds, mechanism))


@pytest.mark.parametrize("mechanism", [ReadsValues(), BurnsIn()])
def test_python_values_stop_vmap_and_traces(mechanism: Any) -> None:
    case = laws.MechanismCase(dist.Normal, *_NORMAL, mechanism)
    for law in (laws.vectorises, laws.traces):
        with pytest.raises((laws.LawError, RuntimeError)):
            law(case)
