"""Importance sampling from the prior, a Laplace approximation or a guide; weights per unit only where that is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from ..typing import Program
from .guide_proposal import GuideProposal
from .posterior_draws import (
    NO_UNITS,
    PosteriorDraws,
    Units,
    common_units,
    method_from,
    refuse_partial_events,
    refuse_subsampling,
    stacked,
    units_independent,
)
from .weights import effective_sample_size, pareto_smooth, resample

__all__ = ["ImportanceSampling", "Weighed"]

_PAIRS = 64  # of draws from the prior whose units are mixed
_COUPLED = "joint weights: units depend on each other's latents where the posterior is"


@dataclass(frozen=True)
class Weighed:
    """Proposals with their log weights.

    Attributes:
        rows: name to proposals, ``(proposals, ...)``: latent sites, or vectors of the real line.
        log_weights: shape ``(proposals, *unit sizes)``.
        units: those that have weights of their own.
        reason: why these units, in words.
        origin, instead: for messages: what the proposals came from, and what to use instead.
        density: of one row of the program, per unit, and ``densities`` its values at the proposals: what units are mixed to check.
    """

    rows: dict[str, Tensor]
    log_weights: Tensor
    units: Units
    reason: str
    origin: str
    instead: str
    density: Callable[[Any], Tensor] | None = None
    densities: Tensor | None = None

    def recombined_agree(
        self, form: StructuralForm, rows: dict[str, Tensor], index: Tensor
    ) -> bool:
        """Whether units taken from different proposals have there the densities that they were chosen by.

        The posterior visits what pairs of proposals may not show: a coupling that is rare among them.
        """
        if self.density is None or self.densities is None:
            return True
        given = rows["vector"] if "vector" in rows else rows
        found = stacked(form.executor.map(self.density, len(index), given))
        chosen = self.densities.gather(0, index)
        return torch.allclose(found, chosen, rtol=1e-3, atol=1e-3, equal_nan=True)

    def smoothed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Smoothed log weights, k-hat and effective sample size, each for every unit.

        Raises:
            ImpossibleEvidenceError: no proposal of some unit has positive weight.
        """
        weights = torch.where(torch.isnan(self.log_weights), -torch.inf, self.log_weights)
        if bool((weights.amax(0) == -torch.inf).any()):
            raise ImpossibleEvidenceError(
                f"evidence: none of {len(weights)} draws from {self.origin} gives the evidence positive probability; it is "
                f"impossible, or too rare for them; use {self.instead}"
            )
        smooth, k_hat = pareto_smooth(weights)
        return smooth, k_hat, effective_sample_size(smooth)

    def judge(self, ess: Tensor, k_hat: Tensor) -> None:
        """Refuse weights that collapsed, and warn of those that cannot be trusted.

        Raises:
            InferenceError: fewer than three effective draws for some unit.

        Warns:
            InferenceWarning: k-hat above 0.7.
        """
        where = f" for {int((ess < 3).sum())} of {ess.numel()} units" if self.units.dims else ""
        if bool((ess < 3).any()):
            raise InferenceError(
                f"ImportanceSampling: the weights of draws from {self.origin} collapsed to {float(ess.min()):.1f} effective "
                f"draws{where}; use {self.instead}, or a larger num_proposals"
            )
        if bool((k_hat > 0.7).any()):
            where = (
                f" for {int((k_hat > 0.7).sum())} of {k_hat.numel()} units"
                if self.units.dims
                else ""
            )
            warn_caller(
                f"importance weights of draws from {self.origin} are unreliable: k-hat is {float(k_hat.max()):.2f} (at most 0.7 is "
                f"good){where}; use {self.instead}, or a larger num_proposals",
                InferenceWarning,
            )


