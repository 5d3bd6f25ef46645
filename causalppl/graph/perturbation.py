"""Arrows found without tracking: one site is moved, all others are held, and whose law changes is its child."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..mechanisms import exact_log_prob
from ..structural import StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from ..structural.sites import site_kind
from ..typing import Message

__all__ = ["Effects", "perturb"]


@dataclass(frozen=True)
class Effects:
    """What moving the sites of a program one by one has shown.

    Attributes:
        arrows: pairs (site moved, site whose law changed); factors can be second.
        new_sites: sites that some run showed and the reference run did not.
        unmoved: sites that could not be moved: every other value was the same or made the program fail.
    """

    arrows: frozenset[tuple[str, str]]
    new_sites: frozenset[str]
    unmoved: frozenset[str]


def perturb(form: StructuralForm, moves: int = 4) -> Effects:
    """Move each site ``moves`` times within the support of its distribution."""
    with isolated_rng(keyed_seed(form.seed, "perturbation")):
        # a density may coincide at one value, hardly at two
        second = {
            n: s.fn.sample()
            for n, s in form.sites.items()
            if s.kind == "sample" and n not in form.halves
        }
        start = _laws(form, {}, second)
        arrows: set[tuple[str, str]] = set()
        new: set[str] = set()
        unmoved = set()
        for name in form.sites:
            moved = False
            for value in _values(form, name, moves) if form.sites[name].kind != "factor" else ():
                try:
                    laws = _laws(form, {name: value}, second)
                except Exception:  # the user's program may not stand the value
                    continue
                moved = True
                new |= laws.keys() - start.keys()
                changed = {
                    n
                    for n in start.keys() | laws.keys()
                    if n != name and n not in new and not _same(start.get(n), laws.get(n))
                }
                arrows |= {(name, n) for n in changed}
            if not moved and form.sites[name].kind != "factor":
                unmoved.add(name)
    return Effects(frozenset(arrows), frozenset(new), frozenset(unmoved))


def _values(form: StructuralForm, name: str, moves: int) -> Iterator[Tensor]:
    site = form.sites[name]
    for _ in range(moves):
        if site.kind == "sample":
            value = site.fn.sample().to(site.value.dtype)
        elif site.value.dtype == torch.bool:
            value = ~site.value
        elif site.value.is_floating_point():
            value = site.value + 0.3 * (1 + site.value.abs()) * torch.randn_like(site.value)
        else:  # an integer may be an index: another one need not exist
            return
        if value.shape == site.value.shape and not torch.equal(value, site.value):
            yield value


def _laws(
    form: StructuralForm, moved: dict[str, Tensor], second: dict[str, Tensor]
) -> dict[str, tuple[Tensor, ...]]:
    """Each site's law where all sites are held: log densities at two values, or the value of a function."""
    laws: dict[str, tuple[Tensor, ...]] = {}

    def rule(msg: Message) -> Tensor:
        name, fn, own = msg["name"], msg["fn"], msg["value"]
        site = form.sites.get(name)
        if site is None:
            value: Tensor = own if own is not None else fn.sample()
            laws[name] = ()
            return value
        if site_kind(msg) == "deterministic":
            laws[name] = (own.detach().clone(),)
        elif site.kind == "factor":
            laws[name] = (exact_log_prob(fn, site.value).detach(),)
        else:
            at = [site.value, second[name]]
            laws[name] = tuple(exact_log_prob(fn, v).detach() for v in at)
            if own is not None and name not in form.conditioned:
                laws[name] += (own.detach().clone(),)
        # a copy: the program may write to it in place
        return moved.get(name, site.value).clone()

    form.run(rule)
    return laws


def _same(a: tuple[Tensor, ...] | None, b: tuple[Tensor, ...] | None) -> bool:
    if a is None or b is None or len(a) != len(b):
        return False
    return all(
        x.shape == y.shape and torch.allclose(x, y, rtol=1e-5, atol=1e-6, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )
