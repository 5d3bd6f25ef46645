"""A Pyro guide as a proposal: it is a program itself, so its draws and densities come from its own structural form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import biject_to

from ..errors import GuideMismatchError, MethodError, NoMechanismError, site_list
from ..structural.form import ROW, StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from ..typing import Message, Program
from .posterior_draws import NO_UNITS, Units, common_units, stacked, units_independent

__all__ = ["GuideProposal"]

_PAIRS = 16


@dataclass(frozen=True)
class GuideProposal:
    """A guide that has a sample site for each latent site of a program, and perhaps auxiliary ones.

    A latent site that is a Delta of auxiliary ones, as in Pyro's autoguides, stands for them: their density counts, with the log
    Jacobian that the Delta carries. Other auxiliary sites have the same law in the extended target, so their density cancels.

    Raises:
        GuideMismatchError: the guide's sites or shapes are not those of the program's latents.
        MethodError: the guide draws nothing at random, or part of a latent site is known.
    """

    guide: Program
    form: StructuralForm
    own: StructuralForm
    cancelled: frozenset[str]

    @classmethod
    def of(
        cls, guide: Program, form: StructuralForm, params: Mapping[str, Tensor] | None = None
    ) -> GuideProposal:
        """The proposal, checked against the program.

        Args:
            params: values of the guide's parameters by name, where they are not those in the store.
        """
        own = StructuralForm(
            guide,
            form.args,
            form.kwargs,
            None,
            form.seed,
            {**form.params, **(params or {})},
            form.indices,
        )
        found = cls(guide, form, own, frozenset())
        found._check()
        return replace(found, cancelled=found._cancelled())

    def _cancelled(self) -> frozenset[str]:
        """The auxiliary sites that no Delta site is a function of.

        Raises:
            MethodError: the Delta sites cannot be a function of theirs that can be inverted.
        """
        own, latent = self.own, self.form.latent
        deltas = [n for n in latent if _is_delta(own.latent[n].fn)]
        free = self._auxiliary()
        counted = free & own.dependencies.ancestors(deltas)
        size = sum(own.latent[n].value.numel() for n in counted)
        expected = sum(
            biject_to(latent[n].fn.support).inverse_shape(latent[n].value.shape).numel()
            for n in deltas
        )
        if size != expected:
            raise MethodError(
                f"the guide's Delta sites {site_list(deltas)} have {expected} dimensions and are made from {size} of auxiliary sites "
                f"({site_list(sorted(counted))}), so they have no density; give every dimension a randomness of its own"
            )
        return frozenset(free - counted)

    def _check(self) -> None:
        latent, own = self.form.latent, self.own
        shown = set(own.latent) - self._auxiliary()
        absent, extra = set(latent) - shown, shown - set(latent)
        if absent or extra:
            raise GuideMismatchError(
                "the guide and the program differ: "
                + "; ".join(
                    text
                    for text, names in (
                        (
                            f"the guide has no site for the latent {site_list(sorted(absent))}",
                            absent,
                        ),
                        (f"the program has no latent site {site_list(sorted(extra))}", extra),
                    )
                    if names
                )
                + ". A guide samples every latent site; mark its own ones with infer={'is_auxiliary': True}"
            )
        for name, site in latent.items():
            theirs = own.latent[name].value.shape
            if theirs != site.value.shape:
                raise GuideMismatchError(
                    f"the guide's site {name!r} has shape {tuple(theirs)}, the program's {tuple(site.value.shape)}"
                )
            if site.missing is not None:
                raise MethodError(
                    f"a guide cannot serve site {name!r}, a part of which is known; use proposal='laplace' or cp.NUTS()"
                )
        if all(_is_delta(s.fn) for s in own.latent.values()):
            raise MethodError(
                "the guide has no randomness (Delta sites only), so its draws are a point and no proposal; use "
                "proposal='laplace', or a guide with a density such as AutoNormal"
            )

    def _auxiliary(self) -> set[str]:
        """The guide's own sites, which the program does not have."""
        found: set[str] = set()

        def rule(msg: Message) -> Tensor:
            if (msg["infer"] or {}).get("is_auxiliary", False):
                found.add(msg["name"])
            return self.own.sites[msg["name"]].value

        self.own.run(rule)
        return found

    def draw(self, rows: int) -> dict[str, Tensor]:
        """Rows of all of the guide's sites, auxiliary ones included."""
        own = self.own
        try:
            noise = own.prior_noise(rows, "guide")
        except NoMechanismError:
            return self._plainly(rows)
        return stacked(own.executor.map(own.simulate, rows, noise, torch.arange(rows)))  # type: ignore[no-any-return]

    def _plainly(self, rows: int) -> dict[str, Tensor]:
        """Row by row, where a site's law has no mechanism and only Pyro can draw it."""
        from pyro.poutine import trace

        own = self.own
        found: list[dict[str, Any]] = []
        with isolated_rng(keyed_seed(own.seed, "guide")), own.modules.restored():
            for _ in range(rows):
                nodes = trace(own.model).get_trace(*own.args, **own.kwargs).nodes
                found.append({n: nodes[n]["value"] for n in own.latent})
        return {n: torch.stack([row[n] for row in found]) for n in own.latent} | {
            ROW: torch.arange(rows)
        }

    def log_prob(self, row: dict[str, Tensor], units: Units) -> Tensor:
        """Log density of one row under the guide, shape ``unit sizes``."""
        total: Any = torch.zeros(units.sizes)
        for name, log_prob in self.own.log_probs(row, units.plates)["prior"].items():
            if name not in self.cancelled:
                total = total + log_prob
        return total  # type: ignore[no-any-return]

    def units(self, rows: dict[str, Tensor]) -> tuple[Units, str]:
        """The plates whose units both the program and the guide treat one by one."""
        units = common_units(self.form.latent)
        if not units.dims:
            return NO_UNITS, "joint weights: the latent sites share no plate"
        names = ", ".join(units.names)
        if set(zip(units.names, units.dims, units.sizes, strict=True)) - set(
            zip(*_plates(common_units(self.own.latent)), strict=True)
        ):
            return NO_UNITS, f"joint weights: the guide does not treat units of {names} one by one"
        first = {n: v[:_PAIRS] for n, v in rows.items()}
        second = {n: v[_PAIRS : 2 * _PAIRS] for n, v in rows.items()}
        fixed = {ROW: first.pop(ROW)}
        second.pop(ROW)
        mine = [
            {n: v for n, v in part.items() if n in self.form.latent} for part in (first, second)
        ]
        if not units_independent(self.form, units, mine[0], mine[1], fixed):
            return NO_UNITS, f"joint weights: units of {names} depend on each other's latents"
        if not units_independent(self.own, units, first, second, fixed):
            return NO_UNITS, f"joint weights: the guide does not treat units of {names} one by one"
        return units, f"weights for each unit of {names}, which depend on their own latents alone"


def _plates(units: Units) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]:
    return units.names, units.dims, units.sizes


def _is_delta(fn: Any) -> bool:
    while hasattr(fn, "base_dist") and type(fn).__name__ in (
        "Independent",
        "MaskedDistribution",
        "ExpandedDistribution",
    ):
        fn = fn.base_dist
    return isinstance(fn, Delta)
