"""A question: named worlds, their interventions read against the program's sites, and which are evaluated together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import InterventionError, UnknownWorldError, WorldNameError, closest_name, site_list
from ..interventions import (
    FromWorld,
    Functional,
    Hard,
    Intervention,
    Interventions,
    Policy,
    Shift,
    Stochastic,
    Where,
    as_interventions,
    cast_to,
    check_support,
    fit_shape,
    match,
    program_arguments,
    take_subsamples,
    unknown_site,
)
from .form import StructuralForm

__all__ = ["FACTUAL", "Group", "Question", "evaluation_order", "named_worlds", "source"]

FACTUAL = "factual"


def named_worlds(
    interventions: Mapping[Any, Any] | None, worlds: Mapping[str, Mapping[Any, Any]] | None
) -> dict[str, Interventions]:
    """World to interventions: the positional mapping is the world ``"counterfactual"``.

    Raises:
        WorldNameError: a name that is reserved, used twice or no string.
        InterventionError: what is no mapping of interventions.
    """
    named: dict[str, Interventions] = {}
    if interventions is not None:
        named["counterfactual"] = as_interventions(interventions)
    if worlds is not None and not isinstance(worlds, Mapping):
        raise WorldNameError("worlds: give a mapping of world name to interventions")
    for name, given in (worlds or {}).items():
        if not isinstance(name, str) or not name or "/" in name:
            raise WorldNameError(
                f"worlds: {name!r} is no world name; use a non-empty string without '/'"
            )
        if name == FACTUAL:
            raise WorldNameError(
                f"worlds: {FACTUAL!r} is reserved for the world that happened, which is always present; choose another name"
            )
        if name in named:
            raise WorldNameError(
                f"worlds: the name {name!r} is used twice: the positional interventions are the world 'counterfactual'"
            )
        if not isinstance(given, Mapping):
            raise InterventionError(
                f"worlds: world {name!r} is given as {given!r}; give its interventions as a mapping such as {{'x': 1.0}}"
            )
        named[name] = as_interventions(given)
    return named


def source(intervention: Intervention) -> str | None:
    """The world that an intervention takes its value from."""
    inner = intervention.inner if isinstance(intervention, Where) else intervention
    return inner.world if isinstance(inner, FromWorld) else None


@dataclass(eq=False)
class Group:
    """Worlds evaluated together: hard interventions stacked, or one world of any kind.

    Attributes:
        values: site to ``(worlds, *site shape)``.
        masks: site to ``(worlds,)`` booleans, where some worlds leave it alone.
        other: interventions that are not hard, of a single world.
    """

    worlds: list[str]
    values: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    other: dict[str, Intervention] = field(default_factory=dict)

    @property
    def targets(self) -> frozenset[str]:
        """The sites that are set."""
        return frozenset((*self.values, *self.other))


class Question:
    """Worlds by name, read against a program's sites.

    Args:
        form: the program.
        named: world to interventions.
        elsewhere: tells whether a site that the reference run lacks is shown by another run.

    Raises:
        UnknownSiteError, UnknownWorldError, InterventionError, ShapeError, SupportError: interventions that do not fit.
    """

    def __init__(
        self,
        form: StructuralForm,
        named: Mapping[str, Interventions],
        elsewhere: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self.form, self.named, self._elsewhere = form, named, elsewhere
        self.worlds = {world: self._prepare(given) for world, given in named.items()}
        self.groups = self._ordered(self._grouped())

    @cached_property
    def stochastic(self) -> bool:
        """Whether some world replaces a mechanism by one with noise of its own."""
        return any(isinstance(i, Stochastic) for p in self.worlds.values() for i in p.values())

    @cached_property
    def looks(self) -> bool:
        """Whether some intervention is more than a value: then what came of it has to be looked at."""
        return any(group.other for group in self.groups)

    @property
    def differentiable(self) -> bool:
        """Whether gradients with respect to interventions are asked for."""
        return any(_gradient(i) for p in self.worlds.values() for i in p.values())

    def _prepare(self, given: Interventions) -> dict[str, Intervention]:
        """Interventions by site name: checked, hard values cast and broadcast to their sites."""
        form, prepared = self.form, dict[str, Intervention]()
        hidden = set(form.halves.values())
        settable = [n for n, s in form.sites.items() if s.kind != "factor"]
        for key in given:
            if isinstance(key, re.Pattern):
                if not any(key.fullmatch(name) for name in settable):
                    raise unknown_site("do", key, settable)
            elif key not in settable:
                if key in form.sites:
                    raise InterventionError(
                        f"do: {key!r} is a factor, which weighs the draws and has no value to set; the sites that can be set are "
                        f"{site_list(settable)}"
                    )
                # a site in a branch that the reference run did not take may show in another row
                # or in this world: that it does is checked when the world has been run
                if not (form.dependencies.hidden or self._elsewhere(key)):
                    raise unknown_site("do", key, list(form.sites), program_arguments(form.model))
                prepared[key] = given[key]
        for name, site in form.sites.items():
            intervention = match(given, name) if site.kind != "factor" else None
            if intervention is None or (name in hidden and name not in given):
                continue
            indices = [
                (f.dim - site.event_dim, f.full_size, form.indices[f.name])
                for f in site.frames
                if f.vectorized and f.full_size is not None and f.name in form.indices
            ]
            intervention = take_subsamples(intervention, indices)
            if isinstance(intervention, Hard):
                value = cast_to(name, intervention.value.to(site.value.device), site.value.dtype)
                fitted = fit_shape(name, value, site.value.shape, indices)
                if site.kind == "sample":  # a number is checked once, not once a unit
                    alone = value.dim() == 0 and site.fn.event_dim == 0
                    check_support("do", name, site.fn, value if alone else fitted)
                intervention = Hard(fitted)
            prepared[name] = intervention
        return prepared

    def _grouped(self) -> list[Group]:
        """Worlds of hard interventions on the same sites together; many different targets merged by masks."""
        by_sites: dict[frozenset[str], list[str]] = {}
        groups = []
        for world, given in self.worlds.items():
            hard = all(isinstance(i, Hard) and n in self.form.sites for n, i in given.items())
            if given and hard:  # a world without interventions has no values to stack
                by_sites.setdefault(frozenset(given), []).append(world)
            else:
                groups.append(Group([world], other=dict(given)))
        many = len(by_sites) > 3
        for names in [[w for ws in by_sites.values() for w in ws]] if many else by_sites.values():
            groups.append(self._stacked(names))
        return groups

    def _stacked(self, names: list[str]) -> Group:
        group = Group(names)
        for site in dict.fromkeys(n for w in names for n in self.worlds[w]):
            chosen = [self.worlds[w].get(site) for w in names]
            like = self.form.sites[site].value
            parts = [i.value if isinstance(i, Hard) else like for i in chosen]
            # one world keeps its expanded view: a copy costs as much as the program at a million units
            group.values[site] = parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)
            if any(i is None for i in chosen):
                group.masks[site] = torch.tensor(
                    [i is not None for i in chosen], device=like.device
                )
        return group

    def _ordered(self, groups: list[Group]) -> list[Group]:
        """Worlds that take values from others after these."""
        by_world = {w: g for g in groups for w in g.worlds}
        ordered: list[Group] = []
        for world in evaluation_order(self.named):
            if by_world[world] not in ordered:
                ordered.append(by_world[world])
        return ordered


def evaluation_order(named: Mapping[str, Interventions]) -> list[str]:
    """Worlds such that those which take values from others come after these.

    Raises:
        UnknownWorldError: a value from a world that the question does not have.
        InterventionError: worlds that take values from each other in a circle.
    """
    known = (FACTUAL, *named)
    sources: dict[str, list[str]] = {}
    for world, given in named.items():
        sources[world] = [s for i in given.values() if (s := source(i)) is not None]
        for other in sources[world]:
            if other not in known:
                near = closest_name(other, known)
                raise UnknownWorldError(
                    f"from_world: world {world!r} takes a value from {other!r}, which is not asked for"
                    + (f"; did you mean {near!r}?" if near else ".")
                    + f" The worlds are {site_list(known)}; add it to worlds="
                )
    path: list[str] = []
    done: dict[str, None] = {FACTUAL: None}

    def visit(world: str) -> None:
        if world in done:
            return
        if world in path:
            circle = " -> ".join([*path[path.index(world) :], world])
            raise InterventionError(
                f"from_world: the worlds take values from each other in a circle, {circle}; nested counterfactuals have an "
                "innermost world"
            )
        path.append(world)
        for other in sources[world]:
            visit(other)
        path.pop()
        done[world] = None

    for world in named:
        visit(world)
    return [world for world in done if world != FACTUAL]


def _gradient(intervention: Intervention) -> bool:
    inner = intervention.inner if isinstance(intervention, Where) else intervention
    if isinstance(inner, Hard):
        return inner.value.requires_grad
    if isinstance(inner, Shift):
        return inner.amount.requires_grad
    return isinstance(inner, Functional | Policy)
