"""Losses that train a guide: on simulations, or on data together with the program's own parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import MethodError, site_list
from ..structural.form import StructuralForm
from .encoding import supports_of
from .evidence import plate_sizes
from .joint import efficiency
from .posterior_network import Evidence
from .simulator import Simulations, random_masks, simulated

if TYPE_CHECKING:
    from .amortized import Guide

__all__ = ["Task", "objective_for"]

_UNITS = 256
_HELD_OUT = 512


@dataclass(frozen=True)
class Task:
    """What the training loop is given.

    Attributes:
        loss: from the number of a step, in nats for each unit.
        modules: what is trained, by name.
    """

    loss: Callable[[int], Tensor]
    modules: dict[str, nn.Module | Tensor]
    held_out: Callable[[], Tensor] | None
    monitors: Callable[[], Mapping[str, float]]


def objective_for(
    guide: Guide,
    objective: str,
    data: Mapping[str, Any] | None,
    batch_size: int | None,
    particles: int,
    seed: int,
) -> Task:
    """The task of an objective.

    Raises:
        MethodError: an unknown one, or one that does not fit the program or the data.
    """
    for name, number in (("batch_size", batch_size), ("particles", particles)):
        if number is not None and (
            not isinstance(number, int) or isinstance(number, bool) or number < 1
        ):
            raise MethodError(f"{name}={number!r}: give a positive integer")
    if objective == "forward_kl":
        if data is not None:
            raise MethodError(
                "fit: objective='forward_kl' learns from simulations and takes no data; leave data out, or use 'elbo' or 'rws'"
            )
        return forward_kl(guide, batch_size, seed)
    if objective not in ("elbo", "rws"):
        raise MethodError(
            f"fit: objective={objective!r} is not known; it can be 'forward_kl', 'elbo' or 'rws'"
        )
    if not data:
        raise MethodError(
            f"fit: objective={objective!r} learns from data; give data={{site: values, units first}} for {site_list(guide.observed)}"
        )
    from .on_data import data_task  # which needs what follows here

    return data_task(guide, objective, data, batch_size, particles, seed)


def default_batch(guide: Guide) -> int:
    """Runs that make about 256 units; of 16 at least where sites outside the plates need runs of their own."""
    form = guide.reading.form
    units = 1
    for size in plate_sizes(form.sites).values():
        units *= size
    return max(16, -(-_UNITS // max(units, 1)))


def shown(guide: Guide, form: StructuralForm, values: Mapping[str, Tensor]) -> Evidence:
    """Simulated data with random parts of them known; from torch's generator."""
    reading = guide.reading
    known = random_masks(reading.shapes, reading.observed, values, guide.builder.arbitrary_evidence)
    return Evidence(
        {n: values[n] for n in reading.observed},
        known,
        supports_of(form.sites),
        plate_sizes(form.sites),
    )


def surprise(guide: Guide, values: Mapping[str, Tensor], evidence: Evidence) -> Tensor:
    """Mean of minus the log density, summed over heads, each averaged over its units that are unknown."""
    total = torch.zeros(())
    found = guide.network.log_prob(values, evidence)
    for log_q, (head, _) in zip(found, guide.network.pairs(), strict=True):
        if head.names[0] in guide.observed:
            unknown = ~evidence.known[head.names[0]]
            total = total - log_q.sum() / unknown.sum().clamp(min=1)
        else:
            total = total - log_q.mean()
    return total


def forward_kl(guide: Guide, batch_size: int | None, seed: int) -> Task:
    """Neural posterior estimation.

    Raises:
        MethodError: the program weighs its runs by factors or scales, so that simulations do not have its law.
    """
    refuse_weights(guide)
    form = guide.reading.form
    simulations = Simulations(guide.reading, batch_size or default_batch(guide), seed)
    kept = simulated(form, _held_out_rows(guide), seed, "held out")

    def loss(step: int) -> Tensor:
        values = simulations.of_step(step)
        return surprise(guide, values, shown(guide, form, values))

    def held_out() -> Tensor:
        return surprise(guide, kept, shown(guide, form, kept))

    few = {n: v[:8] for n, v in kept.items()}
    return Task(
        loss,
        {"guide": guide.network},
        held_out,
        lambda: {"ess": efficiency(guide, form, {n: few[n] for n in guide.observed})},
    )


def _held_out_rows(guide: Guide) -> int:
    units = 1
    for size in plate_sizes(guide.reading.form.sites).values():
        units *= size
    return max(32, min(_HELD_OUT, 200_000 // max(units, 1)))


def refuse_weights(guide: Guide) -> None:
    """Simulations have the program's law only where nothing weighs its runs.

    Raises:
        MethodError: a factor or a scale does.
    """
    form, scaled = guide.reading.form, []

    def rule(msg: dict[str, Any]) -> Tensor:
        scale = msg["scale"]
        if not (isinstance(scale, float) and scale == 1.0):
            scaled.append(msg["name"])
        return form.sites[msg["name"]].value

    form.run(rule)
    factors = [n for n, s in form.sites.items() if s.kind == "factor"]
    if factors or scaled:
        what = f"factors {site_list(factors)}" if factors else f"scales at {site_list(scaled)}"
        raise MethodError(
            f"fit: the program weighs its runs by {what}, so that simulations do not have its law; use objective='elbo' on data, or "
            "remove them and let the weights of cp.abduct correct for them"
        )
