"""From a proposal to the posterior in small steps: tempered importance sampling with moves, for all units at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InferenceError, InferenceWarning, warn_caller
from ..guides.encoding import indices, values_at
from ..guides.heads import ContinuousHead, DiscreteHead
from ..guides.joint import complete, unit_log_q
from ..progress import Progress
from ..structural.form import ROW
from ..structural.noise import isolated_rng, keyed_seed
from .weights import effective_sample_size, pareto_smooth, resample

if TYPE_CHECKING:
    from .guide_weights import Joint

__all__ = ["Tempered", "tempered"]

_STAGES, _MOVES = 40, 5
_SHARE = 0.5  # of draws that stay effective in a stage
_ACCEPTED = 0.3
_LEAST = 0.02


@dataclass(frozen=True)
class Tempered:
    """Draws at the posterior.

    Attributes:
        rows: site to draws.
        ess: distinct ancestors' effective number over all stages, at least for each unit.
        k_hat: of the last stage's weights.
    """

    rows: dict[str, Tensor]
    note: str
    ess: Tensor
    k_hat: Tensor


def tempered(
    target: Joint, rows: dict[str, Tensor], num_samples: int, progress: Progress
) -> Tempered:
    r"""Sequential Monte Carlo along :math:`q^{1-t} p^t`, with temperatures of each unit's own.

    In each stage every unit's :math:`t` rises until half of its draws are effective; draws are weighed, resampled, and moved by random-walk
    Metropolis on the real line with the draws' own covariance. Discrete sites are redrawn at random and accepted the same way.

    Args:
        target: the two densities.
        rows: draws of the guide.

    Raises:
        InferenceError: the end is not reached in 40 stages.

    Warns:
        InferenceWarning: hardly any move was accepted.
    """
    state = _State(target, rows)
    units, form = target.units, target.form
    reached = torch.zeros(units.sizes)
    stages, k_hat = 0, torch.zeros(units.sizes)
    smallest = torch.full(units.sizes, float(state.count))
    progress.start("tempering", _STAGES)
    while bool((reached < 1).any()):
        if stages == _STAGES:
            raise InferenceError(
                f"Amortized: refine='tempered' did not reach the posterior in {_STAGES} stages; train the guide longer, or use "
                "refine='nuts'"
            )
        rise = _rise(state.log_p - state.log_q, reached)
        log_weights = (state.log_p - state.log_q) * rise
        log_weights = torch.where(log_weights.isnan(), -torch.inf, log_weights)
        smallest = torch.minimum(smallest, effective_sample_size(log_weights))
        _, k_hat = pareto_smooth(log_weights)
        generator = torch.Generator().manual_seed(keyed_seed(form.seed, "tempering", stages))
        state.choose(resample(log_weights, state.count, generator))
        reached = (reached + rise).clamp(max=1.0)
        with isolated_rng(keyed_seed(form.seed, "moves", stages)):
            state.move(reached)
        stages += 1
        progress.advance(note=f"temperature {float(reached.min()):.2g}")
    accepted = float(state.accepted)
    if accepted < _LEAST:
        warn_caller(
            f"Amortized: refine='tempered' accepted only {accepted:.1%} of its moves; train the guide longer, or use refine='nuts'",
            InferenceWarning,
        )
    index = torch.linspace(0, state.count - 1, num_samples).round().long()
    kept = {n: v[index] for n, v in state.rows.items() if n in form.latent}
    if target.cancelled:  # their parents have moved
        own = {n: v for n, v in kept.items() if n not in target.cancelled}
        kept, _ = complete(form, own, num_samples, "refined")
    kept[ROW] = torch.arange(num_samples)
    note = f"by tempering in {stages} stages, {accepted:.0%} of moves accepted"
    return Tempered(kept, note, smallest, k_hat)


def _rise(log_ratio: Tensor, reached: Tensor) -> Tensor:
    """How far each unit's temperature may rise, by bisection on the effective share."""
    count = len(log_ratio)
    ratio = torch.where(log_ratio.isnan(), -torch.inf, log_ratio)
    # what has density zero stays so at any temperature
    finite = ratio > -torch.inf
    ratio = torch.where(finite, ratio, torch.zeros_like(ratio))

    def share(step: Tensor) -> Tensor:
        weights = torch.where(finite, ratio * step, torch.full_like(ratio, -torch.inf))
        return effective_sample_size(weights) / finite.sum(0).clamp(min=1)

    rest = 1.0 - reached
    low, high = torch.zeros_like(rest), rest.clone()
    enough = share(rest) >= _SHARE
    for _ in range(30):
        middle = (low + high) / 2
        good = share(middle) >= _SHARE
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    found = torch.where(enough, rest, low.clamp(min=1e-6))
    return torch.minimum(found, rest) if count else rest


