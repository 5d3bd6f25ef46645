"""A conjugate program with its exact posterior, and methods that go wrong in the ways that methods do.

``mean ~ N(0, 1)``, ``n`` observations ``y ~ N(mean, 1)``: the posterior is normal with precision ``n + 1`` and mean
``sum(y) / (n + 1)``, drawn here directly, without any of the toolkit's inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from scipy.signal import lfilter

from causalppl.inference import PosteriorDraws

__all__ = ["Conjugate", "gaussian"]

OBSERVATIONS = 5


def gaussian(y: torch.Tensor) -> None:
    """The program; ``y`` has shape ``(n,)``."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("people", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@dataclass(frozen=True)
class Conjugate:
    """Independent draws of the exact posterior of :func:`gaussian`, unless something is changed.

    Args:
        width: factor of the standard deviation; below 1 the method is over-confident.
        shift: bias, in posterior standard deviations.
        prior: ignore the data.
        seed: draw the same random numbers for every data set.
        sticky: autocorrelation of neighbouring draws, as those of a slow chain.
        ess: what the method claims to be its effective sample size.
    """

    width: float = 1.0
    shift: float = 0.0
    prior: bool = False
    seed: int | None = None
    sticky: float = 0.0
    ess: float | None = None

    def sample(self, form: Any, num_samples: int, progress: Any) -> PosteriorDraws:
        """See :class:`~causalppl.inference.Method`."""
        y = form.sites["y"].value
        precision = 1.0 if self.prior else 1.0 + len(y)
        centre = 0.0 if self.prior else y.sum() / precision
        seed = form.seed if self.seed is None else self.seed
        noise = torch.randn(num_samples, generator=torch.Generator().manual_seed(seed % 2**63))
        if self.sticky:
            fresh = noise.numpy() * (1 - self.sticky**2) ** 0.5
            fresh[0] = noise[0]
            noise = torch.tensor(lfilter([1.0], [1.0, -self.sticky], fresh)).float()
        draws = centre + (self.shift + self.width * noise) / precision**0.5
        return PosteriorDraws(
            {"mean": draws},
            num_samples,
            "Conjugate",
            ess=self.ess,
            rhat=None if self.ess is None else 1.0,
        )
