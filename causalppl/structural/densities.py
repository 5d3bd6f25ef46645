"""Log probabilities of one row of a program: of what is latent, and of the evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..mechanisms import exact_log_prob
from ..typing import Message
from .intervals import has_quantiles, log_mass
from .sites import Site, site_kind, split_log_prob, unmasked

if TYPE_CHECKING:
    from .form import StructuralForm

__all__ = ["equal_log_prob", "log_probs", "weighed"]


def log_probs(
    form: StructuralForm,
    latents: Mapping[str, Tensor],
    units: tuple[tuple[str, int], ...] = (),
    simulated: bool = False,
    density: Callable[[Any, Tensor], Tensor] = exact_log_prob,
) -> dict[str, dict[str, Tensor]]:
    """Log probabilities of one row, exact at 0 and 1: ``{"prior" | "evidence": {site: tensor}}``, in nats.

    Each is summed over all batch dims but those of the plates in ``units`` (names and dims from the right); a site outside
    these plates is summed to a scalar. Masks and scales weigh the evidence: a latent value has the law of its site.

    Args:
        simulated: the latents are from :meth:`simulate`, so a range weighs by its probability given the parents.
        density: of what is observed in full; :func:`~causalppl.mechanisms.possible` where only impossibility is asked.
    """
    parts: dict[str, dict[str, Tensor]] = {"prior": {}, "evidence": {}}

    def add(part: str, msg: Message, log_prob: Tensor) -> None:
        plates = {(f.name, f.dim) for f in msg["cond_indep_stack"] if f.vectorized}
        keep = {dim for _, dim in units} if plates.issuperset(units) else set()
        rest = [d for d in range(-log_prob.dim(), 0) if d not in keep]
        reduced = log_prob.sum(rest) if rest else log_prob
        found = parts[part].get(msg["name"])
        parts[part][msg["name"]] = reduced if found is None else found + reduced

    def rule(msg: Message) -> Tensor:
        value = form.given(msg, latents)
        name, site = msg["name"], form.sites.get(msg["name"])
        if site is not None and site.interval is not None:
            add("evidence", msg, _range_log_prob(site, msg["fn"], value, simulated))
        if site_kind(msg) == "deterministic":
            if name in form.conditioned:
                add("evidence", msg, equal_log_prob(form, name, msg["value"]))
        elif site is not None and site.missing is not None:
            lost, known = split_log_prob(msg["fn"], value, site.missing)
            if name in latents:
                add("prior", msg, lost)
            add("evidence", msg, weighed(known, msg))
        elif name in latents:
            add(
                "prior",
                msg,
                exact_log_prob(unmasked(msg["fn"]) if site and site.masked else msg["fn"], value),
            )
        else:
            add("evidence", msg, weighed(density(msg["fn"], value), msg, masked=True))
        return value

    form.run(rule)
    return parts


def _range_log_prob(site: Site, fn: Any, value: Tensor, simulated: bool) -> Tensor:
    assert site.interval is not None
    if site.kind == "sample" and simulated and has_quantiles(site.mechanism, fn):
        assert site.mechanism is not None
        log_prob = log_mass(site.mechanism, fn, site.interval)
    else:
        low, high = site.interval
        log_prob = torch.where((value >= low) & (value <= high), 0.0, -torch.inf)
    if site.missing is not None:  # entries that are known weigh by their density
        log_prob = torch.where(site.missing, log_prob, 0.0)
    events = site.event_dim
    return log_prob.sum(list(range(-events, 0))) if events else log_prob


def equal_log_prob(form: StructuralForm, name: str, natural: Tensor) -> Tensor:
    """Zero where the value of a deterministic site is the one in the evidence, minus infinity elsewhere."""
    value, missing = form.conditioned[name], form.sites[name].missing
    if value.is_floating_point():
        near = (natural - value).abs() <= 1e-6 * value.abs() + 1e-8
    else:
        near = natural == value
    if missing is not None:
        near = near | missing
    return torch.where(near, 0.0, -torch.inf)


def weighed(log_prob: Tensor, msg: Message, masked: bool = False) -> Tensor:
    """Log probabilities of evidence by the site's scale, and by its mask where this does not stand for missing entries."""
    if masked and msg["mask"] is not None:
        mask = torch.as_tensor(msg["mask"], device=log_prob.device)
        log_prob = torch.where(mask, log_prob, torch.zeros_like(log_prob))
    if isinstance(msg["scale"], float) and msg["scale"] == 1.0:
        return log_prob
    return log_prob * msg["scale"]  # type: ignore[no-any-return]
