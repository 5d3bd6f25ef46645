"""Draws for the terms of a query: of the observed units, or of new units given the parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..counterfactual import Posterior, abduct
from ..errors import NoMechanismError
from ..inference import Method, PosteriorDraws
from ..inference.posterior_draws import stacked
from ..structural.form import StructuralForm
from ..structural.noise import draw, keyed_seed
from ..structural.sites import site_kind
from ..typing import Message, Noise, Program
from .scope import Scope

__all__ = ["Unobserved", "chunks", "new_units", "posterior_of"]

#: Elements of all sites of all worlds that are held at a time.
ELEMENTS = 20_000_000
#: New units for each draw of the parameters, and over all draws.
UNITS_EACH, UNITS_ALL = 1_000, 4_000_000


class Unobserved(Messenger):
    """Takes the data away from a program: ``obs=`` sites are drawn, factors weigh nothing.

    Args:
        keep: observed sites that stay as they are.
    """

    def __init__(self, keep: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.keep = keep

    def _pyro_sample(self, msg: Message) -> None:
        kind = site_kind(msg)
        if isinstance(msg["fn"], _Subsample) or not msg["is_observed"] or msg["name"] in self.keep:
            return
        if kind == "factor":
            msg["fn"] = dist.Unit(torch.zeros_like(msg["fn"].log_factor))
        elif kind == "sample":
            msg["is_observed"], msg["done"], msg["value"] = False, False, None


def posterior_of(
    model: Program,
    form: StructuralForm,
    evidence: Mapping[str, Any],
    method: Method | None,
    num_samples: int,
) -> Posterior:
    """The posterior of a program that takes the arguments of ``form``."""
    abducted = abduct(model, evidence, method=method, num_samples=num_samples, seed=form.seed)
    return abducted(*form.args, **form.kwargs)


@dataclass(frozen=True)
class _Rows:
    """A posterior for a part of the rows."""

    posterior: Posterior
    start: int


def chunks(posterior: Posterior, worlds: int) -> Iterator[_Rows]:
    """The posterior in parts whose predictions fit in memory, each with noise of its own."""
    form, draws = posterior._form, posterior._draws
    each = sum(s.value.numel() for s in form.sites.values()) * (worlds + 1)
    size = max(1, min(draws.num_samples, ELEMENTS // max(each, 1)))
    if size == draws.num_samples:
        yield _Rows(posterior, 0)
        return
    for start in range(0, draws.num_samples, size):
        latents = {n: v[start : start + size] for n, v in draws.latents.items()}
        rows = min(size, draws.num_samples - start)
        part = copy.copy(form)
        part.seed = keyed_seed(form.seed, "chunk", start)
        yield _Rows(Posterior(part, replace(draws, latents=latents, num_samples=rows)), start)


def unit_count(form: StructuralForm, scope: Scope) -> int:
    """The size of the plate of the units."""
    sizes = [f.size for s in form.sites.values() for f in s.frames if f.name == scope.units]
    return sizes[0] if sizes else 1


def new_units(
    form: StructuralForm,
    scope: Scope,
    shared: frozenset[str],
    parameters: Mapping[str, Tensor],
    num_samples: int,
) -> tuple[Posterior, int]:
    """Draws of units that were not observed.

    Args:
        shared: sites that belong to no unit: what is observed of them stays so.
        parameters: parameter to draws, shape ``(draws,) + site shape``; empty where there is none.
        num_samples: draws where there is no parameter.

    Returns:
        a posterior of the program without the units' data, and the number of its rows for each parameter draw, an even one.

    Raises:
        NoMechanismError: a site cannot be drawn from noise.
    """
    fresh = StructuralForm(
        Unobserved(shared)(form.model),
        form.args,
        form.kwargs,
        {n: v for n, v in form.evidence.items() if n in shared},
        keyed_seed(form.seed, "new units"),
    )
    units = unit_count(form, scope)
    if parameters:
        count = len(next(iter(parameters.values())))
        most = UNITS_ALL // (count * units)
        each = 2 * max(1, min(-(-UNITS_EACH // units), most) // 2)
    else:
        count, each = 1, max(200, math.ceil(num_samples / units))
    rows = count * each
    fixed = {n: v.repeat_interleave(each, 0) for n, v in parameters.items() if n in fresh.latent}
    noise: dict[str, Noise] = {}
    for name, site in fresh.latent.items():
        if name not in fixed:
            if site.mechanism is None:
                raise NoMechanismError(f"site {name!r} cannot be drawn from noise: {site.why_none}")
            noise[name] = draw(site.mechanism.noise(site.fn), rows, fresh.seed, name, "new")

    def simulate(row: Tensor, own: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
        return fresh.simulate(own, row, given)

    with torch.no_grad():
        latents = stacked(
            fresh.executor.map(simulate, rows, torch.arange(rows), noise, fixed, kind="new units")
        )
    draws = PosteriorDraws(latents, rows, "simulation", "new units given the parameters")
    return Posterior(fresh, draws), each
