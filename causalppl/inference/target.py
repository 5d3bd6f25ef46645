"""The posterior's log density as a function of real numbers: what gradient-based methods work on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import MethodError
from ..mechanisms import exact_log_prob
from ..structural.form import StructuralForm
from ..structural.sites import Site, site_kind, split_log_prob, unmasked
from ..typing import Message
from .coordinates import Coordinates
from .posterior_draws import NO_UNITS, Units, per_unit

__all__ = ["Target"]


class Target:
    r"""The log joint density of a program's latents and evidence, the continuous latents mapped to the real line.

    .. math:: \log p(v(x), \text{evidence}) + \log |\partial v / \partial x|

    Args:
        form: the program.
        method: who asks, for messages.
        units: the plates whose indices have a vector each.

    Raises:
        MethodError: a discrete latent site, a plate that is subsampled, or nothing latent.
    """

    def __init__(self, form: StructuralForm, method: str, units: Units = NO_UNITS) -> None:
        self.form, self.method, self.units = form, method, units
        self.coordinates: dict[str, Coordinates] = {}
        start = 0
        for name, site in form.latent.items():
            if site.discrete:
                raise MethodError(
                    f"{method}: the latent site {name!r} is discrete ({type(site.fn).__name__}); use cp.ImportanceSampling(), or "
                    "cp.Enumeration() where all latents are finite"
                )
            self.coordinates[name] = Coordinates(site, start, units, method)
            start = self.coordinates[name].stop
        self.dim = start
        if self.dim == 0:
            raise MethodError(f"{method}: nothing is latent; use cp.Exact()")
        self.dtype = next(iter(form.latent.values())).value.dtype
        self.shape = torch.Size([*units.sizes, self.dim])

    def run(self, vector: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Log densities by site, in nats, of shape ``unit sizes`` or scalars outside the plates; and the latents' values.

        Args:
            vector: shape ``(*unit sizes, dim)``.
        """
        form, units = self.form, self.units
        parts: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}

        def rule(msg: Message) -> Tensor:
            name, found = msg["name"], self.coordinates.get(msg["name"])
            if found is None:
                value = form.given(msg, {})
                log_prob = self._known(msg, value)
                if log_prob is not None:
                    parts[name] = per_unit(log_prob, msg, units)
                return value
            value, jacobian = found.read(vector, msg["fn"])
            values[name] = value
            parts[name] = per_unit(self._latent(found.site, msg, value) + jacobian, msg, units)
            return value

        form.run(rule)
        if len(values) != len(self.coordinates):
            raise MethodError(
                f"{self.method}: the latent sites differ from run to run (a Python branch); use cp.ImportanceSampling()"
            )
        return parts, values

    @staticmethod
    def _latent(site: Site, msg: Message, value: Tensor) -> Tensor:
        fn = msg["fn"]
        if site.missing is None:
            return exact_log_prob(unmasked(fn) if site.masked else fn, value)
        lost, known = split_log_prob(fn, value, site.missing)
        return lost + known * msg["scale"]

    def _known(self, msg: Message, value: Tensor) -> Tensor | None:
        name, site = msg["name"], self.form.sites.get(msg["name"])
        if site_kind(msg) == "deterministic":
            if name in self.form.conditioned or (site is not None and site.interval is not None):
                raise MethodError(
                    f"{self.method}: evidence on the deterministic site {name!r} of continuous latents has no density; use "
                    "cp.ImportanceSampling(), or make it a sample site with a narrow distribution"
                )
            return None
        log_prob = exact_log_prob(msg["fn"], value)
        if msg["mask"] is not None:
            mask = torch.as_tensor(msg["mask"], device=log_prob.device)
            log_prob = torch.where(mask, log_prob, torch.zeros_like(log_prob))
        return log_prob * msg["scale"]  # type: ignore[no-any-return]

    def split(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The log density of each unit, shape ``unit sizes``, and of what stands outside the units' plates."""
        unit = vector.new_zeros(self.units.sizes)
        outside = vector.new_zeros(())
        for log_prob in self.run(vector)[0].values():
            if self.units.dims and log_prob.dim():
                unit = unit + log_prob
            else:
                outside = outside + log_prob
        return unit, outside

    def log_density(self, vector: Tensor) -> Tensor:
        """In nats, up to a constant: of each unit, shape ``unit sizes``; a scalar without units."""
        unit, outside = self.split(vector)
        return unit if self.units.dims else outside

    def values(self, vectors: Tensor) -> dict[str, Tensor]:
        """The latents at many vectors, ``(rows, *unit sizes, dim)``, in the program's dtype."""
        with torch.no_grad():
            found = self.form.executor.map(lambda v: self.run(v)[1], len(vectors), vectors)
        if isinstance(found, list):
            found = {n: torch.stack([row[n] for row in found]) for n in found[0]}
        return {n: v.to(self.form.sites[n].value.dtype) for n, v in found.items()}

    def vector(self, values: Mapping[str, Tensor]) -> Tensor:
        """The vector of one row of latents, shape ``(*unit sizes, dim)``."""
        parts: dict[str, Tensor] = {}

        def rule(msg: Message) -> Tensor:
            found = self.coordinates.get(msg["name"])
            if found is None:
                return self.form.given(msg, values)
            parts[msg["name"]] = found.write(values[msg["name"]], msg["fn"])
            return values[msg["name"]]

        self.form.run(rule)
        return torch.cat([parts[n] for n in self.coordinates], -1)
