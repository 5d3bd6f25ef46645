"""Rows of worlds: the factual world from values or from noise, and every other world from its noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import (
    IncompatibleMechanismError,
    InterventionError,
    NoMechanismError,
    ProgramError,
    UnknownSiteError,
    site_list,
)
from ..interventions import (
    FromWorld,
    Hard,
    Intervention,
    Stochastic,
    Where,
    cast_to,
    fit_shape,
    outcome,
    program_arguments,
    replacement,
    unknown_site,
)
from ..mechanisms import mechanism_for
from ..typing import Message, Noise
from .form import ROW, StructuralForm
from .noise import draw
from .question import FACTUAL, Group, Question
from .sites import Site, site_kind, site_mechanism

__all__ = ["Evaluation", "World", "carried_values", "stack_rows"]


_NONE: Mapping[str, Tensor] = {}


class _NewSite(Exception):
    """A world shows a site that the batched noise does not cover: run row by row."""


class Evaluation:
    """Draws of a program's noise, the factual world that they give, and all others.

    Args:
        form: the program.
        rows: number of draws.
        latents: latent sites to draws, shape ``(rows,) + site shape``; may hold the numbers of the rows under ``ROW``.
        bases: the randomness of abduction by site; drawn by site name and seed where not given.
        fresh: noise of the mechanisms that a question's stochastic interventions bring, by site; likewise.
    """

    def __init__(
        self,
        form: StructuralForm,
        rows: int,
        latents: Mapping[str, Tensor],
        bases: Mapping[str, Noise] | None = None,
        fresh: Mapping[str, Noise] | None = None,
    ) -> None:
        self.form, self.rows, self.latents = form, rows, dict(latents)
        self._bases = None if bases is None else dict(bases)
        self._fresh = fresh
        self._known: tuple[Any, Any] | None = None
        self._versions: list[tuple[Tensor, int]] = []

    @classmethod
    def from_noise(
        cls,
        form: StructuralForm,
        rows: int,
        noise: Mapping[str, Noise],
        values: Mapping[str, Tensor] = _NONE,
        fresh: Mapping[str, Noise] | None = None,
    ) -> Evaluation:
        """All values follow from noise: nothing is conditioned on, ``v = f(noise)``.

        Args:
            values: values of sites that have no structural assignment.

        Raises:
            NoMechanismError: a site has neither noise nor a value.
        """
        found = cls(form, rows, {}, fresh=fresh)

        def row(own: dict[str, Noise], given: dict[str, Tensor]) -> dict[str, Tensor]:
            def rule(msg: Message) -> Tensor:
                name = msg["name"]
                if name in own:
                    site = form.sites.get(name)
                    mechanism = site.mechanism if site is not None else None
                    return (mechanism or site_mechanism(msg)).forward(msg["fn"], own[name])
                value = given.get(name, msg["value"])
                if value is None:
                    raise NoMechanismError(
                        f"site {name!r} has no noise here; give its noise, or observe it"
                    )
                return value

            return form.run(rule)

        with torch.no_grad():
            known = form.executor.map(row, rows, dict(noise), dict(values), kind="from noise")
        found._known = (known, dict(noise))
        return found

    @classmethod
    def of(
        cls,
        form: StructuralForm,
        rows: int,
        values: Any,
        noise: Any,
        latents: Mapping[str, Tensor],
        fresh: Mapping[str, Noise] | None = None,
    ) -> Evaluation:
        """Draws whose factual values and noise are known: stacked, or lists of rows."""
        found = cls(form, rows, latents, fresh=fresh)
        found._known = (values, noise)
        return found

    # --- The factual world ----------------------------------------------------------------------------------------

    @cached_property
    def index(self) -> Tensor:
        """The rows that draws were drawn in, which key the noise of sites in branches."""
        drawn = self.latents.get(ROW)
        return torch.arange(self.rows) if drawn is None else drawn

    def bases(self, kept: Mapping[str, Noise] = _NONE) -> dict[str, Noise]:
        """The randomness of abduction, by site.

        Args:
            kept: that of sites of which it does not matter.
        """
        form = self.form
        if self._bases is None:
            self._bases = {
                name: kept[name]
                if name in kept
                else draw(site.mechanism.base(site.fn), self.rows, form.seed, name, "base")
                for name, site in form.sites.items()
                if site.kind == "sample"
                and site.mechanism is not None
                and not site.mechanism.invertible
            }
        return self._bases

    @property
    def known(self) -> tuple[Any, Any]:
        """Values and noise of the factual world: stacked, or a list of rows."""
        if self._known is not None and all(t._version == v for t, v in self._versions):
            return self._known
        with torch.no_grad():
            found = self.form.executor.map(
                self._abduct_row, self.rows, self.index, self.latents, self.bases(), kind=FACTUAL
            )
        if isinstance(found, list):
            self._known = [v for v, _ in found], [n for _, n in found]
        else:
            values, noise = found
            own = {n for n, s in self.form.sites.items() if s.observed or s.latent}
            # what was given is copied once, so that a user who writes into a result changes the result only
            self._known = {n: v.clone() if n in own else v for n, v in values.items()}, noise
            self._versions = [
                (v, v._version) for v in self._known[0].values() if not v.is_inference()
            ]
        return self._known

    def values(self) -> dict[str, Tensor]:
        """The factual world, every site of shape ``(rows,) + site shape``."""
        return stack_rows(self.known[0])

    def has(self, name: str) -> bool:
        """Whether some row of the factual world shows a site that the reference run lacks."""
        rows = self.known[0]
        return isinstance(rows, list) and any(name in row for row in rows)

    def _abduct_row(
        self, index: Tensor, latents: dict[str, Tensor], bases: dict[str, Noise]
    ) -> tuple[dict[str, Tensor], dict[str, Noise]]:
        form, noise = self.form, dict[str, Noise]()

        def rule(msg: Message) -> Tensor:
            name = msg["name"]
            site = form.sites.get(name)
            if site is None and msg["value"] is None:
                self._only_plain(name)
                mechanism = site_mechanism(msg)
                noise[name] = form.branch_noise(mechanism.noise(msg["fn"]), name, index)
                return mechanism.forward(msg["fn"], noise[name])
            value = form.given(msg, latents)
            if site is not None and site.kind == "sample" and site.mechanism is not None:
                base = bases.get(name)
                if base is None and not site.mechanism.invertible:
                    base = form.branch_noise(site.mechanism.base(msg["fn"]), name, index)
                noise[name] = site.mechanism.abduct(msg["fn"], value, base)
            return value

        return form.run(rule), noise

    def _only_plain(self, name: str) -> None:
        if self.form.executor.sequential_because is None and self.rows > 1:
            raise _NewSite(name)

    # --- Other worlds ---------------------------------------------------------------------------------------------

    def worlds(self, question: Question) -> dict[str, dict[str, Tensor]]:
        """All worlds of a question, the factual one first: world to site to ``(rows,) + site shape``."""
        found: dict[str, Any] = {FACTUAL: self.known[0]}
        with torch.set_grad_enabled(question.differentiable):
            for group in question.groups:
                found |= self._evaluate(group, found)
        if self.form.executor.checks:
            self.check(question, found)
        return {world: stack_rows(found[world]) for world in (FACTUAL, *question.worlds)}

    def check(self, question: Question, found: Mapping[str, Any]) -> None:
        """What only the evaluated worlds show of an intervention: that its site exists, and that its callable gave numbers.

        Raises:
            UnknownSiteError, InterventionError: it does not, or it gave NaN.
        """
        for group in question.groups:
            self._check(group, found)

    def _check(self, group: Group, found: Mapping[str, Any]) -> None:
        for name, intervention in group.other.items():
            for world in group.worlds:
                rows = found[world] if isinstance(found[world], list) else [found[world]]
                values = [row[name] for row in rows if name in row]
                if not values:
                    seen = list(dict.fromkeys(n for row in rows for n in row))
                    raise unknown_site("do", name, seen, program_arguments(self.form.model))
                if isinstance(intervention, Stochastic | Hard):
                    continue
                if any(bool(torch.isnan(v).any()) for v in values):
                    raise InterventionError(
                        f"do: the intervention on site {name!r} of world {world!r} gave NaN; return numbers, or use "
                        "cp.where(mask, ...) to leave some units as they are"
                    )

    def _evaluate(self, group: Group, before: Mapping[str, Any]) -> dict[str, Any]:
        """World to stacked values, or to a list of rows."""
        form = self.form
        affected = self.affected(group.targets)
        facts, noise = self.known
        fresh = self.fresh_noise(group.other)
        carried = carried_values(group.other, before)

        def row(
            index: Tensor,
            facts: dict[str, Tensor],
            noises: dict[str, Noise],
            fresh: dict[str, Noise],
            carried: dict[str, Tensor],
            hard: dict[str, Tensor],
            masks: dict[str, Tensor],
        ) -> dict[str, Tensor]:
            world = World(self, group.other, affected, index, facts, noises, fresh, carried)
            return form.run(world.rule_for(hard, masks))

        size, kind = (self.rows, len(group.worlds)), (group.targets, bool(group.masks))
        inner = (group.values, group.masks)
        if isinstance(facts, list):
            facts, noise = _Rows(facts), _Rows(noise)
            carried = {n: _Rows(v) if isinstance(v, list) else v for n, v in carried.items()}
        outer = (self.index, facts, noise, fresh, carried)
        found = form.executor.grid(row, size, outer, inner, kind)
        if isinstance(found, list):
            return {w: [r[k] for r in found] for k, w in enumerate(group.worlds)}
        return {w: {n: v[:, k] for n, v in found.items()} for k, w in enumerate(group.worlds)}

    def fresh_noise(self, interventions: Mapping[str, Intervention]) -> dict[str, Noise]:
        """Noise of the mechanisms that stochastic interventions put in place of the program's."""
        if self._fresh is not None:
            return {
                n: self._fresh[n] for n, i in interventions.items() if isinstance(i, Stochastic)
            }
        return {
            name: draw(
                mechanism_for(i.distribution).noise(
                    replacement(name, i.distribution, self.form.sites[name].fn)
                ),
                self.rows,
                self.form.seed,
                name,
                "do",
            )
            for name, i in interventions.items()
            if isinstance(i, Stochastic)
        }

    def affected(self, targets: frozenset[str]) -> frozenset[str]:
        """What an intervention can reach.

        Raises:
            NoMechanismError: one of these has no structural assignment.
        """
        form = self.form
        known = [t for t in targets if t in form.sites]
        reached = set(form.dependencies.descendants(known))
        # the two halves of a site with obs_mask are one
        reached |= {whole for half, whole in form.halves.items() if half in reached}
        for name in reached - targets:
            site = form.sites.get(name)
            if site is not None and site.kind == "sample" and site.mechanism is None:
                raise NoMechanismError(
                    f"site {name!r} is downstream of an intervention on {site_list(targets)} and has no structural assignment: "
                    f"{site.why_none}. Register one with cp.register_mechanism, or intervene on {name!r} too"
                )
        return frozenset(reached | targets)


