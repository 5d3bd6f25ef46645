"""What a posterior says of itself, in one table: R-hat, effective draws, k-hat."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from ..counterfactual import Posterior
from ..inference.convergence import convergence

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["summary"]

_PARTS = 4
_GOOD_RHAT, _GOOD_K, _ENOUGH = 1.01, 0.7, 400


def summary(posterior: Posterior) -> pd.DataFrame:
    r"""One row for each latent site, worst values over its entries.

    Draws are cut into four consecutive parts that are compared as if they were chains. The draws of a sampler stand chain
    after chain, so that chains which disagree and chains which drift both show. Chance alone lets :math:`\hat R` of
    :math:`n` independent draws exceed 1 by a few :math:`1/n`, which is allowed for.

    Args:
        posterior: what :func:`causalppl.abduct` returned.

    Returns:
        A data frame with the columns ``entries``; ``rhat``, rank-normalised split :math:`\hat R` of the draws that were kept;
        ``ess_bulk`` and ``ess_tail``, effective draws for means and for the 5% and 95% quantiles; ``method_rhat``,
        ``method_ess`` and ``pareto_k``, as the method reported them of all of its draws or weights, NaN where it has none;
        and ``finding``: ``"fine"``, or what is not: R-hat above 1.01 (of ``n`` kept draws: ``1.01 + 8 / n``), k-hat above
        0.7, fewer than 400 effective draws.

    References:
        Aki Vehtari, Andrew Gelman, Daniel Simpson, Bob Carpenter, Paul-Christian Bürkner (2021), Rank-normalization, folding,
        and localization: an improved R-hat. https://doi.org/10.1214/20-BA1221
        Aki Vehtari, Daniel Simpson, Andrew Gelman, Yuling Yao, Jonah Gabry (2024), Pareto smoothed importance sampling.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(x, 1.0))
        >>> posterior = cp.abduct(model, {"y": 1.0}, method=cp.ImportanceSampling(), seed=0)()
        >>> cp.diagnostics.summary(posterior).loc["x", "finding"]
        'fine'
    """
    import pandas as pd

    draws = posterior._draws
    method_ess, pareto_k = _worst(draws.ess, min), _worst(draws.pareto_k, max)
    rhat = math.nan if draws.rhat is None else draws.rhat
    rows: dict[str, dict[str, Any]] = {}
    for name, value in posterior.latents.items():
        size = len(value) // _PARTS
        found = convergence(value[: size * _PARTS].reshape(_PARTS, size, *value.shape[1:]))
        row = {
            "entries": value[0].numel(),
            "rhat": found.rhat,
            "ess_bulk": found.ess_bulk,
            "ess_tail": found.ess_tail,
            "method_rhat": rhat,
            "method_ess": method_ess,
            "pareto_k": pareto_k,
        }
        rows[name] = {**row, "finding": _finding(row, len(value))}
    columns = [
        "entries", "rhat", "ess_bulk", "ess_tail", "method_rhat", "method_ess", "pareto_k", "finding",
    ]  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis("site")


def _finding(row: dict[str, float], num_draws: int) -> str:
    """What is not fine; NaN is not known, and no reason to complain."""
    complaints: list[str] = []
    for rhat, limit in (
        (row["method_rhat"], _GOOD_RHAT),
        (row["rhat"], _GOOD_RHAT + 2 * _PARTS / num_draws),
    ):
        if rhat > limit and not complaints:
            complaints.append(f"R-hat {rhat:.3f} above {limit:.3f}")
    counts = [row["ess_bulk"], row["ess_tail"], row["method_ess"]]
    fewest = min((v for v in counts if not math.isnan(v)), default=math.inf)
    if row["pareto_k"] > _GOOD_K:
        complaints.append(f"k-hat {row['pareto_k']:.2g} above {_GOOD_K}")
    if fewest < _ENOUGH:
        complaints.append(f"{fewest:.0f} effective draws, fewer than {_ENOUGH}")
    return "; ".join(complaints) or "fine"


def _worst(value: Any, worst: Any) -> float:
    """The worst over units; NaN where there is none."""
    if value is None:
        return math.nan
    return float(worst(torch.as_tensor(value, dtype=torch.float64).flatten().tolist()))
