"""Whom a term speaks of: the units that were observed, or the population that they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..errors import QueryError, closest_name, site_list
from ..notation.resolution import Arrows, Resolved
from ..structural.form import StructuralForm

__all__ = ["Scope", "read_scope"]


@dataclass(frozen=True)
class Scope:
    """Units, parameters and data of a query.

    Attributes:
        over: whom all terms speak of, or ``None``: rung-3 terms of the observed units, the others of the population.
        has_data: whether anything is observed.
        units: the plate whose indices are the units; ``None`` where one run is one unit.
        parameters: the latent sites that all units share.
    """

    over: Literal["sample", "population"] | None
    has_data: bool
    units: str | None
    parameters: tuple[str, ...]

    def observed(self, resolved: Resolved) -> bool:
        """Whether the term is conditioned on the data of the units themselves."""
        chosen = self.over == "sample" or (self.over is None and resolved.rung == 3)
        return self.has_data and chosen

    def notes(self, terms: Iterable[Resolved]) -> Iterable[str]:
        """What a reader should know about whom was asked."""
        found = list(terms)
        if self.has_data and not all(map(self.observed, found)):
            told = (
                f"the data inform them through {site_list(self.parameters)} only"
                if self.parameters
                else "no parameter is shared with the observed ones, so the data say nothing about them"
            )
            yield f"terms speak of new units; {told}; over='sample' asks about the observed units"
        if self.over == "sample" and any(r.rung == 2 and self.observed(r) for r in found):
            yield "a rung-2 term about observed units is computed as a counterfactual of each"


def read_scope(
    form: StructuralForm,
    arrows: Arrows,
    asked: Iterable[str],
    over: Literal["sample", "population"] | None,
    units: str | None,
    parameters: Iterable[str] | None,
) -> Scope:
    """Units and parameters of a program for the sites that are asked about.

    Raises:
        QueryError: an unknown plate or parameter, or several plates without ``units=``.
    """
    plates = {
        name: tuple(f.name for f in site.frames if f.vectorized)
        for name, site in form.sites.items()
    }
    every = list(dict.fromkeys(p for names in plates.values() for p in names))
    if units is not None and units not in every:
        near = closest_name(units, every)
        raise QueryError(
            f"query: units={units!r} is no plate of the program; its plates: {site_list(every)}"
            + (f"; did you mean {near!r}?" if near else "")
        )
    if units is None:
        held = list(dict.fromkeys(p for site in asked for p in plates.get(site, ())))
        held = held or every
        if len(held) > 1:
            raise QueryError(
                f"query: the sites asked about stand in the plates {site_list(held)}; say whose indices are the units, "
                f"as in units={held[0]!r}"
            )
        units = held[0] if held else None
    has_data = any(
        s.observed or s.kind == "factor" or s.interval is not None for s in form.sites.values()
    )
    latent = set(form.latent)
    if parameters is not None:
        named = tuple(parameters)
        for name in named:
            if name not in latent:
                near = closest_name(name, latent)
                raise QueryError(
                    f"query: parameters={list(named)!r}: {name!r} is no latent site; the latent sites are {site_list(latent)}"
                    + (f"; did you mean {near!r}?" if near else "")
                )
        return Scope(over, has_data, units, named)
    if units is None:
        return Scope(over, has_data, None, ())
    inside = {name for name, names in plates.items() if units in names}
    below = _descendants(inside, arrows)
    shared = tuple(n for n in form.sites if n in latent and n not in inside and n not in below)
    return Scope(over, has_data, units, shared)


def _descendants(start: Iterable[str], arrows: Arrows) -> set[str]:
    found: set[str] = set()
    todo = list(start)
    while todo:
        site = todo.pop()
        for child, parents in arrows.items():
            if site in parents and child not in found:
                found.add(child)
                todo.append(child)
    return found
