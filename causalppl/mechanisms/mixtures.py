"""Mixtures: a component is chosen, then its own mechanism gives the value.

Every component has noise of its own, whether it is chosen or not. Abduction draws the component from its exact posterior
given the value, abducts the choice and the chosen component's noise, and leaves the others at their prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .discrete import GumbelMax
from .log_prob import exact_log_prob
from .logistic import standard_logistic
from .logits import category_logits
from .protocol import Mechanism, NoiseDistribution, TupleDistribution
from .registry import mechanism_for, register_wrapper

__all__ = ["FoldedSign", "MaskedChoice", "MixtureOfFamily", "ZeroInflated"]


def _select(chosen: Tensor, first: Any, second: Any) -> Any:
    """``first`` where chosen: tensors have the shape of ``chosen`` and dimensions of their own to the right."""
    if isinstance(first, tuple):
        return tuple(_select(chosen, a, b) for a, b in zip(first, second, strict=True))
    own = first.dim() - chosen.dim()
    return torch.where(chosen.reshape((*chosen.shape, *[1] * own)), first, second)


def _abduct(mechanism: Mechanism, fn: Any, value: Tensor, base: Any) -> Any:
    return mechanism.abduct(fn, value, None if mechanism.invertible else base)


@dataclass(frozen=True)
class MixtureOfFamily:
    """``v = f_c(noise_c)`` with ``c`` the component by its own mechanism: MixtureSameFamily.

    The noise is the pair of the choice's and of all components', the latter with shape ``batch_shape + (components,) + ...``.
    """

    choice: Mechanism
    component: Mechanism
    invertible: bool = False

    @property
    def name(self) -> str:
        """The choice's and the component's."""
        return f"mixture({self.choice.name}, {self.component.name})"

    def noise(self, fn: Any) -> NoiseDistribution:
        """Independent laws of the choice's noise and of every component's."""
        return TupleDistribution(
            self.choice.noise(fn.mixture_distribution),
            self.component.noise(fn.component_distribution),
        )

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The chosen component's value."""
        index = self.choice.forward(fn.mixture_distribution, noise[0])
        values = self.component.forward(fn.component_distribution, noise[1])
        return _taken(values, index, len(fn.event_shape))

    def base(self, fn: Any) -> NoiseDistribution:
        """For the component, the choice, the components that are not chosen, and the one that is."""
        choice, component = fn.mixture_distribution, fn.component_distribution
        return TupleDistribution(
            GumbelMax().noise(choice),
            self.choice.base(choice),
            self.component.noise(component),
            self.component.base(component),
        )

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Any, Any]:
        """The component from its posterior, then both noises."""
        gumbels, for_choice, idle, for_component = base
        choice, component = fn.mixture_distribution, fn.component_distribution
        shared = value.unsqueeze(-1 - len(fn.event_shape))
        shared = shared.expand((*gumbels.shape, *fn.event_shape))
        with torch.no_grad():
            posterior = category_logits(choice) + exact_log_prob(component, shared)
            index = (posterior + gumbels).argmax(-1)
        found = _abduct(self.component, component, shared, for_component)
        chosen = index.unsqueeze(-1) == torch.arange(gumbels.shape[-1], device=index.device)
        return (
            _abduct(self.choice, choice, index, for_choice),
            _select(chosen, found, idle),
        )


def _taken(values: Tensor, index: Tensor, event_dims: int) -> Tensor:
    """The entries at ``index`` along the dimension before the event's."""
    dim = -1 - event_dims
    values = values.expand(
        (*index.shape, *values.shape[dim:])
    )  # points do not have the noise's shape
    index = index.reshape((*index.shape, 1, *[1] * event_dims))
    index = index.expand(
        (*index.shape[:-event_dims], *values.shape[values.dim() - event_dims :])
        if event_dims
        else index.shape
    )
    return values.gather(dim, index).squeeze(dim)


@dataclass(frozen=True)
class ZeroInflated:
    """``v = 0`` where a gate's score exceeds minus its logit, else the base's value; the noise is the pair of both."""

    inner: Mechanism
    invertible: bool = False

    @property
    def name(self) -> str:
        """The base's, behind a gate."""
        return f"gate({self.inner.name})"

    def noise(self, fn: Any) -> NoiseDistribution:
        """A logistic score and the base's noise."""
        return TupleDistribution(
            standard_logistic(fn.batch_shape, _gate_odds(fn)), self.inner.noise(fn.base_dist)
        )

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """Zero or the base's value."""
        value = self.inner.forward(fn.base_dist, noise[1])
        return torch.where(noise[0] > -_gate_odds(fn), torch.zeros_like(value), value)

    def base(self, fn: Any) -> NoiseDistribution:
        """For whether a zero is the gate's, the gate, the base where it did not act, and where it did."""
        score = standard_logistic(fn.batch_shape, _gate_odds(fn))
        return TupleDistribution(
            score, score, self.inner.noise(fn.base_dist), self.inner.base(fn.base_dist)
        )

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Any, Any]:
        """Of zeros, the gate's share; then both noises."""
        for_cause, for_gate, idle, for_base = base
        odds = _gate_odds(fn)
        closed = value == 0
        if _is_discrete(fn.base_dist):
            with torch.no_grad():
                # P(gate | 0) : P(not | 0) = p : (1 - p) P(base = 0)
                closed = closed & (for_cause > exact_log_prob(fn.base_dist, value) - odds)
        gate = dist.Bernoulli(logits=odds, validate_args=False)
        score = mechanism_for(gate).abduct(gate, closed.to(odds.dtype), for_gate)
        found = _abduct(self.inner, fn.base_dist, value, for_base)
        return score, _select(closed, idle, found)


