"""What a program reads besides its arguments: whether any of it has changed since it was traced."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

__all__ = ["Guards"]

_SCALARS = (bool, int, float, complex, str, bytes, type(None))
#: Code of these packages reads no state of the user's.
_LIBRARIES = ("torch", "pyro", "numpy", "causalppl", "builtins", "contextlib", "functools", "math")
_MOST = 20_000


def _of_library(thing: Any) -> bool:
    package = getattr(thing, "__module__", None) or ""
    return package.partition(".")[0] in _LIBRARIES


def _names(code: types.CodeType) -> Iterator[str]:
    """Names of globals and attributes that the code, or a function inside it, mentions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


class Guards:
    """The Python state that a program can see, as it was: closures, globals, defaults, attributes, containers, arrays.

    Numbers and text are compared by value, arrays by content, tensors by identity and version, all else by identity.
    Parameters and buffers in ``inputs`` may change: only that they have the same shape and dtype is asked.

    Args:
        things: the program, and what else it is given that is no tensor.
        inputs: tensors that a trace takes as inputs.

    Attributes:
        complete: whether everything was looked at; a program that sees more than 20,000 things is not traced.
    """

    def __init__(self, *things: Any, inputs: list[Tensor] | None = None) -> None:
        self._items: list[tuple[Any, Any, Any]] = []  # mapping or sequence, key, what was there
        self._cells: list[tuple[Any, Any]] = []
        self._sizes: list[tuple[Any, int]] = []
        self._tensors: list[tuple[Tensor, int]] = []
        self._arrays: list[tuple[Any, Any]] = []
        self._free = {id(t) for t in inputs or ()}
        self._alike: list[tuple[Any, str, Tensor]] = []
        self._seen: dict[int, Any] = {}
        self.complete = True
        pending = list(things)
        while pending:
            if len(self._seen) > _MOST:
                self.complete = False
                break
            pending.extend(self._look(pending.pop()))

    def hold(self) -> bool:
        """Whether all is as it was."""
        for holder, key, before in self._items:
            try:
                now = holder[key]
            except (KeyError, IndexError):
                return False
            if now is not before and not _equal(now, before):
                return False
        for cell, before in self._cells:
            try:
                now = cell.cell_contents
            except ValueError:
                return False
            if now is not before and not _equal(now, before):
                return False
        return (
            all(len(holder) == size for holder, size in self._sizes)
            and all(t._version == version for t, version in self._tensors)
            and all(_alike(slots.get(name), before) for slots, name, before in self._alike)
            and all(_same_content(array, copy) for array, copy in self._arrays)
        )

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that are seen, parameters of networks included."""
        return [t for t in self._seen.values() if isinstance(t, Tensor)]

    # --- Looking --------------------------------------------------------------------------------------------------

    def _look(self, thing: Any) -> Iterator[Any]:
        if isinstance(thing, _SCALARS) or id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing  # kept alive, so that its id stays its own
        if isinstance(thing, Tensor):
            if id(thing) not in self._free and not thing.is_inference():
                self._tensors.append((thing, thing._version))
        elif isinstance(thing, np.ndarray):
            self._arrays.append((thing, thing.copy()))
        elif isinstance(thing, types.ModuleType | type | types.BuiltinFunctionType):
            return
        elif isinstance(thing, functools.partial):
            yield from (thing.func, *thing.args, *thing.keywords.values())
        elif inspect.ismethod(thing):
            yield from (thing.__self__, thing.__func__)
        elif inspect.isfunction(thing):
            yield from self._function(thing)
        elif isinstance(thing, dict):
            yield from self._entries(thing, thing)
        elif isinstance(thing, list | tuple):
            yield from self._entries(thing, range(len(thing)))
        elif isinstance(thing, nn.Module):
            yield from self._module(thing)
        elif isinstance(thing, Mapping | set | frozenset):
            self._sizes.append((thing, len(thing)))
            yield from list(thing)
        elif hasattr(thing, "equals") and hasattr(thing, "copy"):  # a frame or a column of pandas
            self._arrays.append((thing, thing.copy()))
        elif isinstance(getattr(thing, "__dict__", None), dict):
            yield from self._entries(thing.__dict__, list(thing.__dict__))
            yield from self._classes(thing)

    def _entries(self, holder: Any, keys: Any) -> Iterator[Any]:
        self._sizes.append((holder, len(holder)))
        for key in list(keys):
            value = holder[key]
            self._items.append((holder, key, value))
            yield value

    def _function(self, function: types.FunctionType) -> Iterator[Any]:
        yield from function.__defaults__ or ()
        yield from (function.__kwdefaults__ or {}).values()
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            yield wrapped
        for cell in function.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            self._cells.append((cell, value))
            yield value
        if _of_library(function):
            return
        names, scope = set(_names(function.__code__)), function.__globals__
        for name in names & scope.keys():
            value = scope[name]
            self._items.append((scope, name, value))
            yield value
            if isinstance(value, types.ModuleType):  # constants that are read as module.NAME
                inside = vars(value)
                for constant in names & inside.keys():
                    found = inside[constant]
                    if isinstance(found, (*_SCALARS, Tensor, nn.Module, list, dict)) or (
                        inspect.isfunction(found) and not _of_library(found)
                    ):
                        self._items.append((inside, constant, found))
                        yield found

    def _module(self, module: nn.Module) -> Iterator[Any]:
        own = vars(module)
        for key, value in list(own.items()):
            if key not in ("_parameters", "_buffers", "_modules"):
                self._items.append((own, key, value))
                yield value
        stores: tuple[Any, Any] = (module._parameters, module._buffers)
        for slots in stores:
            if not isinstance(slots, dict):  # of torch.jit
                continue
            self._sizes.append((slots, len(slots)))
            for name, tensor in slots.items():
                if tensor is not None and id(tensor) in self._free:
                    self._alike.append((slots, name, tensor))
                else:
                    self._items.append((slots, name, tensor))
                    yield tensor
        if isinstance(module._modules, dict):
            yield from self._entries(module._modules, list(module._modules))
        yield from self._classes(module)

    def _classes(self, thing: Any) -> Iterator[Any]:
        """Methods and constants of the user's own classes."""
        for cls in type(thing).__mro__:
            if _of_library(cls):
                continue
            for name, value in list(vars(cls).items()):
                if inspect.isfunction(value) or isinstance(value, (*_SCALARS, Tensor, list, dict)):
                    if not name.startswith("__") or name == "__call__":
                        self._items.append((vars(cls), name, value))
                        yield value


def _equal(now: Any, before: Any) -> bool:
    if type(now) is not type(before) or not isinstance(before, _SCALARS):
        return False
    return bool(now == before) or (now != now and before != before)


def _alike(now: Any, before: Tensor) -> bool:
    return isinstance(now, Tensor) and now.shape == before.shape and now.dtype == before.dtype


def _same_content(array: Any, copy: Any) -> bool:
    if isinstance(array, np.ndarray):
        equal_nan = array.dtype.kind in "fc"
        return array.shape == copy.shape and bool(np.array_equal(array, copy, equal_nan=equal_nan))
    return bool(array.equals(copy))
