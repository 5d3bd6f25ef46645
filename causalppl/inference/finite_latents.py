"""The finite discrete latents of a program: their values, which sites depend on which of them, and sums over all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import MethodError
from ..structural.executors import without_validation
from ..structural.form import StructuralForm
from ..structural.noise import keyed_seed
from ..structural.sites import Site
from .elimination import Elimination, Factor, colouring, eliminate
from .posterior_draws import NO_UNITS, Units, common_units, stacked

__all__ = ["MOST_ASSIGNMENTS", "FiniteLatents", "combinations", "support_of"]

#: The largest table of assignments.
MOST_ASSIGNMENTS = 2**16
_CHECKS = 8

#: Densities by site, each of shape ``unit sizes`` or a scalar, from values of the finite latents and the units to keep.
Run = Callable[[Mapping[str, Tensor], Units], Mapping[str, Tensor]]


def support_of(site: Site) -> Tensor | None:
    """The finite support of one variable of the site, shape ``(values, *shape of one variable)``."""
    fn = site.fn
    while not getattr(fn, "has_enumerate_support", False) or type(fn).__name__ in (
        "Independent",
        "MaskedDistribution",
        "ExpandedDistribution",
    ):
        fn = getattr(fn, "base_dist", None)
        if fn is None:
            return None
    try:
        support: Tensor = fn.enumerate_support(expand=False)
    except NotImplementedError:  # a Binomial whose counts differ
        return None
    return support.reshape(len(support), *fn.event_shape)


def combinations(site: Site, units: Units | None) -> Tensor | None:
    """All values of the site, shape ``(rows, *site shape)`` with the units' dims left at one."""
    support = support_of(site)
    if support is None:
        return None
    shape = list(site.value.shape)
    if units is not None:
        for dim in units.dims:
            shape[dim - site.fn.event_dim] = 1
    inner = support.shape[1:]
    outer = shape[: len(shape) - len(inner)]
    count = torch.Size(outer).numel()
    if count * torch.tensor(float(len(support))).log2() > 16:  # more than MOST_ASSIGNMENTS
        return None
    index = torch.tensor(
        list(itertools.product(range(len(support)), repeat=count)), device=support.device
    ).reshape(-1, count)
    return support[index].reshape(-1, *shape)


