"""What the zoo knows of one program, written down by hand: nothing here comes from the library under test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Entry", "normal_data", "uniform_data"]


@dataclass(frozen=True, eq=False)
class Entry:
    """A program, an intervention, and which sites can be moved by it.

    Attributes:
        name: a few words for the table.
        program: the callable, plain Pyro.
        do: site to value; the value differs from what the site would be by itself.
        descendants: every sample and deterministic site downstream of the intervention, separated by spaces.
        moves: those that must change in some row; all descendants where it is ``None``, and at least one in any case.
        args: positional arguments of the program.
        kwargs: keyword arguments of the program.
        law: sites whose prior law is compared with the program's own forward draws.
        needs: distributions that the question passes through and that may have no mechanism yet.
        varying: the sites, or their shapes, differ from run to run.
        executor: which executor has to serve it, where only one can.
        defects: check to the reason why the library fails it: expected failures, strict.
    """

    name: str
    program: Callable[..., Any]
    do: Mapping[str, Any]
    descendants: str = ""
    moves: str | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    law: str = ""
    needs: tuple[Any, ...] = ()
    varying: bool = False
    executor: str | None = None
    defects: Mapping[str, str] = field(default_factory=dict)

    @property
    def downstream(self) -> set[str]:
        """The descendants by name."""
        return set(self.descendants.split())

    @property
    def moved(self) -> set[str]:
        """The sites that must change, by name."""
        return self.downstream if self.moves is None else set(self.moves.split())


def normal_data(seed: int, *shape: int) -> torch.Tensor:
    """Standard normal numbers, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uniform_data(seed: int, *shape: int) -> torch.Tensor:
    """Numbers between 0 and 1, always the same."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
