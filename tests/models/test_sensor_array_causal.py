"""Counterfactual signals by an amortized guide, against quadrature over the three hidden numbers of a machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import causalppl as cp
from models.sensor_array import EFFECT, KNOWN, LEVEL, NOISE, SPREAD, WEAR, WIDEST, data, model, tone


def quadrature(damper: float, signal: np.ndarray) -> dict[str, float]:
    """Posterior means of one machine's amplitude, angle and wear, and the spread of its amplitude, on a grid."""
    wear = np.linspace(-4.5, 4.5, 181)
    prior = stats.norm.pdf(wear) * (stats.norm.cdf(wear) if damper else stats.norm.cdf(-wear))
    angle = np.linspace(-WIDEST, WIDEST, 4001)
    tones = tone(torch.tensor(angle)).numpy()
    best = max(1e-3, float((tones @ signal / (tones**2).sum(-1)).max()))
    amplitude = np.exp(np.linspace(np.log(best) - 2.0, np.log(best) + 1.2, 641))
    of_wear = (
        stats.norm.pdf(np.log(amplitude)[:, None], LEVEL + WEAR * wear + EFFECT * damper, SPREAD)
        * prior
    )
    fit = amplitude[:, None] * (tones @ signal) - 0.5 * amplitude[:, None] ** 2 * (tones**2).sum(-1)
    likelihood = np.exp((fit - fit.max()) / NOISE**2)
    marginal = likelihood.sum(1) * of_wear.sum(1)
    marginal /= marginal.sum()  # the grid is even in log amplitude, and so is the density above
    mean = float((marginal * amplitude).sum())
    both = likelihood * of_wear.sum(1)[:, None]
    given = of_wear / of_wear.sum(1, keepdims=True)
    return {
        "amplitude": mean,
        "spread": float(np.sqrt((marginal * (amplitude - mean) ** 2).sum())),
        "angle": float((both.sum(0) * angle).sum() / both.sum()),
        "wear": float((marginal * (given @ wear)).sum()),
    }


@pytest.fixture(scope="module")
def posterior() -> cp.Posterior:
    guide = cp.AmortizedGuide(model, observed=["damper", "signal"], seed=0)(16)
    guide.fit(steps=1500, batch_size=16)
    args, evidence = data()
    return cp.abduct(
        model, evidence, method=cp.Amortized(guide, refine="tempered"), num_samples=2000, seed=0
    )(*args)


@pytest.mark.slow
def test_the_posterior_is_that_of_quadrature(posterior: cp.Posterior) -> None:
    _, evidence = data()
    ess = posterior.predict(sites=["wear"]).diagnostics.ess.values
    for unit in range(20):
        exact = quadrature(
            float(evidence["damper"][unit]), evidence["signal"][unit].double().numpy()
        )
        draws = {n: v[:, unit].double() for n, v in posterior.latents.items()}
        few = min(2000.0, float(ess[unit]))
        for name in ("amplitude", "angle", "wear"):
            error = float(draws[name].std()) / few**0.5
            assert abs(float(draws[name].mean()) - exact[name]) < 5 * error + 2e-3, (unit, name)
        assert (
            abs(float(draws["amplitude"].std()) / exact["spread"] - 1)
            < 5 * (0.5 / few) ** 0.5 + 0.02
        )


@pytest.mark.slow
def test_had_it_not_been_damped(posterior: cp.Posterior) -> None:
    """Amplitudes grow by the known ratio, draw by draw, and the noise of every microphone stays what it was."""
    _, evidence = data()
    worlds = posterior.predict(worlds={"undamped": {"damper": 0.0}, "damped": {"damper": 1.0}})
    ratio = worlds.tensor("amplitude", world="undamped") / worlds.tensor(
        "amplitude", world="damped"
    )
    assert bool((ratio - KNOWN["undamped_ratio"]).abs().max() < 1e-3)
    was = worlds.tensor("amplitude", world="factual")
    would = worlds.tensor("amplitude", world="undamped")
    pattern = tone(posterior.latents["angle"])
    expected = evidence["signal"] + (would - was).unsqueeze(-1) * pattern
    assert torch.allclose(worlds.tensor("signal", world="undamped"), expected, atol=1e-3)
    same = evidence["damper"] == 0
    assert torch.allclose(
        worlds.tensor("signal", world="undamped")[:, same],
        evidence["signal"][same].expand(2000, -1, -1),
        atol=1e-4,
    )
