"""Posterior predictive checks: data that the program would give again, beside those that it was given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..counterfactual import Posterior
from ..errors import MethodError, NoMechanismError, site_list
from ..inference.posterior_draws import stacked
from ..interventions import unknown_site
from ..structural.form import ROW, StructuralForm
from ..structural.noise import draw, keyed_seed
from ..structural.unobserved import without_observations

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["posterior_predictive"]


def posterior_predictive(posterior: Posterior, *, fresh: Iterable[str] = ()) -> Any:
    r"""Replicated data for each posterior draw, in the form that ArviZ's checks and plots take.

    .. math:: \tilde y_d \sim p(y \mid \theta_d), \quad \theta_d \sim p(\theta \mid y)

    Every observed site is drawn anew from its distribution given the latent sites, and so is everything random that depends on
    one of them; other latent sites keep their posterior draws.

    Args:
        posterior: what :func:`causalppl.abduct` returned.
        fresh: latent sites to draw anew too, such as those of single units: then the data are of new units, which
            tests the program harder than the same units observed again.

    Returns:
        An ``arviz.InferenceData``, or an ``xarray.DataTree`` with ArviZ 1.x, with the groups ``posterior``,
        ``posterior_predictive``, ``observed_data`` (NaN where an entry is missing) and ``log_likelihood`` (in nats, one
        entry for each datum, NaN where it is missing), dims ``("chain", "draw", <plates>, <event dims>)``.

    Raises:
        UnknownSiteError: a name in ``fresh`` that is no latent site.
        MethodError: nothing is observed.
        NoMechanismError: a site that is to be drawn anew has no mechanism.

    References:
        Andrew Gelman, Xiao-Li Meng, Hal Stern (1996), Posterior predictive assessment of model fitness via realized discrepancies.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model(y):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("people", len(y)):
        ...         pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> posterior = cp.abduct(model, num_samples=200, seed=0)(torch.tensor([1.0, 2.0, 3.0]))
        >>> cp.diagnostics.posterior_predictive(posterior).posterior_predictive["y"].dims
        ('chain', 'draw', 'people')
    """
    form = posterior._form
    observed = [n for n, s in form.sites.items() if s.kind == "sample" and s.observed]
    again = StructuralForm(
        without_observations(form.model),
        form.args,
        form.kwargs,
        None,
        keyed_seed(form.seed, "predictive"),
        form.params,
        form.indices,
        form.modules.copies(),
    )
    observed = [n for n in observed if n in again.latent]
    if not observed:
        raise MethodError(
            f"posterior_predictive: none of the sites {site_list(form.sites)} is observed, so there are no data to replicate"
        )
    for name in (anew := list(fresh)):
        if name not in posterior.latents:
            raise unknown_site("fresh", name, list(posterior.latents))
    replicated = _replicate(posterior, again, {*observed, *anew})
    whole = {n: n.removesuffix("_observed") if n in form.halves.values() else n for n in observed}
    groups = {
        "posterior": _dataset(posterior, posterior.latents),
        "posterior_predictive": _dataset(posterior, {n: replicated[n] for n in observed}),
        "observed_data": _data(posterior, observed),
        "log_likelihood": _dataset(posterior, _log_likelihood(posterior, observed), event=False),
    }
    return _arviz(
        {k: g.rename({n: w for n, w in whole.items() if n in g}) for k, g in groups.items()}
    )


def _replicate(posterior: Posterior, again: StructuralForm, roots: set[str]) -> dict[str, Tensor]:
    """The unobserved program's latent sites, with what is not drawn anew held at the posterior's draws."""
    anew = roots | (set(again.dependencies.descendants(roots)) & set(again.latent))
    kept = {n: v for n, v in posterior.latents.items() if n in again.latent and n not in anew}
    rows = posterior.num_samples
    noise = {}
    for name, site in again.latent.items():
        if name not in kept:
            if site.mechanism is None:
                raise NoMechanismError(f"site {name!r} cannot be drawn anew: {site.why_none}")
            law = site.mechanism.noise(site.fn)
            noise[name] = draw(law, rows, again.seed, name, "predictive")

    def row(index: Tensor, own: Any, fixed: dict[str, Tensor]) -> dict[str, Tensor]:
        return again.simulate(own, index, fixed)

    with torch.no_grad():
        found = stacked(again.executor.map(row, rows, torch.arange(rows), noise, kept))
    return {n: v for n, v in found.items() if n != ROW}


def _log_likelihood(posterior: Posterior, observed: list[str]) -> dict[str, Tensor]:
    """Log probability of each datum given each draw, shape ``(draws,) + batch_shape``."""
    form, found = posterior._form, dict[str, Tensor]()
    latents = dict(posterior._draws.latents)

    def row(own: dict[str, Tensor]) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}

        def rule(msg: Any) -> Tensor:
            value = form.given(msg, own)
            if msg["name"] in observed:
                values[msg["name"]] = msg["fn"].log_prob(value)
            return value

        form.run(rule)
        return values

    with torch.no_grad():
        batch = stacked(form.executor.map(row, posterior.num_samples, latents))
    for name in observed:
        site, log_prob = form.sites[name], batch[name]
        if site.missing is not None:
            lost = (
                site.missing.flatten(site.missing.dim() - site.fn.event_dim).any(-1)
                if site.fn.event_dim
                else site.missing
            )
            log_prob = torch.where(lost, torch.nan, log_prob)
        found[name] = log_prob
    return found


def _data(posterior: Posterior, observed: list[str]) -> xr.Dataset:
    import xarray as xr

    arrays = {}
    for name in observed:
        site = posterior._form.sites[name]
        value = site.value
        if site.missing is not None:
            value = torch.where(site.missing, torch.nan, value.to(torch.get_default_dtype()))
        labels = posterior._labels(name, value.unsqueeze(0))
        arrays[name] = labels.label(_numeric(value).unsqueeze(0)).isel(draw=0, drop=True)
    return xr.Dataset(arrays)


def _dataset(posterior: Posterior, values: dict[str, Tensor], event: bool = True) -> xr.Dataset:
    import xarray as xr

    arrays = {}
    for name, value in values.items():
        labels = posterior._labels(name, value)
        if not event and posterior._form.sites[name].event_dim:
            site = posterior._form.sites[name]
            whole = posterior._labels(name, site.value.unsqueeze(0))
            labels = type(labels)(name, whole.plates, whole.batch_shape, ())
        arrays[name] = labels.label(_numeric(value).unsqueeze(0), ("chain", "draw"))
    return xr.Dataset(arrays)


def _numeric(value: Tensor) -> Tensor:
    return value.long() if value.dtype == torch.bool else value


def _arviz(groups: dict[str, xr.Dataset]) -> Any:
    import xarray as xr

    from ..inference.convergence import _import_arviz

    arviz = _import_arviz()
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(**groups)
    return xr.DataTree.from_dict(groups)