class World:
    """One row of one world: what value each site takes."""

    def __init__(
        self,
        evaluation: Evaluation,
        interventions: Mapping[str, Intervention],
        affected: frozenset[str],
        index: Tensor,
        facts: Mapping[str, Tensor],
        noises: Mapping[str, Noise],
        fresh: Mapping[str, Noise],
        carried: Mapping[str, Tensor],
    ) -> None:
        self.evaluation, self.form, self.interventions = evaluation, evaluation.form, interventions
        self.affected, self.index, self.facts = affected, index, facts
        self.noises, self.fresh, self.carried = noises, fresh, carried
        self.upstream: dict[str, Tensor] = {}

    def rule_for(
        self, hard: Mapping[str, Tensor] = _NONE, masks: Mapping[str, Tensor] = _NONE
    ) -> Callable[[Message], Tensor]:
        """The rule of the world whose further hard interventions are these."""
        natural, other, upstream = self.natural, self.interventions, self.upstream

        def rule(msg: Message) -> Tensor:
            name = msg["name"]
            if name in hard:
                value = hard[name]
                if name in masks:
                    value = torch.where(masks[name], value, natural(msg))
            elif name in other:
                value = self._other(other[name], msg)
            else:
                value = natural(msg)
            upstream[name] = value
            return value

        return rule

    def natural(self, msg: Message) -> Tensor:
        """The value that the site takes by itself."""
        form, name = self.form, msg["name"]
        site = form.sites.get(name)
        kind = site.kind if site is not None else site_kind(msg)
        if kind != "sample":
            if name in form.conditioned and name not in self.affected:
                return self.facts[name]
            return msg["value"]  # type: ignore[no-any-return]
        if site is None:
            if name not in self.noises:
                self.evaluation._only_plain(name)
                return form.branch(msg, self.index)
            return site_mechanism(msg).forward(msg["fn"], self.noises[name])
        if name in self.facts and (name not in self.affected or site.mechanism is None):
            return self.facts[name]
        mechanism = site_mechanism(msg)
        if name not in self.noises:
            self.evaluation._only_plain(name)
            return form.branch(msg, self.index)
        _check_compatible(site, mechanism, msg["fn"])
        return mechanism.forward(msg["fn"], self.noises[name])

    def _other(self, intervention: Intervention, msg: Message) -> Tensor:
        name = msg["name"]
        if isinstance(intervention, Stochastic):
            new = replacement(name, intervention.distribution, self.form.sites[name].fn)
            return mechanism_for(new).forward(new, self.fresh[name])
        if name in self.carried:
            value = Hard(self.carried[name])
            intervention = (
                Where(intervention.mask, value) if isinstance(intervention, Where) else value
            )
        site = self.form.sites.get(name)
        shape = site.value.shape if site is not None else msg["fn"].shape()
        dtype = site.value.dtype if site is not None else torch.get_default_dtype()
        assert not isinstance(intervention, FromWorld)
        raw = outcome(name, intervention, lambda: self.natural(msg), self.upstream)
        return fit_shape(name, cast_to(name, raw, dtype), shape)


