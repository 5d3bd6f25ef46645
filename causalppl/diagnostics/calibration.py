"""Simulation-based calibration: does a method find again what the program itself put there?

If latents and data are drawn from the program, a right posterior and the truth are exchangeable, so that the rank of the
truth among posterior draws is uniform, for every quantity that is computed from a posterior. A counterfactual contrast is
one of these: its truth is computed from the noise of the simulated world by the same call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..counterfactual import abduct
from ..errors import MethodError
from ..inference import Method
from ..progress import Progress, progress_from
from ..structural.noise import fresh_seed, keyed_seed
from ..typing import Program
from .calibration_result import Calibration
from .ranking import Asked, Quantity, Ranking
from .simulations import Simulations

__all__ = ["simulation_based_calibration"]


def simulation_based_calibration(
    model: Program,
    method: Method | None = None,
    *,
    observed: Iterable[str] | None = None,
    num_simulations: int = 100,
    num_samples: int = 99,
    thin: int = 10,
    sites: Iterable[str] | None = None,
    quantities: Mapping[str, Quantity] | None = None,
    level: float = 0.95,
    seed: int | None = None,
    progress: bool | Progress = False,
) -> Callable[..., Calibration]:
    r"""Checks a program and an inference method against each other on worlds that the program simulates.

    .. math:: \theta_s \sim p(\theta), \quad y_s \sim p(y \mid \theta_s), \quad \theta_{s1}, \ldots, \theta_{sD} \sim
        \text{method}(y_s), \qquad r_s = \#\{d : f(\theta_{sd}) < f(\theta_s)\}

    If the method gives the program's posterior, :math:`r_s` is uniform on :math:`0, \ldots, D` for every quantity :math:`f`,
    of latents, data and noise. Ranks of latents alone cannot see a method that ignores the data; those of the joint log
    likelihood can, so it is always among the quantities.

    Args:
        model: a Pyro program. Data come from its sites with ``obs=``, whose values are replaced by simulated ones; a program that
            reads its data elsewhere too, from an argument, is not simulated by this.
        method: an inference method; ``None`` chooses one for each simulation, as :func:`causalppl.abduct` does.
        observed: further sites that are data.
        num_simulations: simulated worlds; each costs one call of the method.
        num_samples: draws that each truth is ranked among.
        thin: the method is asked for ``thin * num_samples`` draws and every ``thin``-th is kept, so that neighbours in a chain
            do not matter. Where it reports fewer effective draws than twice those kept, fewer are kept.
        sites: latent or deterministic sites whose ranks are taken; all latent ones by default.
        quantities: name to a function of a :class:`causalppl.Posterior` that gives one value or array for each draw, such as
            ``lambda p: p.predict({"x": 1.0}).contrast("y", "counterfactual")``. The truth is the same function of the
            simulated world, noise included.
        level: a right method passes with this probability at least.
        seed: an integer; ``None`` takes one from torch's generator.
        progress: ``True`` draws a bar.

    Returns:
        a callable that takes the program's own arguments and returns a :class:`Calibration`.

    Raises:
        MethodError: nothing is data, nothing can be judged, or the program weighs its density by factors or scales.
        ProgramError: the program's sites differ from run to run.
        UnknownSiteError: a name that is no site.
        ShapeError: a quantity has not one entry for each draw.

    References:
        Sean Talts, Michael Betancourt, Daniel Simpson, Aki Vehtari, Andrew Gelman (2018), Validating Bayesian inference
        algorithms with simulation-based calibration. https://arxiv.org/abs/1804.06788
        Martin Modrák, Angie H. Moon, Shinyoung Kim, Paul Bürkner, Niko Huurre, Kateřina Faltejsková, Andrew Gelman, Aki
        Vehtari (2023), Simulation-based calibration checking for Bayesian computation: the choice of test quantities shapes
        sensitivity. https://doi.org/10.1214/23-BA1404

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def coins(heads):
        ...     fair = pyro.sample("fair", dist.Bernoulli(0.5))
        ...     with pyro.plate("throws", len(heads)):
        ...         pyro.sample("heads", dist.Bernoulli(0.8 - 0.3 * fair), obs=heads)
        >>> check = cp.diagnostics.simulation_based_calibration(coins, cp.Enumeration(), num_simulations=50, seed=0)
        >>> check(torch.zeros(5)).passed
        True
    """
    for name, number in (
        ("num_simulations", num_simulations),
        ("num_samples", num_samples),
        ("thin", thin),
    ):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise MethodError(f"{name}={number!r}: give a positive integer")
    if not 0 < level < 1:
        raise MethodError(f"level={level!r}: give a probability between 0 and 1, such as 0.95")

    def run(*args: Any, **kwargs: Any) -> Calibration:
        own_seed, report = fresh_seed(seed), progress_from(progress)
        simulations = Simulations(model, args, kwargs, observed, num_simulations, own_seed)
        asked = Asked(simulations, sites, quantities)
        ranking = Ranking(asked, num_samples, own_seed)
        report.start("simulations", num_simulations)
        try:
            for s in range(num_simulations):
                posterior = ranking.abducted(
                    lambda s=s: abduct(  # type: ignore[misc]
                        model,
                        simulations.evidence(s),
                        method=method,
                        num_samples=thin * num_samples,
                        seed=keyed_seed(own_seed, "simulation", s),
                    )(*args, **kwargs)
                )
                ranking.add(s, posterior)
                report.advance()
        finally:
            report.stop()
        return ranking.result(level)

    return run
