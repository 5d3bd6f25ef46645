"""The dose-response curve: the mean outcome at each of several doses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..errors import QueryError
from ..query.estimate import Estimate
from ..query.terms import Expectation
from ..typing import Program
from .answering import ask_all
from .average import read_options
from .problem import Problem, number, on_programs, world
from .profile import profile

__all__ = ["dose_response"]


def dose_response(
    model: Program,
    *,
    treatment: str,
    outcome: str,
    doses: Iterable[float],
    **options: Any,
) -> Callable[..., Estimate]:
    r"""The dose-response curve.

    .. math:: d \mapsto E[Y \mid do(t = d)]

    All doses are of the same posterior draws, so that differences along the curve are known better than its height.

    Args:
        model: a Pyro program.
        treatment, outcome: names of sites.
        doses: values of the treatment, in its unit.
        options: as for :func:`~causalppl.effects.average_treatment_effect`.

    Returns:
        a callable that takes the program's own arguments and returns a :class:`~causalppl.effects.Profile`: an estimate of rung 2 whose
        value has shape ``(doses,) + event_shape`` in the outcome's unit, and which knows the doses as ``.at``.

    Raises:
        UnknownSiteError: a name is no site.
        QueryError: no directed path leads from treatment to outcome, or there is no dose.

    References:
        K. Hirano, G. W. Imbens (2004), The Propensity Score with Continuous Treatments.
        J. Pearl (2009), Causality, chapter 3.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     t = pyro.sample("t", dist.Binomial(2, 0.5))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 * t))
        >>> cp.effects.dose_response(model, treatment="t", outcome="y", doses=[0, 1, 2])().value
        array([0.  , 0.25, 0.5 ])
    """
    verb = "dose_response"
    try:
        found = list(doses)
    except TypeError:
        raise QueryError(f"{verb}: doses={doses!r}; give a list of numbers") from None
    values = [number(verb, "doses", dose) for dose in found]
    if not values:
        raise QueryError(f"{verb}: give at least one dose, as in doses=[0.0, 1.0]")

    def answer(problem: Problem) -> Estimate:
        trees = [Expectation(world(outcome, **{treatment: dose})) for dose in values]
        curve = ask_all(problem, trees)
        return profile(treatment, values, curve, f"E[{outcome} | do({treatment}=...)]")

    return on_programs(verb, model, treatment, outcome, read_options(verb, options), answer)
