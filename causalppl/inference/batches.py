"""Data in batches, each a function of seed and step: rows of arrays, of memory-mapped files, of datasets; or what a loader gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import EvidenceError, MethodError
from ..structural.evidence import Interval, read_evidence
from ..structural.noise import isolated_rng, keyed_seed

__all__ = ["Batch", "Batches", "batches_from", "is_array", "rows_of"]


class Batch(NamedTuple):
    """What one step sees.

    Attributes:
        values: site, or argument of the program, to its values, units first.
        size: how many units there are; ``None`` where all are there.
        rows: the units' numbers; ``None`` where all are there, or where a loader does not say.
    """

    values: dict[str, Any]
    size: int | None
    rows: Tensor | None


class Batches(Protocol):
    """Data that come in batches.

    Attributes:
        units: how many units are trained on; ``None`` where the data are not cut.
        total: with those that are held out.
    """

    units: int | None
    total: int | None

    def at(self, step: int) -> Batch:
        """The batch of a step."""

    def held_out(self) -> Iterator[Batch]:
        """The units that no step sees, batch by batch."""


def is_array(given: Any) -> bool:
    """Whether rows can be taken from it: a tensor, a numpy array in memory or in a file, or what behaves like one."""
    return isinstance(given, Tensor | np.ndarray) or (
        hasattr(given, "shape") and hasattr(given, "dtype") and hasattr(given, "__getitem__")
    )


def rows_of(given: Any, rows: Tensor) -> Any:
    """Rows of an array, in memory; of a file no others are read."""
    if isinstance(given, Tensor):
        return given[rows.to(given.device)]
    if hasattr(given, "iloc"):  # a column of pandas
        return given.iloc[rows.numpy()]
    return torch.from_numpy(np.array(given[rows.numpy()]))


def batches_from(
    data: Any,
    batch_size: int | None,
    arguments: list[Any],
    held_out: float,
    seed: int,
) -> Batches:
    """What the user gave as data.

    Args:
        arguments: those of the program, whose length says how many units there are where there are no data.
        held_out: the share of units that no step sees.

    Raises:
        MethodError, EvidenceError: data that cannot be cut as asked.
    """
    if isinstance(data, torch.utils.data.DataLoader):
        if batch_size is not None or held_out:
            raise MethodError(
                "fit: a DataLoader has its own batch size and no rows to hold out; give its dataset instead, with batch_size="
            )
        return _Loader(data, seed)
    if hasattr(data, "__getitem__") and not isinstance(data, Mapping) and not hasattr(data, "columns"):  # fmt: skip
        if batch_size is None:
            raise MethodError("fit: say how many items of the dataset make a batch, batch_size=")
        return _Rows(_Dataset(data), len(data), batch_size, held_out, seed)
    values = read_evidence(data)
    if batch_size is None:
        if held_out:
            raise MethodError("fit: units can be held out where data are cut; give batch_size=")
        return _Whole(values)
    if any(isinstance(v, Interval) for v in values.values()):
        raise EvidenceError("fit: ranges cannot be cut into batches; leave out batch_size")
    sizes = {n: len(v) for n, v in values.items() if np.ndim(v) or is_array(v)}
    if not sizes:
        sizes = {f"argument {i}": len(a) for i, a in enumerate(arguments) if is_array(a) and len(a.shape)}  # fmt: skip
    if len(set(sizes.values())) != 1:
        raise MethodError(
            f"fit: batch_size={batch_size} needs data of as many units as each other, units first; their lengths are {sizes}"
        )
    return _Rows(_Arrays(values), next(iter(sizes.values())), batch_size, held_out, seed)


class _Whole:
    """All data at every step."""

    units: int | None = None
    total: int | None = None

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def at(self, step: int) -> Batch:
        return Batch(dict(self.values), None, None)

    def held_out(self) -> Iterator[Batch]:
        yield from ()


class _Arrays:
    def __init__(self, values: dict[str, Any]) -> None:
        self.values = {n: v if is_array(v) else np.asarray(v) for n, v in values.items()}

    def take(self, rows: Tensor) -> dict[str, Any]:
        return {n: rows_of(v, rows) for n, v in self.values.items()}


class _Dataset:
    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def take(self, rows: Tensor) -> dict[str, Any]:
        many = getattr(self.dataset, "__getitems__", None)
        items = many(rows.tolist()) if many else [self.dataset[i] for i in rows.tolist()]
        return _named(torch.utils.data.default_collate(list(items)))


def _named(batch: Any) -> dict[str, Any]:
    if not isinstance(batch, Mapping):
        raise EvidenceError(
            f"fit: the dataset's items are {type(batch).__name__}; make each a mapping of site to value, {{'y': 1.0}}"
        )
    return dict(batch)


class _Rows:
    """Each epoch in a new order, units in rising order within a batch; what is left over at the end of an epoch waits for another."""

    def __init__(
        self, source: _Arrays | _Dataset, units: int, batch_size: int, held_out: float, seed: int
    ) -> None:
        kept = round(held_out * units)
        self.units: int | None = units - kept
        self.total: int | None = units
        self._source, self._seed, self._size = source, seed, batch_size
        if not isinstance(batch_size, int) or not 1 <= batch_size <= units - kept:
            raise MethodError(
                f"fit: batch_size={batch_size!r}, of {units - kept} units"
                + (f" ({kept} of {units} are held out)" if kept else "")
                + "; give a positive integer that is at most that"
            )
        order = torch.arange(units)
        if kept:
            order = torch.randperm(units, generator=self._generator("held out"))
        self._train, self._kept = order[kept:], order[:kept].sort().values
        self._epoch, self._order = -1, order

    def _generator(self, *key: object) -> torch.Generator:
        return torch.Generator().manual_seed(keyed_seed(self._seed, *key))

    def at(self, step: int) -> Batch:
        epoch, place = divmod(step, len(self._train) // self._size)
        if epoch != self._epoch:
            shuffled = torch.randperm(len(self._train), generator=self._generator("epoch", epoch))
            self._epoch, self._order = epoch, self._train[shuffled]
        rows = self._order[place * self._size : (place + 1) * self._size].sort().values
        return Batch(self._source.take(rows), len(rows), rows)

    def held_out(self) -> Iterator[Batch]:
        for rows in self._kept.split(self._size):
            yield Batch(self._source.take(rows), len(rows), rows)


class _Loader:
    """A loader's batches, epoch by epoch; its shuffling is seeded by the epoch where it has no generator of its own."""

    def __init__(self, loader: torch.utils.data.DataLoader[Any], seed: int) -> None:
        try:
            self.units: int | None = len(loader.dataset)  # type: ignore[arg-type]
            self.total: int | None = self.units
            self._count = len(loader)
        except TypeError:
            raise MethodError(
                "fit: the loader's dataset has no length, so it is not known how many units there are; give it __len__"
            ) from None
        self._loader, self._seed = loader, seed
        self._step = -1
        self._batches: Iterator[Any] = iter(())

    def at(self, step: int) -> Batch:
        epoch, place = divmod(step, self._count)
        if step != self._step + 1 or place == 0:
            with isolated_rng(keyed_seed(self._seed, "epoch", epoch)):
                self._batches = iter(self._loader)
            for _ in range(place):  # to where a resumed training stands
                next(self._batches)
        self._step = step
        values = _named(next(self._batches))
        return Batch(values, len(next(iter(values.values()))), None)

    def held_out(self) -> Iterator[Batch]:
        yield from ()
