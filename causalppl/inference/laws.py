"""What every inference method has to satisfy, as one call: small programs whose posteriors are known, and what a result must say.

The answers are closed forms, sums or quadrature in float64 and share no code with the methods.

Example:
    Under pytest, for a method of one's own::

        @pytest.mark.parametrize("case", CASES, ids=str)
        def test_my_method(case):
            check_method(MyMethod(), [case])

    >>> import causalppl as cp
    >>> check_method(cp.Enumeration(), [FINITE])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ..progress import SilentProgress
from ..structural.form import ROW, StructuralForm
from ..typing import Program
from .posterior_draws import Method, PosteriorDraws

__all__ = [
    "CASES",
    "CONFOUNDER",
    "FINITE",
    "LINEAR",
    "UNITS",
    "MethodLawError",
    "PosteriorCase",
    "check_method",
]

#: Standard errors that a mean may be off. Draws are seeded, so what passes keeps passing; a dozen of numbers are looked at.
_ERRORS = 4.5


class MethodLawError(AssertionError):
    """A method breaks a law."""


@dataclass(frozen=True)
class PosteriorCase:
    """A program whose posterior is known.

    Args:
        name: of the case.
        model: the program, which takes no arguments.
        evidence: of the program.
        mean: latent site to the posterior's mean, of the site's shape.
        sd: latent site to the posterior's standard deviation; of a variable of two values it follows from the mean.
        kurtosis: latent site to the fourth central moment over the squared variance, 3 for a normal.
        correlation: of the first entries of two sites, where there are two.
    """

    name: str
    model: Program
    evidence: Mapping[str, Any]
    mean: Mapping[str, np.ndarray]
    sd: Mapping[str, np.ndarray]
    kurtosis: Mapping[str, float]
    correlation: tuple[str, str, float] | None = None

    def __str__(self) -> str:
        return self.name


# --- Programs and their posteriors --------------------------------------------------------------------------------


def _linear_model() -> None:
    a = pyro.sample("a", dist.Normal(0.0, 2.0))
    b = pyro.sample("b", dist.Normal(1.0, 1.0))
    with pyro.plate("people", 5):
        x = torch.tensor([0.2, 1.1, -0.4, 1.9, 0.7])
        pyro.sample("y", dist.Normal(a + b * x, 0.8))


def _linear() -> PosteriorCase:
    r"""Bayesian linear regression: precision :math:`\Lambda = V^{-1} + X'X / s^2`, mean :math:`\Lambda^{-1}(V^{-1} m + X'y / s^2)`."""
    y = np.array([1.4, 2.0, 0.1, 3.2, 1.6])
    design = np.column_stack([np.ones(5), [0.2, 1.1, -0.4, 1.9, 0.7]])
    prior = np.diag([1 / 4, 1.0])
    cov = np.linalg.inv(prior + design.T @ design / 0.64)
    mean = cov @ (prior @ [0.0, 1.0] + design.T @ y / 0.64)
    sd = np.sqrt(np.diag(cov))
    return PosteriorCase(
        "linear",
        _linear_model,
        {"y": torch.tensor(y)},
        {"a": mean[0], "b": mean[1]},
        {"a": sd[0], "b": sd[1]},
        {"a": 3.0, "b": 3.0},
        ("a", "b", float(cov[0, 1] / sd[0] / sd[1])),
    )


def _units_model() -> None:
    with pyro.plate("units", 6):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 0.7))


def _units() -> PosteriorCase:
    """One normal observation of a standard normal for each unit: mean y / (1 + s^2), variance s^2 / (1 + s^2)."""
    y = np.linspace(-1.5, 1.5, 6)
    return PosteriorCase(
        "units",
        _units_model,
        {"y": torch.tensor(y)},
        {"z": y / 1.49},
        {"z": np.full(6, math.sqrt(0.49 / 1.49))},
        {"z": 3.0},
    )


def _finite_model() -> None:
    a = pyro.sample("a", dist.Bernoulli(0.3))
    b = pyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
    pyro.sample("y", dist.Normal(a + 2 * b, 1.5))


def _finite() -> PosteriorCase:
    """Four assignments, weighed by hand."""
    weights = np.zeros((2, 2))
    for a in (0, 1):
        for b in (0, 1):
            p = (0.3 if a else 0.7) * ((0.2 + 0.5 * a) if b else (0.8 - 0.5 * a))
            weights[a, b] = p * math.exp(-((1.2 - a - 2 * b) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    mean = {"a": weights[1].sum(), "b": weights[:, 1].sum()}
    sd = {n: math.sqrt(p * (1 - p)) for n, p in mean.items()}
    kurtosis = {n: float(1 / (p * (1 - p)) - 3) for n, p in mean.items()}
    between = (weights[1, 1] - mean["a"] * mean["b"]) / sd["a"] / sd["b"]
    return PosteriorCase(
        "finite",
        _finite_model,
        {"y": 1.2},
        {n: np.array(m) for n, m in mean.items()},
        {n: np.array(s) for n, s in sd.items()},
        kurtosis,
        ("a", "b", float(between)),
    )


def _confounder_model() -> None:
    with pyro.plate("units", 4):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        x = pyro.sample("x", dist.Bernoulli(logits=z))
        pyro.sample("y", dist.Normal(x * (1 + z) + z, 0.5))


def _confounder() -> PosteriorCase:
    """A hidden reason of a treatment and its outcome, by quadrature on 8,001 points."""
    x, y = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.6, 0.4, 2.0, -0.8])
    z = np.linspace(-8, 8, 8001)
    logs = -(z**2) / 2 - np.log1p(np.exp(np.where(x[:, None] > 0.5, -z, z)))
    logs = logs - (y[:, None] - x[:, None] * (1 + z) - z) ** 2 / (2 * 0.25)
    weights = np.exp(logs - logs.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    mean = weights @ z
    sd = np.sqrt((weights * (z - mean[:, None]) ** 2).sum(1))
    return PosteriorCase(
        "confounder",
        _confounder_model,
        {"x": torch.tensor(x), "y": torch.tensor(y)},
        {"z": mean},
        {"z": sd},
        {"z": 3.0},
    )


LINEAR, UNITS, FINITE, CONFOUNDER = _linear(), _units(), _finite(), _confounder()
CASES = (LINEAR, UNITS, FINITE, CONFOUNDER)


# --- Laws ---------------------------------------------------------------------------------------------------------


def check_method(
    method: Method | Callable[[PosteriorCase], Method],
    cases: Iterable[PosteriorCase] = CASES,
    num_samples: int = 2000,
) -> None:
    """Check a method on small programs with known posteriors.

    The laws: posterior means, standard deviations and correlations agree within Monte Carlo error, at the effective sample size that
    the method reports; every latent site has a draw for each sample, in the site's shape and dtype; the result names its method and
    reason; one seed gives the same draws twice, another seed others, and torch's generator does not move.

    Args:
        method: the method, or a function that makes one for a case (a method that needs a guide).
        cases: those of :data:`CASES` that the method can serve.
        num_samples: draws.

    Raises:
        MethodLawError: a law is broken; it names the law, the case and the numbers.
    """
    for case in cases:
        own: Method = method if hasattr(method, "sample") else method(case)  # type: ignore[operator, assignment]
        state = torch.get_rng_state()
        found = _sample(own, case, num_samples, seed=0)
        if not torch.equal(state, torch.get_rng_state()):
            raise _broken("torch's generator is left alone", case, "its state has changed")
        _check_complete(found, case, num_samples)
        _check_moments(found, case)
        _check_seeds(own, found, case, num_samples)


def _sample(method: Method, case: PosteriorCase, num_samples: int, seed: int) -> PosteriorDraws:
    form = StructuralForm(case.model, (), {}, case.evidence, seed)
    return method.sample(form, num_samples, SilentProgress())


def _broken(law: str, case: PosteriorCase, what: str) -> MethodLawError:
    return MethodLawError(f"{law}: case {case.name!r}: {what}")


def _check_complete(found: PosteriorDraws, case: PosteriorCase, num_samples: int) -> None:
    form = StructuralForm(case.model, (), {}, case.evidence, 0)
    law = "every latent site has its draws"
    if set(found.latents) - {ROW} != set(form.latent):
        raise _broken(law, case, f"got {sorted(found.latents)}, not {sorted(form.latent)}")
    if found.num_samples != num_samples:
        raise _broken(law, case, f"{found.num_samples} draws, not {num_samples}")
    for name, site in form.latent.items():
        draws, expected = found.latents[name], (num_samples, *site.value.shape)
        if tuple(draws.shape) != expected or draws.dtype != site.value.dtype:
            raise _broken(
                law,
                case,
                f"{name!r} has {tuple(draws.shape)} {draws.dtype}, not {expected} {site.value.dtype}",
            )
        if not bool(torch.isfinite(draws).all()):
            raise _broken(law, case, f"{name!r} has draws that are not finite")
    law = "a result says what it is"
    if not found.method or not found.why:
        raise _broken(law, case, f"method {found.method!r}, why {found.why!r}")
    if found.ess is None:
        raise _broken(law, case, "no effective sample size")
    for value in (found.ess, found.pareto_k):
        if isinstance(value, Tensor) and value.dim() != len(found.unit_names):
            raise _broken(
                law, case, f"units {found.unit_names} for a diagnostic of {tuple(value.shape)}"
            )


def _check_moments(found: PosteriorDraws, case: PosteriorCase) -> None:
    """At ``n`` effective draws a mean has the error sd / sqrt(n), and an sd the error sd sqrt((kurtosis - 1) / 4 n)."""
    least = float(torch.as_tensor(found.ess).min())
    effective = min(least, found.num_samples)
    if effective < 100:
        raise _broken("enough effective draws", case, f"{effective:.0f} of {found.num_samples}")
    # resampling from weights that are worth less than all draws adds their noise to that of the draws themselves
    size = 1 / (1 / effective + 1 / found.num_samples)
    for name, mean in case.mean.items():
        draws = found.latents[name].double().numpy()
        sd = case.sd[name]
        off = np.abs(draws.mean(0) - mean) / (sd / math.sqrt(size))
        if off.max() > _ERRORS:
            raise _broken(
                "posterior means agree",
                case,
                f"{name!r} has mean {draws.mean(0)}, exact {mean}: {off.max():.1f} standard errors",
            )
        error = math.sqrt(max(case.kurtosis[name] - 1, 0.05) / 4 / size)
        wrong = np.abs(draws.std(0) / sd - 1) / error
        if wrong.max() > _ERRORS:
            raise _broken(
                "posterior standard deviations agree",
                case,
                f"{name!r} has sd {draws.std(0)}, exact {sd}: {wrong.max():.1f} standard errors",
            )
    if case.correlation is not None:
        a, b, exact = case.correlation
        ours = float(np.corrcoef(found.latents[a].double(), found.latents[b].double())[0, 1])
        if abs(ours - exact) > _ERRORS / math.sqrt(size):
            raise _broken(
                "posterior correlations agree",
                case,
                f"{a!r} and {b!r}: {ours:.3f}, exact {exact:.3f}",
            )


def _check_seeds(
    method: Method, first: PosteriorDraws, case: PosteriorCase, num_samples: int
) -> None:
    again = _sample(method, case, num_samples, seed=0)
    if any(not torch.equal(v, again.latents[n]) for n, v in first.latents.items()):
        raise _broken("a seed gives the same draws", case, "they differ")
    other = _sample(method, case, num_samples, seed=1)
    if all(torch.equal(v, other.latents[n]) for n, v in first.latents.items() if n != ROW):
        raise _broken("another seed gives other draws", case, "they are equal")