class _Rows(list[Any]):
    """Rows that have no common shape; a leaf of a pytree, indexed by row."""


def carried_values(
    interventions: Mapping[str, Intervention], before: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of sites that are taken from worlds evaluated before: stacked, or a list of rows.

    Raises:
        UnknownSiteError: the other world has no such site.
    """
    found = {}
    absent = torch.tensor(float("nan"))  # refused where it is used
    for name, intervention in interventions.items():
        inner = intervention.inner if isinstance(intervention, Where) else intervention
        if not isinstance(inner, FromWorld):
            continue
        values = before[inner.world]
        rows = values if isinstance(values, list) else [values]
        seen = list(dict.fromkeys(n for row in rows for n in row))
        if name not in seen:
            raise UnknownSiteError(
                f"do: {name!r} is to be as in world {inner.world!r}, which has no such site; its sites are {site_list(seen)}"
            )
        carried = [row.get(name, absent) for row in rows]
        found[name] = carried if isinstance(values, list) else carried[0]
    return found


def _check_compatible(site: Site, mechanism: Any, fn: Any) -> None:
    own: Any = site.mechanism
    same = mechanism is own or (
        mechanism == own if is_dataclass(mechanism) else type(mechanism) is type(own)
    )
    if not same:
        raise IncompatibleMechanismError(
            f"site {site.name!r} is {_family(site.fn)} in the factual world and {_family(fn)} in another: their "
            "noises are not the same thing; use one family in all worlds, or two sites"
        )
    if fn.shape() != site.fn.shape():
        raise IncompatibleMechanismError(
            f"site {site.name!r} has shape {tuple(site.fn.shape())} in the factual world and {tuple(fn.shape())} in another; "
            "its noise cannot be shared"
        )


def _family(fn: Any) -> str:
    inner = fn
    while isinstance(inner, torch.distributions.Independent) or type(inner).__name__ in (
        "ExpandedDistribution",
        "MaskedDistribution",
    ):
        inner = inner.base_dist
    return type(inner).__name__


def stack_rows(found: Any) -> dict[str, Tensor]:
    """Rows as one tensor a site; NaN in the rows that lack a site."""
    if not isinstance(found, list):
        return dict(found)
    stacked = {}
    for name in dict.fromkeys(n for row in found for n in row):
        like = next(row[name] for row in found if name in row)
        shapes = {row[name].shape for row in found if name in row}
        if len(shapes) > 1:
            raise ProgramError(
                f"site {name!r} has different shapes in different draws: {sorted(map(tuple, shapes))}; pad it in the program"
            )
        if all(name in row for row in found):
            stacked[name] = torch.stack([row[name] for row in found])
        else:
            wide = like if like.is_floating_point() else like.to(torch.get_default_dtype())
            absent = torch.full_like(wide, float("nan"))
            stacked[name] = torch.stack(
                [row[name].to(wide.dtype) if name in row else absent for row in found]
            )
    return stacked
