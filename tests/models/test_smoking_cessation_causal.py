"""Quitting and weight, asked of the public verbs, against least squares and the book."""

from __future__ import annotations

import pytest
import torch
from test_smoking_cessation import Effect, standardised_effects

import causalppl as cp
from models.smoking_cessation import PUBLISHED, data, design, model, people

DRAWS = 4000  # four chains of 1,000: R-hat stays well below its limit


@pytest.fixture(scope="module")
def posterior() -> cp.Posterior:
    args, evidence = data()
    return cp.abduct(model, evidence=evidence, num_samples=DRAWS, seed=0)(*args)


@pytest.fixture(scope="module")
def worlds(posterior: cp.Posterior) -> cp.Worlds:
    return posterior.predict(
        worlds={"all_quit": {"quit": 1.0}, "none_quit": {"quit": 0.0}},
        sites=["quit", "weight_gain"],
    )


@pytest.fixture(scope="module")
def effects(worlds: cp.Worlds) -> dict[str, Effect]:
    """Posterior mean and spread of the average effect over three groups of people."""
    _, evidence = data()
    effect = worlds.contrast("weight_gain", "all_quit", "none_quit")
    assert effect.dims == ("draw", "people")
    quit = evidence["quit"].numpy()
    groups = {"everyone": quit >= 0, "kept_smoking": quit == 0, "quit": quit == 1}
    averages = {name: effect.isel(people=who).mean("people") for name, who in groups.items()}
    return {name: Effect(float(a.mean()), float(a.std())) for name, a in averages.items()}


def test_average_effect_is_the_books(effects: dict[str, Effect]) -> None:
    effect = effects["everyone"]
    assert effect.value == pytest.approx(3.4, abs=0.4)
    assert effect.value > PUBLISHED["unadjusted"] + 0.5
    for name in ("ip_weighting", "standardisation"):
        published = PUBLISHED[name]
        assert 2 * 1.96 * effect.error == pytest.approx(published.high - published.low, rel=0.3)


@pytest.mark.parametrize("group", ["everyone", "kept_smoking", "quit"])
def test_effects_agree_with_least_squares(effects: dict[str, Effect], group: str) -> None:
    reference = standardised_effects()[group]
    # .15 standard errors for the priors, .2 for a Monte Carlo error of four sigma at 400 effective draws.
    assert effects[group].value == pytest.approx(reference.value, abs=0.35 * reference.error)
    assert effects[group].error == pytest.approx(reference.error, rel=0.25)


def test_each_person_keeps_their_own_history(worlds: cp.Worlds) -> None:
    _, evidence = data()
    for world, quit in (("all_quit", 1), ("none_quit", 0)):
        who = evidence["quit"] == quit
        gain = worlds.tensor("weight_gain", world=world)[:, who]
        observed = evidence["weight_gain"][who].expand_as(gain)
        # kg, in float32: the noise is divided by its scale and multiplied again.
        torch.testing.assert_close(gain, observed, atol=1e-3, rtol=0)


def test_new_people_reuse_the_parameters(posterior: cp.Posterior) -> None:
    newcomers = design(people().iloc[:2])
    evidence = {"quit": torch.tensor([0.0, 1.0]), "weight_gain": torch.tensor([1.0, 2.0])}
    later = posterior.for_units(newcomers, evidence=evidence)
    worlds = later.predict(worlds={"all_quit": {"quit": 1.0}, "none_quit": {"quit": 0.0}})
    assert worlds["weight_gain"].sizes == {"draw": DRAWS, "world": 3, "people": 2}
    everyone = posterior.predict(worlds={"all_quit": {"quit": 1.0}, "none_quit": {"quit": 0.0}})
    # With an additive noise a person's effect depends on the parameters and on covariates alone.
    new, old = (
        w.contrast("weight_gain", "all_quit", "none_quit").isel(people=slice(2)).values
        for w in (worlds, everyone)
    )
    assert new == pytest.approx(old, abs=1e-3)
