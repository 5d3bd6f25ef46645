"""What every inference method gives, and what a method is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import MethodError
from ..progress import Progress
from ..structural.form import StructuralForm
from ..structural.sites import Site, elements
from ..typing import Message

__all__ = [
    "NO_UNITS",
    "Method",
    "PosteriorDraws",
    "Units",
    "common_units",
    "is_subsampled",
    "method_from",
    "mixes_agree",
    "per_unit",
    "stacked",
    "units_independent",
]


@dataclass(frozen=True)
class PosteriorDraws:
    """Equally weighted draws of the latent sites, and the method's own doubt.

    Attributes:
        latents: site to draws, shape ``(num_samples,) + site shape``.
        ess: effective sample size, in draws; per unit where weights are per unit.
        history: the ELBO at each step, in nats, where there is one.
        unit_names: plates that the dims of ``ess`` and ``pareto_k`` belong to.
    """

    latents: dict[str, Tensor]
    num_samples: int
    method: str
    why: str = ""
    ess: Tensor | float | None = None
    pareto_k: Tensor | float | None = None
    rhat: float | None = None
    unit_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    history: tuple[float, ...] = field(default=())


class Method(Protocol):
    """An inference method: draws of a program's latent sites given its evidence."""

    def sample(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        """Draw from the posterior of the latent sites of ``form``."""


@dataclass(frozen=True)
class Units:
    """Plates that all of some sites stand in: names, dims from the right, sizes, in the order of the dims."""

    names: tuple[str, ...]
    dims: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def plates(self) -> tuple[tuple[str, int], ...]:
        """Names with dims: another plate may have the same dim."""
        return tuple(zip(self.names, self.dims, strict=True))

    def spread(self, values: Tensor, site: Site) -> Tensor:
        """``(rows, *sizes)`` to a shape that broadcasts against ``(rows, *site shape)``."""
        event = site.fn.event_dim
        shape = [len(values), *([1] * (site.value.dim()))]
        for dim, size in zip(self.dims, self.sizes, strict=True):
            shape[dim - event] = size
        return values.reshape(shape)


NO_UNITS = Units((), (), ())


def per_unit(log_prob: Tensor, msg: Message, units: Units) -> Tensor:
    """Summed over all batch dims but those of the units; to a scalar where the site stands outside their plates."""
    names = {f.name for f in msg["cond_indep_stack"] if f.vectorized}
    keep = names.issuperset(units.names) and bool(units.names)
    rest = [d for d in range(-log_prob.dim(), 0) if not keep or d not in units.dims]
    return log_prob.sum(rest) if rest else log_prob


def common_units(sites: dict[str, Site]) -> Units:
    """The plates that all sites share (vectorised ones)."""
    shared: set[Any] | None = None
    for site in sites.values():
        own = {(f.name, f.dim, f.size) for f in site.frames if f.vectorized}
        shared = own if shared is None else shared & own
    ordered = sorted(shared or (), key=lambda f: f[1])
    return Units(*(tuple(f[i] for f in ordered) for i in range(3)))


def is_subsampled(form: StructuralForm) -> bool:
    """Whether some plate takes a part of its units in each run."""
    frames = (f for s in form.sites.values() for f in s.frames)
    return any(f.full_size is not None and f.size != f.full_size for f in frames)


def refuse_subsampling(form: StructuralForm, method: str) -> None:
    """Exact weights need all of the data."""
    for site in form.sites.values():
        for frame in site.frames:
            if frame.full_size is not None and frame.size != frame.full_size:
                raise MethodError(
                    f"{method} needs the whole plate {frame.name!r}, which is subsampled to {frame.size} of "
                    f"{frame.full_size}; use cp.SVI(), remove the subsampling, or give draws with cp.PosteriorSamples"
                )


def refuse_partial_events(form: StructuralForm, method: str) -> None:
    """Draws from the prior can not be weighed where a part of an event is known whose entries depend on each other."""
    for name, site in form.latent.items():
        if site.missing is not None and elements(site.fn) is None:
            whole = site.missing.flatten(site.missing.dim() - site.fn.event_dim)
            if bool((whole.any(-1) & ~whole.all(-1)).any()):
                raise MethodError(
                    f"{method}: a part of a value of site {name!r} ({type(site.fn).__name__}) is missing, and its entries depend "
                    "on each other; use cp.NUTS()"
                )


def stacked(results: Any) -> Any:
    """Rows from either executor as one pytree with a leading dimension."""
    if not isinstance(results, list):
        return results
    keys = {frozenset(r) if isinstance(r, dict) else None for r in results}
    if len(keys) > 1:
        raise MethodError(
            "the program's latent sites differ from run to run, which this method cannot weigh; "
            "give draws with cp.PosteriorSamples, or observe the sites that decide which others exist"
        )
    from torch.utils._pytree import tree_map

    return tree_map(lambda *leaves: torch.stack(leaves), *results)


def unit_log_probs(
    parts: dict[str, dict[str, Tensor]], units: Units
) -> tuple[Tensor | float, Tensor | float]:
    """Sum of all log probabilities per unit, and of the sites outside the units' plates."""
    unit: Tensor | float = 0.0
    outside: Tensor | float = 0.0
    for group in parts.values():
        for log_prob in group.values():
            if log_prob.dim() == len(units.dims) and units.dims:
                unit = unit + log_prob
            else:
                outside = outside + log_prob
    return unit, outside


def units_independent(
    form: StructuralForm,
    units: Units,
    first: dict[str, Tensor],
    second: dict[str, Tensor],
    fixed: dict[str, Tensor] | None = None,
) -> bool:
    """Whether each unit's densities depend on its own latents alone: units of pairs of draws are mixed.

    Args:
        first, second: draws of the latent sites inside ``units``, as many of one as of the other; more pairs show rarer couplings.
        fixed: the other latent sites, as many draws.
    """

    def evaluate(latents: dict[str, Tensor]) -> tuple[Tensor | float, Tensor | float]:
        return unit_log_probs(form.log_probs(latents, units.plates), units)

    def mix(pick: Tensor, name: str) -> Tensor:
        return units.spread(pick, form.sites[name])

    return mixes_agree(form, units, evaluate, mix, first, second, fixed or {})


def mixes_agree(
    form: StructuralForm,
    units: Units,
    evaluate: Callable[[dict[str, Tensor]], tuple[Tensor | float, Tensor | float]],
    mix: Callable[[Tensor, str], Tensor],
    first: dict[str, Tensor],
    second: dict[str, Tensor],
    fixed: dict[str, Tensor],
) -> bool:
    """For random subsets of units taken from the second of two draws, every unit's log density must be what it was in the draw
    that it came from, and what stands outside the plates must not move with them.

    Args:
        evaluate: one draw to its log densities per unit, and to the rest.
        mix: a mask ``(draws, *unit sizes)`` in a shape that broadcasts against the draws of a name.
    """
    generator = torch.Generator().manual_seed(0)
    rows = len(next(iter(first.values())))
    pick = torch.rand(rows, *units.sizes, generator=generator) < 0.5
    mixed = {n: torch.where(mix(pick, n).to(v.device), second[n], v) for n, v in first.items()}

    def row(latents: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        unit, outside = evaluate(latents)
        like = next(iter(latents.values()))
        zero = torch.zeros((), device=like.device)
        return (zero + unit).expand(units.sizes), zero + outside

    all_rows = {n: torch.cat([first[n], second[n], mixed[n]]) for n in first}
    all_rows |= {n: torch.cat([v, v, v]) for n, v in fixed.items()}
    unit, outside = stacked(form.executor.map(row, 3 * rows, all_rows))
    (a, b, c), (outside_a, _, outside_c) = unit.split(rows), outside.split(rows)
    expected = torch.where(pick.to(a.device), b, a)

    def near(x: Tensor, y: Tensor) -> bool:
        return torch.allclose(x, y, rtol=1e-4, atol=1e-4, equal_nan=True)

    return near(c, expected) and near(outside_c, outside_a)


def method_from(given: Any) -> Any:
    """An amortized guide as a method; all else as it is."""
    guides = sys.modules.get(
        "causalppl.guides"
    )  # loaded where there is a guide, and not for this question
    if guides is None or not isinstance(given, guides.Guide):
        return given
    from .amortized import Amortized

    return Amortized(given)
