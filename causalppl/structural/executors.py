"""One function of a row, evaluated over many: by ``vmap``, or row by row. Both give the same numbers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ..errors import ExecutorWarning, warn_caller

__all__ = ["Executor", "settings", "without_validation"]


@dataclass
class Settings:
    """What bounds an evaluation: ``chunk_bytes`` of values at a time, about 1 GiB by default."""

    chunk_bytes: int = 2**30


settings = Settings()


@contextlib.contextmanager
def without_validation() -> Iterator[None]:
    """Distributions' argument checks off (they read values, which ``vmap`` cannot), then as before."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


class Executor:
    """Evaluates a program over rows; remembers whether ``vmap`` has failed on it."""

    def __init__(self, row_bytes: int) -> None:
        self.row_bytes = max(row_bytes, 1)
        self.sequential_because: str | None = None
        self._batched = False

    @property
    def name(self) -> str:
        """``"vmap"`` where rows were batched; ``"sequential"`` where they were not, or there was only one."""
        return "vmap" if self._batched and self.sequential_because is None else "sequential"

    def map(self, function: Callable[..., Any], rows: int, *inputs: Any) -> Any:
        """``function(*row)`` for each row of ``inputs`` (pytrees with a leading dimension of ``rows``).

        Returns:
            the stacked pytree, or a list with one entry a row where the program runs row by row. One row
            is run plainly.
        """
        with without_validation(), warnings.catch_warnings():
            # some operations have no batching rule and are looped over inside torch: right, only slower
            warnings.filterwarnings(
                "ignore", message="There is a performance drop", category=UserWarning
            )
            reason = None
            if self.sequential_because is None and rows > 1:
                size = max(1, min(rows, settings.chunk_bytes // self.row_bytes))
                try:
                    found = torch.func.vmap(function, chunk_size=size if size < rows else None)(
                        *inputs
                    )
                except Exception as error:  # the program's own errors come again below
                    lines = str(error).strip().splitlines() or [""]
                    reason = f"{type(error).__name__}: {lines[0][:150]}"
                else:
                    self._batched = True
                    return found
            plain = self.sequential_because is None and reason is None
            if reason is not None:
                self.sequential_because = reason
            try:
                results = [
                    function(*tree_map(lambda leaf, i=i: leaf[i], inputs)) for i in range(rows)
                ]
            except BaseException:
                if reason is not None:
                    self.sequential_because = None
                raise
            if plain:
                return tree_map(lambda leaf: leaf.unsqueeze(0), results[0])
        if reason is not None:
            warn_caller(
                f"the program cannot be batched by torch.func.vmap ({reason}); it runs row by row, "
                "with the same answers and more slowly",
                ExecutorWarning,
            )
        return results
