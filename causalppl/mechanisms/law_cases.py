"""A family of distributions with the parameters of two worlds, and the draws that several laws look at."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor

from .protocol import Mechanism
from .registry import mechanism_for

__all__ = [
    "Draws",
    "MechanismCase",
    "abducted",
    "drawn",
    "expanded",
    "leaves",
    "sampled",
    "seeded",
    "unvalidated",
]

#: Draws of a reference law for each draw of ours: sampling is cheap, and the larger sample makes the test sharper.
REFERENCE = 8
_ROUND_TRIP = {torch.float32: 1e-5, torch.float64: 1e-9}


@dataclass(frozen=True, eq=False)
class MechanismCase:
    """A family with the parameters of two worlds.

    Args:
        family: makes the distribution from parameters, given by name as tensors.
        parameters: numbers or nested lists, the parameters in one world; floats become tensors of the dtype under test, anything
            else is passed as it is.
        others: the same in another world, with the same shapes.
        mechanism: the mechanism, or its name; the family's default where ``None``.
        draws: sample size of the statistical laws.
        differentiable: the parameters whose gradients are checked; all floating ones where ``None``.
        dtypes: the dtypes under test.
        round_trip: relative tolerance by dtype, where it is another than 1e-5 and 1e-9.
        seed: of all draws.
        relative: whether positive values come back relative to themselves; else, as for those of either sign, relative to
            themselves plus the median size.
        batchable: whether the family's own code works under ``torch.func.vmap`` and ``make_fx``.
    """

    family: Callable[..., Any]
    parameters: Mapping[str, Any]
    others: Mapping[str, Any]
    mechanism: str | Mechanism | None = None
    draws: int = 8000
    differentiable: tuple[str, ...] | None = None
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
    round_trip: Mapping[torch.dtype, float] = field(default_factory=lambda: _ROUND_TRIP)
    seed: int = 0
    relative: bool = True
    batchable: bool = True

    def tensors(self, dtype: torch.dtype, other: bool = False) -> dict[str, Any]:
        """The parameters of one world."""
        given = self.others if other else self.parameters
        return {name: _tensor(value, dtype) for name, value in given.items()}

    def distribution(self, dtype: torch.dtype, other: bool = False) -> Any:
        """The distribution in one world."""
        return self.family(**self.tensors(dtype, other))

    def resolve(self, fn: Any) -> Mechanism:
        """The mechanism under test."""
        if self.mechanism is None or isinstance(self.mechanism, str):
            return mechanism_for(fn, self.mechanism)
        return self.mechanism

    def worlds(self) -> list[tuple[torch.dtype, bool]]:
        """Both worlds and all dtypes, but not every pair: a dtype, and whether the world is the other one."""
        return [(self.dtypes[-1], False), (self.dtypes[0], True)]


@dataclass(frozen=True)
class Draws:
    """As many sites as the statistical laws need draws, all of one world.

    Args:
        fn: the distribution, its batch shape beginning with the number of draws.
        mechanism: the mechanism under test.
        values: ``forward(noise)`` with ``noise ~ noise(fn)``.
        sample: the distribution's own draws.
        noise: ``abduct(sample, base)``.
    """

    fn: Any
    mechanism: Mechanism
    values: Tensor
    sample: Tensor
    noise: Any


@functools.lru_cache(maxsize=2)
def drawn(case: MechanismCase, dtype: torch.dtype, other: bool) -> Draws:
    """The draws of one world; the last ones are kept, for the next law of the same case."""
    with seeded(case):
        one = case.distribution(dtype, other)
        fn = expanded(one, case.draws)
        mechanism = case.resolve(fn)
        values = mechanism.forward(fn, mechanism.noise(fn).sample())
        sample = sampled(one, case.draws)
        return Draws(fn, mechanism, values, sample, abducted(mechanism, fn, sample))


def expanded(fn: Any, *sizes: int) -> Any:
    """``fn`` for a batch of sites."""
    shape = torch.Size([*sizes, *fn.batch_shape])
    try:
        return fn.expand(shape)
    except NotImplementedError:  # some of Pyro's own classes do not know how
        return ExpandedDistribution(fn, shape)


def sampled(fn: Any, draws: int) -> Tensor:
    """Values as a program sees them: of straight-through families ``sample`` is another law than ``rsample``."""
    with torch.no_grad():
        return fn(torch.Size([draws])).detach()  # type: ignore[no-any-return]


def abducted(mechanism: Mechanism, fn: Any, value: Tensor) -> Any:
    """A draw of the noise given the value."""
    return mechanism.abduct(
        fn, value, None if mechanism.invertible else mechanism.base(fn).sample()
    )


def leaves(noise: Any) -> Iterator[Tensor]:
    """The tensors of a noise."""
    if isinstance(noise, tuple):
        for part in noise:
            yield from leaves(part)
    else:
        yield noise


@contextlib.contextmanager
def unvalidated() -> Iterator[None]:
    """Distributions' argument checks off: they read values, which neither ``vmap`` nor ``make_fx`` can."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


@contextlib.contextmanager
def seeded(case: MechanismCase, stream: int = 0) -> Iterator[None]:
    """Torch's generator seeded by the case inside, restored afterwards; draws of different streams are independent."""
    with torch.random.fork_rng():
        torch.manual_seed(case.seed + 1_000_003 * stream)
        yield


def _tensor(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, float | list):
        found = torch.tensor(value, dtype=torch.float64)
        kind = torch.tensor(value).dtype
        return found.to(dtype if kind.is_floating_point else kind)
    return value
