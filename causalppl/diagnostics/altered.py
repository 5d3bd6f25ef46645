"""Programs altered for a test: units left out of the likelihood, and sites moved by an added cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..errors import MethodError
from ..structural.sites import unmasked
from ..typing import Message, Program

__all__ = ["Moved", "OnlyUnits", "unit_normal", "with_cause"]


class OnlyUnits(Messenger):
    """Leaves units out of the likelihood: their evidence weighs nothing.

    Args:
        plate: the plate whose indices are the units.
        chosen: the units that stay, booleans of shape ``(units,)``.
        dim: the plate's dim.
    """

    def __init__(self, plate: str, chosen: Tensor, dim: int) -> None:
        super().__init__()
        self.plate, self.mask = plate, chosen.reshape(-1, *([1] * (-dim - 1)))

    def _pyro_sample(self, msg: Message) -> None:
        if any(frame.name == self.plate for frame in msg["cond_indep_stack"]):
            msg["mask"] = self.mask if msg["mask"] is None else msg["mask"] & self.mask


class Moved(Messenger):
    """Adds to the location of some sites: the mean of a Normal, the log odds of a Bernoulli, the value of any other real site.

    Args:
        by: site to what is added.
    """

    def __init__(self, by: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.by = by

    def _pyro_sample(self, msg: Message) -> None:
        if msg["name"] in self.by:
            msg["fn"] = _moved(msg["name"], msg["fn"], self.by[msg["name"]])


def _moved(name: str, fn: Any, by: Tensor) -> Any:
    base = unmasked(fn)
    while isinstance(base, torch.distributions.Independent) and not base.reinterpreted_batch_ndims:
        base = base.base_dist
    if type(base).__name__ == "ExpandedDistribution":
        inner = base.base_dist
        base = inner.expand(base.batch_shape) if not inner.event_shape else base
    if isinstance(base, dist.Normal):
        return dist.Normal(base.loc + by, base.scale)
    if isinstance(base, dist.Bernoulli):
        return dist.Bernoulli(logits=base.logits + by)
    support = getattr(base, "support", None)
    if base.event_shape or support is not torch.distributions.constraints.real:
        raise MethodError(
            f"a cause cannot be added to site {name!r}: {type(base).__name__} is neither Bernoulli nor real-valued"
        )
    return dist.TransformedDistribution(base, [dist.transforms.AffineTransform(by, 1.0)])


def with_cause(
    model: Program, cause: Callable[[], Tensor], strengths: Callable[[], Mapping[str, Any]]
) -> Program:
    """The program with a cause added: drawn first, then added to each site times its strength.

    Args:
        model: the program.
        cause: draws the cause, one number for each unit.
        strengths: site to its factor; may hold sample sites of its own.
    """

    def widened(*args: Any, **kwargs: Any) -> Any:
        value, factors = cause(), strengths()
        with Moved({name: factor * value for name, factor in factors.items()}):
            return model(*args, **kwargs)

    return widened


def unit_normal(name: str, plate: Any) -> Callable[[], Tensor]:
    """A latent standard normal for each unit, in the plate of the units."""

    def draw() -> Tensor:
        with pyro.plate(plate.name, plate.size, dim=plate.dim):
            return pyro.sample(name, dist.Normal(0.0, 1.0))  # type: ignore[no-any-return]

    return draw
