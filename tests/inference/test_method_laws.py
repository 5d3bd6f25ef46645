"""Every method obeys the laws of ``causalppl.inference.laws``; methods that are wrong in a known way are caught."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp
from causalppl.inference.choice import choose_and_sample
from causalppl.inference.laws import (
    CASES,
    CONFOUNDER,
    FINITE,
    LINEAR,
    UNITS,
    MethodLawError,
    PosteriorCase,
    check_method,
)
from causalppl.inference.posterior_draws import Method, PosteriorDraws


def guide_for(case: PosteriorCase) -> Method:
    """Draws near the posterior, half as wide again, that a person might have written."""

    def guide() -> None:
        for name, mean in case.mean.items():
            loc = torch.as_tensor(mean).float()
            scale = 1.5 * torch.as_tensor(case.sd[name]).float()
            if case is FINITE:
                pyro.sample(name, dist.Bernoulli(0.5))
            elif loc.dim():
                with pyro.plate("units", len(loc)):
                    pyro.sample(name, dist.Normal(loc, scale))
            else:
                pyro.sample(name, dist.Normal(loc, scale))

    return cp.ImportanceSampling(guide, num_proposals=20_000)


@dataclass(frozen=True)
class Chosen:
    """What ``method=None`` does."""

    def sample(self, form: Any, num_samples: int, progress: Any) -> PosteriorDraws:
        return choose_and_sample(form, num_samples, progress)


LAPLACE = cp.ImportanceSampling("laplace")
CONTINUOUS = (LINEAR, UNITS, CONFOUNDER)
METHODS: dict[str, tuple[Any, tuple[PosteriorCase, ...]]] = {
    "chosen": (Chosen(), CASES),
    "enumeration": (cp.Enumeration(), (FINITE,)),
    "prior": (cp.ImportanceSampling(num_proposals=40_000), CASES),
    "laplace": (LAPLACE, CONTINUOUS),
    "guide": (guide_for, CASES),
    "svi": (cp.SVI(learning_rate=0.05), (UNITS,)),
    "svi, full": (cp.SVI("auto_multivariate_normal", learning_rate=0.05), (LINEAR,)),
    "nuts": (cp.NUTS(chains=2, warmup=300), (LINEAR,)),
}
SLOW: dict[str, tuple[Any, tuple[PosteriorCase, ...]]] = {
    "nuts": (cp.NUTS(), (UNITS, CONFOUNDER)),
    "nuts by pyro": (cp.NUTS(sampler="pyro", chains=2, warmup=300), (LINEAR,)),
    "svi": (cp.SVI(learning_rate=0.05), (LINEAR, CONFOUNDER)),
}
PAIRS = [
    pytest.param(method, case, id=f"{name}-{case}", marks=[pytest.mark.slow] if slow else [])
    for slow, methods in ((False, METHODS), (True, SLOW))
    for name, (method, cases) in methods.items()
    for case in cases
]


@pytest.mark.parametrize(("method", "case"), PAIRS)
def test_laws(method: Any, case: PosteriorCase) -> None:
    check_method(method, [case])


# --- Methods that are wrong ---------------------------------------------------------------------


@dataclass(frozen=True)
class Bent:
    """A right method whose result is changed."""

    change: Any

    def sample(self, form: Any, num_samples: int, progress: Any) -> PosteriorDraws:
        return self.change(LAPLACE.sample(form, num_samples, progress), form)


def narrowed(found: PosteriorDraws, form: Any) -> PosteriorDraws:
    return _map(found, lambda v: v.mean(0) + 0.5 * (v - v.mean(0)))


def shifted(found: PosteriorDraws, form: Any) -> PosteriorDraws:
    return _map(found, lambda v: v + 0.15 * v.std(0))


def _map(found: PosteriorDraws, function: Any) -> PosteriorDraws:
    return replace(found, latents={n: function(v) for n, v in found.latents.items()})


def shuffled(found: PosteriorDraws, form: Any) -> PosteriorDraws:
    """Right for each site, and independent between sites."""
    generator = torch.Generator().manual_seed(0)
    return _map(found, lambda v: v[torch.randperm(len(v), generator=generator)])


def incomplete(found: PosteriorDraws, form: Any) -> PosteriorDraws:
    return replace(found, latents={"a": found.latents["a"]})


def silent(found: PosteriorDraws, form: Any) -> PosteriorDraws:
    return replace(found, ess=None)


def unexplained(found: PosteriorDraws, form: Any) -> PosteriorDraws:
    return replace(found, why="")


def in_another_dtype(found: PosteriorDraws, form: Any) -> PosteriorDraws:
    return _map(found, lambda v: v.double())


def unseeded(found: PosteriorDraws, form: Any) -> PosteriorDraws:
    with torch.random.fork_rng():
        torch.seed()
        return _map(found, lambda v: v + 1e-3 * torch.randn(v.shape))


def careless(found: PosteriorDraws, form: Any) -> PosteriorDraws:
    torch.rand(1)
    return found


class Frozen:
    """The same draws whatever the seed."""

    def sample(self, form: Any, num_samples: int, progress: Any) -> PosteriorDraws:
        form.seed = 0
        return LAPLACE.sample(form, num_samples, progress)


@pytest.mark.parametrize(
    ("method", "law"),
    [
        (Bent(narrowed), "standard deviations agree"),
        (Bent(shifted), "means agree"),
        (Bent(shuffled), "correlations agree"),
        (Bent(incomplete), "every latent site"),
        (Bent(in_another_dtype), "every latent site"),
        (Bent(silent), "says what it is"),
        (Bent(unexplained), "says what it is"),
        (Bent(unseeded), "a seed gives the same draws"),
        (Bent(careless), "generator is left alone"),
        (Frozen(), "another seed"),
    ],
    ids=lambda v: (
        v if isinstance(v, str) else getattr(getattr(v, "change", None), "__name__", "frozen")
    ),
)
def test_a_broken_method_is_caught(method: Any, law: str) -> None:
    with pytest.raises(MethodLawError, match=law):
        check_method(method, [LINEAR])


@pytest.mark.parametrize("case", [UNITS, CONFOUNDER], ids=str)
def test_an_overconfident_method_is_caught_in_plates_too(case: PosteriorCase) -> None:
    with pytest.raises(MethodLawError, match="standard deviations agree"):
        check_method(Bent(narrowed), [case])


def test_draws_worth_too_little_are_no_posterior() -> None:
    method = Bent(lambda found, form: replace(found, ess=20.0))
    with pytest.raises(MethodLawError, match="effective draws"):
        check_method(method, [LINEAR])
