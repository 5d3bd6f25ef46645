"""Quitting and weight by plain least squares and by a Laplace approximation, without causalppl."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyro
import pytest
import torch
from scipy.special import log_expit
from scipy.stats import halfnorm, norm

from models.smoking_cessation import COLUMNS, MODIFIERS, PUBLISHED, data, design, model, people

SIZES = {
    "quit_intercept": (),
    "quit_slopes": (len(COLUMNS),),
    "gain_intercept": (),
    "gain_slopes": (len(COLUMNS),),
    "effect": (),
    "effect_slopes": (len(MODIFIERS),),
    "gain_scale": (),
}


class Effect(NamedTuple):
    """An average effect of quitting, in kg, with its standard error."""

    value: float
    error: float


def standardised_effects() -> dict[str, Effect]:
    """Standardisation by least squares from the raw records: the outcome model's mean with everyone
    quitting less that with no one quitting, over all, over those who kept smoking, over those who quit.

    The columns are built here from the data's own, not by the model's ``design``. Standard errors are
    of the averages over these people, with the sandwich covariance of the coefficients (HC0).
    """
    d = people()
    indicators = [d["sex"], d["race"]]
    indicators += [d["education"] == level for level in (2, 3, 4, 5)]
    indicators += [d["exercise"] == level for level in (1, 2)]
    indicators += [d["active"] == level for level in (1, 2)]
    quantities = [d["age"], d["smokeintensity"], d["smokeyrs"], d["wt71"]]
    baseline = np.stack([np.ones(len(d)), *indicators, *quantities, *(q**2 for q in quantities)], 1)
    baseline = baseline.astype(float)
    modifiers = np.stack([np.ones(len(d)), d["sex"], *quantities], 1).astype(float)
    quit, gain = d["qsmk"].to_numpy(), d["wt82_71"].to_numpy()

    columns = np.concatenate([baseline, quit[:, None] * modifiers], 1)
    # Columns in their own units run from 1 to 10^4: scale them before the normal equations.
    size = np.sqrt((columns**2).mean(0))
    columns = columns / size
    bread = np.linalg.inv(columns.T @ columns)
    coefficients = bread @ columns.T @ gain
    meat = (columns * (gain - columns @ coefficients)[:, None] ** 2).T @ columns
    covariance = bread @ meat @ bread

    effects = {}
    groups = {"everyone": np.full(len(d), True), "kept_smoking": quit == 0, "quit": quit == 1}
    for name, group in groups.items():
        direction = np.concatenate([np.zeros(baseline.shape[1]), modifiers[group].mean(0)]) / size
        effects[name] = Effect(
            direction @ coefficients, math.sqrt(direction @ covariance @ direction)
        )
    return effects


def unpack(flat: torch.Tensor) -> dict[str, torch.Tensor]:
    """Parameters from one unconstrained vector; the scale is its exponential."""
    values, start = {}, 0
    for site, shape in SIZES.items():
        size = math.prod(shape)
        values[site] = flat[start : start + size].reshape(shape)
        start += size
    return {**values, "gain_scale": values["gain_scale"].exp()}


def log_joint() -> Callable[[torch.Tensor], torch.Tensor]:
    """The program's own log joint as a function of the parameters, by Pyro's handlers, in float64."""
    (covariates,), evidence = data()
    observed = {site: value.double() for site, value in evidence.items()}

    def of(flat: torch.Tensor) -> torch.Tensor:
        program = pyro.poutine.condition(model, {**observed, **unpack(flat)})
        return pyro.poutine.trace(program).get_trace(covariates.double()).log_prob_sum()

    return of


@pytest.fixture(scope="module")
def laplace() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Mode and covariance of the effect's parameters, effect first: a Gaussian approximation."""
    target = log_joint()
    size = sum(math.prod(shape) for shape in SIZES.values())
    flat = torch.zeros(size, dtype=torch.float64)
    flat[-1] = 2.0  # exp(2) is 7.4 kg, near the residual spread
    flat.requires_grad_()
    optimiser = torch.optim.LBFGS([flat], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = -target(flat)
        value.backward()
        return value

    optimiser.step(loss)
    mode = flat.detach()
    covariance = torch.linalg.inv(-torch.autograd.functional.hessian(target, mode))
    first = size - 1 - len(MODIFIERS) - 1
    return {"mode": mode[first:-1], "covariance": covariance[first:-1, first:-1]}


def laplace_effect(laplace: dict[str, torch.Tensor], group: torch.Tensor) -> Effect:
    (covariates,), _ = data()
    columns = [COLUMNS.index(name) for name in MODIFIERS]
    modifiers = covariates[group][:, columns].double().mean(0)
    direction = torch.cat([torch.ones(1, dtype=torch.float64), modifiers])
    variance = direction @ laplace["covariance"] @ direction
    return Effect((direction @ laplace["mode"]).item(), variance.sqrt().item())


def test_data_are_the_books() -> None:
    (covariates,), evidence = data()
    assert covariates.shape == (1566, len(COLUMNS))
    quit, gain = evidence["quit"], evidence["weight_gain"]
    assert quit.sum() == 403
    naive = gain[quit == 1].mean() - gain[quit == 0].mean()
    assert naive.item() == pytest.approx(PUBLISHED["unadjusted"], abs=0.005)


def test_design_is_well_conditioned() -> None:
    (covariates,), _ = data()
    assert covariates.mean(0).abs().max() < 0.06
    assert (covariates.std(0) > 0.25).all() and (covariates.std(0) < 1.2).all()
    with_intercept = torch.cat([torch.ones(len(covariates), 1), covariates], 1)
    assert torch.linalg.cond(with_intercept) < 10


def test_a_row_depends_on_its_own_record_alone() -> None:
    records = people()
    torch.testing.assert_close(design(records.iloc[[7]])[0], design(records)[7])
    assert design(records.iloc[[7]])[0, COLUMNS.index("age")] == pytest.approx(
        (records["age"].iloc[7] - 44) / 12
    )


def test_density_is_that_of_the_equations() -> None:
    (covariates,), evidence = data()
    c = covariates.double().numpy()
    quit, gain = (evidence[site].double().numpy() for site in ("quit", "weight_gain"))
    flat = torch.linspace(-1, 1, sum(math.prod(s) for s in SIZES.values()), dtype=torch.float64)
    p = {site: value.numpy() for site, value in unpack(flat).items()}
    logits = p["quit_intercept"] + c @ p["quit_slopes"]
    effects = p["effect"] + c[:, [COLUMNS.index(m) for m in MODIFIERS]] @ p["effect_slopes"]
    mean = p["gain_intercept"] + c @ p["gain_slopes"] + quit * effects
    expected = (
        log_expit(np.where(quit == 1, logits, -logits)).sum()
        + norm.logpdf(gain, mean, p["gain_scale"]).sum()
        + norm.logpdf(p["quit_intercept"], scale=2)
        + norm.logpdf(p["quit_slopes"], scale=1).sum()
        + norm.logpdf(p["gain_intercept"], scale=10)
        + norm.logpdf(p["gain_slopes"], scale=5).sum()
        + norm.logpdf(p["effect"], scale=10)
        + norm.logpdf(p["effect_slopes"], scale=2).sum()
        + halfnorm.logpdf(p["gain_scale"], scale=10)
    )
    assert log_joint()(flat).item() == pytest.approx(expected, rel=1e-6)


def test_least_squares_reproduces_the_book() -> None:
    effect = standardised_effects()["everyone"]
    published = PUBLISHED["standardisation"]
    assert effect.value == pytest.approx(published.value, abs=0.05)
    width = 2 * 1.96 * effect.error
    assert width == pytest.approx(published.high - published.low, rel=0.15)


def test_posterior_reproduces_the_book(laplace: dict[str, torch.Tensor]) -> None:
    effect = laplace_effect(laplace, torch.full((1566,), True))
    assert effect.value == pytest.approx(3.4, abs=0.4)
    assert effect.value > PUBLISHED["unadjusted"] + 0.5
    for name in ("ip_weighting", "standardisation"):
        published = PUBLISHED[name]
        assert 2 * 1.96 * effect.error == pytest.approx(published.high - published.low, rel=0.3)


@pytest.mark.parametrize("group", ["everyone", "kept_smoking", "quit"])
def test_posterior_agrees_with_least_squares(laplace: dict[str, torch.Tensor], group: str) -> None:
    _, evidence = data()
    who = {"everyone": evidence["quit"] >= 0, "kept_smoking": evidence["quit"] == 0}
    effect = laplace_effect(laplace, who.get(group, evidence["quit"] == 1))
    reference = standardised_effects()[group]
    # The priors are wide, not flat: they may move the answer by a small part of its standard error.
    assert effect.value == pytest.approx(reference.value, abs=0.15 * reference.error)
    # The model has one residual spread, the sandwich does not.
    assert effect.error == pytest.approx(reference.error, rel=0.15)


def test_effects_differ_between_people(laplace: dict[str, torch.Tensor]) -> None:
    (covariates,), _ = data()
    modifiers = covariates[:, [COLUMNS.index(name) for name in MODIFIERS]].double()
    effects = laplace["mode"][0] + modifiers @ laplace["mode"][1:]
    assert effects.std() > 0.3
