"""A program with data in its sites: a batch's rows in their plate, missing entries left out of the density."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..errors import MethodError
from ..structural.evidence import Interval, as_tensor, fit_evidence, hidden_entries
from ..structural.sites import elements, site_kind, split_log_prob
from ..typing import Message
from .batches import is_array, rows_of

__all__ = ["InBatch", "KnownEntries", "Observing"]


class KnownEntries(dist.TorchDistribution):
    """The marginal law of the entries of a value that are known: what is missing, and nothing depends on, integrates to one.

    Args:
        fn: the site's distribution, with independent entries, or with whole events missing.
        missing: which entries are, of the value's shape.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, fn: Any, missing: Tensor) -> None:
        self.fn, self.missing = fn, missing
        super().__init__(fn.batch_shape, fn.event_shape, validate_args=False)

    @property
    def support(self) -> Any:  # type: ignore[override]
        """That of the site."""
        return self.fn.support

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, of the batch shape."""
        log_prob = split_log_prob(self.fn, value, self.missing)[1]
        if isinstance(self.fn, dist.MaskedDistribution):
            log_prob = torch.where(torch.as_tensor(self.fn._mask), log_prob, 0.0)
        return log_prob


class InBatch(Messenger):
    """A batch of a plate's units. A plate that is made for all units takes these rows, one that has the batch's size stays as it is.

    Args:
        plate: its name; any with a fitting size where it is not known yet.
        total: how many units there are in all.
        size: how many there are in the batch.
        rows: which these are, where that is known.
        scale: how often each unit's density counts.
    """

    def __init__(self, plate: str | None, total: int, size: int, rows: Tensor | None, scale: float) -> None:  # fmt: skip
        super().__init__()
        self.plate, self.total, self.size, self.rows, self.scale = plate, total, size, rows, scale

    def _pyro_sample(self, msg: Message) -> None:
        fn = msg["fn"]
        if isinstance(fn, _Subsample):
            if self.plate in (None, msg["name"]) and fn.size == self.total != self.size:
                if self.rows is None:
                    raise MethodError(
                        f"fit: the plate {msg['name']!r} has all {self.total} units, and a DataLoader does not say which of them are in a "
                        "batch; give the plate the length of the batch's data, or give the dataset with batch_size="
                    )
                msg["value"] = self.rows
            return
        for frame in msg["cond_indep_stack"]:
            if frame.name == self.plate and frame.vectorized:
                own = (frame.full_size or frame.size) / frame.size
                msg["scale"] = msg["scale"] * (self.scale / own)


class Observing(Messenger):
    """Data in the program's sites.

    Entries that are NaN are left out of the density of a site that no other site depends on.

    Args:
        values: site to values, of the batch or of all units; of a plate that the program subsamples itself, those of all.
        leaves: the sites that no other site depends on.
        dtypes: of the sites' values.
    """

    def __init__(
        self, values: Mapping[str, Any], leaves: Collection[str], dtypes: Mapping[str, torch.dtype]
    ) -> None:
        super().__init__()
        self.values, self.leaves, self.dtypes = values, leaves, dtypes
        self._indices: dict[str, Tensor] = {}

    def __enter__(self) -> Any:
        self._indices = {}
        return super().__enter__()

    def _pyro_post_sample(self, msg: Message) -> None:
        if isinstance(msg["fn"], _Subsample) and msg["value"] is not None:
            self._indices[msg["name"]] = msg["value"]

    def _pyro_sample(self, msg: Message) -> None:
        name, fn, infer = msg["name"], msg["fn"], msg["infer"] or {}
        if isinstance(fn, _Subsample) or site_kind(msg) != "sample":
            return
        missing = None
        if name in self.values:
            if infer.get("_intervened", False):
                return
            given = own_rows(self.values[name], msg, self._indices)
            if isinstance(given, Interval):
                raise MethodError(
                    f"fit: a guide cannot serve a range of site {name!r}; leave out guide="
                )
            known = fit_evidence(name, given, fn, self._like(name, given, fn), False)
            msg["value"], msg["is_observed"], missing = known.value, True, known.missing
        elif msg["is_observed"] and isinstance(msg["value"], Tensor):
            value = msg["value"]
            missing = hidden_entries(value, None, None, fn.event_dim)
            if missing is not None:
                msg["value"] = torch.where(missing, fn.sample(), value)
        if missing is None:
            return
        if name not in self.leaves:
            raise MethodError(
                f"fit: entries of site {name!r} are missing, and other sites depend on it; leave out guide= and give them in the data "
                "from the start, or write obs_mask= into the program"
            )
        if elements(fn) is None:
            flat = missing.flatten(missing.dim() - fn.event_dim)
            if bool((flat.any(-1) & ~flat.all(-1)).any()):
                raise MethodError(
                    f"fit: a part of a value of site {name!r} ({type(fn).__name__}) is missing, and its entries depend on each other; "
                    "leave the whole value out (NaN)"
                )
        msg["fn"] = KnownEntries(fn, missing)

    def _like(self, name: str, given: Any, fn: Any) -> Tensor:
        """Some value of the site: a draw where entries are missing, which need one; else of the right shape only."""
        tensor = as_tensor(name, given)
        lost = tensor.is_floating_point() and bool(tensor.isnan().any())
        if lost or name not in self.dtypes:
            return fn.sample()  # type: ignore[no-any-return]
        return torch.zeros((), dtype=self.dtypes[name], device=tensor.device).expand(fn.shape())


def own_rows(given: Any, msg: Message, indices: Mapping[str, Tensor]) -> Any:
    """The rows that a plate of the site's takes, where the program subsamples it."""
    for frame in msg["cond_indep_stack"]:
        full, index = frame.full_size, indices.get(frame.name)
        if index is None or full in (None, frame.size) or not is_array(given):
            continue
        if len(given.shape) and len(given) == full:
            return rows_of(given, index)
    return given
