"""Trained guides against closed forms and enumeration, for every subset of what is observed."""

from __future__ import annotations

from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import causalppl as cp

from .programs import (
    PRIOR,
    linear,
    linear_cases,
    linear_posterior,
    mixture,
    mixture_posterior,
    people,
    schools,
    schools_posterior,
)

# --- Linear and normal ------------------------------------------------------------------------------------------------


def errors_of(guide: Any, data: list[Tensor], shown: tuple[bool, ...]) -> tuple[Tensor, Tensor]:
    """Mean absolute error of means, in prior standard deviations, and relative error of spreads, by dimension."""
    means, spreads = [], []
    for case in range(len(data[0])):
        evidence = {f"y{i}": data[i][case] for i, there in enumerate(shown) if there}
        draws = guide.sample(evidence, 2000, seed=case)
        both = torch.cat([draws["a"], draws["b"]], -1)
        means.append(both.mean(0))
        spreads.append(both.std(0))
    mean, spread = linear_posterior(data, shown)
    off = ((torch.stack(means) - mean).abs() / PRIOR).mean(0)
    return off, (torch.stack(spreads) / spread - 1).abs().mean(0)


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["spline", "gaussian"])
def test_every_subset_of_three_sites_within_two_thousand_steps(flow: str) -> None:
    guide = cp.AmortizedGuide(linear, observed=["y0", "y1", "y2"], flow=flow, seed=0)()
    guide.fit(steps=2000, learning_rate=3e-3)
    data = linear_cases(50, seed=5)
    for shown in product([False, True], repeat=3):
        off, spread = errors_of(guide, data, shown)
        assert float(off.max()) < 0.05, (shown, off)
        assert float(spread.max()) < 0.10, (shown, spread)


@pytest.fixture(scope="module")
def short_linear() -> Any:
    guide = cp.AmortizedGuide(
        linear, observed=["y0", "y1", "y2"], flow="gaussian", width=48, seed=0
    )()
    guide.fit(steps=500, learning_rate=4e-3, batch_size=128)
    return guide


def test_a_short_training_is_roughly_right_for_every_subset(short_linear: Any) -> None:
    data = linear_cases(20, seed=5)
    for shown in product([False, True], repeat=3):
        off, spread = errors_of(short_linear, data, shown)
        assert float(off.max()) < 0.2 and float(spread.max()) < 0.3, (shown, off, spread)


def test_weights_make_a_rough_guide_exact(short_linear: Any) -> None:
    data = linear_cases(4, seed=6)
    for case, shown in enumerate([(True, True, True), (True, False, True), (False, True, True)]):
        evidence = {f"y{i}": data[i][case] for i, there in enumerate(shown) if there}
        posterior = cp.abduct(linear, evidence, method=short_linear, num_samples=4000, seed=case)()
        found = posterior.predict().diagnostics
        assert found.pareto_k < 0.7
        draws = torch.cat([posterior.latents["a"], posterior.latents["b"]], -1)
        mean, spread = linear_posterior([y[case : case + 1] for y in data], shown)
        error = spread * (1 / min(found.ess, 4000)) ** 0.5
        assert bool(((draws.mean(0) - mean[0]).abs() < 5 * error).all())
        assert bool((draws.std(0) / spread - 1).abs().max() < 5 * (0.5 / found.ess) ** 0.5 + 0.02)


def test_effective_draws_beside_the_prior(short_linear: Any) -> None:
    """Where the posterior is sharp, draws of the guide are worth at least twenty times those of the prior."""
    data = linear_cases(3, seed=8)
    for case in range(3):
        evidence = {f"y{i}": data[i][case] for i in range(3)}
        count = 4000
        by_guide = cp.abduct(
            linear,
            evidence,
            method=cp.Amortized(short_linear, num_proposals=count),
            num_samples=count,
            seed=case,
        )()
        prior = cp.ImportanceSampling(num_proposals=count, warn=False)
        by_prior = cp.abduct(linear, evidence, method=prior, num_samples=count, seed=case)()
        ess = [p.predict().diagnostics.ess for p in (by_guide, by_prior)]
        assert ess[0] > 20 * ess[1], ess


