"""Which sites of a program a query needs: those that it mentions, and what their values come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..notation.resolution import Arrows
from ..notation.terms import Outcome
from ..structural.dependencies import track
from ..structural.form import StructuralForm
from ..structural.noise import isolated_rng, keyed_seed

__all__ = ["Relevance", "ancestors", "arrows_of", "relevance"]

#: Runs that are looked at for sites in branches.
LOOKS = 12


@dataclass(frozen=True)
class Relevance:
    """The sites that some outcomes need.

    Attributes:
        laws: sites whose own law, or value, matters in some world.
        held: sites that are only ever set to numbers: what follows from these matters, their own law does not.

    Example:
        >>> from causalppl.notation.terms import Setting
        >>> relevance([Outcome("y", (Setting("m", 1.0),))], {"x": (), "m": ("x",), "y": ("m",)})
        Relevance(laws=frozenset({'y'}), held=frozenset({'m'}))
    """

    laws: frozenset[str]
    held: frozenset[str]

    def __contains__(self, site: str) -> bool:
        return site in self.laws or site in self.held


def relevance(found: Iterable[Outcome], arrows: Arrows) -> Relevance:
    """What these outcomes need, ancestors included; arrows into a site that a world sets are cut there.

    Args:
        found: outcomes of a resolved query; those in the settings of a world are followed.
        arrows: site to its direct parents.
    """
    laws: set[str] = set()
    held: set[str] = set()
    seen: set[Outcome] = set()
    todo = list(found)
    while todo:
        outcome = todo.pop()
        if outcome in seen:
            continue
        seen.add(outcome)
        own = next((s for s in outcome.settings if s.site == outcome.site), None)
        if own is None:
            laws.add(outcome.site)
            todo += [Outcome(parent, outcome.settings) for parent in arrows[outcome.site]]
        elif isinstance(own.value, Outcome):
            todo.append(own.value)
        else:
            held.add(outcome.site)
    return Relevance(frozenset(laws), frozenset(held - laws))


def arrows_of(form: StructuralForm) -> Arrows:
    """Direct parents, of all sites that some runs show; factors are none."""
    runs = [form.dependencies]
    if form.dependencies.hidden:  # otherwise no value steers the program, so one run tells all
        runs = []
        for look in range(LOOKS):
            with isolated_rng(keyed_seed(form.seed, "dependencies", look)):
                runs.append(track(form.model, form.args, form.kwargs))
    found: dict[str, frozenset[str]] = {}
    for seen in runs:
        for name, parents in seen.parents.items():
            if seen.kinds[name] != "factor":
                found[name] = found.get(name, frozenset()) | parents
    return {name: tuple(p for p in found if p in parents) for name, parents in found.items()}


def ancestors(site: str, arrows: Arrows) -> set[str]:
    """All sites from which a directed path leads to ``site``."""
    found: set[str] = set()
    todo = [site]
    while todo:
        for parent in arrows.get(todo.pop(), ()):
            if parent not in found:
                found.add(parent)
                todo.append(parent)
    return found
