"""Conditional flows: densities on real vectors whose shape is a network's function of a context. The only import of zuko."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..errors import MethodError
from .residual import ResidualNetwork

__all__ = ["FLOWS", "ConditionalFlow"]

#: Up to this many features a full triangle of covariances is a network's output; above, only scales are.
_TRIANGLE = 24

#: How the standardised residual is distributed.
FLOWS = ("spline", "gaussian", "autoregressive")


@cache
def _zuko() -> Any:
    """The zuko package. Importing it turns off torch's argument validation for the whole process: that is put back."""
    validation = Distribution._validate_args
    try:
        import zuko
    finally:
        Distribution.set_default_validate_args(validation)
    return zuko


class ConditionalFlow(nn.Module):
    r"""A density of a real vector given a context.

    .. math:: x = m(c) + L(c)\, u, \qquad u \sim \text{flow}(\cdot \mid c)

    with a lower triangular :math:`L`, so that a normal law is represented exactly, and a flow that bends it.

    Args:
        features: size of the vector.
        context: size of the context.
        flow: ``"spline"``: two coupling layers of rational-quadratic splines (one pass each to sample, so four times as
            fast as autoregressive ones). ``"gaussian"``: nothing is bent. ``"autoregressive"``: three masked affine layers, one pass for
            each feature to sample. Or a callable of ``features`` and ``context`` that returns a module which maps a context to a
            distribution with ``log_prob`` and ``rsample``, as all of ``zuko.flows`` are.
        width: of the networks.

    Raises:
        MethodError: an unknown name.

    References:
        Conor Durkan, Artur Bekasov, Iain Murray, George Papamakarios (2019), Neural Spline Flows.
        https://arxiv.org/abs/1906.04032
        François Rozet and others (2022), Zuko: Normalizing flows in PyTorch. https://pypi.org/project/zuko

    Example:
        >>> import torch
        >>> flow = ConditionalFlow(2, 3, "gaussian")
        >>> x, log_q = flow.draw(torch.zeros(5, 3))
        >>> bool(torch.allclose(flow.log_prob(x, torch.zeros(5, 3)), log_q, atol=1e-5))
        True
    """

    def __init__(
        self,
        features: int,
        context: int,
        flow: str | Callable[[int, int], nn.Module] = "spline",
        width: int = 64,
    ) -> None:
        super().__init__()
        if isinstance(flow, str) and flow not in FLOWS:
            raise MethodError(
                f"flow={flow!r} is not known; it can be one of {', '.join(map(repr, FLOWS))}, or a callable of features and context"
            )
        self.features = features
        self.full = features <= _TRIANGLE
        below = features * (features - 1) // 2 if self.full else 0
        self.affine = ResidualNetwork(context, 2 * features + below, width, blocks=1)
        nn.init.zeros_(self.affine.leave.weight)
        nn.init.zeros_(self.affine.leave.bias)
        nn.init.zeros_(self.affine.around.weight)
        self.bend = _bend(features, context, flow, width)

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """Log density in nats; ``batch + (features,)`` and ``batch + (context,)`` to ``batch``."""
        mean, scale = self._affine(context)
        u = (x - mean) / scale if scale.dim() == x.dim() else _solve(scale, x - mean)
        law = self.bend(context)
        return law.log_prob(u) - _log_det(scale, x)  # type: ignore[no-any-return]

    def draw(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """One reparametrised draw for each context, ``batch + (features,)``, and its log density, ``batch``."""
        mean, scale = self._affine(context)
        law = self.bend(context)
        if hasattr(law, "rsample_and_log_prob"):
            u, log_q = law.rsample_and_log_prob()
        else:
            u = law.rsample()
            log_q = law.log_prob(u)
        moved = scale * u if scale.dim() == u.dim() else (scale @ u.unsqueeze(-1)).squeeze(-1)
        return mean + moved, log_q - _log_det(scale, u)

    def _affine(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """The mean, and scales or a lower triangle."""
        found, n = self.affine(context), self.features
        mean, scale = found[..., :n], found[..., n : 2 * n].clamp(-12.0, 12.0).exp()
        if not self.full or n == 1:
            return mean, scale
        triangle = torch.zeros((*found.shape[:-1], n, n), dtype=found.dtype, device=found.device)
        rows, columns = torch.tril_indices(n, n, -1, device=found.device)
        # rows in units of their own scale, so that correlations do not vanish as the posterior narrows
        triangle[..., rows, columns] = found[..., 2 * n :] * scale[..., rows]
        return mean, triangle + torch.diag_embed(scale)


def _solve(triangle: Tensor, x: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(triangle, x.unsqueeze(-1), upper=False).squeeze(-1)


def _log_det(scale: Tensor, x: Tensor) -> Tensor:
    diagonal = scale if scale.dim() == x.dim() else scale.diagonal(dim1=-2, dim2=-1)
    return diagonal.log().sum(-1)


class _Standard(nn.Module):
    """Independent standard normals, whatever the context."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, context: Tensor) -> Distribution:
        shape = (*context.shape[:-1], self.features)
        zero = torch.zeros(shape, dtype=context.dtype, device=context.device)
        normal = torch.distributions.Normal(zero, torch.ones_like(zero), validate_args=False)
        return torch.distributions.Independent(normal, 1, validate_args=False)


def _bend(
    features: int, context: int, flow: str | Callable[[int, int], nn.Module], width: int
) -> nn.Module:
    if callable(flow):
        return flow(features, context)
    if flow == "gaussian":
        return _Standard(features)
    flows, hidden = _zuko().flows, (width, width)
    if flow == "autoregressive":
        found: nn.Module = flows.MAF(features, context, transforms=3, hidden_features=hidden)
    else:
        found = flows.NSF(
            features,
            context,
            transforms=1 if features == 1 else 2,
            passes=2,
            hidden_features=hidden,
        )
    return found
