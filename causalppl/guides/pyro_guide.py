"""A guide as Pyro runs it: sample statements in the program's plates, given what is observed in the program then."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor
from torch.distributions import constraints

from ..errors import MethodError
from ..structural.form import StructuralForm
from ..structural.sites import Site
from .evidence import evidence_of
from .heads import ContinuousHead, Head, Supports
from .reading import SiteShape

if TYPE_CHECKING:
    from .amortized import Guide

__all__ = ["run_guide"]

#: The name of the networks in Pyro's param store.
_MODULE = "amortized guide"


def run_guide(guide: Guide, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """Sample statements for all that is latent in the program; the values by site.

    Raises:
        GuideMismatchError, MethodError: the program with these arguments is another, or its evidence does not fit.
    """
    if any(isinstance(h, pyro.poutine.plate_messenger.PlateMessenger) for h in _PYRO_STACK):
        raise MethodError(
            "AmortizedGuide: the guide was run inside a plate (vectorize_particles=True, or parallel=True), whose dim its sites lack; "
            "leave that option out"
        )
    reading, network = guide.reading, guide.network
    form = StructuralForm(reading.model, args, kwargs, guide._evidence, guide.seed)
    evidence = evidence_of(reading, form, guide.builder.arbitrary_evidence)
    pyro.module(_MODULE, network)
    features = {
        n: network.encode(n, v, evidence.supports)
        for n, v in evidence.values.items()
        if network.encodes(n)
    }
    found: dict[str, Tensor] = {}
    plates: dict[str, Any] = {}
    for step in network.steps(evidence, features):
        name = step.head.names[0]
        if name in reading.observed:
            known = evidence.known[name]
            if bool(known.all()):
                continue
            if bool(known.any()):
                raise MethodError(
                    f"AmortizedGuide: some units of site {name!r} are missing, which Pyro's own inference does not serve; use cp.abduct"
                )
        values = _sample(step.head, step.context, form, evidence.supports, plates)
        found.update({n: v.squeeze(0) for n, v in values.items()})
        features.update(
            {
                n: network.encode(n, v, evidence.supports)
                for n, v in values.items()
                if network.encodes(n)
            }
        )
    return found | _rest(form, found)


def _rest(form: StructuralForm, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the networks have no law for is drawn by the program, given the rest."""
    free = [n for n in form.latent if n not in found]
    if not free:
        return {}
    known = {n: s.value for n, s in form.sites.items() if s.kind == "sample" and s.observed}
    with pyro.poutine.trace() as capture, pyro.poutine.block(expose=free):
        with pyro.poutine.condition(data={**known, **found}):
            form.model(*form.args, **form.kwargs)
    nodes: Any = capture.trace.nodes
    return {n: nodes[n]["value"] for n in free if n in nodes}


def _sample(
    head: Head,
    context: Tensor,
    form: StructuralForm,
    supports: Supports,
    plates: dict[str, Any],
) -> dict[str, Tensor]:
    sites = [form.sites[n] for n in head.names]
    dtypes = {s.name: s.value.dtype for s in sites}
    frames = [f for f in sites[0].frames if f.vectorized]
    with ExitStack() as stack:
        for frame in frames:
            if frame.name not in plates:
                plates[frame.name] = pyro.plate(frame.name, frame.size, dim=frame.dim)
            stack.enter_context(plates[frame.name])
        if not isinstance(head, ContinuousHead):
            law = _DiscreteLaw(head, context, sites[0], supports)
            return {head.names[0]: pyro.sample(head.names[0], law).unsqueeze(0)}
        dims = sorted((f.dim for f in frames), reverse=True)
        name = f"amortized {' '.join(head.names)}"
        x = pyro.sample(name, _FlowLaw(head, context, dims), infer={"is_auxiliary": True})
        values, log_dets = head.placed(_units_first(x, dims), supports, dtypes)
        for site in sites:
            shape = SiteShape.of(site)
            density = _over_batch(shape, log_dets[site.name], site.fn.batch_shape)
            law = dist.Delta(
                values[site.name].squeeze(0),
                density.to(values[site.name]),
                event_dim=site.fn.event_dim,
            )
            pyro.sample(site.name, law)
    return values


def _batch(x: Tensor, dims: list[int]) -> Tensor:
    """``(1,) + units + (size,)``, outermost plate first, to Pyro's layout ``batch + (size,)``."""
    count = len(dims)
    found = x.squeeze(0).permute(*reversed(range(count)), *range(count, x.dim() - 1))
    width = -min(dims, default=0)
    for dim in range(-width, 0):
        if dim not in dims:
            found = found.unsqueeze(width + dim)
    return found


def _units_first(x: Tensor, dims: list[int]) -> Tensor:
    """The inverse of :func:`_batch`."""
    width = -min(dims, default=0)
    for dim in reversed(range(-width, 0)):
        if dim not in dims:
            x = x.squeeze(width + dim)
    count = len(dims)
    return x.permute(*reversed(range(count)), *range(count, x.dim())).unsqueeze(0)


def _over_batch(shape: SiteShape, units: Tensor, batch: torch.Size) -> Tensor:
    """A unit's log density, ``(1,) + units``, shared out over batch dims that are no plates."""
    loose = shape.batch - len(shape.plates)
    laid = shape.units_back(units.reshape(*units.shape, *[1] * loose)).squeeze(0)
    return laid.expand(batch) * (laid.numel() / max(1, batch.numel()))


class _FlowLaw(TorchDistribution):
    """The law of a continuous head's vector, in Pyro's plates."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, head: ContinuousHead, context: Tensor, dims: list[int]) -> None:
        self.head, self.context, self.dims = head, context, dims
        shape = _batch(context, dims).shape[:-1]
        super().__init__(shape, torch.Size([sum(head.sizes)]), validate_args=False)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        context = self.context.expand(torch.Size(sample_shape).numel(), *self.context.shape[1:])
        x, _ = self.head.flow.draw(context)
        laid = torch.stack([_batch(row.unsqueeze(0), self.dims) for row in x])
        return laid.reshape(*sample_shape, *laid.shape[1:])

    def log_prob(self, value: Tensor) -> Tensor:
        log_q = self.head.flow.log_prob(_units_first(value, self.dims), self.context)
        return _batch(log_q.unsqueeze(-1), self.dims).squeeze(-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _FlowLaw:
        if torch.Size(batch_shape) != self.batch_shape:
            raise MethodError("AmortizedGuide: its sites cannot be put into further plates")
        return self


class _DiscreteLaw(TorchDistribution):
    """The law of a discrete head's site."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    has_rsample = False

    def __init__(self, head: Head, context: Tensor, site: Site, supports: Supports) -> None:
        self.head, self.context, self.site, self.supports = head, context, site, supports
        super().__init__(site.fn.batch_shape, site.fn.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.site.fn.support

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        context = self.context.expand(torch.Size(sample_shape).numel(), *self.context.shape[1:])
        name = self.site.name
        with torch.no_grad():
            values, _ = self.head.draw(context, self.supports, {name: self.site.value.dtype})
        return values[name].reshape(*sample_shape, *self.site.value.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        log_q = self.head.log_prob(
            {self.site.name: value.unsqueeze(0)}, self.context, self.supports
        )
        return _over_batch(SiteShape.of(self.site), log_q, self.batch_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _DiscreteLaw:
        if torch.Size(batch_shape) != self.batch_shape:
            raise MethodError("AmortizedGuide: its sites cannot be put into further plates")
        return self
