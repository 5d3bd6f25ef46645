"""Abduction, action, prediction: the posterior of a program's noise, and the worlds it implies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .errors import (
    IncompatibleMechanismError,
    InterventionError,
    MethodError,
    NoMechanismError,
    ProgramError,
    WorldNameError,
    site_list,
)
from .inference import Method, PosteriorDraws, choose_and_sample, local_draws
from .interventions import (
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
    outcome,
    program_arguments,
    unknown_site,
)
from .mechanisms import mechanism_for
from .progress import Progress, progress_from
from .results import Diagnostics, SiteLabels, Worlds
from .structural.dependencies import track
from .structural.form import ROW, Site, StructuralForm, site_kind, site_mechanism
from .structural.noise import draw, fresh_seed, isolated_rng, keyed_seed
from .typing import Message, Noise, Program, Values

__all__ = ["Posterior", "abduct", "counterfactual"]

FACTUAL = "factual"


class _NewSite(Exception):
    """A world shows a site that the batched noise does not cover: run row by row."""


def _worlds_from(
    interventions: Mapping[Any, Any] | None, worlds: Mapping[str, Mapping[Any, Any]] | None
) -> dict[str, Interventions]:
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


@dataclass
class _Group:
    """Worlds evaluated together: stacked hard interventions, or one world of any kind."""

    worlds: list[str]
    values: dict[str, Tensor]  #: site to (worlds, *site shape)
    masks: dict[str, Tensor]  #: site to (worlds,) booleans, where some worlds leave it alone
    other: dict[str, Intervention]


class Posterior:
    """Draws of the factual world and of every site's exogenous noise: abduct once, ask many times.

    Attributes:
        num_samples: number of equally weighted draws.
        latents: latent site to draws, shape ``(num_samples,) + site shape``.
    """

    def __init__(self, form: StructuralForm, draws: PosteriorDraws, requested: int = 1) -> None:
        self._form, self._draws, self._requested = form, draws, requested
        self.num_samples = draws.num_samples
        self._drawn = draws.latents
        self.latents = {n: v for n, v in draws.latents.items() if n != ROW}
        self._trace: tuple[Any, Any] | None = None
        self._dependencies: Any = None

    def __repr__(self) -> str:
        return f"Posterior({self.num_samples} draws of {site_list(self._form.sites)} by {self._draws.method}: {self._draws.why})"

    @property
    def noise(self) -> dict[str, Noise]:
        """Abducted noise by site, shape ``(num_samples,) + noise shape``; only where the program can be batched."""
        noise = self._factual()[1]
        if isinstance(noise, list):
            raise MethodError(
                "the program runs row by row, so its noise has no common shape; ask for worlds instead"
            )
        return dict(noise)

    def _bases(self) -> dict[str, Noise]:
        form = self._form
        return {
            name: draw(site.mechanism.base(site.fn), self.num_samples, form.seed, name, "base")
            for name, site in form.sites.items()
            if site.kind == "sample"
            and site.mechanism is not None
            and not site.mechanism.invertible
        }

    def _factual(self) -> tuple[Any, Any]:
        """Values and noise of the factual world: stacked, or a list of rows."""
        if self._trace is None:
            form = self._form

            def row(
                index: Tensor, latents: dict[str, Tensor], bases: dict[str, Noise]
            ) -> tuple[dict[str, Tensor], dict[str, Noise]]:
                noise: dict[str, Noise] = {}

                def rule(msg: Message) -> Tensor:
                    name, kind = msg["name"], site_kind(msg)
                    site = form.sites.get(name)
                    if site is None and msg["value"] is None:
                        if form.executor.sequential_because is None and self.num_samples > 1:
                            raise _NewSite(name)
                        mechanism = site_mechanism(msg)
                        noise[name] = form.branch_noise(mechanism.noise(msg["fn"]), name, index)
                        return mechanism.forward(msg["fn"], noise[name])
                    value = form.given(msg, latents)
                    if kind == "sample" and site is not None and site.mechanism is not None:
                        base = bases.get(name)
                        if base is None and not site.mechanism.invertible:
                            base = form.branch_noise(site.mechanism.base(msg["fn"]), name, index)
                        noise[name] = site.mechanism.abduct(msg["fn"], value, base)
                    return value

                return form.run(rule), noise

            with torch.no_grad():
                index = self._rows()
                found = form.executor.map(row, self.num_samples, index, self._drawn, self._bases())
            self._trace = (
                ([v for v, _ in found], [n for _, n in found]) if isinstance(found, list) else found
            )
        return self._trace

    def _rows(self) -> Tensor:
        """The rows that draws were drawn in, which key the noise of sites in branches."""
        return self._drawn.get(ROW, torch.arange(self.num_samples))

    def predict(
        self,
        interventions: Mapping[Any, Any] | None = None,
        *,
        worlds: Mapping[str, Mapping[Any, Any]] | None = None,
        sites: list[str] | None = None,
        compile: bool = False,
    ) -> Worlds:
        r"""The factual world and others that share its noise: :math:`f(\text{abduct}(v), do)`.

        Args:
            interventions: one world, named ``"counterfactual"``: site to anything :func:`causalppl.do` takes.
            worlds: several worlds by name.
            sites: sites to keep; all by default.
            compile: not available yet; a request raises.

        Returns:
            :class:`~causalppl.results.Worlds`, every tensor of shape ``(num_samples,) + site shape``.

        Raises:
            UnknownSiteError, InterventionError, ShapeError, SupportError, WorldNameError: a request that does not fit.
            NoMechanismError: a site downstream of an intervention has no structural assignment.
            IncompatibleMechanismError: a site's family or noise shape differs between worlds.
        """
        if compile:
            raise MethodError("compile=True is not available in this version; leave it out")
        form = self._form
        named = _worlds_from(interventions, worlds)
        keep = list(form.sites) if sites is None else list(sites)
        for name in keep:
            if name not in form.sites:
                raise unknown_site("sites", name, list(form.sites))
        prepared = {world: self._prepare(given) for world, given in named.items()}
        if self.num_samples == 1 and any(
            isinstance(i, Stochastic) for p in prepared.values() for i in p.values()
        ):
            # nothing was random until this question: as many draws as were asked for
            many = replace(self._draws, num_samples=self._requested)
            return (
                Posterior(form, many, 1).predict(worlds=named, sites=sites)
                if self._requested > 1
                else self._predict(prepared, keep, sites)
            )
        return self._predict(prepared, keep, sites)

    def _predict(
        self, prepared: dict[str, dict[str, Intervention]], keep: list[str], sites: list[str] | None
    ) -> Worlds:
        form = self._form
        gradients = any(_value_of(i).requires_grad for p in prepared.values() for i in p.values())
        values: dict[str, dict[str, Tensor]] = {
            FACTUAL: _stack_rows(self._factual()[0], self.num_samples)
        }
        with torch.set_grad_enabled(gradients):
            for group in _groups(prepared, form):
                values |= self._evaluate(group)
        ordered = {world: values[world] for world in (FACTUAL, *prepared)}
        extra = [n for v in ordered.values() for n in v if n not in form.sites]
        wanted = dict.fromkeys([*keep, *(extra if sites is None else [])])
        wanted = {n: None for n in wanted if n not in form.sites or form.sites[n].kind != "factor"}
        labels = {
            n: self._labels(n, next(v[n] for v in ordered.values() if n in v)) for n in wanted
        }
        shown = {n: next(v[n] for v in ordered.values() if n in v) for n in wanted}
        lacking = {
            n: _nowhere(t) for n, t in shown.items() if any(n not in v for v in ordered.values())
        }
        chosen = {
            w: {n: v[n] if n in v else lacking[n] for n in wanted} for w, v in ordered.items()
        }
        return Worlds(chosen, labels, self._diagnostics())

    def for_units(
        self, *args: Any, evidence: Values | None = None, seed: int | None = None, **kwargs: Any
    ) -> Posterior:
        """The posterior for new units: draws of the parameters are reused, the new units alone abducted.

        Parameters are the latent sites outside every plate. What stays latent in the new units is drawn given each parameter
        draw, by importance resampling for each unit.

        Args:
            args: the program's arguments for the new units.
            evidence: what is known of them.

        Raises:
            MethodError: a parameter's shape differs.
        """
        form = StructuralForm(
            self._form.model,
            args,
            kwargs,
            evidence,
            fresh_seed(seed) if seed is not None else self._form.seed,
        )
        form.params = dict(self._form.params)
        parameters = {n: v for n, v in self.latents.items() if not self._form.sites[n].frames}
        local = [n for n in form.latent if n not in parameters]
        used = {n: parameters[n] for n in form.latent if n in parameters}
        for name, value in used.items():
            if value.shape[1:] != form.sites[name].value.shape:
                raise MethodError(
                    f"for_units: the parameter {name!r} has shape {tuple(form.sites[name].value.shape)} for the new "
                    f"arguments and {tuple(value.shape[1:])} in the posterior; give arguments of the same columns"
                )
        if local:
            used = local_draws(form, used, self.num_samples)
        draws = PosteriorDraws(
            used,
            self.num_samples,
            self._draws.method,
            f"parameter draws reused; {self._draws.why}",
            rhat=self._draws.rhat,
        )
        return Posterior(form, draws)

    def _prepare(self, given: Interventions) -> dict[str, Intervention]:
        """Interventions by site name: checked, hard values cast and broadcast to their sites."""
        form = self._form
        prepared: dict[str, Intervention] = {}
        for key in given:
            if isinstance(key, re.Pattern):
                if not any(key.fullmatch(name) for name in form.sites):
                    raise unknown_site("do", key.pattern, list(form.sites))
            elif key not in form.sites:
                # a site in a branch that the reference run did not take may show in another row
                rows = self._factual()[0]
                if not (isinstance(rows, list) and any(key in row for row in rows)):
                    raise unknown_site("do", key, list(form.sites), program_arguments(form.model))
                prepared[key] = given[key]
        for name, site in form.sites.items():
            intervention = match(given, name)
            if intervention is None:
                continue
            if isinstance(intervention, Hard):
                value = cast_to(name, intervention.value.to(site.value.device), site.value.dtype)
                indices = [
                    (f.dim - site.fn.event_dim, f.full_size, form.indices[f.name])
                    for f in site.frames
                    if f.vectorized and f.full_size is not None and f.name in form.indices
                ]
                fitted = fit_shape(name, value, site.value.shape, indices)
                if site.kind == "sample":  # a number is checked once, not once a unit
                    check_support(
                        "do",
                        name,
                        site.fn,
                        value if value.dim() == 0 and site.fn.event_dim == 0 else fitted,
                    )
                value = fitted
                intervention = Hard(value)
            prepared[name] = intervention
        return prepared

    def _affected(self, targets: set[str]) -> set[str]:
        form = self._form
        if self._dependencies is None:
            values = {n: s.value for n, s in form.sites.items() if s.kind == "sample"}
            with isolated_rng(keyed_seed(form.seed, "dependencies")):
                self._dependencies = track(form.model, form.args, form.kwargs, values=values)
        known = {t for t in targets if t in form.sites}
        return set(self._dependencies.descendants(known)) | targets

    def _evaluate(self, group: _Group) -> dict[str, dict[str, Tensor]]:
        form = self._form
        targets = set(group.values) | set(group.other)
        affected = self._affected(targets)
        for name in affected - targets:
            site = form.sites.get(name)
            if site is not None and site.kind == "sample" and site.mechanism is None:
                raise NoMechanismError(
                    f"site {name!r} is downstream of an intervention on {site_list(targets)} and has no structural assignment: "
                    f"{site.why_none}. Register one with cp.register_mechanism, or intervene on {name!r} too"
                )
        factual, noise = self._factual()
        fresh = {
            name: draw(
                mechanism_for(i.distribution).noise(self._replacement(name, i)),
                self.num_samples,
                form.seed,
                name,
                "do",
            )
            for name, i in group.other.items()
            if isinstance(i, Stochastic)
        }
        count = len(group.worlds)
        index = self._rows()

        def row(
            i: Tensor, facts: dict[str, Tensor], noises: dict[str, Noise], new: dict[str, Noise]
        ) -> dict[str, Tensor]:
            def world(values: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Tensor]:
                return self._world(group, affected, i, facts, noises, new, values, masks)

            if count == 1:
                first = tree_map(lambda leaf: leaf[0], (group.values, group.masks))
                return {n: v.unsqueeze(0) for n, v in world(*first).items()}
            if form.executor.sequential_because is not None:
                rows = [
                    world(*tree_map(lambda leaf, k=k: leaf[k], (group.values, group.masks)))
                    for k in range(count)
                ]
                return {f"{n}\x1f{k}": v for k, r in enumerate(rows) for n, v in r.items()}
            stacked: dict[str, Tensor] = torch.func.vmap(world)(group.values, group.masks)
            return stacked

        if isinstance(factual, list):
            found: Any = [
                row(index[i], factual[i], noise[i], tree_map(lambda leaf, i=i: leaf[i], fresh))
                for i in range(self.num_samples)
            ]
        elif self.num_samples == 1 and count > 1:  # the worlds are the rows
            one: Any = tree_map(lambda leaf: leaf[0], (index, factual, noise, fresh))

            def alone(values: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Tensor]:
                return self._world(group, affected, one[0], one[1], one[2], one[3], values, masks)

            found = form.executor.map(alone, count, group.values, group.masks)
            if isinstance(found, list):
                return {
                    w: {n: v.unsqueeze(0) for n, v in r.items()}
                    for w, r in zip(group.worlds, found, strict=True)
                }
            return {
                w: {n: v[k : k + 1] for n, v in found.items()} for k, w in enumerate(group.worlds)
            }
        else:
            found = form.executor.map(row, self.num_samples, index, factual, noise, fresh)
        if isinstance(found, list) and count > 1:
            return {
                w: _stack_rows([_of_world(r, k) for r in found], self.num_samples)
                for k, w in enumerate(group.worlds)
            }
        stacked = _stack_rows(found, self.num_samples)
        return {w: {n: v[:, k] for n, v in stacked.items()} for k, w in enumerate(group.worlds)}

    def _replacement(self, name: str, intervention: Stochastic) -> Any:
        fn, new = self._form.sites[name].fn, intervention.distribution
        if new.event_dim < fn.event_dim and len(new.shape()) >= fn.event_dim:
            new = new.to_event(fn.event_dim - new.event_dim)
        try:
            return new.expand(fn.batch_shape)
        except RuntimeError:
            raise IncompatibleMechanismError(
                f"do: the distribution for site {name!r} has batch shape {tuple(new.batch_shape)}, which does not expand to the site's "
                f"{tuple(fn.batch_shape)}"
            ) from None

    def _world(
        self,
        group: _Group,
        affected: set[str],
        index: Tensor,
        facts: dict[str, Tensor],
        noises: dict[str, Noise],
        fresh: dict[str, Noise],
        hard: dict[str, Tensor],
        masks: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """One row of one world."""
        form = self._form
        values: dict[str, Tensor] = {}

        def natural(msg: Message) -> Tensor:
            name, kind = msg["name"], site_kind(msg)
            if kind != "sample":
                if name in form.conditioned and name not in affected:
                    return form.conditioned[name]
                return msg["value"]  # type: ignore[no-any-return]
            if name in facts and (name not in affected or form.sites[name].mechanism is None):
                return facts[name]
            mechanism = site_mechanism(msg)
            if name not in noises:
                if form.executor.sequential_because is None and self.num_samples > 1:
                    raise _NewSite(name)
                return form.branch(msg, index)
            site = form.sites.get(name)
            if site is not None:
                _check_compatible(site, mechanism, msg["fn"])
            return mechanism.forward(msg["fn"], noises[name])

        def rule(msg: Message) -> Tensor:
            name = msg["name"]
            if name in hard:
                value = hard[name]
                if name in masks:
                    value = torch.where(masks[name], value, natural(msg))
            elif name in group.other:
                value = self._other(group.other[name], msg, natural, values, fresh)
            else:
                value = natural(msg)
            values[name] = value
            return value

        return form.run(rule)

    def _other(
        self,
        intervention: Intervention,
        msg: Message,
        natural: Callable[[Message], Tensor],
        upstream: dict[str, Tensor],
        fresh: dict[str, Noise],
    ) -> Tensor:
        name = msg["name"]
        if isinstance(intervention, Stochastic):
            new = self._replacement(name, intervention)
            return mechanism_for(new).forward(new, fresh[name])
        site = self._form.sites.get(name)
        shape = site.value.shape if site is not None else msg["fn"].shape()
        dtype = site.value.dtype if site is not None else torch.get_default_dtype()
        raw = outcome(name, intervention, lambda: natural(msg), upstream)
        return fit_shape(name, cast_to(name, raw, dtype), shape)

    def _labels(self, name: str, value: Tensor) -> SiteLabels:
        site = self._form.sites.get(name)
        shape = value.shape[1:]
        if site is None:
            return SiteLabels(name, (), torch.Size(), shape)
        event_dim = 0 if site.kind == "deterministic" else site.fn.event_dim
        batch = shape[: len(shape) - event_dim]
        plates = tuple(
            (f.name, f.dim, f.size, self._form.indices.get(f.name))
            for f in site.frames
            if f.vectorized and len(batch) >= -f.dim and batch[f.dim] == f.size
        )
        return SiteLabels(name, plates, batch, shape[len(batch) :])

    def _diagnostics(self) -> Diagnostics:
        draws, form = self._draws, self._form
        return Diagnostics(
            method=draws.method,
            why=draws.why,
            ess=draws.ess,
            pareto_k=draws.pareto_k,
            rhat=draws.rhat,
            mechanisms={
                n: getattr(s.mechanism, "name", type(s.mechanism).__name__)
                for n, s in form.sites.items()
                if s.kind == "sample" and s.mechanism is not None
            },
            identification=None,
            executor=form.executor.name,
            notes=draws.notes,
            unit_names=draws.unit_names,
        )


def _value_of(intervention: Intervention) -> Tensor:
    inner = intervention.inner if isinstance(intervention, Where) else intervention
    if isinstance(inner, Hard):
        return inner.value
    return (
        inner.amount
        if isinstance(inner, Shift)
        else torch.empty(0, requires_grad=isinstance(inner, Functional | Policy))
    )


def _check_compatible(site: Site, mechanism: Any, fn: Any) -> None:
    if type(fn) is not type(site.fn) and mechanism != site.mechanism:
        raise IncompatibleMechanismError(
            f"site {site.name!r} is {type(site.fn).__name__} in the factual world and {type(fn).__name__} in another: their "
            "noises are not the same thing; use one family in all worlds, or two sites"
        )
    if fn.shape() != site.fn.shape():
        raise IncompatibleMechanismError(
            f"site {site.name!r} has shape {tuple(site.fn.shape())} in the factual world and {tuple(fn.shape())} in another; "
            "its noise cannot be shared"
        )


def _groups(prepared: dict[str, dict[str, Intervention]], form: StructuralForm) -> list[_Group]:
    """Worlds of hard interventions on the same sites together; many different targets merged by masks."""
    by_sites: dict[frozenset[str], list[str]] = {}
    groups = []
    for world, given in prepared.items():
        if all(isinstance(i, Hard) and n in form.sites for n, i in given.items()):
            by_sites.setdefault(frozenset(given), []).append(world)
        else:
            groups.append(_Group([world], {}, {}, dict(given)))
    merged = (
        [[w for ws in by_sites.values() for w in ws]]
        if len(by_sites) > 3
        else list(by_sites.values())
    )
    for names in merged:
        sites = dict.fromkeys(n for w in names for n in prepared[w])
        values, masks = {}, {}
        for site in sites:
            chosen = [prepared[w].get(site) for w in names]
            like = form.sites[site].value
            parts = [i.value if isinstance(i, Hard) else like for i in chosen]
            # one world keeps its expanded view: a copy costs as much as the program at a million units
            values[site] = parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)
            if any(i is None for i in chosen):
                masks[site] = torch.tensor([i is not None for i in chosen], device=like.device)
        groups.append(_Group(names, values, masks, {}))
    return groups


def _nowhere(like: Tensor) -> Tensor:
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    return torch.full_like(like, float("nan"), dtype=dtype)


def _of_world(row: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    suffix = f"\x1f{k}"
    return {n[: -len(suffix)]: v for n, v in row.items() if n.endswith(suffix)}


def _stack_rows(found: Any, rows: int) -> dict[str, Tensor]:
    """Rows as one tensor a site; NaN in the rows that lack a site."""
    if not isinstance(found, list):
        return dict(found)
    stacked = {}
    for name in dict.fromkeys(n for row in found for n in row):
        like = next(row[name] for row in found if name in row)
        if all(name in row for row in found):
            shapes = {row[name].shape for row in found}
            if len(shapes) > 1:
                raise ProgramError(
                    f"site {name!r} has different shapes in different draws: {sorted(map(tuple, shapes))}; pad it in the program"
                )
            stacked[name] = torch.stack([row[name] for row in found])
        else:
            wide = like.to(torch.get_default_dtype()) if not like.is_floating_point() else like
            stacked[name] = torch.stack(
                [
                    row[name].to(wide.dtype) if name in row else torch.full_like(wide, float("nan"))
                    for row in found
                ]
            )
    return stacked


def abduct(
    model: Program,
    evidence: Values | None = None,
    *,
    method: Method | None = None,
    num_samples: int = 1000,
    worlds: Mapping[str, Any] | None = None,
    seed: int | None = None,
    progress: bool | Progress = False,
) -> Callable[..., Posterior]:
    r"""Abduction: the posterior of what is latent, and of every site's exogenous noise.

    .. math:: p(\text{noise} \mid \text{trace}) = \prod_i p(\text{noise}_i \mid v_i, pa_i)

    so inference runs on the program as it is written, and noise follows site by site in closed form.

    Args:
        model: a Pyro program.
        evidence: site to number, array or tensor in the site's shape as the program runs it; ``obs=`` sites are evidence already.
        method: an inference method; ``None`` chooses one, and the result's diagnostics say which and why.
        num_samples: draws of the posterior; one where nothing is random.
        worlds: not available yet; a request raises.
        seed: an integer; ``None`` takes one from torch's generator. With a seed, that generator is left untouched.
        progress: ``True`` draws a bar.

    Returns:
        a callable that takes the program's own arguments and returns a :class:`Posterior`.

    References:
        J. Pearl (2009), Causality, theorem 7.1.7.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(x, 1.0))
        >>> posterior = cp.abduct(model, {"x": 0.5, "y": 1.5})()
        >>> posterior.predict({"x": 0.0}).tensor("y", world="counterfactual")
        tensor([1.])
    """
    if worlds is not None:
        raise MethodError(
            "evidence in counterfactual worlds (worlds=) is not available in this version"
        )
    if not isinstance(num_samples, int) or num_samples < 1:
        raise MethodError(f"num_samples={num_samples!r}: give a positive integer")
    if method is not None and (isinstance(method, type) or not hasattr(method, "sample")):
        raise MethodError(
            f"method={method!r} is no inference method; give cp.Exact(), cp.NUTS(), ... or None"
        )

    def run(*args: Any, **kwargs: Any) -> Posterior:
        form = StructuralForm(model, args, kwargs, evidence, fresh_seed(seed))
        report = progress_from(progress)
        try:
            draws = (
                choose_and_sample(form, num_samples, report)
                if method is None
                else method.sample(form, num_samples, report)
            )
        finally:
            report.stop()
        return Posterior(form, draws, num_samples)

    return run


def counterfactual(
    model: Program,
    interventions: Mapping[Any, Any] | None = None,
    evidence: Values | None = None,
    *,
    worlds: Mapping[str, Mapping[Any, Any]] | None = None,
    method: Method | None = None,
    num_samples: int = 1000,
    seed: int | None = None,
    compile: bool = False,
    progress: bool | Progress = False,
) -> Callable[..., Worlds]:
    """Abduction, action and prediction in one call: :func:`abduct`, then :meth:`Posterior.predict`.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(x, 1.0))
        >>> worlds = cp.counterfactual(model, {"x": 0.0}, {"x": 0.5, "y": 1.5})()
        >>> worlds.tensor("y", world="counterfactual")
        tensor([1.])
    """
    named = _worlds_from(interventions, worlds)
    abducted = abduct(
        model, evidence, method=method, num_samples=num_samples, seed=seed, progress=progress
    )

    def run(*args: Any, **kwargs: Any) -> Worlds:
        return abducted(*args, **kwargs).predict(worlds=named, compile=compile)

    return run
