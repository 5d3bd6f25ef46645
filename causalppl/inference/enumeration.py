"""Finite discrete latents: every assignment weighed exactly, then drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ImpossibleEvidenceError, MethodError, ProgramError, site_list
from ..progress import Progress
from ..structural.form import StructuralForm
from ..structural.noise import keyed_seed
from ..structural.sites import Site
from .finite_latents import MOST_ASSIGNMENTS, FiniteLatents, combinations, support_of
from .posterior_draws import (
    PosteriorDraws,
    Units,
    common_units,
    refuse_subsampling,
    stacked,
    unit_log_probs,
    units_independent,
)
from .weights import resample

__all__ = ["Enumeration", "assignment_count"]

_PAIRS = 32


def _product(tables: dict[str, Tensor]) -> dict[str, Tensor]:
    index = torch.cartesian_prod(*(torch.arange(len(t)) for t in tables.values())).reshape(
        -1, len(tables)
    )
    return {name: t[index[:, i]] for i, (name, t) in enumerate(tables.items())}


def assignment_count(form: StructuralForm) -> float:
    """How many assignments enumeration would have to weigh; infinite where some latent is not finite."""
    latent = form.latent
    units = common_units({k: s for k, s in latent.items() if any(f.vectorized for f in s.frames)})
    total = 1.0
    for site in latent.values():
        table = combinations(site, units if any(f.vectorized for f in site.frames) else None)
        total *= float("inf") if table is None else len(table)
    return total


@dataclass(frozen=True)
class Enumeration:
    r"""Exact posterior of finite discrete latents, by weighing all assignments.

    With latents ``g`` outside a plate and ``l_u`` inside, units being independent given ``g`` (checked),
    :math:`p(g \mid v) \propto p(g, v) \prod_u \sum_{l} p(l, v_u \mid g)`; then each ``l_u`` given ``g``.
    Probabilities of 0 and 1 are exact.

    Where there are more than ``2 ** 16`` assignments, sites are summed out one after the other along the program's own
    dependencies (variable elimination: on a hidden Markov chain it is the forward-backward algorithm), and draws are exact all the
    same. What has to fit is the largest table of sites that depend on each other, and not the number of assignments.

    Raises:
        MethodError: a latent site is not finite, or such a table has more than ``2 ** 16`` entries.
        ImpossibleEvidenceError: no assignment has positive probability.
    """

    max_assignments = MOST_ASSIGNMENTS

    @torch.no_grad()
    def sample(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        """See :class:`~causalppl.inference.Method`."""
        refuse_subsampling(form, "Enumeration")
        if not form.latent:
            raise MethodError("Enumeration: nothing is latent; use cp.Exact()")
        if assignment_count(form) > self.max_assignments:
            return self._eliminate(form, num_samples)
        latent = form.latent
        inside = {k: s for k, s in latent.items() if any(f.vectorized for f in s.frames)}
        units = common_units(inside)
        if not units.dims:
            inside = {}
        outer, inner = self._tables(form, inside, units)
        if inside and not self._independent(form, inside, units, outer, inner):
            inside, units = {}, Units((), (), ())
            outer, inner = self._tables(form, inside, units)
        unit, outside = self._weigh(form, units, outer, inner)
        rows_g = len(next(iter(outer.values()))) if outer else 1
        rows_l = unit.shape[0] // rows_g
        unit = unit.reshape(rows_g, rows_l, *units.sizes)
        outside = outside.reshape(rows_g, rows_l)[:, 0]
        marginal = unit.logsumexp(1)
        joint = outside + (marginal.flatten(1).sum(1) if marginal.dim() > 1 else marginal)
        if not bool((joint > -torch.inf).any()):
            raise _impossible(form)
        generator = torch.Generator(joint.device).manual_seed(keyed_seed(form.seed, "enumeration"))
        chosen = resample(joint, num_samples, generator)
        draws = {name: table[chosen.to(table.device)] for name, table in outer.items()}
        if inside:
            given = unit[chosen]
            uniform = torch.rand(given.shape, generator=generator, device=given.device)
            picked = (given - (-uniform.log()).log()).argmax(1)
            for name, table in inner.items():
                site = latent[name]
                flat = units.spread(picked.to(table.dtype), site).long()
                wide = table.expand(len(table), *site.value.shape)
                draws[name] = wide.gather(0, flat.expand(num_samples, *site.value.shape))
        for name, site in latent.items():
            if site.missing is not None:
                draws[name] = torch.where(site.missing, draws[name], site.value)
        return PosteriorDraws(
            {n: draws[n] for n in latent},
            num_samples,
            "Enumeration",
            f"all latent sites are finite: {rows_g * rows_l} assignments"
            + (f", weighed for each unit of {', '.join(units.names)}" if inside else ""),
            ess=float(num_samples),
        )

    def _eliminate(self, form: StructuralForm, num_samples: int) -> PosteriorDraws:
        """Sites summed out one by one, and drawn in the opposite order."""

        def run(values: Mapping[str, Tensor], units: Units) -> dict[str, Tensor]:
            total: dict[str, Tensor] = {}
            for part in form.log_probs(values, units.plates).values():
                for name, log_prob in part.items():
                    total[name] = total[name] + log_prob if name in total else log_prob
            return total

        for name, site in form.latent.items():
            if support_of(site) is None:
                raise _not_finite(name, site)
        finite = FiniteLatents.of(form, run, "Enumeration")
        eliminated = finite.eliminated(finite.factors(run)[0])
        left = [f.table for part in (*eliminated[0].rest, *eliminated[1].rest) for f in [part]]
        if any(bool((table.flatten(0) == -torch.inf).all()) for table in left if table.numel()):
            raise _impossible(form)
        noise = finite.gumbels(num_samples, "enumeration")
        draws = torch.func.vmap(lambda row: finite.draw(eliminated, row))(noise)
        names = finite.units.names
        return PosteriorDraws(
            {n: draws[n] for n in form.latent},
            num_samples,
            "Enumeration",
            f"all latent sites are finite: {len(form.latent)} of them summed out one by one"
            + (f", for each unit of {', '.join(names)}" if names else ""),
            ess=float(num_samples),
        )

    def _tables(
        self, form: StructuralForm, inside: dict[str, Site], units: Units
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        tables: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
        total = 1
        for name, site in form.latent.items():
            table = combinations(site, units if name in inside else None)
            if table is None:
                raise _not_finite(name, site)
            total *= len(table)
            tables[name in inside][name] = table
        if total > self.max_assignments:
            raise MethodError(
                f"Enumeration: {total} assignments, more than {self.max_assignments}; use cp.ImportanceSampling()"
            )
        return tuple(_product(t) if t else {} for t in tables)  # type: ignore[return-value]

    @staticmethod
    def _row(
        form: StructuralForm, values: dict[str, Tensor], rows: bool = False
    ) -> dict[str, Tensor]:
        found = {}
        for name, value in values.items():
            site = form.sites[name]
            wide = value.expand(torch.Size([*([len(value)] if rows else []), *site.value.shape]))
            # where an entry is known all rows agree on it: a constant factor for that entry
            found[name] = (
                wide if site.missing is None else torch.where(site.missing, wide, site.value)
            )
        return found

    def _independent(
        self,
        form: StructuralForm,
        inside: dict[str, Site],
        units: Units,
        outer: dict[str, Tensor],
        inner: dict[str, Tensor],
    ) -> bool:
        rows = len(next(iter(inner.values())))
        generator = torch.Generator().manual_seed(0)
        pairs = [torch.randint(rows, (_PAIRS,), generator=generator) for _ in range(2)]
        first, second = (self._row(form, {n: t[p] for n, t in inner.items()}, True) for p in pairs)
        picked = torch.randint(
            len(next(iter(outer.values()))) if outer else 1, (_PAIRS,), generator=generator
        )
        fixed = self._row(form, {n: t[picked] for n, t in outer.items()}, True)
        return units_independent(form, units, first, second, fixed)

    def _weigh(
        self, form: StructuralForm, units: Units, outer: dict[str, Tensor], inner: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        rows_g = len(next(iter(outer.values()))) if outer else 1
        rows_l = len(next(iter(inner.values()))) if inner else 1
        rows = {n: t.repeat_interleave(rows_l, 0) for n, t in outer.items()}
        rows |= {n: t.repeat(rows_g, *([1] * (t.dim() - 1))) for n, t in inner.items()}

        def weigh(values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            latents = self._row(form, values)
            parts = form.log_probs(latents, units.plates)
            if len(parts["prior"]) != len(latents):
                raise ProgramError(
                    "Enumeration: some assignments leave out latent sites (a Python branch), so they cannot be compared; use "
                    "cp.ImportanceSampling()"
                )
            unit, outside = unit_log_probs(parts, units)
            like = next(iter(latents.values()))
            zero = torch.zeros((), device=like.device)
            return (zero + unit).expand(units.sizes), zero + outside

        unit, outside = stacked(form.executor.map(weigh, rows_g * rows_l, rows))
        return unit, outside


def _not_finite(name: str, site: Site) -> MethodError:
    kind = "has too many values" if support_of(site) is not None else "is not finite"
    return MethodError(
        f"Enumeration: the latent site {name!r} ({type(site.fn).__name__}, shape {tuple(site.value.shape)}) {kind}; use "
        "cp.ImportanceSampling() or cp.NUTS()"
    )


def _impossible(form: StructuralForm) -> ImpossibleEvidenceError:
    known = [n for n, s in form.sites.items() if n in form.conditioned or s.interval is not None]
    return ImpossibleEvidenceError(
        "evidence: no assignment of the latent sites gives the evidence positive probability; check it "
        f"against the program (evidence on {site_list(known)})"
    )
