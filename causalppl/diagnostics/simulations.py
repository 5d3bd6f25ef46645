"""Worlds of which everything is known: latents and data drawn by the program itself, to be found again by a method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyro
import torch
from torch import Tensor

from ..counterfactual import Posterior
from ..errors import MethodError, ProgramError, site_list
from ..inference import PosteriorDraws
from ..interventions import program_arguments, unknown_site
from ..structural.evaluation import Evaluation
from ..structural.form import StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from ..structural.unobserved import without_observations
from ..typing import Program

__all__ = ["Simulations"]


class Simulations:
    r"""Independent runs of a program, ``obs=`` sites included, from noise: :math:`v = f(\text{noise})`.

    Values come from the mechanisms' forward side only, so that a method's values and the noise abducted from them are both
    held against something that shares no code with them.

    Args:
        model, args, kwargs: the program and its arguments. What ``obs=`` sites hold is replaced; which of their entries are
            missing (NaN or masked) is kept.
        observed: sites that are data besides those with ``obs=``.
        count: number of runs.
        seed: fixes all of them.

    Attributes:
        data: names of the sites that are data.
        latent: names of the sites that inference has to find, those with missing entries included.
        truths: the runs as a posterior whose draws are the truths: what a quantity gives of a posterior, it gives of these.

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
        free = without_observations(model)
        self._form = StructuralForm(free, args, kwargs, None, keyed_seed(seed, "truths"))
        self._refuse_weights(keyed_seed(seed, "weights"))
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
        self.truths = self._simulated(keyed_seed(seed, "runs"))

    def _refuse_weights(self, seed: int) -> None:
        with isolated_rng(seed), torch.no_grad(), self._form.modules.restored():
            trace = pyro.poutine.trace(self._form.model).get_trace(*self.args, **self.kwargs)
        for name, message in trace.nodes.items():
            scale = message.get("scale", 1.0)
            kind = self._form.sites[name].kind if name in self._form.sites else ""
            if kind == "factor":
                what, cure = f"the factor {name!r} weighs the program's density", "the factor"
            elif kind == "sample" and not (isinstance(scale, float) and scale == 1.0):
                what = f"site {name!r} is weighed by a scale (poutine.scale, or a subsampled plate)"
                cure = "the scale or the subsampling"
            else:
                continue
            raise MethodError(
                f"{what}, so the data that the program simulates do not have the law that inference assumes; remove {cure} "
                "to check the calibration"
            )

    def _whole(self, name: str) -> str:
        """The name under which evidence on a site with ``obs_mask=`` is given."""
        return name.removesuffix("_observed") if name in self._form.halves.values() else name

    def _simulated(self, seed: int) -> Posterior:
        """All runs from their noise; from Pyro's own sampling where a site has no mechanism, and so no noise."""
        form, count = self._form, self.count
        if all(s.mechanism is not None for s in form.latent.values()):
            evaluation = Evaluation.from_noise(form, count, form.prior_noise(count, "truths"))
            values = _same_sites(evaluation.known[0])
        else:
            evaluation, values = None, _same_sites(self._traces(seed))
        latents = {n: values[n] for n in form.latent}
        draws = PosteriorDraws(latents, count, "simulation", "drawn by the program")
        return Posterior(form, draws, count, evaluation)

    def _traces(self, seed: int) -> list[dict[str, Tensor]]:
        runs: list[dict[str, Any]] = []
        with isolated_rng(seed), torch.no_grad(), self._form.modules.restored():
            for _ in range(self.count):
                trace = pyro.poutine.trace(self._form.model).get_trace(*self.args, **self.kwargs)
                run = {n: trace.nodes[n]["value"] for n in self._form.sites if n in trace.nodes}
                # the two halves of a site with obs_mask= are one
                halves = self._form.halves
                runs.append(run | {k: run[self._whole(k)] for k in halves.values()})
        return runs

    def evidence(self, run: int) -> dict[str, Tensor]:
        """The data of one run: site to value, NaN where the program's own data are missing."""
        found = {}
        for name in self._sites:
            value, missing = self.truths.latents[name][run], self._missing[name]
            if missing is not None:
                value = torch.where(missing, torch.nan, value.to(torch.get_default_dtype()))
            found[self._whole(name)] = value
        return found

    def values(self, run: int, names: Iterable[str]) -> dict[str, Tensor]:
        """True values of sites in one run."""
        return {n: self.truths.latents[n][run] for n in names}


def _same_sites(runs: Any) -> dict[str, Tensor]:
    """Stacked values of runs that all show the same sites."""
    if not isinstance(runs, list):
        return dict(runs)
    shapes = {n: v.shape for n, v in runs[0].items()}
    if any({n: v.shape for n, v in run.items()} != shapes for run in runs):
        raise ProgramError(
            "the program's sites or their shapes differ from run to run, so truths cannot be compared across simulations; "
            "pad the sites in the program, so that every run shows the same ones"
        )
    return {n: torch.stack([run[n] for run in runs]) for n in shapes}
