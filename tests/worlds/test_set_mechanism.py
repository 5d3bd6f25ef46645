"""``set_mechanism``: three forms, one meaning, and the rung-3 numbers that follow from the choice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from monte_carlo import assert_share

import causalppl as cp
from causalppl import errors

N = dist.Normal


def shifted() -> torch.Tensor:
    """y ~ N(x, 1) with a zero-one x: additive P(y1 > y0) = 1, antitone .69, independent .76."""
    x = pyro.sample("x", dist.Bernoulli(0.5))
    return pyro.sample("y", N(x, 1.0))


CHOICES = {
    "affine": 1.0,
    # y0 = e, y1 = 1 - e: P(e < .5)
    "antitone": float(scipy.stats.norm.cdf(0.5)),
    # y0 = e, y1 = 1 + e': P(e - e' < 1)
    "independent": float(scipy.stats.norm.cdf(1 / math.sqrt(2))),
}


def as_function(choice: str) -> Callable[[], Any]:
    # only the treated world is reflected: noise is shared, and its sign belongs to the mechanism
    return cp.set_mechanism(shifted, {"y": choice})


def as_decorator(choice: str) -> Callable[[], Any]:
    @cp.set_mechanism({"y": choice})
    def model() -> torch.Tensor:
        return shifted()

    return model


def as_block(choice: str) -> Callable[[], Any]:
    def model() -> torch.Tensor:
        with cp.set_mechanism({"y": choice}):
            return shifted()

    return model


FORMS = {"function": as_function, "decorator": as_decorator, "block": as_block}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("choice", CHOICES)
def test_the_choice_decides_who_is_helped(form: str, choice: str) -> None:
    n = 20_000
    found = cp.abduct(FORMS[form](choice), {"x": 0.0}, num_samples=n, seed=0)().predict({"x": 1.0})
    helped = found.tensor("y", "counterfactual") > found.tensor("y", "factual")
    assert_share(helped, CHOICES[choice])
    assert found.diagnostics.mechanisms["y"] == choice
    # rungs 1 and 2 agree
    y = found.tensor("y", "counterfactual").double().numpy()
    assert scipy.stats.kstest(y, scipy.stats.norm(1).cdf).pvalue > 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_the_coupling_of_categories(form: str) -> None:
    """p = (.2, .3, .5), q = (.5, .3, .2): observed 2. Gumbel-max (6/13, 9/65, 2/5); by quantiles (0, .6, .4)."""
    laws = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]])

    def model() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Categorical(laws[x.long()]))

    def wrapped(choice: str) -> Callable[[], Any]:
        if form == "function":
            return cp.set_mechanism(model, {"y": choice})
        if form == "decorator":
            return cp.set_mechanism({"y": choice})(model)

        def inside() -> None:
            with cp.set_mechanism({"y": choice}):
                model()

        return inside

    # quantiles: u in (.5, 1), cut at .5 and .8 of q: category 1 on (.5, .8), 2 on (.8, 1)
    expected = {"gumbel_max": (6 / 13, 9 / 65, 2 / 5), "inverse_cdf": (0.0, 0.6, 0.4)}
    for choice, shares in expected.items():
        posterior = cp.abduct(wrapped(choice), {"x": 0.0, "y": 2}, num_samples=8000, seed=0)()
        y = posterior.predict({"x": 1.0}).tensor("y", "counterfactual")
        for k, p in enumerate(shares):
            assert_share(y == k, p)


def test_the_choice_reaches_twin_worlds() -> None:
    def twin(program: Any) -> torch.Tensor:
        worlds = cp.twin_world(program, {"x": lambda v: 1 - v})
        pairs = [worlds() for _ in range(200)]
        return torch.stack([p["factual"] + p["counterfactual"] for p in pairs])

    # antitone: y + y' = x + x' = 1 whatever the noise
    total = twin(as_function("antitone"))
    torch.testing.assert_close(total, torch.ones(200), rtol=1e-4, atol=1e-4)
    assert float(twin(shifted).std()) > 1


def test_the_outermost_site_choice_wins_over_the_site_itself() -> None:
    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", N(x, 1.0), infer={"mechanism": "antitone"})

    evidence = {"x": 0.0, "y": 2.0}
    written = cp.counterfactual(model, {"x": 1.0}, evidence)()
    assert float(written.tensor("y", "counterfactual")) == pytest.approx(-1.0)
    chosen = cp.counterfactual(cp.set_mechanism(model, {"y": "affine"}), {"x": 1.0}, evidence)()
    assert float(chosen.tensor("y", "counterfactual")) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("mapping", "error", "message"),
    [
        ({"q": "affine"}, errors.UnknownSiteError, "no site 'q'"),
        ({"y": "afine"}, errors.NoMechanismError, "affine"),
        ({"y": 3}, errors.NoMechanismError, "neither a mechanism's name"),
        ({3: "affine"}, errors.NoMechanismError, "keys are strings"),
    ],
)
def test_messages(mapping: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cp.abduct(cp.set_mechanism(shifted, mapping), num_samples=10)()


def test_reflection_by_hand() -> None:
    """Antitone around any scale: y' = loc' - scale' (y - loc) / scale."""

    def model() -> None:
        with pyro.plate("units", 50):
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", dist.Laplace(x, torch.exp(x)))

    rng = np.random.default_rng(0)
    x, y = (torch.tensor(rng.normal(size=50), dtype=torch.float32) for _ in range(2))
    found = cp.counterfactual(
        cp.set_mechanism(model, {"y": "antitone"}), {"x": cp.shift(0.5)}, {"x": x, "y": y}
    )()
    mirrored = (x + 0.5) - torch.exp(x + 0.5) * (y - x) / torch.exp(x)
    torch.testing.assert_close(
        found.tensor("y", "counterfactual")[0], mirrored, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("anchored", [False, True])
def test_reflection_and_evidence_in_another_world(anchored: bool) -> None:
    """y = e in fact and 1 - e where x = 1: there above 1 means below 0 here, also beside an anchored site."""

    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", N(x, 1.0))
        pyro.sample("w", N(2 * x, 1.0))

    evidence: dict[str, Any] = {"x": 0.0, "n/y": cp.Interval(1.0, math.inf)}
    evidence |= {"n/w": 2.5} if anchored else {}
    reflected = cp.set_mechanism(model, {"y": "antitone"})
    worlds = {"n": {"x": 1.0}}
    found = cp.abduct(reflected, evidence, worlds=worlds, num_samples=1000, seed=0)().predict(
        worlds=worlds
    )
    y = found.tensor("y", "factual")
    assert float(y.max()) <= 0
    torch.testing.assert_close(found.tensor("y", "n"), 1 - y, rtol=1e-4, atol=1e-4)
    assert float(y.mean()) == pytest.approx(-math.sqrt(2 / math.pi), abs=0.1)
    with pytest.raises(errors.EvidenceError, match="relative to what happened in fact"):
        cp.abduct(reflected, {"n/y": 1.0}, worlds=worlds)()