class _State:
    """Draws, their densities, and the steps of their moves."""

    def __init__(self, target: Joint, rows: dict[str, Tensor]) -> None:
        self.target, self.rows = target, dict(rows)
        self.count = len(rows[ROW])
        self.log_p, self.log_q = target.log_p(self.rows), target.log_q(self.rows)
        self.scale = torch.ones(target.units.sizes)
        self.tried, self.taken = 0.0, 0.0
        self.heads = [head for head, _ in target.guide.network.pairs() if self._moves(head)]

    def _moves(self, head: Any) -> bool:
        latent, known = self.target.form.latent, self.target.evidence.known
        return all(
            n in latent and not bool(known.get(n, torch.tensor(False)).any()) for n in head.names
        )

    @property
    def accepted(self) -> float:
        """Share of moves."""
        return self.taken / max(self.tried, 1.0)

    def choose(self, index: Tensor) -> None:
        """Resample, each unit for itself."""
        units, sites = self.target.units, self.target.form.sites
        for name, value in self.rows.items():
            if not units.dims:
                self.rows[name] = value[index]
            elif name in self.target.form.latent:
                spread = units.spread(index.double(), sites[name]).long()
                self.rows[name] = value.gather(0, spread.expand(value.shape))
        self.log_p = self.log_p.gather(0, index)
        self.log_q = self.log_q.gather(0, index)

    def move(self, reached: Tensor) -> None:
        """Metropolis steps at these temperatures."""
        units, sites = self.target.units, self.target.form.sites
        for _ in range(_MOVES):
            proposed, log_det = self._proposed()
            log_p, log_q = self.target.log_p(proposed), self.target.log_q(proposed)
            gain = (1 - reached) * (log_q - self.log_q) + reached * (log_p - self.log_p) + log_det
            gain = torch.where(gain.isnan(), -torch.inf, gain)
            yes = torch.rand(gain.shape).log() < gain
            self.tried += yes.numel()
            self.taken += float(yes.sum())
            share = yes.double().mean(0)
            self.scale = self.scale * ((share - _ACCEPTED) * 2).exp().to(self.scale)
            for name, value in self.rows.items():
                if name in self.target.form.latent:
                    wide = units.spread(yes.double(), sites[name]).bool()
                    self.rows[name] = torch.where(wide, proposed[name], value)
            self.log_p = torch.where(yes, log_p, self.log_p)
            self.log_q = torch.where(yes, log_q, self.log_q)

    def _proposed(self) -> tuple[dict[str, Tensor], Tensor]:
        """A move of one or all heads, and the log ratio of the Jacobians from the real line to values."""
        target = self.target
        supports = target.evidence.supports
        proposed, total = dict(self.rows), torch.zeros((self.count, *target.units.sizes))
        for head in self.heads:
            if isinstance(head, DiscreteHead):
                name = head.names[0]
                index = indices(head.shape, head.shape.units_first(self.rows[name]))
                fresh = torch.randint_like(index, head.head.kinds)
                if head.head.tail:  # a step of one up or down, so that every count can be reached
                    fresh = (index + torch.randint_like(index, 2) * 2 - 1).clamp(min=0)
                chosen = torch.rand(index.shape) < 0.5 / max(1, index.shape[-1])
                value = values_at(
                    head.shape, torch.where(chosen, fresh, index), self.rows[name].dtype
                )
                proposed[name] = head.shape.units_back(value)
                continue
            assert isinstance(head, ContinuousHead)
            values = {n: self.rows[n] for n in head.names}
            x, before = head.standardised(values, supports)
            x = x + self._step(head, x)
            dtypes = {n: v.dtype for n, v in values.items()}
            moved, log_dets = head.placed(x, supports, dtypes)
            proposed.update(moved)
            after = sum(log_dets.values(), torch.zeros(()))
            # densities of values are those of the real line times the Jacobian of the way there
            total = total + unit_log_q(head, before - after, target.units.names)
        return proposed, total

    def _step(self, head: ContinuousHead, x: Tensor) -> Tensor:
        """Normal steps with the draws' covariance, of each unit's own where units are moved one by one."""
        size = x.shape[-1]
        centred = x - x.mean(0)
        covariance = torch.einsum("r...i,r...j->...ij", centred, centred) / max(1, len(x) - 1)
        ridge = 1e-8 * torch.eye(size)
        factor = torch.linalg.cholesky_ex(covariance + ridge)[0].nan_to_num(0.0)
        step = (
            torch.einsum("...ij,r...j->r...i", factor, torch.randn_like(x)) * 2.38 / math.sqrt(size)
        )
        units = self.target.units
        scale = self.scale
        kept = [p for p in head.plates if p in units.names]
        if kept:
            order = [units.names.index(p) for p in kept]
            scale = scale.permute(order)
            for axis, plate in enumerate(head.plates):
                if plate not in units.names:
                    scale = scale.unsqueeze(axis)
        return step * scale.unsqueeze(-1) if kept else step * scale
