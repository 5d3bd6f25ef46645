"""Normal approximations on the real line that maximise the ELBO: of each unit, or of all latents together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..progress import Progress
from ..structural.form import StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from ..training import History, train
from .laplace import split_by_units, starting_points
from .log_density import value_and_gradient
from .posterior_draws import stacked
from .target import Target

__all__ = ["GaussianFit", "fit_gaussian", "settled"]

_PAIRS = 4  # of antithetic draws for each step's ELBO
_STARTS = 8


@dataclass(frozen=True)
class GaussianFit:
    """A normal law for each unit.

    Attributes:
        mean: shape ``(*unit sizes, dim)``.
        factor: lower factor of the covariance, ``(*unit sizes, dim, dim)``.
    """

    target: Target
    mean: Tensor
    factor: Tensor
    reason: str
    training: History

    def draw(self, rows: int, seed: int) -> tuple[Tensor, Tensor]:
        """Vectors, ``(rows, *unit sizes, dim)``, and their log densities, ``(rows, *unit sizes)``."""
        with isolated_rng(seed):
            noise = torch.randn(rows, *self.mean.shape, dtype=self.mean.dtype)
        vectors = self.mean + torch.einsum("...ij,...j->...i", self.factor, noise)
        log_scale = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = self.mean.shape[-1] / 2 * math.log(2 * math.pi)
        return vectors, -0.5 * (noise**2).sum(-1) - log_scale - constant


def fit_gaussian(
    form: StructuralForm,
    full: bool,
    steps: int,
    learning_rate: float,
    progress: Progress,
    method: str,
) -> GaussianFit:
    """Maximise the ELBO by Adam over means and factors, with antithetic reparametrised draws.

    Args:
        full: whether coordinates of one unit may be correlated.
    """
    target, reason = split_by_units(form, method)
    mean = _start(target).requires_grad_(True)
    log_scale = torch.full(target.shape, math.log(0.1), dtype=target.dtype, requires_grad=True)
    below = torch.zeros(*target.shape, target.dim, dtype=target.dtype, requires_grad=True)
    count = 2 * _PAIRS
    shape = torch.Size([count, *target.shape])

    def total(flat: Tensor) -> Tensor:
        vectors = flat.reshape(shape)
        found = stacked(form.executor.map(target.log_density, count, vectors, kind=method))
        return found.sum()  # type: ignore[no-any-return]

    def factor() -> Tensor:
        own = torch.diag_embed(log_scale.exp())
        return own + below.tril(-1) if full else own

    with isolated_rng(keyed_seed(form.seed, method)), torch.inference_mode(False):
        with torch.enable_grad():
            first = mean.detach() + 0.1 * torch.randn(shape, dtype=target.dtype)
            with torch.no_grad():
                total(first.flatten())  # proves the batched evaluation, before it is traced
            pair = value_and_gradient(total, first.flatten(), evaluations=steps, compile=False)

            def loss(step: int) -> Tensor:
                half = torch.randn(_PAIRS, *target.shape, dtype=target.dtype)
                noise = torch.cat([half, -half])
                vectors = mean + torch.einsum("...ij,...j->...i", factor(), noise)
                value, gradient = pair.evaluate(vectors.detach().flatten())
                entropy = log_scale.sum()
                # the gradient of the density is known, so the chain rule goes on from it
                along = (gradient.reshape(shape) * vectors).sum() / count
                constant = log_scale.numel() / 2 * (1 + math.log(2 * math.pi))
                elbo = value.detach() / count + entropy.detach() + constant
                slope = along + entropy
                return slope.detach() - slope - elbo

            tensors = {"mean": mean, "log_scale": log_scale} | ({"below": below} if full else {})
            training = settled(loss, tensors, form, steps, learning_rate, progress, method)
    return GaussianFit(target, mean.detach(), factor().detach(), reason, training)


def settled(
    loss: Callable[[int], Tensor],
    tensors: Mapping[str, Tensor],
    form: StructuralForm,
    steps: int,
    learning_rate: float,
    progress: Progress,
    method: str,
) -> History:
    """An ELBO's training, until it settles."""
    return train(
        loss,
        tensors,
        steps=steps,
        learning_rate=learning_rate,
        schedule="settle",
        clip_norm=None,
        seed=keyed_seed(form.seed, method, "training"),
        progress=progress,
        name=method,
    )


def _start(target: Target) -> Tensor:
    """For each unit the likeliest of a few draws from the prior."""
    points = starting_points(target, _STARTS)
    with torch.no_grad():
        heights = stacked(target.form.executor.map(target.log_density, _STARTS, points))
    best = heights.nan_to_num(-math.inf, neginf=-math.inf).argmax(0)
    index = best.reshape(torch.Size([1, *best.shape, 1])).expand(torch.Size([1, *target.shape]))
    return points.gather(0, index).squeeze(0).clone()
