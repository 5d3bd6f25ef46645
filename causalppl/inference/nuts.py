"""NUTS on the program's own parametrisation: continuous latents, mapped to the real line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InferenceError, InferenceWarning, MethodError, warn_caller
from ..progress import Progress
from ..structural.executors import without_validation
from ..structural.form import StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from .convergence import convergence
from .log_density import eager_value_and_gradient
from .posterior_draws import PosteriorDraws, refuse_subsampling
from .target import Target

__all__ = ["NUTS"]

_TRIES = 99


def _initial(target: Target, chains: int) -> Tensor:
    """A start of finite density and gradient for each chain: around zero, else nearer to it, else draws from the prior."""
    evaluate = eager_value_and_gradient(target.log_density)
    starts: list[Tensor] = []
    for point in _candidates(target, chains):
        value, gradient = evaluate(point)
        if math.isfinite(float(value)) and bool(torch.isfinite(gradient).all()):
            starts.append(point)
        if len(starts) == chains:
            return torch.stack(starts)
    raise InferenceError(
        f"NUTS: no {chains} starting points with finite density in {_TRIES * chains} tries; check the evidence against the program's "
        "supports"
    )


def _candidates(target: Target, chains: int) -> Iterator[Tensor]:
    shape = torch.Size([_TRIES // 3 * chains, target.dim])
    with isolated_rng(keyed_seed(target.form.seed, "initial points")):
        wide, near = (
            torch.empty(shape, dtype=target.dtype).uniform_(-width, width) for width in (1.0, 0.1)
        )
    yield from wide
    yield from near
    from .laplace import starting_points  # loads where it is used

    yield from starting_points(target, len(wide))


@dataclass(frozen=True)
class NUTS:
    """The No-U-Turn sampler on the program's continuous latents, finite discrete ones summed out and drawn back exactly.

    Args:
        sampler: ``"nutpie"`` (a traced or compiled potential) or ``"pyro"`` (Pyro's own kernel).
        chains: number of chains, run one after another.
        warmup: adaptation steps of each chain, left out of the draws.
        target_accept: acceptance rate that the step size is adapted to; larger takes smaller steps.
        dtype: of the coordinates, ``torch.float32`` or ``torch.float64``; by default that of the program's latents. The program's
            own constants and data keep their precision, and draws come back in the sites' dtypes.

    Raises:
        MethodError: a discrete latent site with too many values, a plate that is subsampled, or a program that cannot compute in
            ``dtype``.
        InferenceError: no starting point with finite density was found.

    Warns:
        InferenceWarning: R-hat above 1.01, or more than one divergent transition in a hundred.

    References:
        Matthew D. Hoffman, Andrew Gelman (2014), The No-U-Turn Sampler: Adaptively Setting Path Lengths in Hamiltonian Monte
        Carlo. https://jmlr.org/papers/v15/hoffman14a.html

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(z, 0.5), obs=torch.tensor(2.5))
        >>> posterior = cp.abduct(model, method=cp.NUTS(chains=2, warmup=200), seed=0)()
        >>> abs(float(posterior.latents["z"].mean()) - 2.0) < 0.1
        True
    """

    sampler: str = "nutpie"
    chains: int = 4
    warmup: int = 500
    target_accept: float = 0.8
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.sampler not in ("nutpie", "pyro"):
            raise MethodError(
                f"NUTS: sampler={self.sampler!r} is not known; it can be 'nutpie' or 'pyro'"
            )
        if self.dtype not in (None, torch.float32, torch.float64):
            raise MethodError(
                f"NUTS: dtype={self.dtype}; it can be torch.float32, torch.float64, or None for the program's own"
            )

    def sample(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        """See :class:`~causalppl.inference.Method`."""
        refuse_subsampling(form, "NUTS")
        target = self._target(form)
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
        notes = (*notes, f"{divergences} divergent transitions of {len(flat)}")
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

    def _target(self, form: StructuralForm) -> Target:
        target = Target(form, "NUTS")
        if self.dtype is not None and self.dtype != target.dtype:
            target.dtype = self.dtype
            try:
                with torch.no_grad(), without_validation():
                    target.log_density(torch.zeros(target.shape, dtype=self.dtype))
            except RuntimeError as error:
                if "dtype" not in str(error) and "scalar type" not in str(error):
                    raise
                raise MethodError(
                    f"NUTS: the program cannot compute in {self.dtype}: {error}; give it data and networks of that dtype, or leave "
                    "dtype out"
                ) from error
        return target

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
