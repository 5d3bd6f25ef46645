"""NUTS on the program's own parametrisation: continuous latents, mapped to the real line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints

from ..errors import InferenceError, InferenceWarning, MethodError, warn_caller
from ..progress import Progress
from ..structural.form import StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from ..structural.sites import Site, elements, site_kind, split_log_prob, unmasked
from ..typing import Message
from .convergence import convergence
from .posterior_draws import PosteriorDraws, refuse_subsampling

__all__ = ["NUTS"]


class _Coordinates:
    """Where a latent site, or the part of it that is missing, stands in the sampler's vector."""

    def __init__(self, site: Site, start: int) -> None:
        self.site, self.start = site, start
        self.inner = elements(site.fn)
        alone = site.missing is not None and self.inner is not None
        self.index = site.missing.flatten().nonzero().squeeze(-1) if alone else None  # type: ignore[union-attr]
        self.shape = torch.Size(
            self._transform(site.fn).inverse_shape(site.value.shape)
            if self.index is None
            else (len(self.index),)
        )
        self.stop = start + self.shape.numel()

    def _transform(self, fn: Any) -> Any:
        if self.site.interval is None:
            return biject_to(fn.support if self.index is None else elements(fn).support)
        inner = elements(fn)
        if inner is None:
            raise MethodError(
                f"NUTS: a range of site {self.site.name!r}, whose entries depend on each other; use cp.ImportanceSampling()"
            )
        low, high = self.site.interval
        low = torch.maximum(low, torch.as_tensor(getattr(inner.support, "lower_bound", -math.inf)))
        high = torch.minimum(high, torch.as_tensor(getattr(inner.support, "upper_bound", math.inf)))
        open_low, open_high = bool(torch.isinf(low).all()), bool(torch.isinf(high).all())
        if open_low and open_high:
            return biject_to(inner.support)
        found: Any
        if open_low or open_high:
            found = constraints.less_than(high) if open_low else constraints.greater_than(low)
        else:
            found = constraints.interval(low, high)
        if bool(torch.isinf(low).any()) != open_low or bool(torch.isinf(high).any()) != open_high:
            raise MethodError(
                f"NUTS: the ranges of site {self.site.name!r} are open for some entries only; use cp.ImportanceSampling()"
            )
        return biject_to(found)

    def read(self, vector: Tensor, fn: Any) -> tuple[Tensor, Tensor]:
        """The site's value, and the log Jacobian of the map from the vector, a scalar."""
        raw, site = vector[self.start : self.stop], self.site
        if self.index is not None:
            assert site.missing is not None
            full = torch.zeros(site.value.numel(), dtype=raw.dtype, device=raw.device)
            raw = full.index_put((self.index,), raw).reshape(site.value.shape)
        else:
            raw = raw.reshape(self.shape)
        transform = self._transform(fn)
        value = transform(raw)
        jacobian = transform.log_abs_det_jacobian(raw, value)
        if site.missing is None:
            return value, jacobian.sum()
        if self.index is not None:
            return torch.where(site.missing, value, site.value), torch.where(
                site.missing, jacobian, 0.0
            ).sum()
        # a part of an event whose entries depend on each other: what is known of it leaves a standard normal behind
        events = site.missing.flatten(site.missing.dim() - site.fn.event_dim)
        idle = ~(
            site.missing
            if raw.shape == site.value.shape
            else events.any(-1, keepdim=True).expand(raw.shape)
        )
        kept = (
            jacobian.sum()
            if jacobian.dim() == 0
            else torch.where(events.any(-1), jacobian, 0.0).sum()
        )
        filler = torch.where(idle, -0.5 * raw**2, 0.0).sum()
        return torch.where(site.missing, value, site.value), kept + filler


