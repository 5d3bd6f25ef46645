"""Latents of single units given draws of the parameters: importance resampling for each draw and unit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ImpossibleEvidenceError, InferenceWarning, warn_caller
from ..structural.form import ROW, StructuralForm
from ..structural.noise import keyed_seed
from .posterior_draws import Units, common_units, stacked, units_independent
from .weights import effective_sample_size

__all__ = ["local_draws"]

_ELEMENTS = 20_000_000  # of proposals kept at a time, about 80 MB in float32


@torch.no_grad()
def local_draws(
    form: StructuralForm, parameters: dict[str, Tensor], num_samples: int
) -> dict[str, Tensor]:
    """One draw of every latent site of ``form`` for each draw of its parameters.

    Args:
        parameters: site to draws, shape ``(num_samples,) + site shape``.

    Raises:
        ImpossibleEvidenceError: no proposal has positive weight for some unit.

    Warns:
        InferenceWarning: fewer than five effective proposals for some unit, on average over draws.
    """
    local = {n: s for n, s in form.latent.items() if n not in parameters}
    each = sum(s.value.numel() for s in local.values())
    proposals = max(20, min(200, _ELEMENTS // (num_samples * each)))
    rows = num_samples * proposals
    noise = {n: v for n, v in form.prior_noise(rows, "local").items() if n in local}
    given = {n: v.repeat_interleave(proposals, 0) for n, v in parameters.items()}

    def simulate(row: Tensor, own: Any, fixed: dict[str, Tensor]) -> dict[str, Tensor]:
        return form.simulate(own, row, fixed)

    latents = stacked(form.executor.map(simulate, rows, torch.arange(rows), noise, given))
    units = common_units(local)
    if units.dims:
        pairs = min(16, num_samples)
        own = torch.arange(pairs) * proposals  # two proposals of the same parameter draw
        fixed = {n: latents[n][own] for n in (*parameters, ROW) if n in latents}
        first = {n: latents[n][own] for n in local}
        second = {n: latents[n][own + 1] for n in local}
        if not units_independent(form, units, first, second, fixed):
            units = Units((), (), ())

    def weigh(row: dict[str, Tensor]) -> Tensor:
        total: Any = torch.zeros(units.sizes)
        for log_prob in form.log_probs(row, units.plates, simulated=True)["evidence"].values():
            if log_prob.dim() == len(units.sizes):
                total = total + log_prob
        return total  # type: ignore[no-any-return]

    weights = stacked(form.executor.map(weigh, rows, latents)).reshape(
        num_samples, proposals, *units.sizes
    )
    if bool((weights.amax(1) == -torch.inf).any()):
        raise ImpossibleEvidenceError(
            f"evidence: none of {proposals} draws gives the new units' evidence positive probability; check it, or abduct the new "
            "units with cp.abduct and a method of your choice"
        )
    enough = effective_sample_size(weights.transpose(0, 1)).mean(0).min()
    if float(enough) < 5:
        warn_caller(
            f"for_units: only {float(enough):.1f} effective proposals for the worst unit; abduct the new units with cp.abduct instead",
            InferenceWarning,
        )
    generator = torch.Generator(weights.device).manual_seed(keyed_seed(form.seed, "local"))
    uniform = torch.rand(weights.shape, generator=generator, device=weights.device).clamp(1e-12)
    picked = (weights - (-uniform.log()).log()).argmax(1)
    draws = dict(parameters)
    for name, site in local.items():
        value = latents[name].reshape(num_samples, proposals, *site.value.shape)
        index = units.spread(picked.double(), site).long().unsqueeze(1)
        draws[name] = value.gather(1, index.expand(num_samples, 1, *site.value.shape)).squeeze(1)
    if not units.dims:
        draws[ROW] = (
            latents[ROW].reshape(num_samples, proposals).gather(1, picked.unsqueeze(1)).squeeze(1)
        )
    return {n: draws[n] for n in (*form.latent, ROW) if n in draws}
