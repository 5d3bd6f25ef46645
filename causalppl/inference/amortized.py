"""An amortized guide as an inference method: one forward pass, corrected by importance weights, and judged."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import MethodError, OutOfDistributionWarning, site_list, warn_caller
from ..guides import Guide
from ..guides.evidence import evidence_of
from ..guides.joint import complete
from ..guides.outliers import Unusual
from ..guides.posterior_network import Evidence
from ..progress import Progress
from ..structural.form import ROW, StructuralForm
from ..structural.noise import keyed_seed
from .guide_weights import (
    INSTEAD,
    Joint,
    depends,
    guide_draws,
    nested_weights,
    summed,
    weighing_units,
)
from .importance import Weighed, chosen_rows
from .posterior_draws import NO_UNITS, PosteriorDraws, refuse_subsampling, stacked
from .weights import resample

__all__ = ["Amortized"]

_REFINEMENTS = ("tempered", "nuts")


@dataclass(frozen=True)
class Amortized:
    r"""Draws of an amortized guide, weighed by the program's density over the guide's.

    .. math:: w \propto p(x, y) / q(x \mid y)

    ``cp.abduct(model, evidence, method=guide)`` is short for this with its defaults. Weights are those of
    :class:`~causalppl.inference.ImportanceSampling`: per unit where the program and the guide treat units one by one, Pareto-smoothed,
    resolved by resampling, their k-hat and effective draws in the diagnostics.

    Args:
        guide: a trained guide.
        correct: whether to weigh the draws; if not, they are the guide's own, as fast as it gets and as good as it is.
        refine: what to do where k-hat exceeds 0.7. ``None``: warn. ``"tempered"``: carry the guide's draws to the posterior through
            a sequence of laws between the two, :math:`q^{1-t} p^t`, weighed, resampled and moved by Metropolis steps; discrete
            sites too. ``"nuts"``: the draws of :class:`~causalppl.inference.NUTS`, run on the whole program. Units with a good k-hat keep
            their weighed draws where weights are per unit.
        num_proposals: draws of the guide; twice ``num_samples`` and at least 1,000 by default.

    Raises:
        GuideMismatchError: the guide is for another program, or does not see a site of the evidence.
        ImpossibleEvidenceError, InferenceError: as importance sampling raises them.

    Warns:
        OutOfDistributionWarning: evidence that the program's simulations hardly ever resemble, so that the networks have not learnt it.
        InferenceWarning: k-hat above 0.7.

    References:
        Maximilian Dax, Stephen Green, Jonathan Gair, Michael Pürrer, Jonas Wildberger, Jakob Macke, Alessandra Buonanno, Bernhard Schölkopf
        (2023), Neural Importance Sampling for Rapid and Reliable Gravitational-Wave Inference. https://arxiv.org/abs/2210.05686
        Pierre Del Moral, Arnaud Doucet, Ajay Jasra (2006), Sequential Monte Carlo samplers. https://doi.org/10.1111/j.1467-9868.2006.00553.x

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(z, 1.0))
        >>> guide = cp.AmortizedGuide(model, observed=["y"], flow="gaussian", seed=0)()
        >>> history = guide.fit(steps=200)
        >>> posterior = cp.abduct(model, {"y": 2.0}, method=cp.Amortized(guide, correct=False), seed=0)()
        >>> posterior.latents["z"].shape
        torch.Size([1000])
    """

    guide: Guide
    correct: bool = True
    refine: str | None = None
    num_proposals: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.guide, Guide):
            raise MethodError(
                f"Amortized: guide={self.guide!r} is no amortized guide; build one, cp.AmortizedGuide(model, observed=[...])(*args)"
            )
        if self.refine is not None and self.refine not in _REFINEMENTS:
            raise MethodError(
                f"Amortized: refine={self.refine!r} is not known; it can be one of {site_list(_REFINEMENTS)}, or None"
            )
        if self.refine is not None and not self.correct:
            raise MethodError("Amortized: refine= needs the weights; leave correct=False out")

    @torch.no_grad()
    def sample(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        """See :class:`~causalppl.inference.Method`."""
        guide = self.guide
        evidence = evidence_of(guide.reading, form, guide.builder.arbitrary_evidence)
        refuse_subsampling(form, "Amortized")
        notes = (*guide.reading.notes, *self._unusual(evidence))
        progress.start("amortized guide", 2)
        count = self.num_proposals or max(1000, 2 * num_samples)
        if not self.correct:
            rows, *_ = guide_draws(guide, form, evidence, num_samples)
            why = "draws of the guide, not corrected"
            return PosteriorDraws(rows, num_samples, "AmortizedGuide", why, notes=notes)
        found, target, draws, k_hat, ess = self._chosen(form, evidence, count, num_samples)
        progress.advance(note=f"{count} draws of the guide")
        bad = (k_hat > 0.7) | (ess < 3)
        refined = self.refine is not None and bool(bad.any())
        if not refined:
            found.judge(ess, k_hat)
        if refined:
            draws, k_hat, ess, note = self._refined(
                target, draws, bad, k_hat, ess, num_samples, progress
            )
            notes = (*notes, note)
        draws[ROW] = torch.arange(num_samples)
        progress.advance(note="weighed")
        scalar = k_hat.dim() == 0
        return PosteriorDraws(
            {n: v for n, v in draws.items() if n in form.latent or n == ROW},
            num_samples,
            f"AmortizedGuide, refined ({self.refine})" if refined else "AmortizedGuide",
            f"draws of the guide, corrected; {found.reason}",
            float(ess) if scalar else ess,
            float(k_hat) if scalar else k_hat,
            unit_names=found.units.names,
            notes=notes,
        )

    def _chosen(
        self, form: StructuralForm, evidence: Evidence, count: int, num_samples: int
    ) -> tuple[Weighed, Joint, dict[str, Tensor], Tensor, Tensor]:
        """Draws by weight: per unit or nested where units are independent, and are where the posterior is; joint otherwise."""
        guide = self.guide
        rows, log_q, cancelled = guide_draws(guide, form, evidence, count)
        units, reason, outside = weighing_units(guide, form, rows, cancelled)
        nested = nested_weights(guide, form, evidence, count, units, outside) if outside else None
        if outside and nested is None:
            reason = depends(units)
        for joint in (False, True):
            own = NO_UNITS if outside or joint else units
            target = Joint(guide, form, evidence, own, cancelled)
            found: Weighed
            if nested is not None:
                found = nested
            else:
                log_p = target.log_p(rows)
                log_weights = log_p - summed(guide, log_q, own, count)
                found = Weighed(rows, log_weights, own, reason, "the guide", INSTEAD)
            smooth, k_hat, ess = found.smoothed()
            generator = torch.Generator().manual_seed(keyed_seed(form.seed, "resample"))
            index = resample(smooth, num_samples, generator)
            if nested is not None:
                draws, densities = nested.chosen(index)
                density = nested.inner_density
            else:
                kept = {n: v for n, v in rows.items() if n not in cancelled}
                draws = chosen_rows(form, replace(found, rows=kept), index)
                densities, density = log_p.gather(0, index), target.density
            if cancelled:  # each unit's draws have come from rows of its own
                fixed = {n: v for n, v in draws.items() if n in form.latent and n not in cancelled}
                draws, _ = complete(form, fixed, num_samples, "chosen")
            draws[ROW] = torch.arange(num_samples)
            if not (own.dims or nested is not None):
                break
            again = stacked(form.executor.map(density, num_samples, draws))
            if torch.allclose(again, densities, rtol=1e-3, atol=1e-3, equal_nan=True):
                break
            # a coupling of units that is rare among pairs of draws shows where the posterior is
            nested, reason = None, depends(units)
        return found, target, draws, k_hat, ess

    def _unusual(self, evidence: Evidence) -> tuple[str, ...]:
        found = self.guide.unusual(evidence)
        for one in found:
            warn_caller(
                f"{_in_words(one)}; the networks have not seen its like, so trust k-hat, or use cp.NUTS(), and check the program with "
                "cp.diagnostics.posterior_predictive",
                OutOfDistributionWarning,
            )
        return tuple(map(_in_words, found))

    def _refined(
        self,
        target: Joint,
        draws: dict[str, Tensor],
        bad: Tensor,
        k_hat: Tensor,
        ess: Tensor,
        num_samples: int,
        progress: Progress,
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, str]:
        form, units = target.form, target.units
        if self.refine == "nuts":
            from .nuts import NUTS  # loads where it is used

            other = NUTS().sample(form, num_samples, progress)
            better, note = other.latents, "by NUTS"
            size = torch.full_like(ess, float(other.ess or num_samples))  # type: ignore[arg-type]
            shape = torch.zeros_like(k_hat)
        else:
            from .tempering import tempered

            count = self.num_proposals or max(1000, 2 * num_samples)
            rows, *_ = guide_draws(target.guide, form, target.evidence, count)
            moved = tempered(target, rows, num_samples, progress)
            better, note, size, shape = moved.rows, moved.note, moved.ess, moved.k_hat
        result = {}
        for name, value in draws.items():
            if name == ROW or name not in better:
                continue
            if not units.dims:
                result[name] = better[name]
            else:
                chosen = units.spread(bad.unsqueeze(0).double(), form.sites[name]).bool()
                result[name] = torch.where(chosen, better[name], value)
        share = f"{int(bad.sum())} of {bad.numel()} units" if units.dims else "all draws"
        return (
            result,
            torch.where(bad, shape, k_hat),
            torch.where(bad, size, ess),
            f"k-hat of the guide's draws was {float(k_hat.max()):.2f}; {share} refined {note}",
        )


def _in_words(found: Unusual) -> str:
    sites, flagged = site_list(found.sites), found.flagged
    if flagged.dim() == 0:
        return f"the evidence on {sites} is unlike the program's simulations: at most {float(found.p_value):.1g} of them are as far out"
    share = f"{int(flagged.sum())} of {flagged.numel()} units"
    return f"the evidence on {sites} is unlike the program's simulations for {share}"
