"""Where a tensor's numbers came from: labels that follow values through torch operations.

A label is put on memory, not on a Python object: views, in-place writes, ``out=`` and ``index_put_`` alias the same
storage, so a label put on the storage is seen through all of them. Two modes cooperate:

- a dispatch mode sees every operation below autograd, ``vmap``, ``torch.jit`` and ``torch.compile``, with a schema
  that says which arguments are written to. It passes the labels of the arguments on to the results;
- a function mode sees the calls as the program wrote them. It tells a number that was read to index a tensor, which
  ends up in a tensor again, from one that is handed to Python, which escapes.

What escapes (``item``, ``if x > 0``, ``numpy``, ``x[x > 0]``, ...) may steer anything that comes later, and the caller
is told.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["Labels", "Provenance", "tensors_in"]

#: Names of the sites whose values entered a tensor.
Labels = frozenset[str]

_NONE: Labels = frozenset()
_MAX_DEPTH = 24

#: These look at the shape, dtype and device of their first argument only.
_SHAPE_ONLY = frozenset(
    "zeros_like ones_like empty_like full_like rand_like randn_like randint_like "
    "new_empty new_empty_strided new_zeros new_ones new_full".split()
)
#: These give memory to Python without an operation that a dispatch mode sees.
_OPAQUE = frozenset(
    "numpy tolist __array__ __dlpack__ __reduce_ex__ data_ptr storage untyped_storage "
    "_typed_storage apply_ map_ map2_".split()
)
#: These copy numbers from tensors to a new tensor without such an operation.
_COPIES = frozenset("tensor as_tensor asarray new_tensor new __deepcopy__".split())
#: A number read from a tensor in one of these is a size: it decides a shape, which Python can see.
_SIZES = frozenset(
    "zeros ones empty empty_strided full rand randn randint randperm arange range linspace logspace eye "
    "new_zeros new_ones new_empty new_full expand broadcast_to view reshape repeat tile narrow split "
    "split_with_sizes tensor_split chunk unfold unflatten repeat_interleave pad interpolate resize_ "
    "as_strided diag_embed tril_indices triu_indices combinations bincount topk".split()
)
#: Escapes inside these are their own checks and rejection loops; results stay in tensors.
_LIBRARY = ("torch.distributions", "pyro.distributions")


def tensors_in(obj: Any) -> Iterator[torch.Tensor]:
    """All tensors reachable from an object, such as a distribution's parameters.

    Follows containers, attributes (base distributions, components, transforms, modules), ``functools.partial``,
    bound methods and what functions closed over; not globals, and not the caches of transforms, which hold values
    of earlier calls.

    Example:
        >>> import pyro.distributions as dist
        >>> len(list(tensors_in(dist.Normal(torch.zeros(2), 1.0).to_event(1))))
        2
    """
    seen: set[int] = set()
    queue: deque[tuple[Any, int]] = deque([(obj, 0)])
    while queue:
        item, depth = queue.popleft()
        if id(item) in seen or depth > _MAX_DEPTH:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            yield item
        else:
            queue.extend((part, depth + 1) for part in _parts(item))


def _parts(item: Any) -> Iterator[Any]:
    if item is None or isinstance(
        item, (str, bytes, bool, int, float, complex, type, types.ModuleType)
    ):
        return
    if isinstance(item, Mapping):
        yield from item.values()
    elif isinstance(item, slice):
        yield from (item.start, item.stop, item.step)
    elif isinstance(item, (list, tuple, set, frozenset, deque)):
        yield from item
    elif isinstance(item, functools.partial):
        yield from (item.func, item.args, item.keywords)
    elif isinstance(item, types.MethodType):
        yield from (item.__self__, item.__func__)
    elif isinstance(item, types.FunctionType):
        yield from (item.__defaults__, item.__kwdefaults__)
        for cell in item.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # a name that is not bound yet
                continue
    for slot in (s for cls in type(item).__mro__ for s in _slots(cls)):
        yield getattr(item, slot, None)
    for name, value in list(getattr(item, "__dict__", {}).items()):
        if not str(name).startswith("_cached"):
            yield value


def _slots(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(s for s in names if s not in ("__dict__", "__weakref__"))


class Provenance:
    """Labels of tensors, kept up to date by the operations that run inside the context.

    Args:
        on_escape: called with the labels of a value that Python got to see.

    Example:
        >>> x, y = torch.zeros(3), torch.ones(3)
        >>> with Provenance(print) as provenance:
        ...     x = provenance.label(x, frozenset({"x"}))
        ...     z = x[:2] * 2
        ...     y[0] = z.sum()
        ...     labels = provenance.of(y)
        >>> labels
        frozenset({'x'})
    """

    def __init__(self, on_escape: Callable[[Labels], None]) -> None:
        self._on_escape = on_escape
        # Weak references keep the address of a storage from being used again, but not its memory.
        self._storages: dict[StorageWeakRef, Labels] = {}
        # Labels of one tensor and not of its memory: x[i] is a view of x and depends on i, x itself does not.
        self._views: Any = WeakIdKeyDictionary()
        self._off = 0
        self._silent = 0
        self._function_mode = _FunctionMode(self)
        self._dispatch_mode = _DispatchMode(self)
        self._call: _Call | None = None
        self._eager: ExitStack | None = None

    def __enter__(self) -> Provenance:
        self._dispatch_mode.__enter__()  # type: ignore[no-untyped-call]
        self._function_mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        self._function_mode.__exit__(*exception)  # type: ignore[no-untyped-call]
        self._dispatch_mode.__exit__(*exception)  # type: ignore[no-untyped-call]
        if self._eager is not None:
            self._eager.close()
            self._eager = None

    def off(self) -> _Counter:
        """A context in which nothing is followed: for looking at tensors from outside the program."""
        return _Counter(self, "_off")

    def silent(self) -> _Counter:
        """A context in which labels are passed on and escapes do not count: for code that is not the program's."""
        return _Counter(self, "_silent")

    def of(self, obj: Any) -> Labels:
        """Union of the labels of all tensors reachable from ``obj``."""
        with self.off():
            found = _NONE
            for tensor in tensors_in(obj):
                found |= self.of_tensor(tensor)
            return found

    def label(self, tensor: torch.Tensor, labels: Labels) -> torch.Tensor:
        """A copy of ``tensor`` whose labels are exactly ``labels``."""
        with self.off():
            copy = tensor.clone()
            self.add(copy, labels)
            return copy

    def of_tensor(self, tensor: torch.Tensor) -> Labels:
        """Labels of one tensor: those of its memory, and its own where it is a view."""
        tensor = _physical(tensor)
        own: Labels = self._views.get(tensor, _NONE)
        storage = _storage(tensor)
        return own if storage is None else own | self._storages.get(storage, _NONE)

    def add(self, tensor: torch.Tensor, labels: Labels, view: bool = False) -> None:
        """Add labels to the memory of a tensor or, for a ``view``, to this tensor only."""
        if not labels:
            return
        tensor = _physical(tensor)
        storage = _storage(tensor)
        if storage is None or view:
            self._views[tensor] = self._views.get(tensor, _NONE) | labels
        else:
            self._storages[storage] = self._storages.get(storage, _NONE) | labels

    def escape(self, labels: Labels) -> None:
        """Report that Python saw a value with these labels, unless a library's own code did."""
        if labels and not self._silent and not _called_by_library():
            self._on_escape(labels)

    # What the two modes do. A function call of the program consists of operations, and the numbers that these read are
    # settled when the call returns.

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation and pass labels on."""
        inputs = list(tensors_in((args, kwargs)))
        result = func(*args, **kwargs)
        if not isinstance(func, torch._ops.OpOverload):  # torch.cond and its kind: a black box
            labels = _union(self.of_tensor(t) for t in inputs)
            for out in tensors_in(result):
                self.add(out, labels)
            return result
        if func.overloadpacket.__name__ in _SHAPE_ONLY:
            inputs = [t for t in inputs if t is not args[0]]
        labels = _union(self.of_tensor(t) for t in inputs)
        if not labels:
            return result
        if torch.Tag.data_dependent_output in func.tags:
            self._read(labels)
        if torch.Tag.dynamic_output_shape in func.tags:
            self.escape(_union(self.of_tensor(t) for t in _shape_deciding(func, args, inputs)))
        written = _written(func, args, kwargs)
        for tensor in written:
            self.add(tensor, labels)
        if self._call is not None:
            self._call.written.extend(written)
        memory = {_storage(t) for t in inputs} - {None}
        for out in tensors_in(result):
            if _storage(out) in memory:
                self.add(out, labels - self.of_tensor(out), view=True)
            else:
                self.add(out, labels)
        return result

    def function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one function call of the program and settle the numbers that were read in it."""
        if self._eager is None and "torch._dynamo" in sys.modules:
            # What the program compiles runs as it is written, or the compiler would compile this module along with it.
            self._eager = ExitStack()
            self._eager.enter_context(torch.compiler.set_stance("force_eager"))
        outer, self._call = self._call, _Call()
        call = self._call
        try:
            result = func(*args, **kwargs)
        finally:
            self._call = outer
        with self.off():
            self._settle(getattr(func, "__name__", ""), args, kwargs, call, result)
        return result

    def _settle(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], call: _Call, result: Any
    ) -> None:
        read = call.read
        if name in _OPAQUE:
            self.escape(self.of((args, kwargs)))
            return
        if name in ("__getitem__", "__setitem__"):  # indices in lists are read without an operation
            index = args[1]
            read |= self.of(index) if isinstance(index, (list, tuple)) else _NONE
            if name == "__getitem__" and _has_slices(index):
                self.escape(call.read)
        elif name in _COPIES:
            read |= self.of((args, kwargs))
        outputs = list(tensors_in(result))
        if read and (name in _SIZES or not (outputs or result is None)):
            self.escape(read)
        inputs = list(tensors_in((args, kwargs))) if read or len(self._views) else []
        memory = {_storage(_physical(t)) for t in inputs}
        for out in outputs if inputs else ():
            storage = _storage(_physical(out))
            if storage is not None and storage in memory:
                same = (t for t in inputs if _storage(_physical(t)) == storage)
                own = _union(self._views.get(_physical(t), _NONE) for t in same)
                self.add(out, read | own, view=True)
            else:
                self.add(out, read)
        for tensor in call.written if read else ():
            self.add(tensor, read)
        if name == "__setitem__":
            self.add(args[0], read)

    def _read(self, labels: Labels) -> None:
        if self._call is None:
            self.escape(labels)
        else:
            self._call.read |= labels