# --- Discrete and continuous ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_mixture() -> Any:
    guide = cp.AmortizedGuide(mixture, observed=["y", "hint"], width=32, seed=0)()
    guide.fit(steps=500, learning_rate=5e-3, batch_size=128)
    return guide


CASES = [(y, hint) for y in (None, -2.0, 0.5, 3.0) for hint in (None, 0, 1)]


def check_mixture(guide: Any, share_off: float, mean_off: float) -> None:
    for y, hint in CASES:
        known = {"y": y, "hint": None if hint is None else float(hint)}
        draws = guide.sample({n: v for n, v in known.items() if v is not None}, 4000, seed=0)
        share = torch.bincount(draws["k"].long(), minlength=3) / 4000
        weights, mean = mixture_posterior(y, hint)
        assert bool(((share - weights).abs() < share_off).all()), (y, hint, share, weights)
        assert abs(float(draws["z"].mean()) - mean) < mean_off, (y, hint)


def test_a_discrete_and_a_continuous_site_against_enumeration(of_mixture: Any) -> None:
    check_mixture(of_mixture, 0.12, 0.2)


@pytest.mark.slow
def test_a_longer_training_comes_closer() -> None:
    guide = cp.AmortizedGuide(mixture, observed=["y", "hint"], seed=0)()
    guide.fit(steps=2000, learning_rate=3e-3)
    check_mixture(guide, 0.05, 0.1)


def test_weights_make_it_exact(of_mixture: Any) -> None:
    for y, hint in [(0.5, 1), (3.0, None), (None, 0)]:
        known = {"y": y, "hint": None if hint is None else float(hint)}
        evidence = {n: v for n, v in known.items() if v is not None}
        posterior = cp.abduct(mixture, evidence, method=of_mixture, num_samples=8000, seed=1)()
        share = torch.bincount(posterior.latents["k"].long(), minlength=3) / 8000
        weights, mean = mixture_posterior(y, hint)
        ess = posterior.predict().diagnostics.ess
        assert bool(
            ((share - weights).abs() < 4.5 * (weights * (1 - weights) / ess).sqrt() + 1e-3).all()
        )
        assert abs(float(posterior.latents["z"].mean()) - mean) < 4.5 * (2.0 / ess) ** 0.5


# --- Plates -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_people() -> Any:
    guide = cp.AmortizedGuide(people, observed=["x", "y"], flow="gaussian", width=32, seed=0)(8)
    guide.fit(steps=250, learning_rate=3e-3)
    return guide


def test_units_are_amortized_whatever_their_number(of_people: Any) -> None:
    x, y = torch.linspace(-2, 2, 50), torch.linspace(-2.5, 3, 50)
    posterior = cp.abduct(people, {"x": x, "y": y}, method=of_people, num_samples=2000, seed=0)(50)
    found = posterior.predict().diagnostics
    assert found.pareto_k.dims == ("people",) and found.pareto_k.shape == (50,)
    assert float(found.pareto_k.max()) < 0.7
    precision = 1 + 1 / 0.49 + 4.0
    mean = (x / 0.49 + 2 * y) / precision
    off = (posterior.latents["z"].mean(0) - mean).abs()
    assert float(off.max()) < 5 * (1 / precision / float(found.ess.min())) ** 0.5


def test_units_with_missing_values(of_people: Any) -> None:
    nan = float("nan")
    x, y = torch.tensor([1.0, nan, 1.0, nan]), torch.tensor([2.0, 2.0, nan, nan])
    posterior = cp.abduct(people, {"x": x, "y": y}, method=of_people, num_samples=4000, seed=0)(4)
    z = posterior.latents["z"]
    means = torch.tensor([(1 / 0.49 + 4) / (5 + 1 / 0.49), 4 / 5, 1 / 0.49 / (1 + 1 / 0.49), 0.0])
    spreads = torch.tensor([1 / (5 + 1 / 0.49), 1 / 5, 1 / (1 + 1 / 0.49), 1.0]).sqrt()
    ess = posterior.predict().diagnostics.ess.values
    assert bool(((z.mean(0) - means).abs() < 5 * spreads / torch.tensor(ess).sqrt()).all())
    factual = posterior.predict().tensor("x", world="factual")
    assert bool((factual[:, 0] == 1.0).all()) and float(factual[:, 1].std()) > 0.5
    # the missing x of a unit goes with its own z
    assert torch.corrcoef(torch.stack([factual[:, 3], z[:, 3]]))[0, 1] > 0.7


