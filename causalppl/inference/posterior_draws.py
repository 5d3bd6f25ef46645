"""What every inference method gives, and what a method is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import MethodError
from ..progress import Progress
from ..structural.form import StructuralForm
from ..structural.sites import Site, elements

__all__ = ["Method", "PosteriorDraws", "Units", "common_units", "stacked", "units_independent"]


@dataclass(frozen=True)
class PosteriorDraws:
    """Equally weighted draws of the latent sites, and the method's own doubt.

    Attributes:
        latents: site to draws, shape ``(num_samples,) + site shape``.
        ess: effective sample size, in draws; per unit where weights are per unit.
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

    def spread(self, values: Tensor, site: Site) -> Tensor:
        """``(rows, *sizes)`` to a shape that broadcasts against ``(rows, *site shape)``."""
        event = site.fn.event_dim
        shape = [len(values), *([1] * (site.value.dim()))]
        for dim, size in zip(self.dims, self.sizes, strict=True):
            shape[dim - event] = size
        return values.reshape(shape)


def common_units(sites: dict[str, Site]) -> Units:
    """The plates that all sites share (vectorised ones)."""
    shared: set[Any] | None = None
    for site in sites.values():
        own = {(f.name, f.dim, f.size) for f in site.frames if f.vectorized}
        shared = own if shared is None else shared & own
    ordered = sorted(shared or (), key=lambda f: f[1])
    return Units(*(tuple(f[i] for f in ordered) for i in range(3)))


def refuse_subsampling(form: StructuralForm, method: str) -> None:
    """Exact weights need all of the data."""
    for site in form.sites.values():
        for frame in site.frames:
            if frame.full_size is not None and frame.size != frame.full_size:
                raise MethodError(
                    f"{method} needs the whole plate {frame.name!r}, which is subsampled to {frame.size} of "
                    f"{frame.full_size}; remove the subsampling, or give draws with cp.PosteriorSamples"
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
    """Whether each unit's densities depend on its own latents alone: units of two draws are mixed.

    For random subsets of units taken from the second draw, every unit's log density must be what it was
    in the draw it came from, and what stands outside the plates must not move with them.

    Args:
        first, second: two draws of the latent sites inside ``units``; one row each.
        fixed: the other latent sites.
    """
    generator = torch.Generator().manual_seed(0)

    def evaluate(latents: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        unit, outside = unit_log_probs(
            form.log_probs({**(fixed or {}), **latents}, units.dims), units
        )
        return torch.as_tensor(unit).expand(units.sizes), torch.as_tensor(outside)

    a, outside_a = evaluate(first)
    b, _ = evaluate(second)
    for _ in range(3):
        pick = torch.rand(units.sizes, generator=generator) < 0.5
        mixed = {}
        for name, value in first.items():
            mask = units.spread(pick[None], form.sites[name])[0].to(value.device)
            mixed[name] = torch.where(mask, second[name], value)
        c, outside_c = evaluate(mixed)
        expected = torch.where(pick.to(a.device), b, a)
        if not torch.allclose(c, expected, rtol=1e-4, atol=1e-4, equal_nan=True):
            return False
        if not torch.allclose(outside_c, outside_a, rtol=1e-4, atol=1e-4, equal_nan=True):
            return False
    return True
