"""What every effect is asked of: a program read once, a treatment and an outcome that it can reach."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ..errors import QueryError
from ..inference import Method
from ..interventions import program_arguments, unknown_site
from ..notation.resolution import Arrows
from ..notation.terms import Outcome, Setting
from ..query.estimate import Estimate
from ..query.relevance import ancestors, arrows_of
from ..structural.form import StructuralForm
from ..structural.noise import fresh_seed
from ..typing import Program, Values

__all__ = ["Options", "Problem", "number", "on_programs", "site_name", "world"]


@dataclass(frozen=True)
class Options:
    """What an effect passes on to the query engines; see :func:`causalppl.query`."""

    evidence: Values | None
    method: Method | None
    num_samples: int
    seed: int | None
    units: str | None = None
    parameters: Sequence[str] | None = None
    over: Literal["sample", "population"] | None = None


@dataclass(frozen=True)
class Problem:
    """A program with its arguments, and two of its sites.

    Attributes:
        verb: the function that was called, for messages.
        form: the program.
        treatment, outcome: names of sites.
        options: what was asked for besides.
        roles: what the caller calls the two sites.
    """

    verb: str
    form: StructuralForm
    treatment: str
    outcome: str
    options: Options
    roles: tuple[str, str] = ("treatment", "outcome")

    @cached_property
    def arrows(self) -> Arrows:
        """Site to its direct parents."""
        return arrows_of(self.form)

    def known(self, role: str, name: str) -> None:
        """Refuse a name that is no site.

        Raises:
            UnknownSiteError: it is none.
        """
        if name not in self.arrows:
            arguments = program_arguments(self.form.model)
            raise unknown_site(f"{self.verb}: {role}", name, list(self.arrows), arguments)

    def check(self) -> None:
        """Refuse sites that are unknown, or of which the second does not depend on the first.

        Raises:
            UnknownSiteError, QueryError: such a site.
        """
        first, second = self.roles
        self.known(first, self.treatment)
        self.known(second, self.outcome)
        if self.treatment == self.outcome:
            raise QueryError(
                f"{self.verb}: {self.treatment!r} is given as {first} and as {second}; give two sites"
            )
        if self.treatment not in ancestors(self.outcome, self.arrows):
            hint = ""
            if self.outcome in ancestors(self.treatment, self.arrows):
                hint = f"; the other way round, {self.outcome!r} does affect {self.treatment!r}"
            raise QueryError(
                f"{self.verb}: no directed path leads from the {first} {self.treatment!r} to the {second} {self.outcome!r}, so the "
                f"program makes the effect zero{hint}. Look at cp.causal_graph(model)(...).edges"
            )

    def check_mediators(self, mediators: Sequence[str]) -> None:
        """Refuse sites that do not stand between treatment and outcome.

        Raises:
            UnknownSiteError, QueryError: such a site.
        """
        for name in mediators:
            self.known("mediator", name)
            below = self.treatment in ancestors(name, self.arrows)
            if not below or name not in ancestors(self.outcome, self.arrows):
                between = [
                    n
                    for n in self.arrows
                    if self.treatment in ancestors(n, self.arrows)
                    and n in ancestors(self.outcome, self.arrows)
                ]
                raise QueryError(
                    f"{self.verb}: {name!r} stands on no directed path from {self.treatment!r} to {self.outcome!r}; "
                    + (f"the sites that do are {between}" if between else "no site does")
                )


def number(verb: str, role: str, value: Any) -> float:
    """A finite number.

    Raises:
        QueryError: something else was given.
    """
    try:
        found = float(value)
    except (TypeError, ValueError, RuntimeError):
        found = math.nan
    if not math.isfinite(found):
        raise QueryError(f"{verb}: {role}={value!r}; give one finite number")
    return found


def site_name(verb: str, role: str, value: Any) -> str:
    """The name of one site.

    Raises:
        QueryError: something else was given.
    """
    if not isinstance(value, str):
        raise QueryError(f"{verb}: {role}={value!r}; give the name of one site")
    return value


def world(site: str, /, **settings: float | Outcome) -> Outcome:
    """The potential outcome of a site under settings, sorted as the query engines have them."""
    return Outcome(site, tuple(Setting(name, settings[name]) for name in sorted(settings)))


def on_programs(
    verb: str,
    model: Program,
    treatment: Any,
    outcome: Any,
    options: Options,
    answer: Callable[[Problem], Estimate],
) -> Callable[..., Estimate]:
    """The callable that an effect returns: it reads the program for its arguments, checks the sites, and answers.

    Raises:
        QueryError: a site that is not given by its name.
    """
    site_name(verb, "treatment", treatment)
    site_name(verb, "outcome", outcome)

    def run(*args: Any, **kwargs: Any) -> Estimate:
        form = StructuralForm(model, args, kwargs, options.evidence, fresh_seed(options.seed))
        problem = Problem(verb, form, treatment, outcome, options)
        problem.check()
        return answer(problem)

    return run
