"""Which method serves a program when the user names none, and why."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from ..errors import CausalPPLError, NoMechanismError, ProgramError
from ..progress import Progress
from ..structural.form import StructuralForm
from .enumeration import Enumeration, assignment_count
from .exact import Exact
from .importance import ImportanceSampling
from .nuts import NUTS
from .posterior_draws import PosteriorDraws

__all__ = ["choose_and_sample"]


def choose_and_sample(form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
    """The cheapest method that is right: exact, enumerated, weighed per unit, weighed jointly, NUTS.

    Importance sampling is kept only where every k-hat is at most 0.7 and the effective draws reach a tenth of those asked
    for; continuous latents go to NUTS otherwise.
    """
    latent = form.latent
    if not latent:
        return Exact().sample(form, num_samples, progress)
    if assignment_count(form) <= Enumeration.max_assignments:
        with contextlib.suppress(ProgramError):  # sites that exist in some assignments only
            return Enumeration().sample(form, num_samples, progress)
    continuous = not any(s.discrete for s in latent.values())
    reason = "importance sampling was not possible"
    try:
        size = sum(s.value.numel() for s in latent.values() if not s.frames)
        if not form.evident or not continuous or size <= 5:
            found = ImportanceSampling(warn=not continuous).sample(form, num_samples, progress)
            k_hat, ess = found.pareto_k, found.ess
            assert k_hat is not None and ess is not None
            k_max = float(k_hat.max()) if hasattr(k_hat, "max") else float(k_hat or 0.0)
            ess_min = float(ess.min()) if hasattr(ess, "min") else float(ess or 0.0)
            if not continuous or (k_max <= 0.7 and ess_min >= num_samples / 10):
                return found
            reason = f"draws from the prior weigh badly (k-hat {k_max:.2f}, {ess_min:.0f} effective draws)"
        else:
            reason = f"{size} continuous parameters, too many for draws from the prior"
    except NoMechanismError:
        pass
    except CausalPPLError:
        if not continuous:
            raise
    nuts = NUTS().sample(form, num_samples, progress)
    return replace(nuts, why=f"{nuts.why}; {reason}")
