"""Methods that sample nothing: everything observed, or draws that the user brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import LatentSiteError, MethodError, ShapeError, site_list
from ..progress import Progress
from ..structural.form import StructuralForm
from .posterior_draws import PosteriorDraws

__all__ = ["Exact", "PosteriorSamples"]


def _partly(form: StructuralForm) -> str:
    """Which of the latent sites are so in a part only."""
    parts = [
        f"{int(s.missing.sum())} of {s.missing.numel()} entries of {n!r} are missing (NaN or masked)"
        for n, s in form.latent.items()
        if s.missing is not None
    ]
    return f" ({'; '.join(parts)})" if parts else ""


@dataclass(frozen=True)
class Exact:
    """Nothing is latent: the factual world is known, one draw where no noise needs randomness.

    Raises:
        LatentSiteError: some site is neither observed nor in the evidence.
    """

    def sample(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        """See :class:`~causalppl.inference.Method`."""
        latent = form.latent
        if latent:
            raise LatentSiteError(
                f"Exact: the sites {site_list(latent)} are latent{_partly(form)}; give them as evidence, or another method, such "
                "as method=None, which chooses one"
            )
        form.check_evidence({})
        random = any(
            s.kind == "sample" and s.mechanism is not None and not s.mechanism.invertible
            for s in form.sites.values()
        )
        return PosteriorDraws({}, num_samples if random else 1, "Exact", "nothing is latent")


@dataclass(frozen=True, eq=False)
class PosteriorSamples:
    """Draws of the latent sites from any inference of the user's own.

    Args:
        samples: latent site to draws, shape ``(draws,) + site shape``; extra sites are refused.
    """

    samples: Mapping[str, Any]

    def sample(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        """See :class:`~causalppl.inference.Method`."""
        latent = form.latent
        if set(latent) != set(self.samples):
            raise MethodError(
                f"PosteriorSamples: got draws of {site_list(self.samples)}; the latent sites are {site_list(latent)}"
            )
        draws = {}
        for name, site in latent.items():
            value = torch.as_tensor(self.samples[name]).to(site.value)
            if value.shape[1:] != site.value.shape:
                raise ShapeError(
                    f"PosteriorSamples: draws of {name!r} have shape {tuple(value.shape)}; expected "
                    f"(draws, *{tuple(site.value.shape)})"
                )
            draws[name] = value
        counts = {len(v) for v in draws.values()}
        if len(counts) > 1:
            raise ShapeError(
                f"PosteriorSamples: sites have different numbers of draws: {sorted(counts)}"
            )
        return PosteriorDraws(
            draws, counts.pop() if counts else 1, "PosteriorSamples", "draws were given"
        )
