"""Answers computed another way: enumeration, quadrature, rejection and couplings by scipy, one row at a time.

Nothing here imports causalppl, and nothing here is clever: loops, tables and textbook formulas in float64, so that
an agreement between a test and this file is evidence. test_closed_forms.py checks the file itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.integrate
import scipy.stats
import torch
from pyro.poutine.messenger import Messenger

# --- Couplings of one site between two worlds ---------------------------------------------------


def bernoulli_counterfactual(p: float, q: float, observed: int) -> float:
    """P(the other world's value is 1 | this world's value), monotone: u < p here, u < q there, one uniform u."""
    if observed:
        return min(p, q) / p
    return max(q - p, 0.0) / (1 - p)


def gumbel_max_joint(p: Sequence[float], q: Sequence[float]) -> np.ndarray:
    """P(argmax in the first world is i, in the second j) when both add the same Gumbels to log p and log q.

    In exponential clocks E_k: i is argmin E_k / p_k and j is argmin E_k / q_k. On the diagonal the integral over
    E_i is in closed form; off it, with E_j = r E_i, one integral over r in [p_j / p_i, q_j / q_i] remains.
    """
    n = len(p)
    table = np.zeros((n, n))
    for i, j in itertools.product(range(n), range(n)):
        others = [k for k in range(n) if k not in (i, j)]
        if p[i] == 0 or q[j] == 0:
            continue
        if i == j:
            table[i, i] = 1 / (1 + sum(max(p[k] / p[i], q[k] / q[i]) for k in others))
            continue
        low, high = p[j] / p[i], q[j] / q[i] if q[i] > 0 else math.inf
        if high <= low:
            continue

        def integrand(r: float, i: int = i, j: int = j, others: list[int] = others) -> float:
            rate = 1 + r + sum(max(p[k] / p[i], r * q[k] / q[j]) for k in others)
            return 1 / rate**2

        kinks = sorted(p[k] * q[j] / (p[i] * q[k]) for k in others if q[k] > 0)
        ends = [low, *[x for x in kinks if low < x < high], high]
        table[i, j] = sum(
            scipy.integrate.quad(integrand, a, b)[0] for a, b in itertools.pairwise(ends)
        )
    return table


def gumbel_max_rejection(
    p: Sequence[float], q: Sequence[float], observed: int, draws: int, seed: int
) -> np.ndarray:
    """Law of the second world's category given the first's, by throwing away the Gumbels that do not fit."""
    rng = np.random.default_rng(seed)
    gumbels = rng.gumbel(size=(draws, len(p)))
    with np.errstate(divide="ignore"):
        fits = (gumbels + np.log(p)).argmax(1) == observed
        there = (gumbels[fits] + np.log(q)).argmax(1)
    return np.bincount(there, minlength=len(q)) / fits.sum()


# --- The same for whole sites, from the distributions of two runs of a program ------------------


def unwrap(fn: Any) -> Any:
    """The distribution inside Independent, Expanded and Masked wrappers."""
    while True:
        if isinstance(fn, torch.distributions.Independent | dist.MaskedDistribution):
            fn = fn.base_dist
        elif isinstance(fn, dist.ExpandedDistribution):
            fn = fn.base_dist
        else:
            return fn


def _array(value: Any) -> np.ndarray:
    return np.asarray(torch.as_tensor(value).detach().cpu()).astype(np.float64)


def frozen(fn: Any) -> Any:
    """The scipy distribution with the same law as a univariate continuous Pyro distribution."""
    base = unwrap(fn)
    if isinstance(base, dist.LogNormal):
        return scipy.stats.lognorm(s=_array(base.scale), scale=np.exp(_array(base.loc)))
    if isinstance(base, dist.HalfNormal):
        return scipy.stats.halfnorm(scale=_array(base.scale))
    if isinstance(base, dist.Exponential):
        return scipy.stats.expon(scale=1 / _array(base.rate))
    if isinstance(base, dist.Uniform):
        low, high = _array(base.low), _array(base.high)
        return scipy.stats.uniform(loc=low, scale=high - low)
    if isinstance(base, dist.Weibull):
        return scipy.stats.weibull_min(c=_array(base.concentration), scale=_array(base.scale))
    if isinstance(base, dist.Gumbel):
        return scipy.stats.gumbel_r(loc=_array(base.loc), scale=_array(base.scale))
    simple = {
        dist.Normal: scipy.stats.norm,
        dist.Laplace: scipy.stats.laplace,
        dist.Cauchy: scipy.stats.cauchy,
        dist.Logistic: scipy.stats.logistic,
    }
    for family, law in simple.items():
        if isinstance(base, family):
            return law(loc=_array(base.loc), scale=_array(base.scale))
    raise NotImplementedError(type(base).__name__)


LOCATION_SCALE = (dist.Normal, dist.Laplace, dist.Cauchy, dist.Gumbel, dist.Logistic)


def coupled(here: Any, there: Any, value: Any) -> np.ndarray:
    """The other world's value of an invertible site: the same quantile of the other distribution.

    Location-scale families keep the standardised residual, which is the same map without the rounding of a CDF;
    each of the others goes through the nearer tail.
    """
    first, second, v = unwrap(here), unwrap(there), _array(value)
    if isinstance(first, dist.Delta):
        return np.broadcast_to(_array(second.v), v.shape)
    if isinstance(first, dist.MultivariateNormal):
        residual = v - _array(first.loc)
        noise = np.linalg.solve(_array(first.scale_tril), residual[..., None])
        return _array(second.loc) + (_array(second.scale_tril) @ noise)[..., 0]
    if isinstance(first, dist.LogNormal):
        noise = (np.log(v) - _array(first.loc)) / _array(first.scale)
        return np.exp(_array(second.loc) + _array(second.scale) * noise)
    if isinstance(first, LOCATION_SCALE):
        noise = (v - _array(first.loc)) / _array(first.scale)
        return _array(second.loc) + _array(second.scale) * noise
    law, other = frozen(here), frozen(there)
    low, high = law.cdf(v), law.sf(v)
    return np.where(low < high, other.ppf(low), other.isf(high))


def coupling_holds(here: Any, there: Any, value: Any, other: Any, rtol: float) -> np.ndarray:
    """Which entries of the other world's value are what the family's documented default coupling allows.

    Bernoulli, monotone: a one never becomes a zero where the probability rises, nor a zero a one where it falls.
    Categorical, Gumbel-max: the category changes from i to j only where odds moved towards j: q_j / p_j > q_i / p_i.
    (Both are necessary for any single draw; the probabilities are tested apart.)
    """
    first, second = unwrap(here), unwrap(there)
    v, w = _array(value), _array(other)
    slack = 1e-5
    if isinstance(first, dist.Bernoulli):
        p, q = _array(first.probs), _array(second.probs)
        return (v == w) | ((v == 0) & (q > p - slack)) | ((v == 1) & (q < p + slack))
    if isinstance(first, dist.Categorical):
        p, q = _array(first.probs), _array(second.probs)
        ratio = np.broadcast_to(q / np.maximum(p, 1e-300), (*v.shape, p.shape[-1]))
        i, j = v.astype(int)[..., None], w.astype(int)[..., None]
        gain = np.take_along_axis(ratio, j, -1) - np.take_along_axis(ratio, i, -1)
        return (v == w) | (gain[..., 0] > -slack)
    expected = coupled(here, there, value)
    size = np.abs(expected) + np.abs(v)
    if isinstance(first, (*LOCATION_SCALE, dist.MultivariateNormal)) and not isinstance(
        first, dist.LogNormal
    ):
        size = size + np.abs(_array(first.loc)) + np.abs(_array(second.loc)) + 1e-3
    if isinstance(first, dist.Uniform):
        size = size + np.abs(_array(second.low)) + np.abs(_array(second.high))
    return np.abs(w - expected) <= rtol * size


class Substitute(Messenger):
    """Run a program with the given values at its sites, and keep each site's distribution and natural value."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.values, self.fns, self.natural = values, {}, {}

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if type(msg["fn"]).__name__ == "_Subsample" or msg["infer"].get("is_auxiliary"):
            return
        self.fns[name] = msg["fn"]
        self.natural[name] = msg["value"]
        if name in self.values:
            msg["value"] = torch.as_tensor(self.values[name])
            msg["done"] = True