class FiniteLatents:
    """Finite latent sites as variables of a graph of factors.

    A site's density is a factor of the variables that it depends on, found by following values through the program;
    :meth:`agrees` proves it.

    Args:
        form: the program.
        units: the plates whose units have values of their own, given everything outside.
        method: who asks, for messages.
        together: whether all variables are one factor of every site.

    Raises:
        MethodError: a site is not finite, or has too many values.
    """

    def __init__(
        self, form: StructuralForm, units: Units, method: str, together: bool = False
    ) -> None:
        self.form, self.units, self.method, self.together = form, units, method, together
        self.sites = {n: s for n, s in form.latent.items() if s.discrete}
        plates = set(units.dims)
        self.inside = {
            n
            for n, s in self.sites.items()
            if plates and plates <= {f.dim for f in s.frames if f.vectorized}
        }
        self.values: dict[str, Tensor] = {}
        for name, site in self.sites.items():
            table = combinations(site, units if name in self.inside else None)
            if table is None:
                kind = "has too many values" if support_of(site) is not None else "is not finite"
                raise MethodError(
                    f"{method}: the latent site {name!r} ({type(site.fn).__name__}, shape {tuple(site.value.shape)}) is discrete and "
                    f"{kind}; use cp.ImportanceSampling()"
                )
            self.values[name] = table
        self.scopes = self._scopes()
        self.batched = True
        self._lay_out()

    @classmethod
    def of(
        cls, form: StructuralForm, run: Run, method: str, units: Units | None = None
    ) -> FiniteLatents:
        """By units and factors where that is the program's density, else by factors, else all assignments together.

        Args:
            run: the program at some values of its other latents.
            units: the units that there must be; by default the plates that the sites in plates share, or none.

        Raises:
            MethodError: too many assignments, or a site is not finite.
        """
        inside = {n: s for n, s in form.latent.items() if s.discrete and s.frames}
        tries = [(common_units(inside), False), (NO_UNITS, False), (NO_UNITS, True)]
        failure: MethodError | None = None
        for own, together in tries if units is None else [(units, False)]:
            try:
                found = cls(form, own, method, together)
                if found.agrees(run):
                    return found
            except MethodError as error:
                failure = failure or error
        raise failure or MethodError(
            f"{method}: the program's density does not split by its discrete latents; use cp.ImportanceSampling()"
        )

    def _scopes(self) -> dict[str, tuple[str, ...]]:
        """Site to the finite latents that its density depends on, through deterministic sites."""
        graph, names = self.form.dependencies, list(self.sites)
        if self.together:
            return {n: tuple(names) for n in self.form.sites}
        deterministic = {n for n, k in graph.kinds.items() if k == "deterministic"}
        found: dict[str, tuple[str, ...]] = {}
        behind: dict[str, set[str]] = {}
        for site in graph.sites:  # in the order of the program, so parents come first
            direct = graph.parents[site] | graph.weights.get(site, frozenset())
            own = {p for p in direct if p in self.sites}
            own |= {v for p in direct & deterministic for v in behind.get(p, ())}
            behind[site] = own
            scope = own | ({site} if site in self.sites else set())
            found[site] = tuple(n for n in names if n in scope)
        return found

    def _lay_out(self) -> None:
        """Rows of values that together show every factor at every assignment of its scope."""
        known = self.form.conditioned
        densities = {
            n
            for n, s in self.form.sites.items()
            if s.kind != "deterministic" or n in known or s.interval is not None
        }
        self.factored = [n for n, scope in self.scopes.items() if scope and n in densities]
        colours = colouring([self.scopes[n] for n in self.factored], list(self.sites))
        count = max(colours.values()) + 1
        sizes = [1] * count
        for name, colour in colours.items():
            sizes[colour] = max(sizes[colour], len(self.values[name]))
        rows = torch.Size(sizes).numel()
        if rows > MOST_ASSIGNMENTS:
            raise MethodError(
                f"{self.method}: {rows} assignments, more than {MOST_ASSIGNMENTS}; use cp.ImportanceSampling()"
            )
        grid = torch.arange(rows).reshape(sizes)
        places = torch.stack(torch.unravel_index(torch.arange(rows), tuple(sizes)), -1)  # type: ignore[no-untyped-call]
        index = {n: places[:, c].clamp(max=len(self.values[n]) - 1) for n, c in colours.items()}
        self.rows, self.count = {n: self.values[n][i] for n, i in index.items()}, rows
        self._where: dict[str, Tensor] = {}
        for name in self.factored:
            # the rows of this factor's assignments, in the order of its variables; other colours stay at zero
            scope = self.scopes[name]
            axes = [colours[v] for v in scope]
            box = [
                0 if c not in axes else slice(len(self.values[scope[axes.index(c)]]))
                for c in range(count)
            ]
            order = sorted(range(len(axes)), key=lambda i: axes[i])
            block = grid[tuple(box)]
            self._where[name] = block.permute([order.index(i) for i in range(len(axes))])

    def assigned(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One row of values in the sites' shapes, known entries kept."""
        found = {}
        for name, value in values.items():
            site = self.sites[name]
            wide = value.expand(torch.Size(site.value.shape))
            # where an entry is known all rows agree on it: a constant factor for that entry
            found[name] = (
                wide if site.missing is None else torch.where(site.missing, wide, site.value)
            )
        return found

    def agrees(self, run: Run) -> bool:
        """Whether the factors give the densities of random assignments, each unit's own, in all plates."""
        generator = torch.Generator().manual_seed(keyed_seed(self.form.seed, "assignments"))
        try:
            tables, rest = self.factors(run)
        except (RuntimeError, TypeError):  # the program cannot be batched
            self.batched = False
            tables, rest = self.factors(run)
        outside = (f for f in tables.values() if f.table.dim() == len(f.variables))
        if any(set(f.variables) & self.inside for f in outside):
            return False  # something outside the plates looks into them
        for _ in range(_CHECKS):
            chosen = {}
            for name, table in self.values.items():
                sizes = self.units.sizes if name in self.inside else ()
                chosen[name] = torch.randint(len(table), sizes, generator=generator)
            with without_validation():
                direct = run(self.assigned(self.indexed(chosen)), self.units)
            ours = rest | {n: f.at(chosen) for n, f in tables.items()}
            if ours.keys() != direct.keys():
                return False
            if any(not _near(ours[n], v) for n, v in direct.items()):
                return False
        return True

    def factors(self, run: Run) -> tuple[dict[str, Factor], dict[str, Tensor]]:
        """Tables of the sites that depend on finite latents, and the densities of all others."""

        def row(values: dict[str, Tensor]) -> dict[str, Tensor]:
            return dict(run(self.assigned(values), self.units))

        with without_validation():
            if self.batched:
                found = torch.func.vmap(row)(self.rows)
            else:
                each = [{n: v[i] for n, v in self.rows.items()} for i in range(self.count)]
                found = stacked([row(values) for values in each])
        rest = {n: v[0] for n, v in found.items() if n not in self._where}
        tables = {
            n: Factor(self.scopes[n], found[n][where])
            for n, where in self._where.items()
            if n in found
        }
        return tables, rest

    def eliminated(
        self, tables: Mapping[str, Factor]
    ) -> tuple[Elimination, Elimination, list[Factor]]:
        """The variables inside the plates summed out for each unit, then those outside; and what is left per unit."""
        units = len(self.units.dims)
        names = list(self.sites)
        factors = list(tables.values())
        per_unit = [f for f in factors if f.table.dim() > len(f.variables)]
        outside = [f for f in factors if f.table.dim() == len(f.variables)]
        inner = eliminate(
            per_unit, [n for n in names if n in self.inside], MOST_ASSIGNMENTS, self.method
        )
        left = [f for f in inner.rest if not f.variables]
        for factor in inner.rest:
            if factor.variables:
                total = factor.table.flatten(-units).sum(-1)
                outside.append(Factor(factor.variables, total))
        outer = eliminate(
            outside, [n for n in names if n not in self.inside], MOST_ASSIGNMENTS, self.method
        )
        return inner, outer, left

    def marginal(self, run: Run) -> tuple[Tensor | float, Tensor | float]:
        """Log densities summed over all assignments: per unit, and outside the plates."""
        tables, rest = self.factors(run)
        _, outer, left = self.eliminated(tables)
        unit: Tensor | float = 0.0
        outside: Tensor | float = 0.0
        for table in [f.table for f in left] + [v for v in rest.values() if v.dim()]:
            unit = unit + table
        for table in [f.table for f in outer.rest] + [v for v in rest.values() if not v.dim()]:
            outside = outside + table
        return unit, outside

    def gumbels(self, draws: int, *key: object) -> dict[str, Tensor]:
        """Noise for :meth:`draw`, ``(draws, values of the site, *unit sizes)``."""
        found = {}
        for name, table in self.values.items():
            generator = torch.Generator().manual_seed(keyed_seed(self.form.seed, name, *key))
            sizes = self.units.sizes if name in self.inside else ()
            uniform = torch.rand(
                draws, len(table), *sizes, generator=generator, dtype=torch.float64
            )
            found[name] = -(-uniform.clamp(min=1e-300).log()).log()
        return found

    def draw(
        self, eliminated: tuple[Elimination, Elimination, Any], gumbels: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """One exact draw of all finite latents, in the sites' shapes.

        Args:
            eliminated: of :meth:`eliminated`.
            gumbels: of one row of :meth:`gumbels`.
        """
        inner, outer, _ = eliminated
        chosen = inner.draw(gumbels, outer.draw(gumbels))
        return self.assigned(self.indexed(chosen))

    def indexed(self, chosen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sites' values at indices into their tables, scalars or of shape ``unit sizes``."""
        found = {}
        for name, table in self.values.items():
            index, site = chosen[name], self.sites[name]
            if name not in self.inside:
                found[name] = table.index_select(0, index.reshape(1)).squeeze(0)
                continue
            wide = table.expand(len(table), *site.value.shape)
            where = self.units.spread(index.unsqueeze(0), site)
            found[name] = wide.gather(0, where.expand(1, *site.value.shape)).squeeze(0)
        return found


def _near(ours: Tensor, direct: Tensor) -> bool:
    wide = torch.broadcast_shapes(ours.shape, direct.shape)
    return torch.allclose(ours.expand(wide), direct.expand(wide), 1e-4, 1e-4, equal_nan=True)
