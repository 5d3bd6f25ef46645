"""Weights of an amortized guide's draws: of whole runs, of each unit, or of what lies outside the units with each unit summed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..guides import Guide
from ..guides.joint import complete, unit_log_q
from ..guides.posterior_network import Evidence
from ..structural.form import ROW, StructuralForm
from ..structural.noise import keyed_seed
from .importance import Weighed
from .posterior_draws import (
    NO_UNITS,
    Units,
    common_units,
    stacked,
    unit_log_probs,
    units_independent,
)

__all__ = [
    "INSTEAD",
    "Joint",
    "NestedWeights",
    "guide_draws",
    "nested_weights",
    "summed",
    "weighing_units",
]

_PAIRS = 16
#: What a message advises.
INSTEAD = "cp.Amortized(guide, refine='tempered'), more training, or cp.NUTS()"
_EACH = 8  # draws of the units for each draw of what is outside


@dataclass(frozen=True)
class Joint:
    """The two densities at hand: the program's with its evidence, and the guide's.

    Attributes:
        cancelled: sites drawn from the program itself, whose density is in both.
    """

    guide: Guide
    form: StructuralForm
    evidence: Evidence
    units: Units
    cancelled: frozenset[str]

    def log_p(self, rows: dict[str, Tensor]) -> Tensor:
        """Log joint density of rows, ``(rows,) + sizes of units``, in nats; what does not depend on a unit is left out of it."""
        return stacked(  # type: ignore[no-any-return]
            self.form.executor.map(self.density, len(rows[ROW]), rows, kind="guide")
        )

    def density(self, row: dict[str, Tensor]) -> Tensor:
        """That of one row."""
        units = self.units
        total: Any = torch.zeros(units.sizes)
        for part, terms in self.form.log_probs(row, units.plates).items():
            for name, log_prob in terms.items():
                if part == "prior" and name in self.cancelled:
                    continue
                if log_prob.dim() == len(units.sizes):
                    total = total + log_prob
        return total  # type: ignore[no-any-return]

    def log_q(self, rows: dict[str, Tensor]) -> Tensor:
        """The guide's log density of rows, ``(rows,) + sizes of units``."""
        count, given = len(rows[ROW]), self.evidence
        many = Evidence(
            {n: v.expand(count, *v.shape[1:]) for n, v in given.values.items()},
            {n: k.expand(count, *k.shape[1:]) for n, k in given.known.items()},
            given.supports,
            given.sizes,
        )
        log_q = self.guide.network.log_prob({**many.values, **rows}, many)
        return summed(self.guide, log_q, self.units, count)


def guide_draws(
    guide: Guide,
    form: StructuralForm,
    evidence: Evidence,
    count: int,
    inside: frozenset[str] = frozenset(),
    each: int = 1,
) -> tuple[dict[str, Tensor], list[Tensor], frozenset[str]]:
    """Draws of all latent sites, the log density of each head, and the sites that the program drew itself."""
    dtypes = {n: s.value.dtype for n, s in form.sites.items()}
    seed = keyed_seed(form.seed, "guide", each)
    values, log_q = guide.draw(evidence, count, seed, dtypes, inside, each)
    own = {n: v for n, v in values.items() if n in form.latent}
    rows, cancelled = complete(form, own, count * each)
    return {**rows, ROW: torch.arange(count * each)}, log_q, cancelled


def summed(guide: Guide, log_q: list[Tensor], units: Units, count: int) -> Tensor:
    """The guide's log density, ``(count,) + sizes of units``."""
    total = torch.zeros((count, *units.sizes))
    for (head, _), own in zip(guide.network.pairs(), log_q, strict=True):
        total = total + unit_log_q(head, own, units.names)
    return total


def weighing_units(
    guide: Guide, form: StructuralForm, rows: dict[str, Tensor], cancelled: frozenset[str]
) -> tuple[Units, str, frozenset[str]]:
    """The plates whose units both the program and the guide treat one by one, why, and the latent sites outside of them."""
    weighed = {n: s for n, s in form.latent.items() if n not in cancelled}
    units, outside = common_units(weighed), frozenset[str]()
    if not units.dims:
        local = {n: s for n, s in weighed.items() if s.frames}
        units, outside = common_units(local), frozenset(set(weighed) - set(local))
    if not units.dims:
        return NO_UNITS, "joint weights: the latent sites share no plate", frozenset()
    names = ", ".join(units.names)
    inside = set(units.names)
    for head, context in guide.network.pairs():
        apart = not inside & set(head.plates)
        pools = any(inside & set(group) for group in context.groups)
        if pools and not (apart and set(head.names) & outside):
            if not set(head.names) & set(weighed):
                continue
            return (
                NO_UNITS,
                f"joint weights: the guide does not treat units of {names} one by one",
                frozenset(),
            )
    if outside:
        return units, "", outside
    local_rows = {n: v for n, v in rows.items() if n in form.latent and _stands_in(form, n, units)}
    fixed = {n: v[:_PAIRS] for n, v in rows.items() if n not in local_rows}
    first = {n: v[:_PAIRS] for n, v in local_rows.items()}
    second = {n: v[_PAIRS : 2 * _PAIRS] for n, v in local_rows.items()}
    if not units_independent(form, units, first, second, fixed):
        return NO_UNITS, depends(units), frozenset()
    return (
        units,
        f"weights for each unit of {names}, which depend on their own latents alone",
        frozenset(),
    )


