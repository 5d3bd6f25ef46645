"""The three rungs on Joe's school, asked of the public verbs."""

from __future__ import annotations

import math

import pyro
import pytest
import torch

import causalppl as cp
from models.encouragement import KNOWN, data, model

DRAWS = 20_000


def test_joe_with_twice_the_homework() -> None:
    args, joe = data()
    worlds = cp.counterfactual(model, {"h": 2.0}, joe)(*args)
    assert worlds["y"].dims == ("draw", "world")
    assert worlds["y"].sizes["draw"] == 1, "everything is observed, so nothing is random"
    assert worlds["y"].sel(world="factual").item() == pytest.approx(1.5, abs=1e-6)
    assert worlds["y"].sel(world="counterfactual").item() == pytest.approx(
        KNOWN["imagining"], abs=1e-5
    )
    assert worlds["x"].sel(world="counterfactual").item() == pytest.approx(0.5, abs=1e-6)


def test_an_intervention_that_changes_nothing_changes_nothing() -> None:
    args, joe = data()
    worlds = cp.counterfactual(model, {"h": 1.0}, joe)(*args)
    for site in ("x", "h", "y"):
        values = worlds[site]
        assert values.sel(world="counterfactual").item() == pytest.approx(
            values.sel(world="factual").item(), abs=1e-6
        )


def test_several_worlds_share_joe() -> None:
    args, joe = data()
    worlds = cp.abduct(model, evidence=joe)(*args).predict(
        worlds={
            "doubled": {"h": 2.0},
            "one_more": {"h": cp.shift(1.0)},
            "as_encouraged": {"h": cp.policy(lambda v: v["x"])},
            "coached": {"x": cp.shift(1.0)},
        }
    )
    # U = (.5, .75, .75) throughout; coached: h = .75 + .75, y = .7 * 1.5 + .4 * 1.5 + .75.
    expected = {"doubled": 1.9, "one_more": 1.9, "as_encouraged": 1.3, "coached": 2.4}
    for world, score in expected.items():
        assert worlds.tensor("y", world=world).item() == pytest.approx(score, abs=1e-5), world
    contrast = worlds.contrast("y", "coached", "doubled").item()
    assert contrast == pytest.approx(0.5, abs=1e-5)


def test_doing_to_the_population() -> None:
    worlds = cp.abduct(model, num_samples=DRAWS, seed=0)().predict({"h": 2.0})
    y = worlds.tensor("y", world="counterfactual").double()
    assert y.shape == (DRAWS,)
    assert y.mean().item() == pytest.approx(
        KNOWN["doing"], abs=4 * y.std().item() / math.sqrt(DRAWS)
    )


def test_do_is_a_program_among_programs() -> None:
    pyro.set_rng_seed(0)
    program = cp.do(pyro.poutine.condition(model, {"x": torch.tensor(1.0)}), {"h": 2.0})
    trace = pyro.poutine.trace(program).get_trace()
    assert trace.nodes["h"]["value"].item() == 2.0
    assert trace.nodes["y"]["fn"].loc.item() == pytest.approx(0.7 + 0.8)


def test_knowing_only_the_exam() -> None:
    # y = .9 U_x + .4 U_h + U_y has variance 1.97, so E[U | y = 1.5] = (.9, .4, 1) 1.5 / 1.97 and
    # E[y had h been 2 | y = 1.5] = .7 E[U_x] + .8 + E[U_y]. Its variance given y:
    # that of .7 U_x + U_y, 1.49, less 1.63^2 / 1.97.
    expected = (0.7 * 0.9 + 1.0) * 1.5 / 1.97 + 0.8
    spread = math.sqrt(1.49 - 1.63**2 / 1.97)
    posterior = cp.abduct(model, evidence={"y": torch.tensor(1.5)}, num_samples=4000, seed=0)()
    y = posterior.predict({"h": 2.0}).tensor("y", world="counterfactual").double()
    # Any sensible method has at least one effective draw in ten.
    assert y.mean().item() == pytest.approx(expected, abs=4 * spread / math.sqrt(400))
    assert y.std().item() == pytest.approx(spread, abs=4 * spread / math.sqrt(2 * 400))
