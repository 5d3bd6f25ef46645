"""Couplings that a sampled answer may depend on: discrete sites whose law differs between the worlds that were asked about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..counterfactual import Posterior
from ..mechanisms import mechanism_names
from ..notation.resolution import Arrows
from ..structural.form import StructuralForm
from ..structural.sites import site_kind
from ..typing import Message
from .distributions import numbers_of, unwrapped

__all__ = ["Seen", "doubtful_couplings"]

#: Draws that are looked at, and those of them in which the program is run again.
ROWS, RUNS = 2_000, 50


@dataclass(frozen=True)
class Seen:
    """What a term was computed from: its posterior, and its worlds besides the factual one."""

    posterior: Posterior
    worlds: Mapping[str, Mapping[str, Any]]


def doubtful_couplings(
    seen: Seen, sites: Sequence[str], arrows: Arrows
) -> dict[str, tuple[str, Sequence[str]]]:
    """Those of the sites whose default coupling an answer depends on, with its name and those of the family's others.

    A discrete site is doubtful if its law differs between two worlds in some draw, and is certain in neither. Where Python sees
    values, the arrows alone decide.
    """
    form = seen.posterior._form
    chosen = _chosen(form)
    found: dict[str, tuple[str, Sequence[str]]] = {}
    for name in sites:
        site = form.sites.get(name)
        if site is None or name in chosen or not site.discrete or site.function:
            continue
        if form.dependencies.hidden or _differs(seen, name, tuple(arrows[name])):
            used = getattr(site.mechanism, "name", "?")
            others = [m for m in mechanism_names(type(_base(site.fn))) if m != used]
            found[name] = used, others
    return found


def _differs(seen: Seen, name: str, parents: tuple[str, ...]) -> bool:
    """Whether the site's law differs between two worlds in some draw."""
    posterior = seen.posterior
    draws, form = posterior._draws, posterior._form
    rows = min(draws.num_samples, ROWS)
    latents = {n: v[:rows] for n, v in draws.latents.items()}
    some = Posterior(form, replace(draws, latents=latents, num_samples=rows))
    result = some.predict(worlds=dict(seen.worlds), sites=list(parents))
    worlds = [
        {p: result.tensor(p, world=world) for p in parents} for world in ("factual", *seen.worlds)
    ]
    for row in _rows_apart(worlds, rows):
        laws = {_law(form, name, {p: v[row] for p, v in world.items()}) for world in worlds}
        if len(laws - {None}) > 1:
            return True
    return False


def _rows_apart(worlds: Sequence[Mapping[str, Tensor]], rows: int) -> Iterator[int]:
    """Rows in which the parents differ between worlds, each combination of values once."""
    flat = [
        torch.cat([v.reshape(rows, -1).double() for v in world.values()], 1) for world in worlds
    ]
    known: set[bytes] = set()
    for row in range(rows):
        if any(not torch.equal(one[row], flat[0][row]) for one in flat[1:]):
            key = b"".join(one[row].numpy().tobytes() for one in flat)
            if key not in known:
                known.add(key)
                yield row
                if len(known) == RUNS:
                    return


def _law(form: StructuralForm, name: str, values: Mapping[str, Tensor]) -> tuple[Any, ...] | None:
    """The parameters of a site's distribution where its parents have these values; ``None`` where its value is certain."""
    found: list[tuple[Any, ...] | None] = []

    def rule(msg: Message) -> Tensor:
        if msg["name"] == name:
            fn = unwrapped(msg["fn"])
            found.append(None if _certain(fn) else numbers_of(fn))
        if site_kind(msg) == "factor":
            return msg["value"]  # type: ignore[no-any-return]
        return values.get(msg["name"], form.sites[msg["name"]].value)

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        form.run(rule)
    return found[0]


def _base(fn: Any) -> Any:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn


def _certain(fn: Any) -> bool:
    """Whether a distribution of finite support leaves nothing to chance."""
    if not fn.has_enumerate_support:
        return False
    try:
        values = fn.enumerate_support(expand=False)
    except NotImplementedError:  # the elements of a plate differ in their support
        return False
    return bool((fn.log_prob(values).exp().amax(0) >= 1.0).all())


def _chosen(form: StructuralForm) -> set[str]:
    """Sites whose mechanism the user chose."""
    found: set[str] = set()

    def rule(msg: Message) -> Tensor:
        if site_kind(msg) == "sample" and (msg["infer"] or {}).get("mechanism") is not None:
            found.add(msg["name"])
        site = form.sites.get(msg["name"])
        value = msg["value"] if msg["value"] is not None else None
        if value is None:
            value = site.value if site is not None else msg["fn"].sample()
        return value  # type: ignore[no-any-return]

    form.run(rule)
    return found
