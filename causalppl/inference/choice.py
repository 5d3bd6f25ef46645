"""Which method serves a program when the user names none, and why."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import torch

from ..errors import CausalPPLError, MethodError, NoMechanismError, ProgramError
from ..progress import Progress
from ..structural.form import StructuralForm
from .enumeration import Enumeration
from .exact import Exact
from .importance import ImportanceSampling
from .nuts import NUTS
from .posterior_draws import PosteriorDraws, common_units

__all__ = ["choose_and_sample"]

_PRIOR_DIMS = 5  # draws from the prior hardly ever meet the posterior of more dimensions
_LAPLACE_DIMS = 30


def choose_and_sample(form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
    """The cheapest method that is right: exact, enumerated, weighed draws of the prior, of a Laplace approximation, NUTS.

    Importance sampling is kept only where every k-hat is at most 0.7 and the effective draws, for every unit that has weights of
    its own, are at least half of those asked for; continuous latents go on to the next method otherwise.
    """
    latent = form.latent
    if not latent:
        return Exact().sample(form, num_samples, progress)
    if all(s.discrete for s in latent.values()):
        # not where sites exist in some assignments only, or where too many depend on each other
        with contextlib.suppress(ProgramError, MethodError):
            return Enumeration().sample(form, num_samples, progress)
        return ImportanceSampling().sample(form, num_samples, progress)
    if not form.evident:
        with contextlib.suppress(NoMechanismError):
            return ImportanceSampling().sample(form, num_samples, progress)
    reasons = []
    for method, most in ((_PRIOR, _PRIOR_DIMS), (_LAPLACE, _LAPLACE_DIMS)):
        found, reason = _tried(method, most, form, num_samples, progress)
        reasons.append(reason)
        if found is not None:
            return replace(found, why="; ".join([found.why, *filter(None, reasons)]))
    try:
        last = NUTS().sample(form, num_samples, progress)
    except MethodError as error:  # such as discrete latents without end: the prior's draws and their doubt are what there is
        try:
            last = ImportanceSampling().sample(form, num_samples, progress)
        except CausalPPLError as failure:
            raise failure from error
        reasons = [reasons[-1], _first_part(error)]
    return replace(last, why="; ".join([last.why, *reasons]))


_PRIOR = ImportanceSampling(warn=False)
_LAPLACE = ImportanceSampling("laplace", warn=False)


def _tried(
    method: ImportanceSampling,
    most: int,
    form: StructuralForm,
    num_samples: int,
    progress: Progress,
) -> tuple[PosteriorDraws | None, str]:
    """The draws, where they are good enough; otherwise why they are not, or why the method was not tried."""
    name = "draws from the prior" if method is _PRIOR else "a Laplace approximation"
    size = _dims_together(form)
    if size > most:
        return None, f"{size} dimensions that cannot be split, too many for {name}"
    try:
        found = method.sample(form, num_samples, progress)
    except CausalPPLError as error:
        return None, f"{name}: {_first_part(error)}"
    k_max = float(torch.as_tensor(found.pareto_k).max())
    least = float(torch.as_tensor(found.ess).min())
    if k_max <= 0.7 and least >= num_samples / 2:
        return found, ""
    return None, f"{name} weigh badly (k-hat {k_max:.2f}, {least:.0f} effective draws)"


def _dims_together(form: StructuralForm) -> int:
    """Latent numbers of one unit where all latents share a plate; of all of the program otherwise."""
    units = common_units(form.latent)
    each = torch.Size(units.sizes).numel() if units.dims else 1
    return sum(s.value.numel() for s in form.latent.values()) // each


def _first_part(error: Exception) -> str:
    return str(error).split(";")[0]