class _Potential:
    """The log joint density of a program as a function of one real vector."""

    def __init__(self, form: StructuralForm) -> None:
        self.form = form
        self.coordinates: dict[str, _Coordinates] = {}
        start = 0
        for name, site in form.latent.items():
            if site.discrete:
                raise MethodError(
                    f"NUTS: the latent site {name!r} is discrete ({type(site.fn).__name__}); use cp.ImportanceSampling(), or "
                    "cp.Enumeration() where all latents are finite"
                )
            self.coordinates[name] = _Coordinates(site, start)
            start = self.coordinates[name].stop
        self.dim = start
        if self.dim == 0:
            raise MethodError("NUTS: nothing is latent; use cp.Exact()")
        self.dtype = next(iter(form.latent.values())).value.dtype

    def evaluate(self, vector: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Log density in nats, and the latent sites' values."""
        total = vector.new_zeros(())
        values: dict[str, Tensor] = {}

        def rule(msg: Message) -> Tensor:
            nonlocal total
            name, fn = msg["name"], msg["fn"]
            found = self.coordinates.get(name)
            if found is not None:
                values[name], jacobian = found.read(vector, fn)
                total = total + jacobian
                if found.site.missing is None:
                    law = unmasked(fn) if found.site.masked else fn
                    total = total + law.log_prob(values[name]).sum()
                else:
                    lost, known = split_log_prob(fn, values[name], found.site.missing)
                    total = total + lost.sum() + (known * msg["scale"]).sum()
                return values[name]
            value = self.form.given(msg, {})
            if site_kind(msg) == "deterministic":
                site = self.form.sites.get(name)
                if name in self.form.conditioned or (
                    site is not None and site.interval is not None
                ):
                    raise MethodError(
                        f"NUTS: evidence on the deterministic site {name!r} of continuous latents has no density; use "
                        "cp.ImportanceSampling(), or make it a sample site with a narrow distribution"
                    )
                return value
            log_prob = fn.log_prob(value)
            if msg["mask"] is not None:
                mask = torch.as_tensor(msg["mask"], device=log_prob.device)
                log_prob = torch.where(mask, log_prob, torch.zeros_like(log_prob))
            total = total + (log_prob * msg["scale"]).sum()
            return value

        self.form.run(rule)
        if len(values) != len(self.coordinates):
            raise MethodError(
                "NUTS: the latent sites differ from run to run (a Python branch); use cp.ImportanceSampling()"
            )
        return total, values

    def initial(self, chains: int) -> Tensor:
        """A start of finite density for each chain."""
        starts = []
        with isolated_rng(keyed_seed(self.form.seed, "initial points")):
            for _ in range(100 * chains):
                point = torch.empty(self.dim, dtype=self.dtype).uniform_(-1.0, 1.0)
                with torch.no_grad():
                    if math.isfinite(float(self.evaluate(point)[0])):
                        starts.append(point)
                if len(starts) == chains:
                    return torch.stack(starts)
        raise InferenceError(
            "NUTS: no starting point with finite density in 100 tries; check the evidence against the program's supports"
        )


@dataclass(frozen=True)
class NUTS:
    """The No-U-Turn sampler on the program's continuous latents.

    Args:
        sampler: ``"nutpie"`` (a compiled potential) or ``"pyro"`` (Pyro's own kernel).
        chains: number of chains, run one after another.
        warmup: adaptation steps of each chain, left out of the draws.

    Raises:
        MethodError: a latent site is discrete, or a plate is subsampled.

    Warns:
        InferenceWarning: R-hat above 1.01, or divergent transitions.

    References:
        M. Hoffman, A. Gelman (2014), The No-U-Turn Sampler.
    """

    sampler: str = "nutpie"
    chains: int = 4
    warmup: int = 500
    target_accept: float = 0.8

    def __post_init__(self) -> None:
        if self.sampler not in ("nutpie", "pyro"):
            raise MethodError(
                f"NUTS: sampler={self.sampler!r} is not known; it can be 'nutpie' or 'pyro'"
            )

    def sample(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        """See :class:`~causalppl.inference.Method`."""
        refuse_subsampling(form, "NUTS")
        potential = _Potential(form)
        initial = potential.initial(self.chains)
        each = max(-(-num_samples // self.chains), 1000)  # thinned below: R-hat needs long chains
        notes: tuple[str, ...]
        if self.sampler == "nutpie":
            from .nutpie_sampler import sample_nuts  # loads where it is used: importing stays light

            result = sample_nuts(
                lambda vector: potential.evaluate(vector)[0],
                initial,
                num_samples=each,
                warmup=self.warmup,
                seed=keyed_seed(form.seed, "nuts") % 2**31,
                target_accept=self.target_accept,
                progress=progress,
            )
            draws, divergences = result.draws, result.divergences
            notes = (f"log density: {result.executor}", *result.notes)
        else:
            draws, divergences = self._pyro(potential, initial, each)
            notes = ("log density: eager",)
        found = convergence(draws)
        flat = draws.flatten(0, 1)
        kept = flat[torch.linspace(0, len(flat) - 1, num_samples).round().long()]
        with torch.no_grad():
            values = form.executor.map(
                lambda vector: potential.evaluate(vector)[1], len(kept), kept
            )
        if isinstance(values, list):
            values = {n: torch.stack([v[n] for v in values]) for n in values[0]}
        if found.rhat > 1.01:
            warn_caller(
                f"NUTS: the chains have not converged (R-hat {found.rhat:.3f}, at most 1.01 is good); raise warmup "
                "or num_samples",
                InferenceWarning,
            )
        if divergences:
            notes = (*notes, f"{divergences} divergent transitions")
        if divergences > 0.01 * len(flat):
            warn_caller(
                f"NUTS: {divergences} divergent transitions; raise target_accept or reparametrise",
                InferenceWarning,
            )
        return PosteriorDraws(
            values,
            num_samples,
            f"NUTS({self.sampler})",
            f"{potential.dim} continuous latent dimensions",
            ess=float(found.ess_bulk),
            rhat=float(found.rhat),
            notes=notes,
        )

    def _pyro(self, potential: _Potential, initial: Tensor, each: int) -> tuple[Tensor, int]:
        from pyro.infer import MCMC
        from pyro.infer import NUTS as PyroNUTS

        chains, divergences = [], 0
        with isolated_rng(keyed_seed(potential.form.seed, "pyro nuts")):
            for start in initial:
                kernel = PyroNUTS(
                    potential_fn=lambda z: -potential.evaluate(z["v"])[0],
                    target_accept_prob=self.target_accept,
                )
                run: Any = MCMC(
                    kernel,
                    num_samples=each,
                    warmup_steps=self.warmup,
                    initial_params={"v": start},
                    disable_progbar=True,
                )
                run.run()
                chains.append(run.get_samples()["v"])
                divergences += sum(len(d) for d in run.diagnostics()["divergences"].values())
        return torch.stack(chains), divergences
