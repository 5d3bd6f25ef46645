"""An amortized guide as an inference method: one forward pass, corrected by importance weights, and judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import MethodError, OutOfDistributionWarning, site_list, warn_caller
from ..guides import Guide
from ..guides.evidence import evidence_of
from ..guides.joint import complete, unit_log_q
from ..guides.outliers import Unusual
from ..guides.posterior_network import Evidence
from ..progress import Progress
from ..structural.form import ROW, StructuralForm
from ..structural.noise import keyed_seed
from .importance import Weighed, chosen_rows
from .posterior_draws import (
    NO_UNITS,
    PosteriorDraws,
    Units,
    common_units,
    refuse_subsampling,
    stacked,
    units_independent,
)
from .weights import resample

__all__ = ["Amortized"]

_PAIRS = 16
_REFINEMENTS = ("tempered", "nuts")


@dataclass(frozen=True)
class Amortized:
    r"""Draws of an amortized guide, weighed by :math:`w \propto p(\text{latents}, \text{evidence}) / q(\text{latents} \mid \text{evidence})`.

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
        if not form.latent:
            raise MethodError("Amortized: nothing is latent; use cp.Exact()")
        guide = self.guide
        evidence = evidence_of(guide.reading, form, guide.builder.arbitrary_evidence)
        refuse_subsampling(form, "Amortized")
        notes = (*guide.reading.notes, *self._unusual(evidence))
        progress.start("amortized guide", 2)
        count = self.num_proposals or max(1000, 2 * num_samples) if self.correct else num_samples
        rows, log_q, cancelled = _draws(guide, form, evidence, count)
        progress.advance(note=f"{count} draws of the guide")
        if not self.correct:
            why = "draws of the guide, not corrected"
            return PosteriorDraws(rows, count, "AmortizedGuide", why, notes=notes)
        units, reason = _units(guide, form, rows)
        target = Joint(guide, form, evidence, units, cancelled)
        log_weights = target.log_p(rows) - _summed(guide, log_q, units, count)
        instead = "refine='tempered', cp.Amortized(guide, refine='tempered'), more training, or cp.NUTS()"
        found = Weighed(rows, log_weights, units, reason, "the guide", instead)
        smooth, k_hat, ess = found.smoothed()
        bad = (k_hat > 0.7) | (ess < 3)
        generator = torch.Generator().manual_seed(keyed_seed(form.seed, "resample"))
        kept = {n: v for n, v in found.rows.items() if n in form.latent or n == ROW}
        found = replace(found, rows=kept)
        if self.refine is None or not bool(bad.any()):
            found.judge(ess, k_hat)
            draws = chosen_rows(form, found, resample(smooth, num_samples, generator))
        else:
            # a unit whose weights have collapsed may be resampled as it is: its draws are replaced
            draws = chosen_rows(form, found, resample(smooth, num_samples, generator))
            draws, k_hat, ess, note = self._refined(target, draws, rows, bad, k_hat, ess, num_samples, progress)
            notes = (*notes, note)
        progress.advance(note="weighed")
        scalar = not units.dims
        return PosteriorDraws(
            draws,
            num_samples,
            "AmortizedGuide" if self.refine is None or not bool(bad.any()) else f"AmortizedGuide, refined ({self.refine})",
            f"draws of the guide, corrected; {reason}",
            float(ess) if scalar else ess,
            float(k_hat) if scalar else k_hat,
            unit_names=units.names,
            notes=notes,
        )

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
        rows: dict[str, Tensor],
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

            moved = tempered(target, rows, num_samples, progress)
            better, note, size, shape = moved.rows, moved.note, moved.ess, moved.k_hat
        result = {}
        for name, value in draws.items():
            if name not in better:
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
        units = self.units

        def one(row: dict[str, Tensor]) -> Tensor:
            total: Any = torch.zeros(units.sizes)
            for part, terms in self.form.log_probs(row, units.dims).items():
                for name, log_prob in terms.items():
                    if part == "prior" and name in self.cancelled:
                        continue
                    if log_prob.dim() == len(units.sizes):
                        total = total + log_prob
            return total  # type: ignore[no-any-return]

        return stacked(self.form.executor.map(one, len(rows[ROW]), rows, kind="guide"))  # type: ignore[no-any-return]

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
        return _summed(self.guide, log_q, self.units, count)


def _draws(
    guide: Guide, form: StructuralForm, evidence: Evidence, count: int
) -> tuple[dict[str, Tensor], list[Tensor], frozenset[str]]:
    dtypes = {n: s.value.dtype for n, s in form.sites.items()}
    values, log_q = guide.draw(evidence, count, keyed_seed(form.seed, "guide"), dtypes)
    own = {n: v for n, v in values.items() if n in form.latent}
    rows, cancelled = complete(form, own, count)
    return {**rows, ROW: torch.arange(count)}, log_q, cancelled


def _summed(guide: Guide, log_q: list[Tensor], units: Units, count: int) -> Tensor:
    total = torch.zeros((count, *units.sizes))
    for (head, _), own in zip(guide.network.pairs(), log_q, strict=True):
        total = total + unit_log_q(head, own, units.names)
    return total


def _units(guide: Guide, form: StructuralForm, rows: dict[str, Tensor]) -> tuple[Units, str]:
    """The plates whose units both the program and the guide treat one by one."""
    units = common_units(form.latent)
    if not units.dims:
        return NO_UNITS, "joint weights: the latent sites share no plate"
    names = ", ".join(units.names)
    if guide.network.pools & set(units.names):
        return NO_UNITS, f"joint weights: the guide does not treat units of {names} one by one"
    first = {n: v[:_PAIRS] for n, v in rows.items()}
    second = {n: v[_PAIRS : 2 * _PAIRS] for n, v in rows.items()}
    fixed = {ROW: first.pop(ROW)}
    second.pop(ROW)
    if not units_independent(form, units, first, second, fixed):
        return NO_UNITS, f"joint weights: units of {names} depend on each other's latents"
    return units, f"weights for each unit of {names}, which depend on their own latents alone"
