"""The effect along one path: the treatment's change is passed on along its arrows and nowhere else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import QueryError
from ..notation.terms import Arithmetic, Expectation, Outcome
from ..query.estimate import Estimate
from ..query.relevance import ancestors
from ..typing import Program
from .answering import ask
from .average import read_options
from .problem import Problem, number, on_programs, world

__all__ = ["path_specific_effect"]


def path_specific_effect(
    model: Program,
    *,
    treatment: str,
    outcome: str,
    path: Sequence[str],
    treated: float = 1.0,
    control: float = 0.0,
    **options: Any,
) -> Callable[..., Estimate]:
    r"""The path-specific effect: what the outcome would do if one path alone carried the change of the treatment.

    .. math:: PSE = E[V_n] - E[Y_{t=0}], \quad V_1 = f_1(t=1, \cdot), \quad V_k = f_k(V_{k-1}, \cdot)

    where every other parent of a site on the path has the value that it has under the control. For the path that is the arrow from
    treatment to outcome it is the natural direct effect with all mediators; for ``t, m, y`` where nothing else mediates it is the
    natural indirect one.

    Args:
        model: a Pyro program.
        treatment, outcome: names of sites.
        path: names from treatment to outcome, each a direct parent of the next; deterministic sites count.
        treated, control: the two values of the treatment.
        options: as for :func:`~causalppl.effects.average_treatment_effect`.

    Returns:
        a callable that takes the program's own arguments and returns an :class:`~causalppl.query.estimate.Estimate` in the outcome's
        unit. A note says if the path has a recanting witness: then no experiment on groups identifies the effect, and the program's
        own assignments are what the answer rests on.

    Raises:
        UnknownSiteError: a name is no site.
        QueryError: the path does not lead from treatment to outcome, or two names are joined by no arrow.

    References:
        J. Pearl (2001), Direct and indirect effects.
        C. Avin, I. Shpitser, J. Pearl (2005), Identifiability of Path-Specific Effects.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     t = pyro.sample("t", dist.Bernoulli(0.5))
        ...     m = pyro.sample("m", dist.Bernoulli(0.25 + 0.5 * t))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 + 0.25 * t + 0.25 * m))
        >>> along = cp.effects.path_specific_effect(model, treatment="t", outcome="y", path=["t", "m", "y"])
        >>> float(along())
        0.125
    """
    verb = "path_specific_effect"
    one, zero = number(verb, "treated", treated), number(verb, "control", control)
    if isinstance(path, str):
        raise QueryError(
            f"{verb}: give the path as a list of sites, as in [{treatment!r}, {outcome!r}]"
        )
    names = list(path)
    if len(names) < 2 or names[0] != treatment or names[-1] != outcome:
        raise QueryError(
            f"{verb}: the path {names} does not lead from {treatment!r} to {outcome!r}; start with the one and end with the other"
        )

    def answer(problem: Problem) -> Estimate:
        _check_path(problem, names)
        left = _along(problem, names, one, zero)
        right = world(outcome, **{treatment: zero})
        found = ask(problem, Expectation(Arithmetic("-", left, right)))
        witness = _recanting_witness(problem, names)
        if witness is None:
            return found
        note = (
            f"{witness!r} passes the change on along this path and not along another (a recanting witness), so experiments on groups do "
            "not identify the effect; the answer rests on the program's assignments"
        )
        said = replace(found.diagnostics, notes=(*found.diagnostics.notes, note))
        return replace(found, diagnostics=said)

    return on_programs(verb, model, treatment, outcome, read_options(verb, options), answer)


def _check_path(problem: Problem, path: Sequence[str]) -> None:
    for name in path:
        problem.known("path", name)
    for before, after in itertools.pairwise(path):
        if before not in problem.arrows[after]:
            raise QueryError(
                f"{problem.verb}: no arrow leads from {before!r} to {after!r}; the direct parents of {after!r} are "
                f"{list(problem.arrows[after])}"
            )


def _along(problem: Problem, path: Sequence[str], treated: float, control: float) -> Outcome:
    """The last site of the path where the change came along it and everything else is as under control."""
    arrows, treatment = problem.arrows, problem.treatment
    value: float | Outcome = treated
    for before, site in itertools.pairwise(path):
        settings: dict[str, float | Outcome] = {before: value}
        for parent in arrows[site]:
            if parent == before:
                continue
            if parent == treatment:
                settings[parent] = control
            elif treatment in ancestors(parent, arrows):
                settings[parent] = world(parent, **{treatment: control})
        value = world(site, **settings)
    assert isinstance(value, Outcome)
    return value


def _recanting_witness(problem: Problem, path: Sequence[str]) -> str | None:
    """A site on the path from which another path leads to the outcome too."""
    arrows = problem.arrows
    for site, after in itertools.pairwise(path[1:]):
        others = [n for n in arrows if site in arrows[n] and n != after]
        if any(n == problem.outcome or n in ancestors(problem.outcome, arrows) for n in others):
            return site
    return None