def depends(units: Units) -> str:
    """The reason of joint weights."""
    return f"joint weights: units of {', '.join(units.names)} depend on each other's latents"


def _stands_in(form: StructuralForm, name: str, units: Units) -> bool:
    return set(units.names) <= {f.name for f in form.sites[name].frames if f.vectorized}


@dataclass(frozen=True, kw_only=True)
class NestedWeights(Weighed):
    """Weights of draws of the sites outside the units, each unit's own latents summed over; and of each unit's draws given them.

    Attributes:
        inner: log weights of each unit's draws, ``(draws, each) + sizes of units``.
        inner_densities: log densities of the program, of the same shape; ``inner_density`` gives those of one row.
        inside: the plates.
    """

    inner: Tensor
    inner_densities: Tensor
    inner_density: Callable[[Any], Tensor]
    inside: Units
    form: StructuralForm

    def chosen(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Draws at ``index``, with one of its draws for each unit, by weight; and the densities that these had."""
        form, each = self.form, self.inner.shape[1]
        log_weights = self.inner[index]
        generator = torch.Generator().manual_seed(keyed_seed(form.seed, "inner"))
        uniform = torch.rand(log_weights.shape, generator=generator).clamp(min=1e-12)
        picked = (log_weights - (-uniform.log()).log()).argmax(1)
        found = {}
        for name, value in self.rows.items():
            if name == ROW:
                continue
            grouped = value.reshape(-1, each, *value.shape[1:])[index]
            if not _stands_in(form, name, self.inside):
                found[name] = grouped[:, 0]
                continue
            spread = self.inside.spread(picked.double(), form.sites[name]).long().unsqueeze(1)
            found[name] = grouped.gather(1, spread.expand(-1, 1, *value.shape[1:])).squeeze(1)
        densities = self.inner_densities[index].gather(1, picked.unsqueeze(1)).squeeze(1)
        return found, densities


def nested_weights(
    guide: Guide,
    form: StructuralForm,
    evidence: Evidence,
    count: int,
    units: Units,
    outside: frozenset[str],
) -> NestedWeights | None:
    r"""Weights that do not collapse with the number of units.

    .. math:: w(g) = \frac{p(g)}{q(g \mid y)} \prod_u \frac1K \sum_k \frac{p(z_{uk}, y_u \mid g)}{q(z_{uk} \mid g, y_u)}

    for draws :math:`g` of the sites outside the units and :math:`K` draws of each unit given them. It is right for any :math:`K`.

    Returns:
        ``None`` where units depend on each other given the sites outside.

    References:
        Christophe Andrieu, Gareth Roberts (2009), The pseudo-marginal approach for efficient Monte Carlo computations.
        https://arxiv.org/abs/0903.5480
        Minh-Ngoc Tran, Marcel Scharth, Michael Pitt, Robert Kohn (2013), Importance sampling squared for Bayesian inference in latent
        variable models. https://arxiv.org/abs/1309.3339
    """
    inside = frozenset(units.names)
    rows, log_q, cancelled = guide_draws(guide, form, evidence, count, inside, _EACH)
    local = {n for n in form.latent if _stands_in(form, n, units)}
    pairs = {n: v.reshape(count, _EACH, *v.shape[1:]) for n, v in rows.items()}
    first = {n: pairs[n][:_PAIRS, 0] for n in local}
    second = {n: pairs[n][:_PAIRS, 1] for n in local}
    fixed = {n: v[:_PAIRS, 0] for n, v in pairs.items() if n not in local}
    if not units_independent(form, units, first, second, fixed):
        return None

    def split(row: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        parts = form.log_probs(row, units.plates)
        parts["prior"] = {n: v for n, v in parts["prior"].items() if n not in cancelled}
        unit, rest = unit_log_probs(parts, units)
        return torch.zeros(units.sizes) + unit, torch.zeros(()) + rest

    unit, rest = stacked(form.executor.map(split, count * _EACH, rows, kind="nested"))
    densities = unit.reshape(count, _EACH, *units.sizes)
    for (head, _), own in zip(guide.network.pairs(), log_q, strict=True):
        if inside <= set(head.plates):
            unit = unit - unit_log_q(head, own, units.names)
        else:
            rest = rest - unit_log_q(head, own, ())
    inner = unit.reshape(count, _EACH, *units.sizes).nan_to_num(-torch.inf)
    means = torch.logsumexp(inner, 1) - torch.log(torch.tensor(float(_EACH)))
    weights = rest.reshape(count, _EACH)[:, 0] + means.flatten(1).sum(1)
    names = ", ".join(units.names)
    return NestedWeights(
        rows=rows,
        log_weights=weights,
        units=NO_UNITS,
        reason=f"weights of {', '.join(sorted(outside))}, with {_EACH} draws of each unit of {names} summed over",
        origin="the guide",
        instead=INSTEAD,
        inner=inner,
        inner_densities=densities,
        inner_density=lambda row: split(row)[0],
        inside=units,
        form=form,
    )
