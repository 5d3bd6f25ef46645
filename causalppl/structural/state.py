"""Parameters and buffers of the networks that a program uses, as they were when it was read."""

from __future__ import annotations

import copy as copying
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..errors import ProgramError

__all__ = ["ModuleState", "reachable"]


def reachable(thing: Any, depth: int = 4) -> Iterator[nn.Module]:
    """Modules that a program can see: itself, its owner, closure, globals by name, arguments."""
    if isinstance(thing, nn.Module):
        yield thing
    elif depth == 0 or isinstance(thing, Tensor):
        return
    elif isinstance(thing, list | tuple | set):
        for part in thing:
            yield from reachable(part, depth - 1)
    elif isinstance(thing, dict):
        for part in thing.values():
            yield from reachable(part, depth - 1)
    elif isinstance(thing, functools.partial):
        yield from reachable([thing.func, *thing.args, *thing.keywords.values()], depth)
    elif callable(thing):
        yield from reachable(getattr(thing, "__self__", None), depth - 1)
        inner = getattr(thing, "__func__", getattr(thing, "__wrapped__", thing))
        if inner is not thing:
            yield from reachable(inner, depth - 1)
        for cell in getattr(inner, "__closure__", None) or ():
            try:
                yield from reachable(cell.cell_contents, depth - 1)
            except ValueError:  # a cell that is not filled yet
                continue
        code, scope = getattr(inner, "__code__", None), getattr(inner, "__globals__", {})
        for name in getattr(code, "co_names", ()):
            if isinstance(scope.get(name), nn.Module):
                yield scope[name]


class ModuleState:
    """A snapshot; :meth:`restored` puts it in place where something has changed since.

    Args:
        things: where to look for modules.
        copies: the snapshot to use instead of the present values, in the order of :meth:`copies`.

    Raises:
        ProgramError: ``copies`` are of other modules.
    """

    def __init__(self, *things: Any, copies: Sequence[Tensor] | None = None) -> None:
        self._traced = False
        self._kept: list[tuple[dict[str, Any], str, Tensor | None, int, Tensor]] = []
        #: Buffers that a module in train mode may write to, as BatchNorm does its running statistics.
        self._written: list[tuple[dict[str, Any], str, Tensor]] = []
        seen: set[int] = set()
        for root in reachable(list(things)):
            for module in root.modules():
                if id(module) in seen:
                    continue
                seen.add(id(module))
                stores: tuple[Any, Any] = (module._parameters, module._buffers)
                for slots in stores:
                    if not isinstance(slots, dict):  # of torch.jit: they cannot be exchanged
                        continue
                    for name, tensor in slots.items():
                        if tensor is not None:
                            copy = tensor.detach().clone()
                            self._kept.append((slots, name, tensor, tensor._version, copy))
                            if slots is module._buffers and module.training:
                                self._written.append((slots, name, copy))
        if copies is not None:
            self._replace(copies)

    def _replace(self, copies: Sequence[Tensor]) -> None:
        mine = [copy.shape for *_, copy in self._kept]
        if mine != [copy.shape for copy in copies]:
            raise ProgramError(
                f"the program's modules have {len(mine)} parameters and buffers of shapes {list(map(tuple, mine))}, the saved ones "
                f"{[tuple(c.shape) for c in copies]}"
            )
        self._kept = [
            (slots, name, None, 0, copy.to(own))
            for (slots, name, _, _, own), copy in zip(self._kept, copies, strict=True)
        ]

    def copies(self) -> list[Tensor]:
        """The snapshot's values."""
        return [copy for *_, copy in self._kept]

    def now(self) -> list[Tensor | None]:
        """The present values, in the same order."""
        return [slots.get(name) for slots, name, *_ in self._kept]

    def with_values(self, values: Sequence[Tensor]) -> ModuleState:
        """The same modules with other values, which may be those of a trace: put in place as plain tensors."""
        found = copying.copy(self)
        found._traced, found._written = True, []
        found._kept = [
            (slots, name, None, 0, value)
            for (slots, name, *_), value in zip(self._kept, values, strict=True)
        ]
        return found

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Inside, the modules hold the snapshot's values; the user's own tensors are untouched."""
        changed = [
            (slots, name, slots.get(name), copy)
            for slots, name, tensor, version, copy in self._kept
            if tensor is None or tensor._version != version or slots.get(name) is not tensor
        ]
        changed += [
            (slots, name, slots.get(name), copy.clone()) for slots, name, copy in self._written
        ]
        if not changed:
            yield
            return
        try:
            for slots, name, now, copy in changed:
                # a Parameter made of a traced tensor would be a constant of the trace
                slots[name] = (
                    nn.Parameter(copy, now.requires_grad)
                    if isinstance(now, nn.Parameter) and not self._traced
                    else copy
                )
            yield
        finally:
            for slots, name, now, _ in reversed(changed):
                slots[name] = now
