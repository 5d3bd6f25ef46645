"""One function of a row, evaluated over many: by ``vmap``, or row by row. Both give the same numbers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..errors import ExecutorWarning, NondeterministicProgramError, warn_caller

__all__ = ["Executor", "agree", "settings", "without_validation"]


@dataclass
class Settings:
    """What bounds an evaluation: ``chunk_bytes`` of values at a time, about 1 GiB by default."""

    chunk_bytes: int = 2**30


settings = Settings()


@contextlib.contextmanager
def without_validation() -> Iterator[None]:
    """Distributions' argument checks off (they read values, which ``vmap`` cannot), then as before."""
    before = torch.distributions.Distribution._validate_args
    if before is False:
        yield
        return
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


class Executor:
    """Evaluates a program over rows; remembers whether ``vmap`` has failed on it.

    A batched evaluation of a kind that has not been seen before is compared with the plain program at its first and last
    row, so that a program that ``vmap`` leads astray (by catching its errors, say) runs row by row. A plain one is run
    twice at the first row, so that hidden randomness is found in every world.
    """

    #: Whether values may be looked at, which a trace of them cannot.
    checks = True

    def __init__(self, row_bytes: int) -> None:
        self.row_bytes = max(row_bytes, 1)
        self.sequential_because: str | None = None
        self._batched = False
        self._proved: set[Hashable] = set()

    @property
    def name(self) -> str:
        """``"vmap"`` where rows were batched; ``"sequential"`` where they were not, or there was only one."""
        return "vmap" if self._batched and self.sequential_because is None else "sequential"

    def map(
        self, function: Callable[..., Any], rows: int, *inputs: Any, kind: Hashable = None
    ) -> Any:
        """``function(*row)`` for each row of ``inputs`` (pytrees with a leading dimension of ``rows``).

        Args:
            kind: evaluations of one kind are checked once.

        Returns:
            the stacked pytree, or a list with one entry a row where the program runs row by row. One row
            is run plainly.
        """
        found = self.grid(function, (rows, 1), inputs, (), kind)
        if isinstance(found, list):
            return [row[0] for row in found]
        return _each(found, lambda leaf: leaf.squeeze(1))

    def grid(
        self,
        function: Callable[..., Any],
        size: tuple[int, int],
        outer: tuple[Any, ...],
        inner: tuple[Any, ...],
        kind: Hashable = None,
    ) -> Any:
        """``function(*outer_row, *inner_row)`` for all pairs of rows: draws and worlds.

        Returns:
            the pytree with two leading dimensions, or a list of lists where the program runs row by row.
        """

        def plain(i: int, j: int) -> Any:
            return function(*_row(outer, i), *_row(inner, j))

        with without_validation():
            if size == (1, 1):
                only = plain(0, 0)
                self._check_repeats(kind, only, plain)
                return _each(only, _alone)
            reason = None
            if self.sequential_because is None:
                try:
                    found = self.batch(function, size, outer, inner)
                except Exception as error:  # the program's own errors come again below
                    lines = str(error).strip().splitlines() or [""]
                    reason = f"{type(error).__name__}: {lines[0][:150]}"
                else:
                    reason = self._disagreement(kind, found, size, plain)
                    if reason is None:
                        self._batched = True
                        return found
                self.sequential_because = reason
            try:
                results = [[plain(i, j) for j in range(size[1])] for i in range(size[0])]
                self._check_repeats(kind, results[0][0], plain)
            except BaseException:
                if reason is not None:
                    self.sequential_because = None
                raise
        if reason is not None:
            warn_caller(
                f"the program cannot be batched by torch.func.vmap ({reason}); it runs row by row, "
                "with the same answers and more slowly",
                ExecutorWarning,
            )
        return results

    @staticmethod
    def alone(function: Callable[..., Any], outer: tuple[Any, ...], inner: tuple[Any, ...]) -> Any:
        """The one pair of rows there is, evaluated plainly."""
        return _each(function(*_row(outer, 0), *_row(inner, 0)), _alone)

    def batch(
        self,
        function: Callable[..., Any],
        size: tuple[int, int],
        outer: tuple[Any, ...],
        inner: tuple[Any, ...],
    ) -> Any:
        """All pairs of rows by ``vmap``."""
        draws, worlds = size

        def across(*row: Any) -> Any:
            return torch.func.vmap(lambda *world: function(*row, *world))(*inner)

        with warnings.catch_warnings():
            # some operations have no batching rule and are looped over inside torch: right, only slower
            warnings.filterwarnings(
                "ignore", message="There is a performance drop", category=UserWarning
            )
            if draws == 1:
                fixed, chunk = _row(outer, 0), self._chunk(worlds, 1)
                batched = torch.func.vmap(lambda *row: function(*fixed, *row), chunk_size=chunk)
                return _each(batched(*inner), lambda leaf: leaf.unsqueeze(0))
            chunk = self._chunk(draws, worlds)
            if worlds == 1:
                first = _row(inner, 0)
                batched = torch.func.vmap(lambda *row: function(*row, *first), chunk_size=chunk)
                return _each(batched(*outer), lambda leaf: leaf.unsqueeze(1))
            return torch.func.vmap(across, chunk_size=chunk)(*outer)

    def _chunk(self, rows: int, width: int) -> int | None:
        size = max(1, settings.chunk_bytes // (self.row_bytes * width))
        return size if size < rows else None

    def _disagreement(
        self, kind: Hashable, found: Any, size: tuple[int, int], plain: Callable[[int, int], Any]
    ) -> str | None:
        """Why a batched result is not trusted; ``None`` where it agrees with the plain program."""
        if kind in self._proved:
            return None
        for i, j in {(0, 0), (size[0] - 1, size[1] - 1)}:
            if not agree(_each(found, lambda leaf, i=i, j=j: leaf[i, j]), plain(i, j)):  # type: ignore[misc]
                return "its batched and its plain values differ"
        if kind is not None:
            self._proved.add(kind)
        return None

    def _check_repeats(self, kind: Hashable, first: Any, plain: Callable[[int, int], Any]) -> None:
        if kind is None or kind in self._proved:
            return
        if not agree(first, plain(0, 0)):
            raise NondeterministicProgramError(
                "the program is not deterministic given its sites: run twice on the same noise, a world differs. Draw with "
                "pyro.sample instead of torch.rand or another generator, in interventions too"
            )
        self._proved.add(kind)


def _each(tree: Any, function: Callable[[Any], Any]) -> Any:
    """A function of each leaf of dicts and tuples; a tenth of the cost of torch's general pytrees, in the innermost loop."""
    if type(tree) is dict:
        return {name: _each(part, function) for name, part in tree.items()}
    if type(tree) is tuple:
        return tuple([_each(part, function) for part in tree])
    return function(tree)


def _alone(leaf: Tensor) -> Tensor:
    return leaf[None, None]


def _row(inputs: tuple[Any, ...], i: int) -> tuple[Any, ...]:
    return _each(inputs, lambda leaf: leaf[i])  # type: ignore[no-any-return]


def agree(a: Any, b: Any) -> bool:
    """Whether two trees of tensors are the same but for rounding."""
    mine, yours = tree_leaves(a), tree_leaves(b)
    return len(mine) == len(yours) and all(
        _near(x, y) for x, y in zip(mine, yours, strict=True) if isinstance(x, Tensor)
    )


def _near(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if torch.equal(a, b):  # as a rule, and a twentieth of the cost of what follows
        return True
    if not a.is_floating_point():
        return bool(
            (a != b).sum() <= a.numel() // 1000
        )  # an edge of a cell may fall to either side by round-off
    scale = b.abs().nan_to_num(0.0, 0.0, 0.0).max() if b.numel() else 0.0
    close = (a - b).abs() <= 1e-3 * (b.abs() + 1e-2 * scale) + 1e-6
    same = close | (a == b) | (torch.isnan(a) & torch.isnan(b))
    return bool((~same).sum() <= a.numel() // 1000)