def test_what_units_share_is_pooled_over_them(of_schools: Any) -> None:
    generator = torch.Generator().manual_seed(4)
    for count in (3, 10):
        y = 1.5 + 1.2 * torch.randn(count, generator=generator)
        centre, spread, means = schools_posterior(y)
        draws = cp.abduct(
            schools, {"y": y}, method=cp.Amortized(of_schools, correct=False), seed=0
        )(count).latents
        assert abs(float(draws["mean"].mean()) - centre) < 0.5 * spread
        assert 0.7 < float(draws["mean"].std()) / spread < 1.4
        posterior = cp.abduct(schools, {"y": y}, method=of_schools, num_samples=4000, seed=0)(count)
        found = posterior.predict().diagnostics
        assert "draws of each unit of schools summed over" in found.why
        error = spread / min(found.ess, 2000) ** 0.5
        assert abs(float(posterior.latents["mean"].mean()) - centre) < 5 * error
        off = (posterior.latents["z"].mean(0) - means).abs().max()
        assert float(off) < 5 * (0.6 / min(found.ess, 2000)) ** 0.5


@pytest.fixture(scope="module")
def of_schools() -> Any:
    guide = cp.AmortizedGuide(schools, observed=["y"], flow="gaussian", width=32, seed=0)(10)
    guide.fit(steps=300, learning_rate=3e-3, batch_size=32)
    return guide


def pupils(schools: int, each: int) -> None:
    """Units in units: a mean, the schools' values, and the pupils' marks."""
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    with pyro.plate("schools", schools, dim=-1):
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        with pyro.plate("pupils", each, dim=-2):
            pyro.sample("y", dist.Normal(z, 1.0))


def test_plates_in_plates_are_pooled_from_the_inside_out() -> None:
    """The marks of a school count by their mean, whose variance is 1 / 4."""
    guide = cp.AmortizedGuide(pupils, observed=["y"], flow="gaussian", width=32, seed=0)(6, 4)
    guide.fit(steps=200, learning_rate=5e-3, batch_size=32)
    generator = torch.Generator().manual_seed(2)
    z = 1.0 + torch.randn(5, generator=generator)
    y = z + torch.randn(4, 5, generator=generator)
    posterior = cp.abduct(pupils, {"y": y}, method=guide, num_samples=4000, seed=0)(5, 4)
    found, marks = posterior.predict().diagnostics, y.mean(0)
    assert "weights of mean, with 8 draws of each unit of schools summed over" in found.why
    precision = 1 / 4 + 5 / 1.25
    centre = float(marks.sum() / 1.25 / precision)
    few = min(found.ess, 2000)
    assert abs(float(posterior.latents["mean"].mean()) - centre) < 5 * (1 / precision / few) ** 0.5
    means = (marks + 0.25 * centre) / 1.25
    off = (posterior.latents["z"].mean(0) - means).abs().max()
    assert float(off) < 5 * (0.3 / few) ** 0.5


def coupled() -> None:
    """What is seen of the units is their sum, so that they depend on each other."""
    with pyro.plate("units", 2):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("total", dist.Normal(z.sum(), 1.0))


def test_units_that_depend_on_each_other_are_weighed_together() -> None:
    """Given a total of 3 each is 1, with variances 2/3 and correlation -1/2."""
    guide = cp.AmortizedGuide(coupled, observed=["total"], flow="gaussian", width=16, seed=0)()
    guide.fit(steps=120, learning_rate=1e-2, batch_size=64)
    method = cp.Amortized(guide, num_proposals=20_000)
    posterior = cp.abduct(coupled, {"total": 3.0}, method=method, num_samples=5000, seed=0)()
    found = posterior.predict().diagnostics
    assert "joint weights: units of units depend on each other's latents" in found.why
    assert any("units of 'z' depend on each other given 'total'" in note for note in found.notes)
    z = posterior.latents["z"].double()
    few = min(5000.0, found.ess)
    assert bool(((z.mean(0) - 1.0).abs() < 5 * (2 / 3 / few) ** 0.5).all())
    assert abs(float(torch.cov(z.T)[0, 1]) + 1 / 3) < 5 * (0.6 / few) ** 0.5


