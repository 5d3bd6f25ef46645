"""Worlds of which everything is known: latents and data drawn by the program itself, to be found again by a method."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import pyro
import torch
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..counterfactual import Posterior
from ..errors import MethodError, ProgramError, site_list
from ..inference import PosteriorDraws
from ..interventions import program_arguments, unknown_site
from ..structural.form import StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from ..typing import Program

__all__ = ["Simulations"]


class Simulations:
    """Independent runs of a program, drawn with Pyro's own sampling, ``obs=`` sites included.

    Args:
        model, args, kwargs: the program and its arguments. What ``obs=`` sites hold is replaced; which of their entries are
            missing (NaN or masked) is kept.
        observed: sites that are data besides those with ``obs=``.
        count: number of runs.
        seed: fixes all of them.

    Attributes:
        data: names of the sites that are data.
        latent: names of the sites that inference has to find, those with missing entries included.

    Raises:
        UnknownSiteError: a name in ``observed`` that is no site.
        MethodError: no site is data, or the program weighs its density by a factor or a scale, so that what it
            simulates does not have the law that inference assumes.
        ProgramError: the sites or their shapes differ from run to run.
    """

    def __init__(
        self,
        model: Program,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        observed: Iterable[str] | None,
        count: int,
        seed: int,
    ) -> None:
        self.model, self.args, self.kwargs, self.count = model, args, kwargs, count
        given = StructuralForm(model, args, kwargs, None, keyed_seed(seed, "given"))
        free = pyro.poutine.uncondition(model)
        self._form = StructuralForm(free, args, kwargs, None, keyed_seed(seed, "truths"))
        self._refuse_weights()
        known = [n for n, s in given.sites.items() if s.observed and n in self._form.latent]
        for name in observed or ():
            if name not in self._form.latent:
                raise unknown_site(
                    "observed", name, list(self._form.latent), program_arguments(model)
                )
        self._sites = dict.fromkeys([*known, *(observed or ())])
        if not self._sites:
            raise MethodError(
                "none of the program's sites has obs=, so there are no data to simulate; name those that will be data, "
                f"observed=[...], among {site_list(self._form.latent)}"
            )
        self._missing = {n: given.sites[n].missing for n in self._sites}
        self.data = [self._whole(n) for n in self._sites]
        self.latent = [
            n for n in self._form.latent if n not in self._sites or self._missing[n] is not None
        ]
        self._values = self._run(free, keyed_seed(seed, "runs"))

    def _refuse_weights(self) -> None:
        for name, site in self._form.sites.items():
            if site.kind == "factor":
                raise MethodError(
                    f"the factor {name!r} weighs the program's density, so the data that the program simulates do not have the "
                    "law that inference assumes; calibration can be checked on a program without factors"
                )

    def _whole(self, name: str) -> str:
        """The name under which evidence on a site with ``obs_mask=`` is given."""
        return name.removesuffix("_observed") if name in self._form.halves.values() else name

    def _run(self, free: Program, seed: int) -> dict[str, Tensor]:
        runs: list[dict[str, Tensor]] = []
        with isolated_rng(seed), torch.no_grad(), self._form.modules.restored():
            for _ in range(self.count):
                nodes = pyro.poutine.trace(free).get_trace(*self.args, **self.kwargs).nodes
                runs.append({n: self._value(n, m) for n, m in nodes.items() if _is_site(m)})
        shapes = {n: v.shape for n, v in runs[0].items()}
        for run in runs:
            if {n: v.shape for n, v in run.items()} != shapes:
                raise ProgramError(
                    "the program's sites or their shapes differ from run to run, so truths cannot be compared across "
                    "simulations; pad the sites in the program, so that every run shows the same ones"
                )
        values = {n: torch.stack([run[n] for run in runs]) for n in shapes}
        for half, known in self._form.halves.items():
            values[known] = values[half] = values[self._whole(known)]
        return values

    @staticmethod
    def _value(name: str, message: Any) -> Tensor:
        scale = message["scale"]
        if not (isinstance(scale, float) and scale == 1.0):
            raise MethodError(
                f"site {name!r} is weighed by a scale (poutine.scale, or a subsampled plate), so the data that the program "
                "simulates do not have the law that inference assumes; remove the scale or the subsampling"
            )
        value: Tensor = message["value"]
        return value

    @cached_property
    def truths(self) -> Posterior:
        """The runs as a posterior whose draws are the truths: what a quantity of a posterior gives, it gives of these."""
        latents = {n: self._values[n] for n in self._form.latent}
        draws = PosteriorDraws(latents, self.count, "simulation", "drawn by the program")
        return Posterior(self._form, draws, self.count)

    def evidence(self, run: int) -> dict[str, Tensor]:
        """The data of one run: site to value, NaN where the program's own data are missing."""
        found = {}
        for name in self._sites:
            value, missing = self._values[name][run], self._missing[name]
            if missing is not None:
                value = torch.where(missing, torch.nan, value.to(torch.get_default_dtype()))
            found[self._whole(name)] = value
        return found

    def values(self, run: int, names: Iterable[str]) -> dict[str, Tensor]:
        """True values of sites in one run."""
        return {n: self._values[n][run] for n in names}


def _is_site(message: Any) -> bool:
    return message["type"] == "sample" and not isinstance(message["fn"], _Subsample)