def run_at(model: Callable[..., Any], args: Iterable[Any], values: Mapping[str, Any]) -> Substitute:
    """One run of the program at the given values."""
    with Substitute(values) as run, torch.no_grad():
        model(*args)
    return run


def check_row(
    model: Callable[..., Any],
    args: Iterable[Any],
    here: Mapping[str, Any],
    there: Mapping[str, Any],
    intervened: Iterable[str],
    rtol: float = 1e-5,
) -> None:
    """Assert that one row of one world follows from one factual row, site by site, by this file's couplings.

    Every site is checked given its parents' values *in the row itself*, so a mistake upstream is blamed once.
    """
    args = tuple(args)
    first, second = run_at(model, args, here), run_at(model, args, there)
    for name, fn in second.fns.items():
        if name in intervened or name not in first.fns or name not in there:
            continue
        if isinstance(unwrap(fn), dist.Delta):  # deterministic sites too: their value is the code's
            natural = second.natural[name]
            natural = unwrap(fn).v if natural is None else natural
            np.testing.assert_allclose(
                _array(there[name]), _array(natural), rtol=rtol, atol=rtol, err_msg=name
            )
            continue
        holds = coupling_holds(first.fns[name], fn, here[name], there[name], rtol)
        assert holds.all(), (
            f"{name} ({type(unwrap(fn)).__name__}): {_array(here[name])} became {_array(there[name])}, "
            f"{(~holds).sum()} of {holds.size} entries are not what the coupling says"
        )


