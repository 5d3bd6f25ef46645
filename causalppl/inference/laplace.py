"""Laplace's approximation as a proposal: modes by Newton's method, Student tails around them, all units at once."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InferenceError, MethodError, NoMechanismError
from ..structural.form import ROW, StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from .posterior_draws import NO_UNITS, Units, common_units, mixes_agree, stacked
from .target import Target

__all__ = ["LaplaceProposal", "fit_laplace", "split_by_units", "starting_points"]

#: Weights stay bounded for every target whose tails are those of a Student law with as many degrees of freedom, or lighter.
_DEGREES = 3.0
_MOST_DIMS = 200
_STEPS = 60
_HALVINGS = 8
_SHARE = 0.05  # of the proposals, spread evenly over the modes whatever their weight
_PAIRS = 16


@dataclass(frozen=True)
class LaplaceProposal:
    r"""A mixture over the modes :math:`m_k` of Student laws with 3 degrees of freedom and scale :math:`(-\nabla^2 \log p)^{-1}`.

    Attributes:
        modes: shape ``(modes, *unit sizes, dim)``.
        factors: lower factors of the scales, ``(modes, *unit sizes, dim, dim)``.
        log_shares: log weights of the modes, ``(modes, *unit sizes)``; minus infinity for one that was found twice.
    """

    target: Target
    modes: Tensor
    factors: Tensor
    log_shares: Tensor

    def draw(self, rows: int, seed: int) -> tuple[Tensor, Tensor]:
        """Vectors, ``(rows, *unit sizes, dim)``, and their log densities under the proposal, ``(rows, *unit sizes)``."""
        like = self.modes
        with isolated_rng(seed):
            picked = torch.distributions.Categorical(logits=self.log_shares.movedim(0, -1)).sample(
                torch.Size([rows])
            )
            normal = torch.randn(rows, *like.shape[1:], dtype=like.dtype).to(like.device)
            half = torch.full((rows, *like.shape[1:-1]), _DEGREES / 2).to(like)
            chi = torch.distributions.Gamma(half, 0.5).sample()
        scaled = normal * (_DEGREES / chi).sqrt().unsqueeze(-1)
        vectors = torch.zeros_like(normal)
        for k in range(len(like)):
            own = like[k] + _times(self.factors[k], scaled)
            vectors = torch.where((picked == k).unsqueeze(-1), own, vectors)
        return vectors, self.log_prob(vectors)

    def log_prob(self, vectors: Tensor) -> Tensor:
        """Log density, ``(rows, *unit sizes)``."""
        dim = vectors.shape[-1]
        constant = (
            math.lgamma((_DEGREES + dim) / 2)
            - math.lgamma(_DEGREES / 2)
            - dim / 2 * math.log(_DEGREES * math.pi)
        )
        parts = []
        for mode, factor, share in zip(self.modes, self.factors, self.log_shares, strict=True):
            white = _times(_inverse(factor), vectors - mode)
            log_scale = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            tail = (_DEGREES + dim) / 2 * torch.log1p((white**2).sum(-1) / _DEGREES)
            parts.append(share + constant - log_scale - tail)
        return torch.stack(parts).logsumexp(0)


def fit_laplace(form: StructuralForm, method: str) -> tuple[LaplaceProposal, str]:
    """The proposal, with units of their own where units are independent, and the reason in words.

    Raises:
        MethodError: a latent site is discrete, or too many dimensions.
        InferenceError: no mode was found.
    """
    target, reason = split_by_units(form, method)
    if target.dim > _MOST_DIMS:
        raise MethodError(
            f"{method}: {target.dim} dimensions that cannot be treated unit by unit, more than {_MOST_DIMS}; use cp.NUTS() or cp.SVI()"
        )
    starts = starting_points(target, 8 if target.dim <= 10 else 4)

    def density(vectors: Tensor) -> Tensor:
        found = form.executor.map(target.log_density, len(vectors), vectors, kind="laplace")
        return stacked(found)  # type: ignore[no-any-return]

    modes, hessians, heights = _climb(density, starts)
    if bool((heights.amax(0) == -math.inf).any()):
        raise InferenceError(
            f"{method}: no start with finite density was found; check the evidence against the program's supports, or use cp.NUTS()"
        )
    return _mixture(target, modes, hessians, heights), reason


def split_by_units(form: StructuralForm, method: str) -> tuple[Target, str]:
    """The target with a vector for each unit where units are independent, else with one for all; and which, in words."""
    units = common_units(form.latent)
    if not units.dims:
        return Target(form, method), "jointly: the latent sites share no plate"
    names = ", ".join(units.names)
    with contextlib.suppress(MethodError):  # discrete latents may tie units together: jointly then
        target = Target(form, method, units)
        if _independent(target, units):
            return target, f"for each unit of {names}, which depend on their own latents alone"
    return Target(
        form, method, NO_UNITS
    ), f"jointly: units of {names} depend on each other's latents"


def _independent(target: Target, units: Units) -> bool:
    with isolated_rng(keyed_seed(target.form.seed, "laplace pairs")), torch.no_grad():
        draws = 2 * torch.randn(2 * _PAIRS, *target.shape, dtype=target.dtype)
        return mixes_agree(
            target.form,
            units,
            lambda row: target.split(row["vector"]),
            lambda pick, _: pick.unsqueeze(-1),
            {"vector": draws[:_PAIRS]},
            {"vector": draws[_PAIRS:]},
            {},
        )


def starting_points(target: Target, count: int) -> Tensor:
    """A point near zero (zero itself may be a saddle), and draws from the prior, or from around zero where it has no mechanism."""
    form = target.form
    with isolated_rng(keyed_seed(form.seed, "laplace starts")):
        around = torch.randn(count, *target.shape, dtype=target.dtype)
    try:
        noise = form.prior_noise(count - 1, "laplace")
    except NoMechanismError:
        return torch.cat([0.1 * around[:1], 2 * around[1:]])

    def start(own: dict[str, Tensor], row: Tensor) -> Tensor:
        latents = form.simulate(own, row)  # type: ignore[arg-type]
        return target.vector({n: v for n, v in latents.items() if n != ROW})

    with torch.no_grad():
        found = stacked(form.executor.map(start, count - 1, noise, torch.arange(count - 1)))
    return torch.cat([0.1 * around[:1], found.to(target.dtype)])


def _derivatives(
    density: Callable[[Tensor], Tensor], points: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log density, gradient and Hessian of each row and unit, all by autograd: rows and units do not depend on each other."""
    with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
        # a program that branches on values reads them from tensors that carry gradients
        warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
        leaf = points.detach().clone().requires_grad_(True)
        height = density(leaf)
        flat = torch.zeros_like(leaf)
        dim = leaf.shape[-1]
        hessian = torch.zeros(*leaf.shape, dim, dtype=leaf.dtype, device=leaf.device)
        if not height.requires_grad:
            return height.detach(), flat, hessian
        (gradient,) = torch.autograd.grad(height.sum(), leaf, create_graph=True)
        if gradient.requires_grad:
            rows = [
                torch.autograd.grad(
                    gradient[..., j].sum(), leaf, retain_graph=True, allow_unused=True
                )[0]
                for j in range(dim)
            ]
            hessian = torch.stack([flat if r is None else r for r in rows], -2)
        return height.detach(), gradient.detach(), hessian.detach()


