"""Whole numbers from a logistic law cut into cells: pixels, ratings, counts with a floor and a ceiling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ..mechanisms import register_mechanism
from ..mechanisms.logistic import inside, log1mexp, softplus, standard_logistic, truncated
from ..mechanisms.protocol import NoiseDistribution

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(dist.TorchDistribution):
    r"""The whole number nearest to a logistic value, no lower than ``low`` and no higher than ``high``:

    .. math:: P(v = k) = \sigma\left(\frac{k + 1/2 - loc}{scale}\right) - \sigma\left(\frac{k - 1/2 - loc}{scale}\right)

    where the lowest cell begins at minus infinity and the highest ends at infinity. Its mechanism is that construction: the noise is
    the logistic value's score, so a counterfactual pixel keeps what it had against its expectation.

    Args:
        loc: centre, in units of the value; broadcasts with ``scale`` to the batch shape.
        scale: positive.
        low, high: the lowest and the highest value.

    References:
        Tim Salimans, Andrej Karpathy, Xi Chen, Diederik Kingma (2017), PixelCNN++: Improving the PixelCNN with Discretized Logistic
        Mixture Likelihood and Other Modifications. https://arxiv.org/abs/1701.05517

    Example:
        >>> import torch
        >>> from causalppl.networks import DiscretizedLogistic
        >>> law = DiscretizedLogistic(torch.tensor(2.0), torch.tensor(0.5), 0, 16)
        >>> round(float(law.log_prob(torch.arange(17.0)).exp().sum()), 5)
        1.0
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    has_enumerate_support = True

    def __init__(
        self, loc: Any, scale: Any, low: int, high: int, validate_args: bool | None = None
    ) -> None:
        loc, scale = (torch.as_tensor(part) for part in (loc, scale))
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.low, self.high = int(low), int(high)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:  # type: ignore[override]
        """The whole numbers from ``low`` to ``high``."""
        return constraints.integer_interval(self.low, self.high)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretizedLogistic:
        """The same law with a larger batch shape."""
        shape = torch.Size(batch_shape)
        loc, scale = self.loc.expand(shape), self.scale.expand(shape)
        return DiscretizedLogistic(loc, scale, self.low, self.high, validate_args=False)

    def edges(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Where the cell of a value begins and ends, as standard logistic scores in float64."""
        loc, scale, count = self.loc.double(), self.scale.double(), value.double()
        below, above = (count - 0.5 - loc) / scale, (count + 0.5 - loc) / scale
        return (
            torch.where(count <= self.low, -torch.inf, below),
            torch.where(count >= self.high, torch.inf, above),
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, of the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        below, above = (value - 0.5 - self.loc) / self.scale, (value + 0.5 - self.loc) / self.scale
        # sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)), which is accurate in both tails
        inner = log1mexp(-1 / self.scale) - softplus(-above) - softplus(below)
        found = torch.where(value <= self.low, -softplus(-above), inner)
        return torch.where(value >= self.high, -softplus(below), found)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws of shape ``sample_shape + batch_shape``, in the dtype of ``loc``."""
        score = standard_logistic(self.batch_shape, self.loc, torch.float64).sample(sample_shape)
        return self.value_at(score)

    def value_at(self, score: Tensor) -> Tensor:
        """The value in whose cell a score lies, in the dtype of ``loc``."""
        place = self.loc.double() + self.scale.double() * score
        return torch.ceil(place - 0.5).clamp(self.low, self.high).detach().to(self.loc.dtype)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values, shape ``(high - low + 1,) + batch_shape``, with ones for the batch shape where not expanded."""
        values = torch.arange(self.low, self.high + 1, dtype=self.loc.dtype, device=self.loc.device)
        values = values.reshape(-1, *([1] * len(self.batch_shape)))
        return values.expand(-1, *self.batch_shape) if expand else values


@dataclass(frozen=True)
class _Cells:
    """``v = clamp(ceil(loc + scale score - 1/2))``, increasing; the score of a value is truncated to its cell."""

    name: str = "inverse_cdf"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1) in float64, batch shape ``fn.batch_shape``."""
        return standard_logistic(fn.batch_shape, fn.loc, torch.float64)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The value whose cell holds the score."""
        return fn.value_at(noise)  # type: ignore[no-any-return]

    def base(self, fn: Any) -> NoiseDistribution:
        """A logistic score, mapped into the value's cell."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The score truncated to the value's cell."""
        low, high = fn.edges(value)
        return inside(truncated(low, high, base), low, high, torch.finfo(fn.loc.dtype).eps)


register_mechanism(DiscretizedLogistic, _Cells())
