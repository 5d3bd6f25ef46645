"""Whether an amortized guide is calibrated: simulation-based calibration of its own draws, in which training has no part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..errors import MethodError
from ..progress import Progress
from .calibration import simulation_based_calibration
from .calibration_result import Calibration
from .ranking import Quantity

if TYPE_CHECKING:
    from ..guides import Guide

__all__ = ["calibrate"]


def calibrate(
    guide: Guide,
    *,
    corrected: bool = False,
    num_simulations: int = 200,
    num_samples: int = 99,
    sites: Iterable[str] | None = None,
    quantities: Mapping[str, Quantity] | None = None,
    level: float = 0.95,
    seed: int | None = None,
    progress: bool | Progress = False,
) -> Calibration:
    """Ranks of true latents among a guide's draws, on fresh simulations of its program with all of its sites observed.

    :func:`coverage` reads the expected coverage of intervals off the result, and ``cp.plots`` draws both.

    Args:
        guide: a trained guide.
        corrected: whether draws are corrected by importance weights, as ``cp.abduct`` corrects them; by default the guide itself is
            judged.
        num_simulations, num_samples, sites, quantities, level, seed, progress: see :func:`simulation_based_calibration`.

    Raises:
        MethodError: no guide, or a program that weighs its runs.

    References:
        Joeri Hermans, Arnaud Delaunoy, François Rozet, Antoine Wehenkel, Volodimir Begy, Gilles Louppe (2022), A Trust Crisis In
        Simulation-Based Inference? Your Posterior Approximations Can Be Unfaithful. https://arxiv.org/abs/2110.06581

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(z, 1.0))
        >>> guide = cp.AmortizedGuide(model, observed=["y"], flow="gaussian", seed=0)()
        >>> history = guide.fit(steps=300)
        >>> cp.diagnostics.calibrate(guide, num_simulations=50, seed=0).passed
        True
    """
    from ..guides import Guide  # loads where it is used
    from ..inference.amortized import Amortized

    if not isinstance(guide, Guide):
        raise MethodError(
            f"calibrate: {guide!r} is no amortized guide; for other methods use simulation_based_calibration(model, method)"
        )
    reading = guide.reading
    check = simulation_based_calibration(
        reading.model,
        Amortized(guide, correct=corrected),
        observed=reading.observed,
        num_simulations=num_simulations,
        num_samples=num_samples,
        thin=1 if not corrected else 4,
        sites=sites,
        quantities=quantities,
        level=level,
        seed=seed,
        progress=progress,
    )
    return check(*reading.args, **reading.kwargs)
