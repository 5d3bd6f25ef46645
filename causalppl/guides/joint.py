"""Draws of a guide beside the program: the joint density of both, run by run or unit by unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import MethodError
from ..structural.form import ROW, StructuralForm
from ..structural.noise import draw as draw_noise
from .encoding import supports_of
from .evidence import plate_sizes
from .heads import Head
from .posterior_network import Evidence

if TYPE_CHECKING:
    from .amortized import Guide

__all__ = ["all_known", "complete", "efficiency", "log_densities", "unit_log_q"]

_DRAWS = 100


def all_known(guide: Guide, form: StructuralForm, data: Mapping[str, Tensor]) -> Evidence:
    """Rows of data of which all is known, ``(rows,) + site shape``; observed sites without data are unknown."""
    reading, rows = guide.reading, len(next(iter(data.values())))
    values, known = {}, {}
    for name in reading.observed:
        site, shape = form.sites[name], reading.shapes[name]
        own = data.get(name)
        values[name] = site.value.expand(rows, *site.value.shape) if own is None else own
        units = shape.units_first(values[name]).shape[: 1 + len(shape.plates)]
        known[name] = torch.full(units, own is not None)
    return Evidence(values, known, supports_of(form.sites), plate_sizes(form.sites))


def unit_log_q(head: Head, log_q: Tensor, names: Sequence[str]) -> Tensor:
    """A head's log density, ``(rows,) + sizes of its plates``, summed over all plates but ``names``, in their order."""
    rest = [1 + i for i, p in enumerate(head.plates) if p not in names]
    found = log_q.sum(rest) if rest else log_q
    kept = [p for p in head.plates if p in names]
    return found.permute(0, *(1 + kept.index(p) for p in names)) if kept else found


def complete(
    form: StructuralForm, fixed: Mapping[str, Tensor], rows: int, *key: object
) -> tuple[dict[str, Tensor], frozenset[str]]:
    """All latent sites of ``form``: those in ``fixed`` as they are, the others drawn from the program given them.

    Returns:
        site to values, and the sites that were drawn, whose densities cancel in weights.
    """
    free = [n for n in form.latent if n not in fixed]
    if not free:
        return {n: fixed[n] for n in form.latent}, frozenset()
    noise = {}
    for name in free:
        site = form.latent[name]
        if site.mechanism is None:
            raise MethodError(
                f"AmortizedGuide: site {name!r} has no influence on the evidence, so the program draws it, but {site.why_none}"
            )
        noise[name] = draw_noise(site.mechanism.noise(site.fn), rows, form.seed, name, "free", *key)
    own = {n: fixed[n] for n in form.latent if n in fixed}
    found = form.executor.map(
        lambda n, f, i: form.simulate(n, i, f), rows, noise, own, torch.arange(rows), kind="free"
    )
    if isinstance(found, list):
        found = {n: torch.stack([row[n] for row in found]) for n in found[0]}
    return {n: v for n, v in found.items() if n != ROW}, frozenset(free)


def log_densities(
    guide: Guide,
    form: StructuralForm,
    evidence: Evidence,
    values: Mapping[str, Tensor],
    log_q: Sequence[Tensor],
    samples: int,
    unit: tuple[str, int] | None = None,
    *key: object,
) -> tuple[Tensor, Tensor]:
    """Joint log density of a program in which nothing is observed, and the guide's, for draws given rows of data.

    Args:
        evidence: what :func:`all_known` gave.
        values, log_q: ``rows * samples`` draws of the guide, those of a row next to each other.
        unit: a plate and its dim, where weights are for each of its units.

    Returns:
        two tensors of shape ``(rows, samples)`` or ``(rows, samples, units)``, in nats; log weights are their difference.
    """
    rows = evidence.rows
    data = {n: v for n, v in evidence.values.items() if bool(evidence.known[n].all())}
    fixed = {n: v.repeat_interleave(samples, 0) for n, v in data.items()} | dict(values)
    latents, cancelled = complete(form, fixed, rows * samples, *key)
    plates = () if unit is None else (unit,)
    sizes = () if unit is None else (evidence.sizes[unit[0]],)

    def joint(row: dict[str, Tensor]) -> Tensor:
        total = torch.zeros(sizes)
        for part in form.log_probs(row, plates).values():
            for name, log_prob in part.items():
                if name not in cancelled:
                    total = total + log_prob
        return total

    log_p = form.executor.map(joint, rows * samples, latents, kind="joint")
    log_p = torch.stack(log_p) if isinstance(log_p, list) else log_p
    names = () if unit is None else (unit[0],)
    total = torch.zeros_like(log_p)
    for (head, _), own in zip(guide.network.pairs(), log_q, strict=True):
        total = total + unit_log_q(head, own, names)
    shape = (rows, samples, *sizes)
    return log_p.reshape(shape), total.reshape(shape)


@torch.no_grad()
def efficiency(guide: Guide, form: StructuralForm, data: Mapping[str, Tensor]) -> float:
    """Mean effective share of 100 draws, over rows of data; of weights of whole runs."""
    evidence = all_known(guide, form, data)
    dtypes = {n: s.value.dtype for n, s in form.sites.items()}
    values, log_q = guide.network.draw(evidence, _DRAWS, dtypes)
    log_p, total = log_densities(guide, form, evidence, values, log_q, _DRAWS)
    normal = (log_p - total).nan_to_num(-torch.inf).log_softmax(1)
    return float((1 / (2 * normal).exp().sum(1)).mean()) / _DRAWS
