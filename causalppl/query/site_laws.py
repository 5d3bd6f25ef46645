"""Laws of scalar sites that are continuous or have infinitely many values, in float64: distribution functions and means.

Families that scipy has are read off it, with accurate tails; others need a distribution function of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..structural.form import StructuralForm
from ..structural.sites import site_kind
from ..typing import Message
from .distributions import doubled, unwrapped

__all__ = ["NoLaw", "SiteLaw", "SiteLaws", "cell_probabilities", "law_of"]

Floats = NDArray[np.float64]

#: Probability that is left out at either end where values or quantiles are listed.
TAIL = 1e-15
#: Values of a discrete site that are listed at most.
ATOMS = 1_000_000


class NoLaw(Exception):
    """Nothing is known of a site's law."""


@dataclass(frozen=True, eq=False)
class SiteLaw:
    """A law on the real line.

    Attributes:
        below: ``P(Y < y)``, for arrays.
        upto: ``P(Y <= y)``.
        quantile: the least value that ``upto`` takes to a probability.
        density: with respect to length, or to counting where it is discrete; ``None`` where unknown.
        mean: NaN where there is none, or none in closed form.
        discrete: whether all values are integers; otherwise the law has no atoms.
    """

    below: Callable[[Floats], Floats]
    upto: Callable[[Floats], Floats]
    quantile: Callable[[Floats], Floats]
    density: Callable[[Floats], Floats] | None
    mean: float
    discrete: bool

    def atoms(self) -> Floats:
        """The values of a discrete law, but for tails of probability ``TAIL``.

        Raises:
            NoLaw: they are too many.
        """
        low, high = self.quantile(np.array([TAIL, 1 - TAIL]))
        if not high - low < ATOMS:
            raise NoLaw
        return np.arange(low, high + 1)


class SiteLaws:
    """The laws of a program's sites given their parents, by running it at the values in question.

    Args:
        form: a program whose values Python does not see.
    """

    def __init__(self, form: StructuralForm) -> None:
        self._form = form
        self._known: dict[tuple[str, tuple[tuple[str, float], ...]], SiteLaw] = {}

    def given(self, site: str, parents: Mapping[str, float]) -> SiteLaw:
        """The law of a site where its parents have these values.

        Raises:
            NoLaw: its family has no distribution function.
        """
        key = (site, tuple(parents.items()))
        if key not in self._known:
            self._known[key] = law_of(self._distribution(site, parents))
        return self._known[key]

    def _distribution(self, site: str, parents: Mapping[str, float]) -> Any:
        found: list[Any] = []

        def rule(msg: Message) -> Tensor:
            name = msg["name"]
            if name == site:
                found.append(msg["fn"])
            if site_kind(msg) == "factor":
                return msg["value"]  # type: ignore[no-any-return]
            own: Tensor = self._form.sites[name].value
            return (
                torch.tensor(parents[name], dtype=torch.float64).to(own) if name in parents else own
            )

        with torch.random.fork_rng(devices=[]), torch.no_grad():
            self._form.run(rule)
        return found[0]


def law_of(fn: Any) -> SiteLaw:
    """The law of a scalar distribution.

    Raises:
        NoLaw: neither scipy nor torch has its distribution function.

    Example:
        >>> import pyro.distributions as dist
        >>> law = law_of(dist.Exponential(2.0))
        >>> float(law.mean), float(law.upto(np.array(0.0)))
        (0.5, 0.0)
    """
    from scipy import stats  # loaded where it is used

    exact = doubled(unwrapped(fn))
    for kind in type(exact).__mro__:
        if kind.__module__.startswith(("torch.", "pyro.")) and kind.__name__ in _FAMILIES:
            return _by_scipy(_FAMILIES[kind.__name__](stats, exact))
    return _by_torch(exact)


def cell_probabilities(law: SiteLaw, thresholds: Sequence[float]) -> dict[float, float]:
    """A law as that of a cell: ``2 i + 1`` is the ``i``-th threshold, even numbers what lies between two.

    Example:
        >>> import pyro.distributions as dist
        >>> cell_probabilities(law_of(dist.Normal(0.0, 1.0)), [0.0])
        {0.0: 0.5, 1.0: 0.0, 2.0: 0.5}
    """
    at = np.array(thresholds)
    below, upto = law.below(at), law.upto(at)
    found: dict[float, float] = {}
    reached = 0.0
    for i in range(len(at)):
        found[float(2 * i)] = max(0.0, float(below[i]) - reached)
        found[float(2 * i + 1)] = max(0.0, float(upto[i]) - float(below[i]))
        reached = float(upto[i])
    found[float(2 * len(at))] = max(0.0, 1.0 - reached)
    return found


def _number(value: Any) -> float:
    return float(torch.as_tensor(value).double())