def _is_discrete(fn: Any) -> bool:
    """Whether values have probabilities rather than densities: a zero of a continuous law is the gate's."""
    return bool(getattr(fn.support, "is_discrete", False))


def _gate_odds(fn: Any) -> Tensor:
    if "gate" in fn.__dict__ and "gate_logits" not in fn.__dict__:
        return torch.logit(fn.gate)
    return fn.gate_logits  # type: ignore[no-any-return]


@dataclass(frozen=True)
class MaskedChoice:
    """``v = f_1(noise_1)`` where the mask, a parent, is true, else ``f_0(noise_0)``: MaskedMixture."""

    components: tuple[Mechanism, Mechanism]

    @property
    def name(self) -> str:
        """Both components'."""
        return f"masked({self.components[0].name}, {self.components[1].name})"

    @property
    def invertible(self) -> bool:
        """Never: the noise of the component that is masked out is not known."""
        return False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Independent noises of both components."""
        return TupleDistribution(
            *(m.noise(part) for m, part in zip(self.components, _parts(fn), strict=True))
        )

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The component's value that the mask tells."""
        values = [
            m.forward(p, n) for m, p, n in zip(self.components, _parts(fn), noise, strict=True)
        ]
        mask = fn.mask.reshape((*fn.mask.shape, *[1] * len(fn.event_shape)))
        return torch.where(mask, values[1], values[0])

    def base(self, fn: Any) -> NoiseDistribution:
        """Each component's prior noise, and what its abduction needs."""
        return TupleDistribution(
            *(
                TupleDistribution(m.noise(part), m.base(part))
                for m, part in zip(self.components, _parts(fn), strict=True)
            )
        )

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Any, ...]:
        """The component's noise that the value tells, the other at its prior."""
        noises = []
        for used, mechanism, part, (idle, needed) in zip(
            (~fn.mask, fn.mask), self.components, _parts(fn), base, strict=True
        ):
            found = _abduct(mechanism, part, value, needed)
            batch = value.shape[: value.dim() - len(fn.event_shape)]
            noises.append(_select(used.expand(batch), found, idle))
        return tuple(noises)


def _parts(fn: Any) -> tuple[Any, Any]:
    return fn.component0, fn.component1


@dataclass(frozen=True)
class FoldedSign:
    """``v = abs(f(noise))``; abduction draws the sign from its posterior given the absolute value."""

    inner: Mechanism
    invertible: bool = False

    @property
    def name(self) -> str:
        """The base's, folded."""
        return f"folded({self.inner.name})"

    def noise(self, fn: Any) -> NoiseDistribution:
        """The base's noise."""
        return self.inner.noise(fn.base_dist)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The absolute value."""
        return self.inner.forward(fn.base_dist, noise).abs()

    def base(self, fn: Any) -> NoiseDistribution:
        """A logistic score for the sign, and what the base's abduction needs."""
        zero = torch.zeros((), device=_device(fn))
        return TupleDistribution(
            standard_logistic(fn.batch_shape, zero, torch.float64), self.inner.base(fn.base_dist)
        )

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Any:
        """The noise of the value with its sign."""
        with torch.no_grad():
            above, below = (exact_log_prob(fn.base_dist, x) for x in (value, -value))
            signed = torch.where(base[0] > below - above, value, -value)
        signed = signed.detach() + torch.sign(signed) * (value - value.detach())
        return _abduct(self.inner, fn.base_dist, signed, base[1])


def _device(fn: Any) -> torch.device:
    parameters = (p for p in vars(fn.base_dist).values() if isinstance(p, Tensor))
    return next((p.device for p in parameters), torch.device("cpu"))


@register_wrapper(torch.distributions.MixtureSameFamily)
def _mixture(fn: Any, name: str | None) -> Mechanism:
    return MixtureOfFamily(
        mechanism_for(fn.mixture_distribution), mechanism_for(fn.component_distribution, name)
    )


@register_wrapper(dist.ZeroInflatedDistribution)
def _zero_inflated(fn: Any, name: str | None) -> Mechanism:
    return ZeroInflated(mechanism_for(fn.base_dist, name))


@register_wrapper(dist.MaskedMixture)
def _masked(fn: Any, name: str | None) -> Mechanism:
    return MaskedChoice((mechanism_for(fn.component0, name), mechanism_for(fn.component1, name)))


@register_wrapper(dist.FoldedDistribution)
def _folded(fn: Any, name: str | None) -> Mechanism:
    return FoldedSign(mechanism_for(fn.base_dist, name))
