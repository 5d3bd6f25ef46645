"""A lower bound of the evidence without a guide of the user's: finite latents summed out, normal approximations for the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import MethodError, site_list
from ..structural.form import StructuralForm
from ..structural.noise import keyed_seed
from ..structural.state import ModuleState
from .finite_latents import FiniteLatents, support_of
from .laplace import split_by_units
from .posterior_draws import Units
from .target import Target

__all__ = ["LatentBound", "live"]

_METHOD = "fit"
_FULL = 20  # dims of the largest covariance


class _Live(dict[str, Tensor]):
    """The parameters of a form that reads them afresh in each run, with their gradients."""

    def __contains__(self, name: object) -> bool:
        return False

    def __setitem__(self, name: str, value: Tensor) -> None:
        pass


def live(form: StructuralForm) -> StructuralForm:
    """The form, its parameters and networks as they are at each run and not as they were when it was read."""
    form.params, form.modules = _Live(), ModuleState()
    return form


class LatentBound:
    r"""A lower bound of the log evidence as a function of the program's parameters and of those of the approximation.

    .. math:: E_q[\log p(\text{latents}, \text{evidence}) - \log q(\text{latents})]

    Finite discrete latents are summed out. Continuous ones are normal on the real line, each unit with a covariance of its own where
    units depend on their own latents alone. Where all latents are finite the bound is the log evidence.

    Args:
        form: the program at a first batch, or at all data; live.
        plate: the plate that comes in batches, if there is one.
        units: how many units it has in all.

    Raises:
        MethodError: latents that it cannot serve.
    """

    def __init__(self, form: StructuralForm, plate: str | None, units: int | None) -> None:
        self.plate, self.all = plate, units
        names = list(form.latent)
        for name, site in form.latent.items():
            if site.discrete and support_of(site) is None:
                raise MethodError(
                    f"fit: the latent site {name!r} ({type(site.fn).__name__}) is discrete and not finite; give a guide for it"
                )
        self.tensors: dict[str, Tensor] = {}
        self.finite = all(s.discrete for s in form.latent.values())
        with torch.no_grad():
            if self.finite:
                self._sum = self._summed(form)
                self.units = self._sum.units
                self.why = f"all latent sites are finite and summed out: {site_list(names)}"
            else:
                target, reason = split_by_units(form, _METHOD)
                self.units = target.units
                self._begin(target, reason, names, form.seed)
        self._axis = self._axis_of(form)

    def _begin(self, target: Target, reason: str, names: list[str], seed: int) -> None:
        """The normals: near zero on the real line, and narrow."""
        shape = list(target.shape)
        if self.plate in self.units.names and self.all is not None:
            shape[self.units.names.index(self.plate)] = self.all
        full = target.dim <= _FULL
        generator = torch.Generator().manual_seed(keyed_seed(seed, "fit", "start"))
        start = 0.1 * torch.randn(shape, dtype=target.dtype, generator=generator)
        self.tensors["mean"] = start
        self.tensors["log_scale"] = torch.full(shape, math.log(0.1), dtype=target.dtype)
        if full and target.dim > 1:
            self.tensors["below"] = torch.zeros(*shape, target.dim, dtype=target.dtype)
        for tensor in self.tensors.values():
            tensor.requires_grad_(True)
        kind = (
            "a full covariance"
            if full
            else f"independent entries ({target.dim}, more than {_FULL})"
        )
        self.why = f"no guide was given and {site_list(names)} are latent: normal approximations on the real line with {kind}, {reason}"

    def _axis_of(self, form: StructuralForm) -> int | None:
        """The axis of the unit sizes that comes in batches.

        Raises:
            MethodError: latents in a plate that comes in batches, which are not seen unit by unit.
        """
        if self.plate in self.units.names:
            return self.units.names.index(self.plate)
        cut = {f.name for s in form.sites.values() for f in s.frames if f.full_size not in (None, f.size)}  # fmt: skip
        cut |= {self.plate} - {None}
        inside = [n for n, s in form.latent.items() if any(f.name in cut for f in s.frames)]
        if inside:
            raise MethodError(
                f"fit: the latent sites {site_list(inside)} stand in a plate that comes in batches ({site_list(sorted(cut))}), and not "
                "unit by unit; leave out batch_size, or give a guide"
            )
        return None

    @property
    def by_unit(self) -> bool:
        """Whether the bound itself counts the units of a batch for all; otherwise the program's densities have to."""
        return self._axis is not None

    def loss(self, form: StructuralForm, rows: Tensor | None, scale: float) -> Tensor:
        """Minus the bound, in nats; of continuous latents an unbiased estimate from a pair of antithetic draws.

        Args:
            form: the program at a batch.
            rows: the units of the batch.
            scale: how often each of them counts.
        """
        per_unit = scale if self.by_unit else 1.0
        if self.finite:
            unit, outside = self._summed(form).marginal(lambda v, u: _densities(form, v, u))
            return -(torch.as_tensor(unit).sum() * per_unit + torch.as_tensor(outside).sum())
        target = Target(form, _METHOD, self._units_of(form))
        own = self.tensors
        if self.by_unit and self.all is not None:
            if rows is None:
                raise MethodError(
                    "fit: a DataLoader does not say which units are in a batch, and each has an approximation of its latents; give the "
                    "dataset with batch_size=, or a guide"
                )
            own = {n: t.index_select(self._axis, rows) for n, t in own.items()}  # type: ignore[arg-type]
        if target.shape != own["mean"].shape:
            raise MethodError(
                "fit: which entries are missing differs from batch to batch, on sites that others depend on; leave out batch_size"
            )
        log_scale = own["log_scale"]
        factor = torch.diag_embed(log_scale.exp())
        if "below" in own:
            factor = factor + own["below"].tril(-1)
        noise = torch.randn(target.shape, dtype=target.dtype)
        entropy = log_scale.sum() + log_scale.numel() / 2 * (1 + math.log(2 * math.pi))
        total = entropy * per_unit
        for draw in (noise, -noise):
            vector = own["mean"] + torch.einsum("...ij,...j->...i", factor, draw)
            unit, outside = target.split(vector)
            total = total + 0.5 * (unit.sum() * per_unit + outside)
        return -total

    def _units_of(self, form: StructuralForm) -> Units:
        """The units with the sizes of a batch."""
        sizes = {f.name: f.size for s in form.sites.values() for f in s.frames}
        return Units(self.units.names, self.units.dims, tuple(sizes[n] for n in self.units.names))

    def _summed(self, form: StructuralForm) -> FiniteLatents:
        found: Any = getattr(self, "_sum", None)
        if found is not None and found.form is form:
            return found  # type: ignore[no-any-return]
        if found is not None:
            return FiniteLatents(form, self._units_of(form), _METHOD, found.together)
        return FiniteLatents.of(form, lambda v, u: _densities(form, v, u), _METHOD)


def _densities(
    form: StructuralForm, values: Mapping[str, Tensor], units: Units
) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for part in form.log_probs(values, units.plates).values():
        for name, log_prob in part.items():
            site = form.sites.get(name)
            # another plate may stand at the same dim
            if site is not None and not {f.name for f in site.frames} >= set(units.names):
                log_prob = log_prob.sum()
            total[name] = total[name] + log_prob if name in total else log_prob
    return total
