"""``bounds``: what a counterfactual can be, whatever couples the worlds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ..errors import IncompatibleMechanismError, UnknownSiteError, closest_name, site_list
from ..interventions import cast_to, check_support, program_arguments
from ..notation.parser import parse
from ..notation.terms import Expression, Outcome, parts
from ..structural.form import StructuralForm
from ..structural.noise import fresh_seed
from ..typing import Program

if TYPE_CHECKING:
    from .response_programs import Extremes

__all__ = ["Bounds", "bounds"]


@dataclass(frozen=True)
class Bounds:
    """The range of a query over the couplings of a program's worlds.

    Attributes:
        low: no admitted coupling gives less.
        high: no admitted coupling gives more.
        sharp: whether it is certain that the range cannot be narrowed: couplings attain the ends, or come as near as one likes.
        text: the query.
        assume: site to what was assumed of it.
        coupled: the sites whose coupling the range is over; none where the program alone settles the answer.

    Example:
        >>> Bounds(0.25, 0.5, True, "P(y[x=1]=1, y[x=0]=0)", {}, ("y",))
        Bounds(0.25 to 0.5, sharp, over couplings of y: P(y[x=1]=1, y[x=0]=0))
    """

    low: float
    high: float
    sharp: bool
    text: str
    assume: Mapping[str, str]
    coupled: tuple[str, ...]

    def __repr__(self) -> str:
        over = f", over couplings of {', '.join(self.coupled)}" if self.coupled else ""
        given = "".join(f", {site} {what}" for site, what in self.assume.items())
        sharp = "sharp" if self.sharp else "not known to be sharp"
        return f"Bounds({self.low:.6g} to {self.high:.6g}, {sharp}{over}{given}: {self.text})"

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def bounds(
    text: str, model: Program, assume: Mapping[str, str] | None = None
) -> Callable[..., Bounds]:
    r"""The least and the greatest value that a query can have, given the program's own distributions.

    A program settles what is seen and what is done. How the values of a site in several worlds go together it does not: any law of
    the site's response :math:`(y(c))_c`, ``c`` running over values of its parents, with

    .. math:: P(y(c) = v) = P(y = v \mid \text{parents} = c)

    fits it. The range is over all of these, for every site whose parents differ between the worlds of the query, responses of
    different sites being independent. The mechanisms of the program's sites play no part. With one such site the range is a linear
    program, with a condition after the bar a linear-fractional one. With several it is searched vertex by vertex where the
    program is small, and otherwise bounded from outside, ``.sharp`` being false.

    A conditional query ranges over the couplings that give its condition positive probability. Terms of rungs 1 and 2 have one value.
    Terms that cannot be put into one polynomial, or one ratio, are bounded one by one.

    Args:
        text: the query, as for :func:`~causalppl.query`. Terms of rung 3 are conditioned on the program's ``obs=`` values.
        model: a Pyro program. Sites that the query does not need may be anything. Of those that it needs, finite discrete scalars
            outside of plates are served as above. A scalar site that is continuous, or has infinitely many values, is served if its
            family has a distribution function, its ancestors are finite and nothing else that is needed comes from it, where a term
            compares it with numbers (in any worlds), compares its values in two worlds with each other by a linear expression (the
            bounds of Makarov), is linear in it (its mean), or conditions on one value of it. For the rest the bounds are those of
            the sites' supports, infinite where nothing is known, and ``.sharp`` is false.
        assume: site to ``"monotone"``: of the configurations of its parents that the query's worlds can show, a response is no
            less at one that is no less in each parent that changes between worlds and equal in the others; values in
            numeric order.

    Returns:
        a callable that takes the program's own arguments and returns :class:`Bounds`.

    Raises:
        QueryError: the text cannot be read.
        UnknownSiteError: a name, in the query or in ``assume``, is no site.
        ImpossibleEvidenceError: a condition has probability zero under every coupling.
        IncompatibleMechanismError: an assumption that the program's own probabilities contradict, or that is not known.

    References:
        G. Makarov (1981), Estimates for the distribution function of a sum of two random variables when the marginal
            distributions are fixed.
        J. Tian, J. Pearl (2000), Probabilities of causation: bounds and identification.
        A. Balke, J. Pearl (1994), Counterfactual probabilities: computational methods, bounds and applications.
        M. Frank, R. Nelsen, B. Schweizer (1987), Best-possible bounds for the distribution of a sum, a problem of Kolmogorov.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Bernoulli(0.5))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
        >>> cp.bounds("P(y[x=1]=1, y[x=0]=0)", model)()
        Bounds(0.5 to 0.75, sharp, over couplings of y: P(y[x=1]=1, y[x=0]=0))
        >>> cp.bounds("P(y[x=1]=1, y[x=0]=0)", model, assume={"y": "monotone"})().high
        0.5
    """
    tree = parse(text)
    chosen = _checked(assume)

    def run(*args: Any, **kwargs: Any) -> Bounds:
        form = StructuralForm(model, args, kwargs, None, fresh_seed(0))
        found, coupled = _answer(tree, form, chosen, tuple(program_arguments(model)))
        return Bounds(found.low, found.high, found.sharp, text, chosen, coupled)

    return run


def _checked(assume: Mapping[str, str] | None) -> dict[str, str]:
    if assume is None:
        return {}
    if not isinstance(assume, Mapping):
        raise IncompatibleMechanismError(
            f"bounds: assume={assume!r} is no mapping; write assume={{'y': 'monotone'}}"
        )
    for site, what in assume.items():
        if what != "monotone":
            raise IncompatibleMechanismError(
                f"bounds: assume says {what!r} of site {site!r}; 'monotone' is the one assumption that is known"
            )
    return dict(assume)


def _answer(
    tree: Expression, form: StructuralForm, assume: Mapping[str, str], arguments: tuple[str, ...]
) -> tuple[Extremes, tuple[str, ...]]:
    # the engines load where they are used: importing stays light
    from ..notation.resolution import resolve
    from .finite import FiniteModel, NotFinite
    from .finite_part import FinitePart
    from .relevance import arrows_of
    from .response_bounds import QueryBounds

    whole = None
    if form.dependencies.hidden:
        with contextlib.suppress(NotFinite):
            whole = FiniteModel(form)
    arrows = arrows_of(form) if whole is None else whole.parents
    query, terms = resolve(tree, arrows, arguments)
    _known_sites(assume, tuple(arrows))
    _castable(tree, form)

    part = FinitePart(form, arrows, terms, whole)
    try:
        solver = QueryBounds(part.program(), tuple(assume), meanings=part.meanings)
        found = solver.extremes(query)
    except NotFinite:  # what the reference run showed of a site is not what other runs show
        solver = QueryBounds(part.nothing(), meanings=part.meanings)
        found = solver.extremes(query)
    # an order of cells, or of compared values, does not say all that an order of the values says
    unsure = bool(set(assume) & set(part.open)) and found.low < found.high
    coupled = tuple(dict.fromkeys((*solver.coupled, *part.compared())))
    return replace(found, sharp=found.sharp and not unsure), coupled


def _known_sites(names: Iterable[str], sites: Iterable[str]) -> None:
    for name in names:
        if name not in sites:
            near = closest_name(name, sites)
            raise UnknownSiteError(
                f"bounds: assume names {name!r}, which is no site; the program's sites are {site_list(sites)}"
                + (f"; did you mean {near!r}?" if near else "")
            )


def _castable(tree: Expression, form: StructuralForm) -> None:
    """Refuse interventions with values that their sites cannot have."""
    for part in parts(tree):
        settings = part.settings if isinstance(part, Outcome) else getattr(part, "do", ())
        for setting in settings:
            site = form.sites.get(setting.site)
            if isinstance(setting.value, float) and site is not None and site.kind == "sample":
                value = torch.tensor(setting.value, dtype=torch.float64)
                check_support("do", site.name, site.fn, cast_to(site.name, value, site.value.dtype))
