"""Counterfactuals under a latent confounder, asked of the public verbs, against quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_confounded_treatment import counterfactual_outcome, observed, severity_posterior

import causalppl as cp
from models.confounded_treatment import KNOWN, UNITS, data, model

DRAWS = 4000
# With one effective draw in eight, a mean's error has spread .5 / sqrt(500) = .022 for the least known
# unit; the root mean square over 100 units is steadier than any one of them. Weights over all units
# jointly have an effective sample size near 1 and miss by more than .3.
TOLERANCE = 0.03


@pytest.fixture(scope="module")
def posterior() -> cp.Posterior:
    args, evidence = data()
    return cp.abduct(model, evidence=evidence, num_samples=DRAWS, seed=0)(*args)


def root_mean_square(error: np.ndarray) -> float:
    return float(np.sqrt((error**2).mean()))


def test_severity(posterior: cp.Posterior) -> None:
    z = posterior.predict().tensor("z", world="factual").double().numpy()
    assert z.shape == (DRAWS, UNITS)
    mean, sd = severity_posterior(*observed())
    assert root_mean_square(z.mean(0) - mean) < TOLERANCE
    assert root_mean_square(z.std(0) - sd) < TOLERANCE


def test_the_other_outcome(posterior: cp.Posterior) -> None:
    x, y = observed()
    _, evidence = data()
    worlds = posterior.predict({"x": 1 - evidence["x"]})
    other = worlds.tensor("y", world="counterfactual").double().numpy()
    mean, sd = counterfactual_outcome(x, y, 1 - x)
    assert root_mean_square(other.mean(0) - mean) < TOLERANCE
    assert root_mean_square(other.std(0) - sd) < TOLERANCE


def test_what_happened_is_kept(posterior: cp.Posterior) -> None:
    _, y = observed()
    _, evidence = data()
    worlds = posterior.predict({"x": evidence["x"]})
    for world in ("factual", "counterfactual"):
        values = worlds.tensor("y", world=world).double().numpy()
        np.testing.assert_allclose(values, np.broadcast_to(y, values.shape), atol=1e-5)
    assert worlds["y"].dims == ("draw", "world", "units")


def test_effects_of_the_observed_units(posterior: cp.Posterior) -> None:
    worlds = posterior.predict(worlds={"treated": {"x": 1.0}, "untreated": {"x": 0.0}})
    effect = worlds.contrast("y", "treated", "untreated")
    assert effect.dims == ("draw", "units")
    mean, _ = severity_posterior(*observed())
    assert root_mean_square(effect.mean("draw").values - (1 + mean)) < TOLERANCE


def test_average_effect_in_the_population() -> None:
    units, draws = 500, 200
    prior = cp.abduct(model, num_samples=draws, seed=1)(units)
    worlds = prior.predict(worlds={"treated": {"x": 1.0}, "untreated": {"x": 0.0}})
    effect = worlds.contrast("y", "treated", "untreated").values
    error = 1 / math.sqrt(units * draws)  # the effect is 1 + z, and z has variance 1
    assert effect.mean() == pytest.approx(KNOWN["average_effect"], abs=4 * error)
