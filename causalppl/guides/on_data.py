"""Training on data: the evidence lower bound, and reweighted wake-sleep; the program's own parameters learn too."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor, nn

from ..errors import GuideMismatchError, MethodError, ShapeError, closest_name, site_list
from ..structural.evidence import as_tensor
from ..structural.form import StructuralForm
from ..structural.noise import keyed_seed
from .joint import all_known, efficiency, log_densities
from .objectives import Task, default_batch, refuse_weights, shown, surprise
from .simulator import simulated

if TYPE_CHECKING:
    from .amortized import Guide

__all__ = ["data_task"]

_HELD_OUT = 0.1


def data_task(
    guide: Guide,
    objective: str,
    data: Mapping[str, Any],
    batch_size: int | None,
    particles: int,
    seed: int,
) -> Task:
    """The task of ``"elbo"`` or ``"rws"``.

    Raises:
        GuideMismatchError, ShapeError, MethodError: data that do not fit, or discrete latents for ``"elbo"``.
    """
    batches = _Batches.of(guide, data, batch_size, seed)
    if objective == "elbo":
        discrete = [n for n in guide.reading.order if guide.reading.shapes[n].discrete]
        if discrete:
            raise MethodError(
                f"fit: objective='elbo' needs continuous latent sites, and {site_list(discrete)} are discrete; use objective='rws'"
            )
    else:
        refuse_weights(guide)
    parameters = ProgramParameters(guide.reading.form)
    loss_of = _negative_elbo if objective == "elbo" else _wake

    def on(rows: Mapping[str, Tensor]) -> Tensor:
        return loss_of(guide, parameters.live(), rows, particles, batches.unit)

    def loss(step: int) -> Tensor:
        if objective == "rws" and step % 2:
            form = parameters.live()
            values = simulated(form, default_batch(guide), seed, "sleep", step)
            return surprise(guide, values, shown(guide, form, values))
        return on(batches.of_step(step))

    kept = batches.held_out
    some = {n: v[:8] for n, v in batches.of_step(0).items()}
    return Task(
        loss,
        {"guide": guide.network, **parameters.trained},
        None if kept is None else lambda: on(kept),
        lambda: {"ess": efficiency(guide, parameters.live(), some)},
    )


def _negative_elbo(
    guide: Guide,
    form: StructuralForm,
    rows: Mapping[str, Tensor],
    particles: int,
    unit: tuple[str, int] | None,
) -> Tensor:
    evidence = all_known(guide, form, rows)
    dtypes = {n: s.value.dtype for n, s in form.sites.items()}
    values, log_q = guide.network.draw(evidence, particles, dtypes)
    log_p, total = log_densities(guide, form, evidence, values, log_q, particles, unit)
    return (total - log_p).mean()


def _wake(
    guide: Guide,
    form: StructuralForm,
    rows: Mapping[str, Tensor],
    particles: int,
    unit: tuple[str, int] | None,
) -> Tensor:
    r"""Both wake phases: :math:`-\sum_k \bar w_k [\log p(x_k, y) + \log q(x_k \mid y)]`, with weights taken as given."""
    evidence = all_known(guide, form, rows)
    dtypes = {n: s.value.dtype for n, s in form.sites.items()}
    with torch.no_grad():
        values, _ = guide.network.draw(evidence, particles, dtypes)
    spread = {n: v.repeat_interleave(particles, 0) for n, v in evidence.values.items()}
    known = {n: v.repeat_interleave(particles, 0) for n, v in evidence.known.items()}
    repeated = type(evidence)(spread, known, evidence.supports, evidence.sizes)
    log_q = guide.network.log_prob({**spread, **values}, repeated)
    log_p, total = log_densities(guide, form, evidence, values, log_q, particles, unit)
    share = (log_p - total).detach().softmax(1)
    return -(share * (log_p + total)).sum(1).mean()


class ProgramParameters:
    """The program's own parameters, those of its networks and of ``pyro.param``, as the leaves that an optimiser moves.

    Attributes:
        trained: name to leaf.
    """

    def __init__(self, form: StructuralForm) -> None:
        self.form = form
        store = pyro.get_param_store()
        values: dict[str, Any] = {n: store[n] for n in form.params if n in store}
        leaves: dict[str, Tensor] = {n: v.unconstrained() for n, v in values.items()}
        own = {n: p for n, p in leaves.items() if p.requires_grad and p.is_leaf}
        networks = [t for t in form.modules.now() if isinstance(t, nn.Parameter)]
        self.trained: dict[str, nn.Module | Tensor] = {
            **{f"param {n}": p for n, p in own.items()},
            **{f"network {i}": p for i, p in enumerate(networks) if p.requires_grad},
        }

    def live(self) -> StructuralForm:
        """The program with the present values, through which gradients flow."""
        form = copy.copy(self.form)
        store = pyro.get_param_store()
        form.params = {n: store[n] if n in store else v for n, v in self.form.params.items()}
        now = [t for t in self.form.modules.now() if t is not None]
        form.modules = self.form.modules.with_values(now)
        return form


@dataclass(frozen=True)
class _Batches:
    """Data in rows of the program's runs.

    Attributes:
        unit: the plate of the units and its dim, where weights are for each unit.
        held_out: rows that are not trained on, or ``None`` where there are too few.
    """

    data: dict[str, Tensor]
    train: Tensor
    held: Tensor | None
    rows: int
    axes: dict[str, int | None]
    size: int
    unit: tuple[str, int] | None
    seed: int

    @classmethod
    def of(
        cls, guide: Guide, given: Mapping[str, Any], batch_size: int | None, seed: int
    ) -> _Batches:
        """Data checked against the program."""
        reading = guide.reading
        data = {n: _checked(guide, n, v) for n, v in given.items()}
        counts = {n: len(v) for n, v in data.items()}
        if len(set(counts.values())) > 1:
            raise ShapeError(
                f"data: sites have different numbers of units, {counts}; give as many of each"
            )
        count = next(iter(counts.values()))
        plates = [reading.shapes[n].plates for n in data]
        shared = [p for p in plates[0] if all(p in other for other in plates)]
        frames = {f.name: f for s in reading.form.sites.values() for f in s.frames}
        size, unit, axes = 1, None, dict.fromkeys(data, None)
        if shared:
            plate = frames[shared[0]]
            size, unit = plate.size, (plate.name, plate.dim)
            axes = {
                n: reading.shapes[n].axes[reading.shapes[n].plates.index(plate.name)] for n in data
            }
            outside = [n for n in reading.order if plate.name not in reading.shapes[n].plates]
            if outside and count != size:
                raise MethodError(
                    f"data: {count} units were given, and {site_list(outside)} depend on all; the program runs for {size}. Build the "
                    "guide with arguments for these data"
                )
            if count < size:
                raise MethodError(
                    f"data: {count} units were given, and the program runs for {size} at a time; give at least so many"
                )
            unit = None if outside else unit
        elif any(plates):
            raise MethodError(
                f"data: {site_list(data)} share no plate, so that their units are not the same; give data of sites in one plate"
            )
        for name, value in data.items():
            _check_shape(reading.form, name, value, axes[name])
        order = torch.randperm(
            count, generator=torch.Generator().manual_seed(keyed_seed(seed, "held out"))
        )
        rows = batch_size or (max(1, 64 // size) if count > size else 1)
        kept = int(_HELD_OUT * count) // size * size
        if shared and count == size:
            return cls(data, torch.arange(count), None, 1, axes, size, unit, seed)
        held, train = (order[:kept], order[kept:]) if kept else (None, order)
        return cls(data, train, held, min(rows, len(train) // size), axes, size, unit, seed)

    def of_step(self, step: int) -> dict[str, Tensor]:
        """Rows for a step: passes over the data, in an order of the pass's own."""
        each = self.rows * self.size
        if len(self.train) == self.size:
            return self._laid(self.train)
        steps = len(self.train) // each
        turn, place = divmod(step, steps)
        generator = torch.Generator().manual_seed(keyed_seed(self.seed, "order", turn))
        order = self.train[torch.randperm(len(self.train), generator=generator)]
        return self._laid(order[place * each : (place + 1) * each])

    @property
    def held_out(self) -> dict[str, Tensor] | None:
        """The rows that are not trained on."""
        return (
            None
            if self.held is None
            else self._laid(self.held[: 512 // self.size * self.size or self.size])
        )

    def _laid(self, index: Tensor) -> dict[str, Tensor]:
        """Units at ``index`` as rows of the program's runs."""
        found = {}
        for name, value in self.data.items():
            chosen, axis = value[index], self.axes[name]
            if axis is None:
                found[name] = chosen
            else:
                found[name] = chosen.unflatten(0, (-1, self.size)).movedim(1, 1 + axis)
        return found


def _checked(guide: Guide, name: str, given: Any) -> Tensor:
    if name not in guide.observed:
        near = closest_name(name, guide.observed)
        raise GuideMismatchError(
            f"data: the guide does not see site {name!r}; it was built for {site_list(guide.observed)}"
            + (f"; did you mean {near!r}?" if near else "")
        )
    value = as_tensor(name, given).to(guide.reading.form.sites[name].value.dtype)
    if value.is_floating_point() and bool(value.isnan().any()):
        raise MethodError(
            f"data: values of site {name!r} are missing (NaN), which training on data does not serve; leave these units out"
        )
    return value


def _check_shape(form: StructuralForm, name: str, value: Tensor, axis: int | None) -> None:
    shape = list(form.sites[name].value.shape)
    if axis is not None:
        del shape[axis]
    if list(value.shape[1:]) != shape:
        raise ShapeError(
            f"data: site {name!r} has shape {tuple(value.shape)}; give units first, (units, {', '.join(map(str, shape))})"
        )