def _curvature(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of minus the Hessian, made positive, and its eigenvectors."""
    symmetric = -0.5 * (hessian + hessian.mT)
    values, vectors = torch.linalg.eigh(symmetric.double().nan_to_num(0.0, 0.0, 0.0))
    floor = (values.abs().amax(-1, keepdim=True) * 1e-8).clamp(min=1e-8)
    return torch.maximum(values.abs(), floor), vectors


def _climb(density: Callable[[Tensor], Tensor], points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's method from every start, with the absolute value of the curvature and steps halved until the density rises.

    Returns:
        the last points, minus infinity in ``heights`` where a start had no finite density.
    """
    for _ in range(_STEPS):
        height, gradient, hessian = _derivatives(density, points)
        usable = torch.isfinite(height) & torch.isfinite(gradient).all(-1)
        gradient = torch.where(usable.unsqueeze(-1), gradient, 0.0)
        values, vectors = _curvature(hessian)
        along = (vectors.mT @ gradient.double().unsqueeze(-1)).squeeze(-1) / values
        step = (vectors @ along.unsqueeze(-1)).squeeze(-1).to(points)
        gain = (gradient * step).sum(-1)
        if float(gain.abs().max()) < 1e-4:  # nats
            break
        tolerance = 1e-6 * height.abs().nan_to_num(0.0, 0.0, 0.0)
        size = torch.ones_like(height)
        with torch.no_grad():
            for _ in range(_HALVINGS):
                there = density(points + size.unsqueeze(-1) * step)
                worse = ~(there >= height - tolerance) & (gain > 0)
                if not bool(worse.any()):
                    break
                size = torch.where(worse, size / 2, size)
            size = torch.where(worse, 0.0, size)
        if not bool(size.any()):
            break
        points = points + size.unsqueeze(-1) * step
    height, _, hessian = _derivatives(density, points)
    return points, hessian, torch.where(torch.isnan(height), -math.inf, height)


def _mixture(target: Target, modes: Tensor, hessians: Tensor, heights: Tensor) -> LaplaceProposal:
    values, vectors = _curvature(hessians)
    # scale = V diag(1 / values) V'; the R of a QR of its root's transpose is a lower factor that always exists
    root = vectors * values.rsqrt().unsqueeze(-2)
    upper = torch.linalg.qr(root.mT).R
    factors = (upper * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-1)).mT.to(modes)
    log_scale = -0.5 * values.log().sum(-1)
    shares = heights.double() + log_scale
    # a climb that ended on a shoulder or a saddle has no width; it counts only where there is nothing else
    least = torch.linalg.eigvalsh(-hessians.double().nan_to_num(0.0, 0.0, 0.0)).amin(-1)
    proper = (least > 1e-4 * values.amax(-1)) & (heights > -math.inf)
    shares = torch.where(proper | ~proper.any(0), shares, -math.inf)
    for k in range(1, len(modes)):
        for j in range(k):
            away = _times(_inverse(factors[j]), modes[k] - modes[j])
            twice = ((away**2).sum(-1) < 0.1) & (shares[j] > -math.inf)
            shares[k] = torch.where(twice, -math.inf, shares[k])
    # the likeliest mode of each unit first; what is no unit's mode is left out
    order = shares.argsort(0, descending=True)
    count = int((shares > -math.inf).sum(0).max())
    shares, modes, factors = (_picked(order[:count], t) for t in (shares, modes, factors))
    weights = shares.softmax(0)
    alive = (shares > -math.inf).double()
    weights = (1 - _SHARE) * weights + _SHARE * alive / alive.sum(0)
    return LaplaceProposal(target, modes, factors, weights.log().to(modes))


def _picked(order: Tensor, values: Tensor) -> Tensor:
    wide = order.reshape(*order.shape, *([1] * (values.dim() - order.dim())))
    return values.gather(0, wide.expand(*order.shape, *values.shape[order.dim() :]))


def _inverse(factor: Tensor) -> Tensor:
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    return torch.einsum("...ij,...j->...i", matrix, vectors)