class _Call:
    """What one function call of the program has read as numbers, and written to."""

    def __init__(self) -> None:
        self.read: Labels = _NONE
        self.written: list[torch.Tensor] = []


class _Counter:
    def __init__(self, owner: Provenance, name: str) -> None:
        self.owner, self.name = owner, name

    def __enter__(self) -> None:
        setattr(self.owner, self.name, getattr(self.owner, self.name) + 1)

    def __exit__(self, *exception: Any) -> None:
        setattr(self.owner, self.name, getattr(self.owner, self.name) - 1)


class _FunctionMode(TorchFunctionMode):
    def __init__(self, owner: Provenance) -> None:
        super().__init__()
        self.owner = owner

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self.owner._off:
            return func(*args, **(kwargs or {}))
        return self.owner.function(func, args, kwargs or {})


class _DispatchMode(TorchDispatchMode):
    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch's default imports torch._dynamo at the first operation: a second for nothing. See Provenance.function.
        return False

    def __init__(self, owner: Provenance) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.owner = owner

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self.owner._off:
            return func(*args, **(kwargs or {}))
        return self.owner.operation(func, args, kwargs or {})


def _union(labels: Iterator[Labels]) -> Labels:
    return _NONE.union(*labels)


def _physical(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor that holds the numbers, below the wrappers of ``torch.func``."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def _storage(tensor: torch.Tensor) -> StorageWeakRef | None:
    try:
        return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
    except NotImplementedError:  # sparse tensors have several
        return None


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    written: list[torch.Tensor] = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            written.extend(tensors_in(value))
    return written


def _shape_deciding(
    func: Any, args: tuple[Any, ...], inputs: list[torch.Tensor]
) -> list[torch.Tensor]:
    """The arguments whose values decide the shape of the result: of ``x[x > 0]``, the mask."""
    if func.overloadpacket.__name__ in ("index", "masked_select"):
        return [t for t in tensors_in(args[1]) if t.dtype in (torch.bool, torch.uint8)]
    return inputs


def _has_slices(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, slice) and any(True for _ in tensors_in(part)) for part in parts)


def _called_by_library() -> bool:
    """Whether the innermost frame above torch's own plumbing belongs to a library of distributions."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_LIBRARY):
            return True
        if module != __name__ and not module.startswith(("torch.", "contextlib")):
            return False
        frame = frame.f_back
    return False
