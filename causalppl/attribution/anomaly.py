"""Which noise upstream explains an outlier: Shapley values of the tail score over the noises of all sites."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..counterfactual import Posterior, abduct
from ..errors import EvidenceError, MethodError, QueryError
from ..inference import Method
from ..interventions import program_arguments, unknown_site
from ..query.estimate import Estimate, QueryDiagnostics
from ..query.relevance import ancestors, arrows_of
from ..structural.form import StructuralForm
from ..structural.noise import fresh_seed, keyed_seed
from ..structural.units import parameters as shared_parameters
from ..typing import Noise, Program, Values
from .shapley import Plan, exact_plan, permutation_plan
from .tail_game import LEAST, TailGame

__all__ = ["AnomalyAttribution", "attribute_anomaly"]

#: Players up to which Shapley's sum is over all coalitions; pairs of random orders beyond.
EXACT_PLAYERS, ORDERS = 12, 60
#: Entries of the target that are computed for one draw of the posterior, over all coalitions and draws of noise.
ENTRIES, ENTRIES_ROW_BY_ROW = 2_000_000, 4_000
#: Entries that are held at a time.
CHUNK = 2_000_000
#: Draws of the noises for the median, and for each coalition.
MEDIAN_DRAWS, FEWEST_DRAWS, MOST_DRAWS = 20_000, 200, 20_000
#: Draws of the posterior, where it has several.
POSTERIOR_DRAWS = 50


class AnomalyAttribution(Mapping[str, Estimate]):
    """Site to the part of the score that its noise explains, in nats, sites in the order of the program.

    Attributes:
        target: the site that was explained.
        score: the tail score itself; the values add up to it.
    """

    def __init__(self, target: str, score: Estimate, parts: Mapping[str, Estimate]) -> None:
        self.target, self.score, self._parts = target, score, dict(parts)

    def __getitem__(self, site: str) -> Estimate:
        return self._parts[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __repr__(self) -> str:
        ranked = sorted(self._parts.items(), key=lambda item: -float(np.sum(item[1].value)))
        rows = [f"{name}: {part.value!r}" for name, part in ranked]
        return (
            f"AnomalyAttribution(score of {self.target}: {self.score.value!r}; {', '.join(rows)})"
        )


def attribute_anomaly(
    model: Program,
    *,
    target: str,
    evidence: Values | None = None,
    parameters: Iterable[str] | None = None,
    method: Method | None = None,
    num_samples: int = 1_000,
    seed: int | None = None,
) -> Callable[..., AnomalyAttribution]:
    r"""How much of an outlier each site's noise explains.

    The score of an observed y is its surprise, and the value of a set of noises the surprise that is left when these are kept at what they
    were and the others are drawn anew:

    .. math::
        s(y) = -\log P(|Y - m| \ge |y - m|), \quad v(S) = \log P(|Y - m| \ge |y - m| \mid N_S = n_S), \quad m = \text{median}(Y)

    Each site gets the Shapley value of its noise in this game. They add up to s(y), and a site that the target does not depend on
    gets 0. Up to 12 sites the sum is over all coalitions, beyond over random orders. The probabilities are means over draws of the
    noises; the target's own noise is integrated out where its family has a distribution function.

    Args:
        model: a Pyro program.
        target: a site with one number for each unit, whose value is known.
        evidence: site to what was observed; ``obs=`` sites are evidence already. What is missing is drawn from its posterior.
        parameters: latent sites that are no noise but unknown constants; by default those outside the units' plate.
        method: an inference method, where something is latent.
        num_samples: posterior draws, where something is latent; a spread of 50 of them is looked at.
        seed: an integer; ``None`` takes one from torch's generator.

    Returns:
        a callable that takes the program's own arguments and returns an :class:`AnomalyAttribution`: site to
        :class:`~causalppl.query.estimate.Estimate` in nats (an array over units), whose interval has the posterior of what is missing and
        Monte Carlo error, and ``.score``.

    Raises:
        UnknownSiteError: the target is no site.
        EvidenceError: its value is not known.
        NoMechanismError: an ancestor has no structural assignment, so it has no noise.

    References:
        K. Budhathoki, L. Minorics, P. Bloebaum, D. Janzing (2022), Causal structure-based root cause analysis of outliers.
        L. S. Shapley (1953), A Value for n-Person Games.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     a = pyro.sample("a", dist.Normal(0.0, 1.0))
        ...     b = pyro.sample("b", dist.Normal(a, 1.0))
        ...     return pyro.sample("c", dist.Normal(b, 1.0))
        >>> found = cp.attribution.attribute_anomaly(model, target="c", evidence={"a": 0.1, "b": 4.1, "c": 4.3}, seed=0)()
        >>> max(found, key=lambda site: found[site].value)
        'b'
    """
    if not isinstance(target, str):
        raise QueryError(f"attribute_anomaly: target={target!r}; give the name of one site")
    named = None if parameters is None else list(parameters)

    def run(*args: Any, **kwargs: Any) -> AnomalyAttribution:
        own_seed = fresh_seed(seed)
        form = StructuralForm(model, args, kwargs, evidence, own_seed)
        _check_target(form, target)
        ask = abduct(model, evidence, method=method, num_samples=num_samples, seed=own_seed)
        posterior = ask(*args, **kwargs)
        return _attributed(posterior, target, named)

    return run


def _check_target(form: StructuralForm, target: str) -> None:
    site = form.sites.get(target)
    if site is None or site.kind == "factor":
        raise unknown_site(
            "attribute_anomaly: target", target, list(form.sites), program_arguments(form.model)
        )
    known = target in form.conditioned or site.observed
    if site.kind == "deterministic":
        known = known or not (form.dependencies.ancestors(target) & set(form.latent))
    if not known or site.missing is not None or site.interval is not None:
        raise EvidenceError(
            f"attribute_anomaly: the value of the target {target!r} is not known, so there is no outlier to explain; give it, as in "
            f"evidence={{{target!r}: 3.0}}"
        )
    if site.kind == "sample" and site.fn.event_shape:
        raise QueryError(
            f"attribute_anomaly: the target {target!r} has events of shape {tuple(site.fn.event_shape)}; its tail is that of one "
            "number, so add a deterministic site for the number in question"
        )


def _attributed(posterior: Posterior, target: str, named: list[str] | None) -> AnomalyAttribution:
    form = posterior._form
    sites = [n for n, s in form.sites.items() if s.kind == "sample" and not s.function]
    fixed = set(shared_parameters(form, named))
    arrows = arrows_of(form)
    above = ancestors(target, arrows) | {target}
    players = [n for n in sites if n in above and n not in fixed]
    if not players:
        raise QueryError(f"attribute_anomaly: the target {target!r} depends on no noise")
    plan = _plan(len(players), form.seed)
    values, noise = posterior._evaluation.known
    if isinstance(noise, list):
        values, noise = _stacked(values, form), _stacked(noise, form)
    moving = any(
        form.latent.get(n) is not None or not _invertible(form, n)
        for n in above
        if n in form.sites and form.sites[n].kind == "sample"
    )
    rows = range(posterior.num_samples) if moving else range(1)
    if len(rows) > POSTERIOR_DRAWS:
        rows = range(0, len(rows), -(-len(rows) // POSTERIOR_DRAWS))
    game, medians = _game(form, target, players, plan, len(rows))
    solutions: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for i in rows:
        kept = {n: tree_map(lambda leaf, i=i: leaf[i], noise[n]) for n in players}
        given = {n: values[n][i] for n in fixed if n in above}
        y = values[target][i].double()
        solutions.append(_solve(game, medians, plan, kept, given, y))
    diagnostics = _diagnostics(posterior, plan, game, arrows, above)
    return _result(target, sites, players, solutions, diagnostics)


def _plan(players: int, seed: int) -> Plan:
    if players <= EXACT_PLAYERS:
        return exact_plan(players)
    return permutation_plan(players, ORDERS, keyed_seed(seed, "orders"))


def _invertible(form: StructuralForm, name: str) -> bool:
    site = form.sites[name]
    return site.function or (site.mechanism is not None and site.mechanism.invertible)


def _stacked(rows: list[dict[str, Any]], form: StructuralForm) -> dict[str, Any]:
    """Rows of a program that ran row by row, where all have the same sites."""
    names = [n for n in form.sites if n in rows[0]]
    if any(n not in row for row in rows for n in names):
        raise MethodError(
            "attribute_anomaly: sites come and go between runs of the program, so their noises cannot be compared"
        )
    return {
        n: tree_map(lambda *leaves: torch.stack(leaves), *(row[n] for row in rows)) for n in names
    }


def _game(
    form: StructuralForm, target: str, players: list[str], plan: Plan, rows: int
) -> tuple[TailGame, TailGame]:
    """The game for coalitions, and one with more draws for the median."""
    size = max(1, form.sites[target].value.numel())
    TailGame.drawn(form, target, players, 2).outcomes(_reference(form, players))  # is it batched?
    slow = form.executor.sequential_because is not None
    entries = ENTRIES_ROW_BY_ROW if slow else ENTRIES
    most = entries // (size * len(plan.coalitions) * max(1, math.isqrt(rows)))
    draws = min(MOST_DRAWS, max(20 if slow else FEWEST_DRAWS, most))
    median = 1_000 if slow else max(1_000, min(MEDIAN_DRAWS, ENTRIES // size))
    game = TailGame.drawn(form, target, players, draws, stretch=True)
    return game, TailGame.drawn(form, target, players, median)


def _reference(form: StructuralForm, players: list[str]) -> dict[str, Tensor]:
    return {n: s.value for n, s in form.latent.items() if n not in players}


def _solve(
    game: TailGame,
    medians: TailGame,
    plan: Plan,
    kept: Mapping[str, Noise],
    given: Mapping[str, Tensor],
    y: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shapley values ``(players,) + target shape`` with standard errors, and the score with its own."""
    median = medians.outcomes(given).median(0).values
    distance = (y - median).abs()
    members = torch.from_numpy(plan.coalitions)
    weights = torch.from_numpy(plan.weights)
    whole = weights if plan.exact else weights.mean(0)
    parts: list[Tensor] = []
    of_draws, of_score = torch.zeros(()), torch.zeros(())
    each = max(1, CHUNK // max(1, game.draws * y.numel()))
    for start in range(0, len(members), each):
        part = members[start : start + each]
        v, influence = _log_shares(*game.shares(part, kept, given, median, distance))
        if start + each >= len(members):  # all noises kept is what happened
            v[-1], influence[-1] = 0.0, 0.0
        if start == 0:
            of_score = influence[0].std(0) / math.sqrt(game.draws)
        parts.append(v)
        own = whole[:, start : start + each]
        of_draws = of_draws + torch.einsum("pc,ck...->pk...", own, influence)
    v = torch.cat(parts)
    variance = of_draws.var(1) / game.draws
    if not plan.exact:
        variance = variance + torch.einsum("opc,c...->op...", weights, v).var(0) / len(weights)
    return torch.einsum("pc,c...->p...", whole, v), variance.sqrt(), -v[0], of_score


def _log_shares(shares: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of weighted means over the draws, dim 1, and what each draw moves them by."""
    weights = weights / weights.mean(1, keepdim=True)
    mean = (weights * shares).mean(1)
    # an event that no draw shows is as rare as half a draw
    mean = torch.where(mean > LEAST, mean, 0.5 / shares.shape[1])
    return mean.log(), weights * (shares / mean.unsqueeze(1) - 1)


def _diagnostics(
    posterior: Posterior, plan: Plan, game: TailGame, arrows: Any, above: set[str]
) -> QueryDiagnostics:
    sums = "all coalitions" if plan.exact else f"{2 * len(plan.weights)} random orders"
    why = f"Shapley sums over {sums}, {game.draws} draws of the noises; {posterior._draws.why}"
    form = posterior._form
    mechanisms = {
        n: getattr(form.sites[n].mechanism, "name", "?") for n in game.players if tuple(arrows[n])
    }
    return QueryDiagnostics(posterior._draws.method, why, mechanisms, posterior._draws.notes)


def _result(
    target: str,
    sites: list[str],
    players: list[str],
    solutions: list[tuple[Tensor, Tensor, Tensor, Tensor]],
    diagnostics: QueryDiagnostics,
) -> AnomalyAttribution:
    values, errors, scores, score_errors = (
        torch.stack(column) for column in zip(*solutions, strict=True)
    )
    found = {}
    for name in sites:
        text = f"the part of {target}'s tail score that the noise of {name} explains"
        if name in players:
            i = players.index(name)
            found[name] = _estimate(values[:, i], errors[:, i], text, diagnostics)
        else:
            zero = torch.zeros(values.shape[2:], dtype=torch.float64)
            found[name] = _exact_zero(zero, text, diagnostics)
    text = f"-log P(|{target} - median| >= |observed - median|)"
    return AnomalyAttribution(target, _estimate(scores, score_errors, text, diagnostics), found)


def _estimate(draws: Tensor, errors: Tensor, text: str, diagnostics: QueryDiagnostics) -> Estimate:
    """Posterior draws ``(draws,) + target shape`` with the Monte Carlo error of each, which they share."""
    mean, error = draws.mean(0), errors.mean(0)
    several = len(draws) > 1
    low = high = mean
    if several:
        ends = torch.tensor([0.025, 0.975], dtype=draws.dtype)
        low, high = torch.quantile(draws, ends, dim=0).unbind(0)
        error = (error**2 + draws.var(0) / len(draws)).sqrt()
    else:
        low, high = mean - 1.959963984540054 * error, mean + 1.959963984540054 * error
    kept = draws.numpy() if several else None
    return Estimate(
        _plain(mean), (_plain(low), _plain(high)), _plain(error), kept, 3, False, diagnostics, text
    )


def _exact_zero(zero: Tensor, text: str, diagnostics: QueryDiagnostics) -> Estimate:
    value = _plain(zero)
    return Estimate(value, (value, value), value, None, 3, True, diagnostics, text)


def _plain(value: Tensor) -> Any:
    return float(value) if value.dim() == 0 else value.numpy()
