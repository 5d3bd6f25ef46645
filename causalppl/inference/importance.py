"""Importance sampling from the prior, weights per unit only where that is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import (
    ImpossibleEvidenceError,
    InferenceError,
    InferenceWarning,
    MethodError,
    warn_caller,
)
from ..progress import Progress
from ..structural.form import ROW, StructuralForm
from ..structural.noise import keyed_seed
from .posterior_draws import (
    PosteriorDraws,
    Units,
    common_units,
    refuse_partial_events,
    refuse_subsampling,
    stacked,
    units_independent,
)
from .weights import effective_sample_size, pareto_smooth, resample

__all__ = ["ImportanceSampling"]

_NO_UNITS = Units((), (), ())


@dataclass(frozen=True)
class ImportanceSampling:
    r"""Draws from the prior weighed by the evidence, :math:`w \propto p(\text{evidence} \mid \text{latents})`.

    Weights are Pareto-smoothed and resolved by resampling. They are per unit where all latents stand in a plate and a
    numerical perturbation across units shows that each unit's densities depend on its own latents alone; joint otherwise.

    Args:
        proposal: ``"prior"``.
        num_proposals: draws from the proposal; at least 10,000 by default, and ten for each sample asked for.

    Raises:
        ImpossibleEvidenceError: no proposal has positive weight.
        InferenceError: the weights collapsed: fewer than three effective draws.

    Warns:
        InferenceWarning: k-hat above 0.7: the draws should not be trusted.

    References:
        A. Vehtari, D. Simpson, A. Gelman, Y. Yao, J. Gabry (2024), Pareto smoothed importance sampling.
    """

    proposal: str = "prior"
    num_proposals: int | None = None
    warn: bool = True

    def __post_init__(self) -> None:
        if self.proposal != "prior":
            raise MethodError(
                f"ImportanceSampling: proposal={self.proposal!r} is not known; it can be 'prior'"
            )

    @torch.no_grad()
    def sample(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        """See :class:`~causalppl.inference.Method`."""
        evident = form.evident
        count = (self.num_proposals or max(10_000, 10 * num_samples)) if evident else num_samples
        if evident:
            refuse_subsampling(form, "ImportanceSampling")
            refuse_partial_events(form, "ImportanceSampling")
        progress.start("importance sampling", 2)
        noise = form.prior_noise(count)
        latents = stacked(form.executor.map(form.simulate, count, noise, torch.arange(count)))
        progress.advance(note=f"{count} draws from the prior")
        if not evident:
            return PosteriorDraws(
                latents,
                count,
                "ImportanceSampling",
                "no evidence depends on what is latent: draws from the prior",
                float(count),
                0.0,
            )
        units, reason = self._units(form, latents)

        def weigh(row: dict[str, Tensor]) -> Tensor:
            total: Any = torch.zeros(units.sizes)
            for log_prob in form.log_probs(row, units.dims, simulated=True)["evidence"].values():
                # what stands outside the units' plates does not depend on them, so it cancels
                if log_prob.dim() == len(units.sizes):
                    total = total + log_prob
            return total  # type: ignore[no-any-return]

        log_weights = stacked(form.executor.map(weigh, count, latents))
        progress.advance(note="weighed")
        log_weights = torch.where(torch.isnan(log_weights), -torch.inf, log_weights)
        if bool((log_weights.amax(0) == -torch.inf).any()):
            raise ImpossibleEvidenceError(
                f"evidence: none of {count} draws of the latent sites gives the evidence positive probability; it "
                f"is impossible, or too rare for draws from the prior (evidence on {sorted(form.conditioned)})"
            )
        smooth, k_hat = pareto_smooth(log_weights)
        ess = effective_sample_size(smooth)
        self._judge(ess, k_hat)
        generator = torch.Generator(smooth.device).manual_seed(keyed_seed(form.seed, "resample"))
        index = resample(smooth, num_samples, generator)
        draws = {}
        for name, value in latents.items():
            if units.dims and name != ROW:
                spread = units.spread(index.to(torch.float64), form.sites[name]).long()
                draws[name] = value.gather(0, spread.expand(num_samples, *value.shape[1:]))
            elif not units.dims:
                draws[name] = value[index]
        scalar = not units.dims
        return PosteriorDraws(
            draws,
            num_samples,
            "ImportanceSampling",
            reason,
            float(ess) if scalar else ess,
            float(k_hat) if scalar else k_hat,
            unit_names=units.names,
        )

    def _judge(self, ess: Tensor, k_hat: Tensor) -> None:
        if not self.warn:
            return
        if bool((ess < 3).any()):
            raise InferenceError(
                f"ImportanceSampling: the weights collapsed to {float(ess.min()):.1f} effective draws; use cp.NUTS(), "
                "cp.Enumeration() for finite latents, or a larger num_proposals"
            )
        if bool((k_hat > 0.7).any()):
            bad = int((k_hat > 0.7).sum())
            warn_caller(
                f"importance weights are unreliable: k-hat is {float(k_hat.max()):.2f} (at most 0.7 is good) for {bad} "
                "of the weighted units; use cp.NUTS() or a larger num_proposals",
                InferenceWarning,
            )

    @staticmethod
    def _units(form: StructuralForm, latents: dict[str, Tensor]) -> tuple[Units, str]:
        units = common_units(form.latent)
        if not units.dims:
            return _NO_UNITS, "joint weights: the latent sites share no plate"
        first = {n: v[0] for n, v in latents.items() if n != ROW}
        second = {n: v[1] for n, v in latents.items() if n != ROW}
        if units_independent(form, units, first, second):
            return (
                units,
                f"weights for each unit of {', '.join(units.names)}, which depend on their own latents alone",
            )
        return (
            _NO_UNITS,
            f"joint weights: units of {', '.join(units.names)} depend on each other's latents",
        )
