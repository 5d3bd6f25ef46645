"""Joe's homework, from the program's own equations and from draws, without causalppl."""

from __future__ import annotations

import math

import pyro
import pytest
import torch

from models.encouragement import KNOWN, data, model

DRAWS = 200_000


def log_normal(value: float, mean: float) -> float:
    return -0.5 * (value - mean) ** 2 - 0.5 * math.log(2 * math.pi)


def draws(program) -> dict[str, torch.Tensor]:
    """Many pupils at once: the program broadcasts over a plate around it."""
    pyro.set_rng_seed(1)
    with pyro.plate("pupils", DRAWS):
        trace = pyro.poutine.trace(program).get_trace()
    return {site: trace.nodes[site]["value"].expand(DRAWS) for site in ("x", "h", "y")}


def test_density_is_that_of_the_equations() -> None:
    _, joe = data()
    trace = pyro.poutine.trace(pyro.poutine.condition(model, joe)).get_trace()
    expected = log_normal(0.5, 0) + log_normal(1, 0.5 * 0.5) + log_normal(1.5, 0.7 * 0.5 + 0.4 * 1)
    assert trace.log_prob_sum().item() == pytest.approx(expected, rel=1e-6)


def test_joes_noise_is_the_books() -> None:
    _, joe = data()
    trace = pyro.poutine.trace(pyro.poutine.condition(model, joe)).get_trace()
    for site in ("x", "h", "y"):
        fn = trace.nodes[site]["fn"]
        noise = (joe[site] - fn.loc) / fn.scale
        assert noise.item() == pytest.approx(KNOWN[f"noise_{site}"], abs=1e-6)


def test_joe_with_twice_the_homework_scores_1_9() -> None:
    _, joe = data()
    world = {"x": joe["x"], "h": torch.tensor(2.0)}
    fn = pyro.poutine.trace(pyro.poutine.do(model, world)).get_trace().nodes["y"]["fn"]
    assert (fn.loc + fn.scale * KNOWN["noise_y"]).item() == pytest.approx(
        KNOWN["imagining"], abs=1e-6
    )


def test_doing_by_simulation() -> None:
    y = draws(pyro.poutine.do(model, {"h": torch.tensor(2.0)}))["y"]
    standard_error = y.std().item() / math.sqrt(DRAWS)
    assert y.mean().item() == pytest.approx(KNOWN["doing"], abs=4 * standard_error)


def test_seeing_by_simulation() -> None:
    values = draws(model)
    x = torch.stack([torch.ones(DRAWS), values["h"]], 1).double()
    y = values["y"].double()
    coefficients = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    at_two = torch.tensor([1.0, 2.0], dtype=x.dtype)
    residual = (y - x @ coefficients).std()
    standard_error = residual * (at_two @ torch.linalg.inv(x.T @ x) @ at_two).sqrt()
    assert abs(at_two @ coefficients - KNOWN["seeing"]) < 4 * standard_error
