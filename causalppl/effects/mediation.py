"""Direct and indirect effects: how much of an effect runs through mediators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import QueryError
from ..notation.terms import Arithmetic, Expectation
from ..query.estimate import Estimate
from ..typing import Program
from .answering import ask
from .average import read_options
from .problem import Problem, number, on_programs, site_name, world

__all__ = ["controlled_direct_effect", "natural_direct_effect", "natural_indirect_effect"]


def controlled_direct_effect(
    model: Program,
    *,
    treatment: str,
    outcome: str,
    mediator: str,
    at: float = 0.0,
    treated: float = 1.0,
    control: float = 0.0,
    **options: Any,
) -> Callable[..., Estimate]:
    r"""The controlled direct effect: the effect of the treatment while the mediator is held at one value for everybody.

    .. math:: CDE(m) = E[Y \mid do(t=1, m)] - E[Y \mid do(t=0, m)]

    Args:
        model: a Pyro program.
        treatment, outcome: names of sites.
        mediator: a site on a directed path between them.
        at: the value that it is held at, in its unit.
        treated, control: the two values of the treatment.
        options: as for :func:`~causalppl.effects.average_treatment_effect`.

    Returns:
        a callable that takes the program's own arguments and returns an :class:`~causalppl.query.estimate.Estimate` of rung 2, in the
        outcome's unit.

    Raises:
        UnknownSiteError: a name is no site.
        QueryError: the mediator is on no path, or the outcome does not depend on the treatment.

    References:
        J. M. Robins, S. Greenland (1992), Identifiability and Exchangeability for Direct and Indirect Effects.
        J. Pearl (2001), Direct and indirect effects.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     t = pyro.sample("t", dist.Bernoulli(0.5))
        ...     m = pyro.sample("m", dist.Bernoulli(0.25 + 0.5 * t))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 + 0.25 * t + 0.25 * m * t))
        >>> float(cp.effects.controlled_direct_effect(model, treatment="t", outcome="y", mediator="m", at=1.0)())
        0.5
    """
    verb = "controlled_direct_effect"
    one, zero = number(verb, "treated", treated), number(verb, "control", control)
    held = number(verb, "at", at)
    site_name(verb, "mediator", mediator)

    def answer(problem: Problem) -> Estimate:
        problem.check_mediators([mediator])
        left, right = (world(outcome, **{treatment: t, mediator: held}) for t in (one, zero))
        return ask(problem, Expectation(Arithmetic("-", left, right)))

    return on_programs(verb, model, treatment, outcome, read_options(verb, options), answer)


def natural_direct_effect(
    model: Program,
    *,
    treatment: str,
    outcome: str,
    mediators: Sequence[str],
    treated: float = 1.0,
    control: float = 0.0,
    **options: Any,
) -> Callable[..., Estimate]:
    r"""The natural direct effect: of the treatment while the mediators stay what they would have been without it.

    .. math:: NDE = E[Y_{t=1, M = M_{t=0}}] - E[Y_{t=0}]

    Args:
        model: a Pyro program.
        treatment, outcome: names of sites.
        mediators: sites on directed paths between them, held together.
        treated, control: the two values of the treatment.
        options: as for :func:`~causalppl.effects.average_treatment_effect`.

    Returns:
        a callable that takes the program's own arguments and returns an :class:`~causalppl.query.estimate.Estimate` of rung 3, in the
        outcome's unit; of the observed units unless ``over="population"``.

    Raises:
        UnknownSiteError: a name is no site.
        QueryError: a mediator is on no path, or mediators are given as one string.

    References:
        J. Pearl (2001), Direct and indirect effects.
        J. M. Robins, S. Greenland (1992), Identifiability and Exchangeability for Direct and Indirect Effects.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     t = pyro.sample("t", dist.Bernoulli(0.5))
        ...     m = pyro.sample("m", dist.Bernoulli(0.25 + 0.5 * t))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 + 0.25 * t + 0.25 * m * t))
        >>> float(cp.effects.natural_direct_effect(model, treatment="t", outcome="y", mediators=["m"])())
        0.3125
    """
    given = (model, treatment, outcome, mediators)
    return _natural_effect("natural_direct_effect", given, treated, control, options)


def natural_indirect_effect(
    model: Program,
    *,
    treatment: str,
    outcome: str,
    mediators: Sequence[str],
    treated: float = 1.0,
    control: float = 0.0,
    **options: Any,
) -> Callable[..., Estimate]:
    r"""The natural indirect effect: of the mediators alone changing to what the treatment would make them.

    .. math:: NIE = E[Y_{t=0, M = M_{t=1}}] - E[Y_{t=0}]

    It has the control value of the treatment in both worlds (Pearl's definition; the "total" indirect effect
    :math:`E[Y_{t=1}] - E[Y_{t=1, M = M_{t=0}}]` is the total effect minus the natural direct one).

    Args:
        model: a Pyro program.
        treatment, outcome: names of sites.
        mediators: sites on directed paths between them, changed together.
        treated, control: the two values of the treatment.
        options: as for :func:`~causalppl.effects.average_treatment_effect`.

    Returns:
        as :func:`natural_direct_effect` does.

    Raises:
        UnknownSiteError, QueryError: as for :func:`natural_direct_effect`.

    References:
        J. Pearl (2001), Direct and indirect effects.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     t = pyro.sample("t", dist.Bernoulli(0.5))
        ...     m = pyro.sample("m", dist.Bernoulli(0.25 + 0.5 * t))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 + 0.25 * t + 0.25 * m))
        >>> float(cp.effects.natural_indirect_effect(model, treatment="t", outcome="y", mediators=["m"])())
        0.125
    """
    given = (model, treatment, outcome, mediators)
    return _natural_effect("natural_indirect_effect", given, treated, control, options)


def _natural_effect(
    verb: str,
    given: tuple[Program, str, str, Sequence[str]],
    treated: float,
    control: float,
    options: dict[str, Any],
) -> Callable[..., Estimate]:
    """Treatment and mediators of two worlds, of which one is changed and the other stays natural, against the control."""
    model, treatment, outcome, mediators = given
    one, zero = number(verb, "treated", treated), number(verb, "control", control)
    names, direct = _mediators(verb, mediators), verb == "natural_direct_effect"
    dose, natural = (one, zero) if direct else (zero, one)

    def answer(problem: Problem) -> Estimate:
        problem.check_mediators(names)
        held = {name: world(name, **{treatment: natural}) for name in names}
        left = world(outcome, **{treatment: dose}, **held)
        right = world(outcome, **{treatment: zero})
        return ask(problem, Expectation(Arithmetic("-", left, right)))

    return on_programs(verb, model, treatment, outcome, read_options(verb, options), answer)


def _mediators(verb: str, given: Any) -> list[str]:
    if isinstance(given, str):
        raise QueryError(f"{verb}: give mediators as a list, as in [{given!r}]")
    names = list(given)
    if not names or not all(isinstance(name, str) for name in names):
        raise QueryError(f"{verb}: mediators={given!r}; give the names of one or more sites")
    return names