# --- Finite models by enumeration ---------------------------------------------------------------


def enumerate_noise(
    laws: Mapping[str, Mapping[Any, float]],
) -> Iterable[tuple[dict[str, Any], float]]:
    """All assignments of independent finite noises with their probabilities."""
    names = list(laws)
    for values in itertools.product(*(laws[name] for name in names)):
        noise = dict(zip(names, values, strict=True))
        yield noise, math.prod(laws[name][noise[name]] for name in names)


def conditional(
    laws: Mapping[str, Mapping[Any, float]],
    event: Callable[[dict[str, Any]], float],
    given: Callable[[dict[str, Any]], bool] = lambda noise: True,
) -> float:
    """E[event | given] over finite noises; an event is a 0/1 or any number."""
    rows = [(event(n), p) for n, p in enumerate_noise(laws) if given(n)]
    return sum(e * p for e, p in rows) / sum(p for _, p in rows)


def uniform_cells(cuts: Sequence[float]) -> dict[float, float]:
    """A Uniform(0, 1) noise cut where the answers change: midpoint of each cell to its length."""
    edges = sorted({0.0, 1.0, *[c for c in cuts if 0 < c < 1]})
    return {(a + b) / 2: b - a for a, b in itertools.pairwise(edges)}


def finite_posterior(
    model: Callable[..., Any],
    args: Sequence[Any],
    latents: Mapping[str, Iterable[Any]],
    evidence: Mapping[str, Any],
) -> dict[tuple[Any, ...], float]:
    """P(latents | evidence) of a program with scalar finite latents, by one run of it per assignment."""
    weights = {}
    for values in itertools.product(*latents.values()):
        given = dict(zip(latents, (torch.tensor(float(v)) for v in values), strict=True))
        conditioned = pyro.poutine.condition(model, data={**evidence, **given})
        with torch.no_grad():
            trace = pyro.poutine.trace(conditioned).get_trace(*args)
            weights[values] = float(torch.as_tensor(trace.log_prob_sum()))
    top = max(weights.values())
    scaled = {k: math.exp(w - top) for k, w in weights.items()}
    total = sum(scaled.values())
    return {k: w / total for k, w in scaled.items()}


# --- One latent number by quadrature ------------------------------------------------------------


def quadrature(
    log_density: Callable[[np.ndarray], np.ndarray],
    statistic: Callable[[np.ndarray], np.ndarray],
    low: float = -12.0,
    high: float = 12.0,
    points: int = 20_001,
) -> tuple[float, float]:
    """Posterior mean and standard deviation of a statistic of one latent, on a fine even grid."""
    z = np.linspace(low, high, points)
    logs = log_density(z)
    weights = np.exp(logs - logs.max())
    weights = weights / weights.sum()
    s = statistic(z)
    mean = float((weights * s).sum())
    return mean, float(np.sqrt((weights * (s - mean) ** 2).sum()))


# --- Conjugate normals --------------------------------------------------------------------------


def normal_posterior(
    prior_mean: np.ndarray,
    prior_cov: np.ndarray,
    design: np.ndarray,
    noise_sd: float,
    y: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of b given y = design b + N(0, noise_sd^2), b ~ N(prior_mean, prior_cov)."""
    precision = np.linalg.inv(prior_cov) + design.T @ design / noise_sd**2
    cov = np.linalg.inv(precision)
    mean = cov @ (np.linalg.solve(prior_cov, prior_mean) + design.T @ y / noise_sd**2)
    return mean, cov
