"""The hidden confounder by quadrature, one unit at a time, without causalppl."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import scipy.integrate
import torch
from scipy.special import expit, log_expit
from scipy.stats import norm

from models.confounded_treatment import KNOWN, UNITS, data, model

SCALE = 0.5


def severity_posterior(
    x: np.ndarray, y: np.ndarray, scale: float = SCALE
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and standard deviation of each unit's z given its x and y, on a fine grid of z."""
    z = np.linspace(-9.0, 9.0, 20_001)[:, None]
    log_weight = norm.logpdf(z) + log_expit(np.where(x == 1, z, -z))
    log_weight = log_weight + norm.logpdf(y, x * (1 + z) + z, scale)
    weight = np.exp(log_weight - log_weight.max(0))
    weight /= weight.sum(0)
    mean = (weight * z).sum(0)
    return mean, np.sqrt((weight * (z - mean) ** 2).sum(0))


def counterfactual_outcome(
    x: np.ndarray, y: np.ndarray, x_set: np.ndarray, scale: float = SCALE
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each unit's y had its x been ``x_set``: y + (x_set - x)(1 + z)."""
    mean, sd = severity_posterior(x, y, scale)
    return y + (x_set - x) * (1 + mean), np.abs(x_set - x) * sd


def observed() -> tuple[np.ndarray, np.ndarray]:
    _, evidence = data()
    return evidence["x"].double().numpy(), evidence["y"].double().numpy()


def test_density_is_that_of_the_equations() -> None:
    (units,), evidence = data()
    z = torch.linspace(-2, 2, units, dtype=torch.float64)
    values = {"z": z, **{site: value.double() for site, value in evidence.items()}}
    trace = pyro.poutine.trace(pyro.poutine.condition(model, values)).get_trace(units)
    (x, y), z = observed(), z.numpy()
    expected = norm.logpdf(z) + log_expit(np.where(x == 1, z, -z))
    expected += norm.logpdf(y, x * (1 + z) + z, SCALE)
    assert trace.log_prob_sum().item() == pytest.approx(expected.sum(), rel=1e-6)


@pytest.mark.parametrize("unit", [0, 1, 2, 3])
def test_grid_agrees_with_adaptive_quadrature(unit: int) -> None:
    x, y = observed()

    def joint(z: float) -> float:
        treated = expit(z) if x[unit] == 1 else expit(-z)
        return norm.pdf(z) * treated * norm.pdf(y[unit], x[unit] * (1 + z) + z, SCALE)

    moments = [
        scipy.integrate.quad(lambda z, k=k: z**k * joint(z), -9, 9, points=[0], epsabs=1e-13)[0]
        for k in range(3)
    ]
    mean = moments[1] / moments[0]
    sd = math.sqrt(moments[2] / moments[0] - mean**2)
    grid_mean, grid_sd = severity_posterior(x, y)
    assert grid_mean[unit] == pytest.approx(mean, abs=1e-6)
    assert grid_sd[unit] == pytest.approx(sd, abs=1e-6)


def test_counterfactual_of_what_happened_is_what_happened() -> None:
    x, y = observed()
    mean, sd = counterfactual_outcome(x, y, x)
    np.testing.assert_array_equal(mean, y)
    assert (sd == 0).all()


def test_the_other_outcome_is_known_to_better_than_the_noise() -> None:
    x, y = observed()
    _, sd = counterfactual_outcome(x, y, 1 - x)
    assert (sd > 0.1).all() and (sd < SCALE).all()


def test_known_answers_by_simulation() -> None:
    pyro.set_rng_seed(2)
    units = 400_000
    trace = pyro.poutine.trace(model).get_trace(units)
    z, x, y = (trace.nodes[site]["value"].double() for site in ("z", "x", "y"))
    treated = x == 1
    effect = 1 + z
    naive = y[treated].mean() - y[~treated].mean()
    naive_error = (y[treated].var() / treated.sum() + y[~treated].var() / (~treated).sum()).sqrt()
    assert effect.mean().item() == pytest.approx(KNOWN["average_effect"], abs=4 / math.sqrt(units))
    on_the_treated = effect[treated].mean().item()
    assert on_the_treated == pytest.approx(
        KNOWN["effect_on_the_treated"], abs=4 / math.sqrt(units / 2)
    )
    assert abs(naive - KNOWN["naive_contrast"]) < 4 * naive_error


def test_known_answers_by_quadrature() -> None:
    density = lambda z: 2 * z * expit(z) * norm.pdf(z)  # noqa: E731
    mean = scipy.integrate.quad(density, -12, 12, epsabs=1e-13)[0]
    assert KNOWN["effect_on_the_treated"] == pytest.approx(1 + mean, abs=1e-7)
    assert KNOWN["naive_contrast"] == pytest.approx(1 + 3 * mean, abs=1e-7)


def test_data_has_both_treatments() -> None:
    x, _ = observed()
    assert len(x) == UNITS and 30 < x.sum() < 70
