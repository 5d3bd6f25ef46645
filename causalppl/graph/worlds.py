"""What the values of several worlds rest on, which a posterior predicts unit by unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from ..interventions import FromWorld, Hard, Intervention
from ..notation.terms import Outcome, Setting
from ..structural import StructuralForm
from ..structural.units import parameters
from .knowledge import Knowledge
from .question import Question
from .verdict import Grounds

__all__ = ["grounds_of_worlds"]


def grounds_of_worlds(
    form: StructuralForm, worlds: Mapping[str, Mapping[str, Intervention]], sites: Iterable[str]
) -> Grounds:
    """What the sites' values rest on, in every world together with what happened.

    Args:
        form: the program with its evidence.
        worlds: world to interventions.
        sites: the sites whose values are given; those that no intervention changes are no counterfactuals.
    """
    known = Knowledge(form, tuple(parameters(form)))
    arrows, shown = known.graph.arrows, tuple(sites)
    asked: dict[object, Question] = {}
    for name in worlds:
        settings = _settings(name, worlds, arrows.keys())
        done = {s.site for s in settings}
        changed = frozenset().union(*(known.graph.descendants(x) for x in done)) - done
        event: dict[Outcome, float | None] = {}
        for site in shown:
            if site in changed:
                event |= {Outcome(site): None, Outcome(site, settings): None}
        key = tuple((s.site, type(s.value)) for s in settings)
        if (
            event and key not in asked
        ):  # the verdict is the same for all worlds that set these sites
            asked[key] = known.with_data(Question("", event))
    return known.grounds(asked.values())


def _settings(
    name: str, worlds: Mapping[str, Mapping[str, Intervention]], nodes: Iterable[str]
) -> tuple[Setting, ...]:
    """A world as a query has it; values that are no single number are told apart by being unlike any other."""
    found = []
    for i, (site, intervention) in enumerate(sorted(worlds[name].items())):
        if site not in nodes:
            continue
        unlike = 1e300 * (1 + i / 64)
        value: float | Outcome = unlike
        if isinstance(intervention, Hard):
            value = _number(intervention.value, unlike)
        elif isinstance(intervention, FromWorld):
            source = intervention.world
            value = Outcome(site, _settings(source, worlds, nodes) if source in worlds else ())
        found.append(Setting(site, value))
    return tuple(found)


def _number(value: Tensor, otherwise: float) -> float:
    flat = value.detach().reshape(-1)
    return float(flat[0]) if flat.numel() and bool((flat == flat[0]).all()) else otherwise
