"""Whether evidence looks like what the program simulates: a guide knows nothing of other data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..structural.noise import keyed_seed
from .encoding import squashed
from .reading import SiteShape

__all__ = ["Familiar", "Unusual"]

#: Simulated units that evidence is compared with, and as many again for their covariance.
_REFERENCE = 2048
#: A site with more entries is projected to so many.
_ENTRIES = 64
_LEVEL = 0.001


@dataclass(frozen=True)
class Unusual:
    """Evidence that hardly any simulation is like.

    Attributes:
        sites: the observed sites that were looked at together.
        p_value: share of simulated units that are at least as far out, ``sizes of plates``.
        flagged: which units are.
    """

    sites: tuple[str, ...]
    p_value: Tensor
    flagged: Tensor


class Familiar(nn.Module):
    r"""Observed sites in the same plates, seen together: Mahalanobis distance to the program's simulations.

    .. math:: d^2 = (y - m)^\top S^{-1} (y - m)

    over the entries that are known, with the mean and the covariance of simulations, standardised and squashed. The distance of
    further simulations says how often a right program is as far out.

    Args:
        shapes: of the sites.
        values: simulated, ``(rows,) + site shape``.
        names: the sites.

    References:
        Marvin Schmitt, Paul-Christian Bürkner, Ullrich Köthe, Stefan Radev (2023), Detecting Model Misspecification in Amortized
        Bayesian Inference with Neural Networks. https://arxiv.org/abs/2112.08866
    """

    def __init__(
        self,
        shapes: Mapping[str, SiteShape],
        values: Mapping[str, Tensor],
        names: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.names, self.shapes = names, shapes
        flat = {n: self._flat(n, values[n]) for n in names}
        self.sizes = {n: min(f.shape[-1], _ENTRIES) for n, f in flat.items()}
        count = 2 * _REFERENCE
        chosen = torch.linspace(0, len(flat[names[0]]) - 1, min(count, len(flat[names[0]]))).long()
        for i, name in enumerate(names):
            part = flat[name][chosen]
            self.register_buffer(f"mean_{i}", part.mean(0))
            spread = part.std(0)
            self.register_buffer(f"scale_{i}", torch.where(spread > 1e-6, spread, 1.0))
        x = self._joined({n: f[chosen] for n, f in flat.items()})
        self.register_buffer("centre", x[::2].mean(0))
        self.register_buffer("covariance", torch.cov(x[::2].T).reshape(x.shape[-1], -1))
        self.register_buffer("reference", x[1::2].clone())

    centre: Tensor
    covariance: Tensor
    reference: Tensor

    def _flat(self, name: str, value: Tensor) -> Tensor:
        """``(rows,) + site shape`` to ``(rows * units, entries)``."""
        shape = self.shapes[name]
        first = shape.units_first(value).to(torch.get_default_dtype())
        return first.reshape(first.shape[: 1 + len(shape.plates)].numel(), -1)

    def _joined(self, flat: Mapping[str, Tensor]) -> Tensor:
        parts = []
        for i, name in enumerate(self.names):
            x = squashed((flat[name] - getattr(self, f"mean_{i}")) / getattr(self, f"scale_{i}"))
            if x.shape[-1] > _ENTRIES:
                generator = torch.Generator().manual_seed(keyed_seed(0, "projection"))
                x = (
                    x
                    @ torch.randn(x.shape[-1], _ENTRIES, generator=generator).to(x)
                    * x.shape[-1] ** -0.5
                )
            parts.append(x)
        return torch.cat(parts, -1)

    @torch.no_grad()
    def check(self, values: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> Unusual | None:
        """What is unusual in one row of evidence; ``None`` where nothing is.

        Args:
            values: ``(1,) + site shape``.
            known: ``(1,) + units``.
        """
        there = torch.stack([known[n].reshape(-1) for n in self.names], -1)
        x = self._joined({n: self._flat(n, values[n]) for n in self.names})
        p_value = torch.ones(len(x))
        for pattern in there.unique(dim=0):
            if not bool(pattern.any()):
                continue
            units = (there == pattern).all(-1)
            entries = torch.cat(
                [
                    torch.full((self.sizes[n],), bool(p))
                    for n, p in zip(self.names, pattern, strict=True)
                ]
            )
            far = self._distance(x[units][:, entries], entries)
            usual = self._distance(self.reference[:, entries], entries).sort().values
            beyond = len(usual) - torch.searchsorted(usual, far)
            p_value[units] = (1 + beyond) / (1 + len(usual))
            p_value[units] = torch.where(far > 4 * usual[-1], 0.0, p_value[units])
        flagged = p_value <= _LEVEL
        sizes = known[self.names[0]].shape[1:]
        expected = len(x) * _LEVEL  # of units of the program's own that are flagged by chance
        by_chance = int(flagged.sum()) <= expected + 3 * expected**0.5
        if by_chance and not bool((p_value == 0.0).any()):
            return None
        return Unusual(self.names, p_value.reshape(sizes), flagged.reshape(sizes))

    def _distance(self, x: Tensor, entries: Tensor) -> Tensor:
        """Squared."""
        covariance = self.covariance[entries][:, entries]
        ridge = 1e-3 * torch.eye(len(covariance)) * covariance.diagonal().mean().clamp(min=1e-6)
        factor = torch.linalg.cholesky(covariance + ridge)
        gap = (x - self.centre[entries]).T
        return torch.linalg.solve_triangular(factor, gap, upper=False).square().sum(0)