def _location_scale(name: str) -> Callable[[Any, Any], Any]:
    return lambda stats, fn: getattr(stats, name)(_number(fn.loc), _number(fn.scale))


#: Family to scipy's distribution of the same parameters.
_FAMILIES: dict[str, Callable[[Any, Any], Any]] = {
    "Normal": _location_scale("norm"),
    "Laplace": _location_scale("laplace"),
    "Cauchy": _location_scale("cauchy"),
    "Gumbel": _location_scale("gumbel_r"),
    "Logistic": _location_scale("logistic"),
    "LogNormal": lambda stats, fn: stats.lognorm(
        _number(fn.scale), scale=math.exp(_number(fn.loc))
    ),
    "HalfNormal": lambda stats, fn: stats.halfnorm(scale=_number(fn.scale)),
    "HalfCauchy": lambda stats, fn: stats.halfcauchy(scale=_number(fn.scale)),
    "Exponential": lambda stats, fn: stats.expon(scale=1 / _number(fn.rate)),
    "Uniform": lambda stats, fn: stats.uniform(_number(fn.low), _number(fn.high) - _number(fn.low)),
    "Weibull": lambda stats, fn: stats.weibull_min(
        _number(fn.concentration), scale=_number(fn.scale)
    ),
    "Pareto": lambda stats, fn: stats.pareto(_number(fn.alpha), scale=_number(fn.scale)),
    "Gamma": lambda stats, fn: stats.gamma(_number(fn.concentration), scale=1 / _number(fn.rate)),
    "Beta": lambda stats, fn: stats.beta(_number(fn.concentration1), _number(fn.concentration0)),
    "StudentT": lambda stats, fn: stats.t(_number(fn.df), _number(fn.loc), _number(fn.scale)),
    "FisherSnedecor": lambda stats, fn: stats.f(_number(fn.df1), _number(fn.df2)),
    "Poisson": lambda stats, fn: stats.poisson(_number(fn.rate)),
    # failures before the first success; scipy counts trials
    "Geometric": lambda stats, fn: stats.geom(_number(fn.probs), loc=-1),
    "NegativeBinomial": lambda stats, fn: stats.nbinom(
        _number(fn.total_count), _number(torch.sigmoid(-torch.as_tensor(fn.logits)))
    ),
}


def _by_scipy(law: Any) -> SiteLaw:
    if not all(np.isfinite(v) for v in (*law.args, *law.kwds.values())):
        raise NoLaw
    mean = float(law.mean())
    if hasattr(law, "pmf"):
        return SiteLaw(lambda y: law.cdf(np.ceil(y) - 1), law.cdf, law.ppf, law.pmf, mean, True)
    return SiteLaw(law.cdf, law.cdf, law.ppf, law.pdf, mean, False)


def _by_torch(fn: Any) -> SiteLaw:
    """By the family's own distribution function, where it has one."""
    support = getattr(fn, "support", None)
    if fn.shape() != () or support is None or support.is_discrete or support.event_dim:
        raise NoLaw
    low = _number(getattr(support, "lower_bound", -math.inf))
    high = _number(getattr(support, "upper_bound", math.inf))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        anywhere = float(fn.sample())

    def upto(y: Floats) -> Floats:
        inside = (y > low) & (y < high)
        with torch.no_grad():
            found = fn.cdf(torch.as_tensor(np.where(inside, y, anywhere))).double().numpy()
        if not np.isfinite(found).all():
            raise NoLaw
        return np.where(inside, found, np.asarray(y >= high, dtype=float))

    try:
        upto(np.array([anywhere]))
    except (NotImplementedError, AttributeError):
        raise NoLaw from None
    return SiteLaw(upto, upto, lambda p: _bisected(upto, p, low, high), None, _mean(fn), False)


def _mean(fn: Any) -> float:
    try:
        return _number(fn.mean)
    except NotImplementedError:
        return math.nan


def _bisected(upto: Callable[[Floats], Floats], p: Floats, low: float, high: float) -> Floats:
    """Quantiles of a distribution function, to a rounding."""
    left = np.full(np.shape(p), max(low, -1.0))
    right = np.full(np.shape(p), min(high, max(1.0, 2 * abs(low) if math.isfinite(low) else 1.0)))
    for _ in range(200):  # until both ends are outside
        far_left, far_right = upto(left) > p, upto(right) < p
        if not far_left.any() and not far_right.any():
            break
        left = np.where(far_left, np.maximum(2 * left - 1, low), left)
        right = np.where(far_right, np.minimum(2 * right + 1, high), right)
    for _ in range(100):
        middle = (left + right) / 2
        more = upto(middle) < p
        left, right = np.where(more, middle, left), np.where(more, right, middle)
    return right
