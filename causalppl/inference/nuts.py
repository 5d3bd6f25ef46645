"""NUTS on the program's own parametrisation: continuous latents, mapped to the real line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InferenceError, InferenceWarning, MethodError, warn_caller
from ..progress import Progress
from ..structural.form import StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from .convergence import convergence
from .log_density import eager_value_and_gradient
from .posterior_draws import PosteriorDraws, refuse_subsampling
from .target import Target

__all__ = ["NUTS"]


def _initial(target: Target, chains: int) -> Tensor:
    """A start of finite density and gradient for each chain: near zero, else nearer, else from the prior's neighbourhood."""
    evaluate = eager_value_and_gradient(target.log_density)
    starts: list[Tensor] = []
    with isolated_rng(keyed_seed(target.form.seed, "initial points")):
        for attempt in range(100 * chains):
            width = 1.0 if attempt < 50 * chains else 0.1
            point = torch.empty(target.dim, dtype=target.dtype).uniform_(-width, width)
            value, gradient = evaluate(point)
            if math.isfinite(float(value)) and bool(torch.isfinite(gradient).all()):
                starts.append(point)
            if len(starts) == chains:
                return torch.stack(starts)
    raise InferenceError(
        f"NUTS: no starting point with finite density in {100 * chains} tries; check the evidence against the program's supports"
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
        target = Target(form, "NUTS")
        initial = _initial(target, self.chains)
        each = max(-(-num_samples // self.chains), 1000)  # thinned below: R-hat needs long chains
        notes: tuple[str, ...]
        if self.sampler == "nutpie":
            from .nutpie_sampler import sample_nuts  # loads where it is used: importing stays light

            result = sample_nuts(
                target.log_density,
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
            draws, divergences = self._pyro(target, initial, each)
            notes = ("log density: eager",)
        found = convergence(draws)
        flat = draws.flatten(0, 1)
        kept = flat[torch.linspace(0, len(flat) - 1, num_samples).round().long()]
        values = target.values(kept)
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
            f"{target.dim} continuous latent dimensions",
            ess=float(found.ess_bulk),
            rhat=float(found.rhat),
            notes=notes,
        )

    def _pyro(self, target: Target, initial: Tensor, each: int) -> tuple[Tensor, int]:
        from pyro.infer import MCMC
        from pyro.infer import NUTS as PyroNUTS

        chains, divergences = [], 0
        with isolated_rng(keyed_seed(target.form.seed, "pyro nuts")):
            for start in initial:
                kernel = PyroNUTS(
                    potential_fn=lambda z: -target.log_density(z["v"]),
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