@dataclass(frozen=True)
class ImportanceSampling:
    r"""Draws from a proposal :math:`q` weighed by :math:`w \propto p(\text{latents}, \text{evidence}) / q(\text{latents})`.

    Weights are Pareto-smoothed and resolved by resampling. They are per unit where all latents stand in a plate and mixing the
    units of pairs of draws shows that each unit's densities depend on its own latents alone; joint otherwise.

    Args:
        proposal: ``"prior"``: the program's own mechanisms, so that only the evidence weighs. ``"laplace"``: for continuous
            latents, a mixture over the posterior's modes of Student laws with the curvature found there. Or a Pyro guide: a
            callable that takes the program's arguments and has a sample site for each of its latent sites, such as an autoguide
            after its training.
        num_proposals: draws from the proposal. By default ten for each sample asked for and at least 10,000 from the prior; four
            and at least 4,000 from others.
        warn: whether to judge the weights.

    Raises:
        ImpossibleEvidenceError: no proposal has positive weight.
        InferenceError: the weights collapsed: fewer than three effective draws.
        MethodError: a program that the proposal cannot serve.
        GuideMismatchError: the guide's sites are not the program's latent sites.

    Warns:
        InferenceWarning: k-hat above 0.7: the draws should not be trusted.

    References:
        Aki Vehtari, Daniel Simpson, Andrew Gelman, Yuling Yao, Jonah Gabry (2024), Pareto Smoothed Importance
        Sampling. https://jmlr.org/papers/v25/19-556.html

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(z, 0.1), obs=torch.tensor(2.02))
        >>> posterior = cp.abduct(model, method=cp.ImportanceSampling("laplace"), seed=0)()
        >>> abs(float(posterior.latents["z"].mean()) - 2.0) < 0.02
        True
    """

    proposal: str | Program = "prior"
    num_proposals: int | None = None
    warn: bool = True

    def __post_init__(self) -> None:
        if self.proposal not in ("prior", "laplace") and not callable(self.proposal):
            raise MethodError(
                f"ImportanceSampling: proposal={self.proposal!r} is not known; it can be 'prior', 'laplace' or a Pyro guide"
            )

    @torch.no_grad()
    def sample(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        """See :class:`~causalppl.inference.Method`."""
        other = method_from(self.proposal)
        if other is not self.proposal:
            return replace(other, num_proposals=self.num_proposals).sample(  # type: ignore[no-any-return]
                form, num_samples, progress
            )
        if not form.evident:
            return self._prior(form, num_samples)
        refuse_subsampling(form, "ImportanceSampling")
        progress.start("importance sampling", 2)
        smallest, each = (10_000, 10) if self.proposal == "prior" else (4_000, 4)
        count = self.num_proposals or max(smallest, each * num_samples)
        read: Any = dict
        if self.proposal == "prior":
            refuse_partial_events(form, "ImportanceSampling")
        elif isinstance(self.proposal, str):
            found, read = weighed_laplace(form, count)
        else:
            guide = GuideProposal.of(self.proposal, form)
        for joint in (False, True):
            if self.proposal == "prior":
                found = weighed_prior(form, count, joint)
            elif not isinstance(self.proposal, str):
                found = weighed_guide(guide, count, joint)
            progress.advance(note=f"{count} draws from {found.origin}")
            smooth, k_hat, ess = found.smoothed()
            seed = keyed_seed(form.seed, "resample")
            index = resample(smooth, num_samples, torch.Generator(smooth.device).manual_seed(seed))
            chosen = chosen_rows(form, found, index)
            if not found.units.dims or found.recombined_agree(form, chosen, index):
                break
            if self.proposal == "laplace":
                raise InferenceError(
                    f"ImportanceSampling('laplace'): units of {', '.join(found.units.names)} depend on each other's latents where "
                    "the posterior is, so that they cannot be weighed one by one; use cp.NUTS()"
                )
        if self.warn:
            found.judge(ess, k_hat)
        progress.advance(note="weighed")
        draws = read(chosen["vector"]) if "vector" in chosen else chosen
        scalar = not found.units.dims
        return PosteriorDraws(
            {n: v for n, v in draws.items() if n in form.latent or n == ROW},
            num_samples,
            "ImportanceSampling"
            if self.proposal == "prior"
            else f"ImportanceSampling({found.origin})",
            found.reason,
            float(ess) if scalar else ess,
            float(k_hat) if scalar else k_hat,
            unit_names=found.units.names,
        )

    @staticmethod
    def _prior(form: StructuralForm, count: int) -> PosteriorDraws:
        noise = form.prior_noise(count)
        latents = stacked(form.executor.map(form.simulate, count, noise, torch.arange(count)))
        why = "no evidence depends on what is latent: draws from the prior"
        return PosteriorDraws(latents, count, "ImportanceSampling", why, float(count), 0.0)


def chosen_rows(form: StructuralForm, found: Weighed, index: Tensor) -> dict[str, Tensor]:
    """The proposals at ``index``, shape ``(samples, *unit sizes)``; each unit has its own."""
    units, draws = found.units, {}
    for name, value in found.rows.items():
        if not units.dims:
            draws[name] = value[index]
        elif name == "vector":
            draws[name] = value.gather(0, index.unsqueeze(-1).expand(*index.shape, value.shape[-1]))
        elif name in form.latent:
            spread = units.spread(index.to(torch.float64), form.sites[name]).long()
            draws[name] = value.gather(0, spread.expand(len(index), *value.shape[1:]))
    return draws


def weighed_prior(form: StructuralForm, count: int, joint: bool = False) -> Weighed:
    """Draws from the prior, weighed by the evidence."""
    noise = form.prior_noise(count)
    latents = stacked(form.executor.map(form.simulate, count, noise, torch.arange(count)))
    units, reason = (NO_UNITS, _COUPLED) if joint else _units(form, latents)

    def weigh(row: dict[str, Tensor]) -> Tensor:
        total: Any = torch.zeros(units.sizes)
        for log_prob in form.log_probs(row, units.plates, simulated=True)["evidence"].values():
            # what stands outside the units' plates does not depend on them, so it cancels
            if log_prob.dim() == len(units.sizes):
                total = total + log_prob
        return total  # type: ignore[no-any-return]

    log_weights = stacked(form.executor.map(weigh, count, latents))
    continuous = not any(s.discrete for s in form.latent.values())
    instead = (
        "cp.ImportanceSampling('laplace') or cp.NUTS()"
        if continuous
        else "cp.NUTS(), or cp.Enumeration() for finite latents"
    )
    return Weighed(latents, log_weights, units, reason, "the prior", instead, weigh, log_weights)


def _units(form: StructuralForm, latents: dict[str, Tensor]) -> tuple[Units, str]:
    units = common_units(form.latent)
    if not units.dims:
        return NO_UNITS, "joint weights: the latent sites share no plate"
    pairs = min(_PAIRS, len(latents[ROW]) // 2)
    first = {n: v[:pairs] for n, v in latents.items()}
    second = {n: v[pairs : 2 * pairs] for n, v in latents.items()}
    fixed = {ROW: first.pop(ROW)}
    second.pop(ROW)
    names = ", ".join(units.names)
    if units_independent(form, units, first, second, fixed):
        return units, f"weights for each unit of {names}, which depend on their own latents alone"
    return NO_UNITS, f"joint weights: units of {names} depend on each other's latents"


def weighed_laplace(form: StructuralForm, count: int) -> tuple[Weighed, Any]:
    """Draws around the posterior's modes; and the map from vectors to values of the latents."""
    from .laplace import fit_laplace  # loads where it is used

    proposal, reason = fit_laplace(form, "ImportanceSampling('laplace')")
    target = proposal.target
    vectors, log_q = proposal.draw(count, keyed_seed(form.seed, "laplace"))
    log_p = stacked(form.executor.map(target.log_density, count, vectors, kind="laplace"))
    why = f"a Laplace approximation {reason}"
    found = Weighed(
        {"vector": vectors},
        log_p - log_q,
        target.units,
        why,
        "laplace",
        "cp.NUTS()",
        target.log_density,
        log_p,
    )
    return found, target.values


def weighed_guide(proposal: GuideProposal, count: int, joint: bool = False) -> Weighed:
    """Draws of a guide, weighed by the joint density over the guide's."""
    form, rows = proposal.form, proposal.draw(count)
    units, reason = (NO_UNITS, _COUPLED) if joint else proposal.units(rows)

    def density(row: dict[str, Tensor]) -> Tensor:
        latents = {n: v for n, v in row.items() if n in form.latent or n == ROW}
        total: Any = torch.zeros(units.sizes)
        for part in form.log_probs(latents, units.plates).values():
            for log_prob in part.values():
                if log_prob.dim() == len(units.sizes):
                    total = total + log_prob
        return total  # type: ignore[no-any-return]

    def both(row: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return density(row), proposal.log_prob(row, units)

    log_p, log_q = stacked(form.executor.map(both, count, rows, kind="guide"))
    instead = "more training, proposal='laplace' or cp.NUTS()"
    return Weighed(rows, log_p - log_q, units, reason, "guide", instead, density, log_p)
