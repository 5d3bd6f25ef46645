"""The posterior's log density as a function of real numbers: what gradient-based methods work on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import MethodError
from ..mechanisms import exact_log_prob
from ..structural.form import StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from ..structural.sites import Site, site_kind, split_log_prob, unmasked
from ..typing import Message
from .coordinates import Coordinates
from .finite_latents import FiniteLatents
from .posterior_draws import NO_UNITS, Units, per_unit, stacked

__all__ = ["Target"]


class Target:
    r"""The log joint density of a program's latents and evidence, the continuous latents mapped to the real line.

    .. math:: \log p(v(x), \text{evidence}) + \log |\partial v / \partial x|

    Args:
        form: the program.
        method: who asks, for messages.
        units: the plates whose indices have a vector each.

    Finite discrete latents are summed out, :math:`\log \sum_k p(k, v(x), \text{evidence})`.

    Raises:
        MethodError: a discrete latent site with too many values, or no continuous one.
    """

    def __init__(self, form: StructuralForm, method: str, units: Units = NO_UNITS) -> None:
        self.form, self.method, self.units = form, method, units
        self.coordinates: dict[str, Coordinates] = {}
        start = 0
        continuous = {n: s for n, s in form.latent.items() if not s.discrete}
        for name, site in continuous.items():
            self.coordinates[name] = Coordinates(site, start, units, method)
            start = self.coordinates[name].stop
        self.dim = start
        if self.dim == 0:
            raise MethodError(
                f"{method}: all latent sites are discrete; use cp.Enumeration()"
                if form.latent
                else f"{method}: nothing is latent; use cp.Exact()"
            )
        self.dtype = next(iter(continuous.values())).value.dtype
        self.shape = torch.Size([*units.sizes, self.dim])
        self.finite: FiniteLatents | None = None
        if len(continuous) < len(form.latent):
            self.finite = self._summed_out()

    def _summed_out(self) -> FiniteLatents:
        with isolated_rng(keyed_seed(self.form.seed, "finite latents")), torch.no_grad():
            vector = torch.randn(self.shape, dtype=self.dtype)
            return FiniteLatents.of(
                self.form,
                lambda values, units: self.run(vector, values, units)[0],
                self.method,
                self.units if self.units.dims else None,
            )

    def run(
        self,
        vector: Tensor,
        finite: Mapping[str, Tensor] | None = None,
        units: Units | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Log densities by site, in nats, of shape ``unit sizes`` or scalars outside the plates; and the latents' values.

        Args:
            vector: shape ``(*unit sizes, dim)``.
            finite: values of the discrete latents.
            units: the units to keep, by default those of the vectors.
        """
        form, given = self.form, finite or {}
        units = self.units if units is None else units
        parts: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}

        def rule(msg: Message) -> Tensor:
            name, found = msg["name"], self.coordinates.get(msg["name"])
            if found is None and name not in given:
                value = form.given(msg, {})
                log_prob = self._known(msg, value)
                if log_prob is not None:
                    parts[name] = per_unit(log_prob, msg, units)
                return value
            if found is None:
                values[name] = given[name]
                parts[name] = per_unit(self._latent(form.sites[name], msg, given[name]), msg, units)
                return values[name]
            values[name], jacobian = found.read(vector, msg["fn"])
            log_prob = self._latent(found.site, msg, values[name]) + jacobian
            parts[name] = per_unit(log_prob, msg, units)
            return values[name]

        form.run(rule)
        if len(values) != len(self.form.latent):
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
        if (
            site is not None and site.missing is not None
        ):  # left out: nothing depends on what is missing
            log_prob = split_log_prob(msg["fn"], value, site.missing)[1]
        else:
            log_prob = exact_log_prob(msg["fn"], value)
        if msg["mask"] is not None:
            mask = torch.as_tensor(msg["mask"], device=log_prob.device)
            log_prob = torch.where(mask, log_prob, torch.zeros_like(log_prob))
        return log_prob * msg["scale"]  # type: ignore[no-any-return]

    def split(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The log density of each unit, shape ``unit sizes``, and of what stands outside the units' plates."""
        unit = vector.new_zeros(self.units.sizes)
        outside = vector.new_zeros(())
        if self.finite is not None:
            inner, rest = self.finite.marginal(
                lambda values, units: self.run(vector, values, units)[0]
            )
            if self.units.dims:
                return unit + inner, outside + rest
            return unit, outside + rest + torch.as_tensor(inner).sum()
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
        """The latents at many vectors, ``(rows, *unit sizes, dim)``, in the program's dtype; discrete ones are drawn exactly."""
        form, finite = self.form, self.finite

        def row(vector: Tensor, gumbels: dict[str, Tensor]) -> dict[str, Tensor]:
            if finite is None:
                return self.run(vector)[1]
            tables, _ = finite.factors(lambda values, units: self.run(vector, values, units)[0])
            return self.run(vector, finite.draw(finite.eliminated(tables), gumbels))[1]

        noise = {} if finite is None else finite.gumbels(len(vectors), "given the others")
        with torch.no_grad():
            found = stacked(form.executor.map(row, len(vectors), vectors, noise))
        return {n: found[n].to(s.value.dtype) for n, s in form.latent.items()}

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