# --- Supports, counts, what the data do not reach ----------------------------------------------------------------------


def odd() -> None:
    """Latents on the half line, the simplex and the whole numbers, and sites that nothing observed depends on."""
    rate = pyro.sample("rate", dist.Gamma(3.0, 1.0))
    shares = pyro.sample("shares", dist.Dirichlet(torch.tensor([2.0, 2.0, 3.0])))
    count = pyro.sample("count", dist.Poisson(rate))
    kind = pyro.sample("kind", dist.OneHotCategorical(shares))
    weight = torch.tensor([-1.0, 0.0, 1.0])
    seen = pyro.sample("seen", dist.Normal(count + (kind * weight).sum(-1), 0.5))
    shown = pyro.deterministic("shown", 2 * seen)
    pyro.sample("later", dist.Normal(rate + 0.0 * shown, 0.1))


@pytest.mark.slow
def test_supports_counts_and_what_the_data_do_not_reach() -> None:
    """Weighed draws of the guide and of the prior agree."""
    guide = cp.AmortizedGuide(odd, observed=["seen"], flow="gaussian", seed=0)()
    guide.fit(steps=250, learning_rate=3e-3)
    assert set(guide.latent) == {"rate", "shares", "count", "kind"}
    own = cp.abduct(odd, {"seen": 4.2}, method=guide, num_samples=8000, seed=0)()
    by_prior = cp.ImportanceSampling(num_proposals=80_000)
    other = cp.abduct(odd, {"seen": 4.2}, method=by_prior, num_samples=8000, seed=1)()
    assert own.predict().diagnostics.pareto_k < 0.7
    assert float((own.latents["shares"].sum(-1) - 1).abs().max()) < 1e-5
    ess = min(float(p.predict().diagnostics.ess) for p in (own, other))
    for name in ("rate", "shares", "count", "kind", "later"):
        mine, theirs = own.latents[name], other.latents[name]
        error = (2 * theirs.var(0) / ess).sqrt()
        assert bool(((mine.mean(0) - theirs.mean(0)).abs() < 4.5 * error + 1e-3).all()), name
    together = torch.corrcoef(torch.stack([own.latents["rate"], own.latents["later"]]))
    assert together[0, 1] > 0.95  # what the program draws goes with what the guide drew


def branching() -> None:
    """Python looks at a value, so that runs cannot be batched, and no gradient reaches it."""
    k = pyro.sample("k", dist.Bernoulli(0.4))
    centre = 3.0 if k.item() > 0.5 else -1.0
    pyro.sample("y", dist.Normal(centre, 1.0))


@pytest.mark.filterwarnings("ignore:the program cannot be batched")
def test_a_simulator_without_gradients() -> None:
    guide = cp.AmortizedGuide(branching, observed=["y"], width=16, seed=0)()
    guide.fit(steps=30, learning_rate=1e-2, batch_size=64)
    posterior = cp.abduct(branching, {"y": 1.2}, method=guide, seed=0)()
    odds = 0.4 / 0.6 * torch.exp(torch.tensor(-0.5 * (1.2 - 3) ** 2 + 0.5 * (1.2 + 1) ** 2))
    share = float(odds / (1 + odds))
    assert (
        abs(float(posterior.latents["k"].mean()) - share)
        < 4.5 * (share * (1 - share) / 1000) ** 0.5
    )


def test_training_is_reproducible_and_leaves_the_generator_alone() -> None:
    def trained() -> Tensor:
        guide = cp.AmortizedGuide(mixture, observed=["y"], width=16, seed=3)()
        guide.fit(steps=20)
        return guide.sample({"y": 1.0}, 50, seed=1)["z"]

    state = torch.get_rng_state()
    first, second = trained(), trained()
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
