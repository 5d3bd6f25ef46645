"""Finite latents summed out and drawn back: against forward-backward, brute force over all assignments, and quadrature."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp
from causalppl.inference.elimination import Factor, eliminate

N = dist.Normal


# --- The algorithm ------------------------------------------------------------------------------


def random_factors(seed: int) -> tuple[list[Factor], dict[str, int]]:
    """Tables over overlapping sets of five variables."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"a": 2, "b": 3, "c": 2, "d": 4, "e": 2}
    scopes = [("a",), ("a", "b"), ("c", "b"), ("d", "a", "c"), ("e", "d"), ("b", "e")]
    return [
        Factor(s, torch.randn([sizes[v] for v in s], generator=generator).double()) for s in scopes
    ], sizes


def brute_force(factors: list[Factor], sizes: dict[str, int]) -> np.ndarray:
    names = list(sizes)
    joint = np.zeros(list(sizes.values()))
    for index in itertools.product(*(range(n) for n in sizes.values())):
        for factor in factors:
            joint[index] += float(
                factor.table[tuple(index[names.index(v)] for v in factor.variables)]
            )
    return joint


@pytest.mark.parametrize("seed", range(3))
def test_elimination_gives_the_sum_over_all_assignments(seed: int) -> None:
    factors, sizes = random_factors(seed)
    found = eliminate(factors, list(sizes), 1000, "test")
    total = sum(float(f.table) for f in found.rest)
    assert total == pytest.approx(
        np.logaddexp.reduce(brute_force(factors, sizes).ravel()), rel=1e-12
    )


def test_draws_have_the_joint_law() -> None:
    factors, sizes = random_factors(0)
    joint = brute_force(factors, sizes)
    law = np.exp(joint - np.logaddexp.reduce(joint.ravel()))
    draws = 40_000
    generator = torch.Generator().manual_seed(1)
    uniform = {v: torch.rand(draws, n, generator=generator) for v, n in sizes.items()}
    gumbels = {v: -(-u.log()).log() for v, u in uniform.items()}
    found = eliminate(factors, list(sizes), 1000, "test")
    chosen = torch.func.vmap(found.draw)(gumbels)
    shares = np.zeros(law.shape)
    np.add.at(shares, tuple(chosen[v].numpy() for v in sizes), 1 / draws)
    sd = np.sqrt(law * (1 - law) / draws)
    assert (np.abs(shares - law) < 4.5 * sd + 1e-4).all()


def test_a_table_that_is_too_large_is_refused() -> None:
    factors, sizes = random_factors(0)
    with pytest.raises(cp.errors.MethodError, match="assignments of latent sites"):
        eliminate(factors, list(sizes), 5, "test")


# --- Programs -----------------------------------------------------------------------------------

STATES, STEPS = 3, 50
MOVES = torch.tensor([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.25, 0.05, 0.7]])
START = torch.tensor([0.5, 0.3, 0.2])
NOISE = 0.8


def observations(shape: tuple[int, ...]) -> torch.Tensor:
    return 1 + 1.5 * torch.randn(shape, generator=torch.Generator().manual_seed(3))


def forward_backward(y: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """P(x_t | y), P(x_t, x_t+1 | y), log p(y), in float64, with scaled messages."""
    likelihood = np.exp(-((y[:, None] - np.arange(STATES)) ** 2) / (2 * NOISE**2))
    steps, log_total = len(y), 0.0
    ahead, back = np.zeros((steps, STATES)), np.ones((steps, STATES))
    for t in range(steps):
        ahead[t] = (START.double().numpy() if t == 0 else ahead[t - 1] @ moves) * likelihood[t]
        log_total += math.log(ahead[t].sum())
        ahead[t] /= ahead[t].sum()
    for t in reversed(range(steps - 1)):
        back[t] = moves @ (likelihood[t + 1] * back[t + 1])
        back[t] /= back[t].sum()
    single = ahead * back
    pairs = ahead[:-1, :, None] * moves * (likelihood[1:] * back[1:])[:, None, :]
    return (
        single / single.sum(1, keepdims=True),
        pairs / pairs.sum((1, 2), keepdims=True),
        log_total,
    )


def chain(y: torch.Tensor) -> None:
    x: Any = None
    for t in pyro.markov(range(len(y))):
        law = dist.Categorical(START if x is None else MOVES[x])
        x = pyro.sample(f"x{t}", law, infer={"enumerate": "parallel"})
        pyro.sample(f"y{t}", N(x.float(), NOISE), obs=y[t])


def test_a_hidden_markov_chain_of_fifty_steps() -> None:
    """3 ** 50 assignments. Draws are of the joint: neighbours too have their law."""
    y, n = observations((STEPS,)), 10_000
    posterior = cp.abduct(chain, num_samples=n, seed=0)(y)
    assert posterior.predict(sites=["x0"]).diagnostics.method == "Enumeration"
    x = np.stack([posterior.latents[f"x{t}"].numpy() for t in range(STEPS)], 1)
    single, pairs, _ = forward_backward(y.double().numpy(), MOVES.double().numpy())
    tolerance = 4.5 * 0.5 / math.sqrt(n)
    for t in range(STEPS):
        found = np.bincount(x[:, t], minlength=STATES) / n
        np.testing.assert_allclose(found, single[t], atol=tolerance)
    for t in range(STEPS - 1):
        found = np.bincount(STATES * x[:, t] + x[:, t + 1], minlength=STATES**2) / n
        np.testing.assert_allclose(found, pairs[t].ravel(), atol=tolerance)


def test_many_chains_in_a_plate_are_drawn_for_each() -> None:
    y, n = observations((20, 4)), 8000

    def chains() -> None:
        with pyro.plate("series", 4):
            x: Any = None
            for t in range(20):
                law = dist.Categorical(START.expand(4, 3) if x is None else MOVES[x])
                x = pyro.sample(f"x{t}", law)
                pyro.sample(f"y{t}", N(x.float(), NOISE), obs=y[t])

    posterior = cp.abduct(chains, method=cp.Enumeration(), num_samples=n, seed=0)()
    assert "series" in posterior.predict(sites=["x0"]).diagnostics.why
    for i in range(4):
        single, _, _ = forward_backward(y[:, i].double().numpy(), MOVES.double().numpy())
        for t in range(20):
            found = np.bincount(posterior.latents[f"x{t}"][:, i].numpy(), minlength=STATES) / n
            np.testing.assert_allclose(found, single[t], atol=4.5 * 0.5 / math.sqrt(n))


def test_a_coin_above_many_units_ties_them_together() -> None:
    """g decides for all of 40 units; P(g | y) by hand is a product of sums, far from what one unit says."""
    y = torch.tensor([1.0, 0.0] * 16 + [0.0] * 8)

    def model() -> None:
        g = pyro.sample("g", dist.Bernoulli(0.4))
        chain = [pyro.sample(f"c{i}", dist.Bernoulli(0.3 + 0.4 * g)) for i in range(18)]
        pyro.sample("seen", N(sum(chain[:2]), 1.0), obs=torch.tensor(1.5))
        with pyro.plate("units", 40):
            k = pyro.sample("k", dist.Bernoulli(0.2 + 0.4 * g))
            pyro.sample("y", dist.Bernoulli(0.1 + 0.7 * k), obs=y)

    weights = []
    for g, prior in ((0, 0.6), (1, 0.4)):
        p, c = 0.2 + 0.4 * g, 0.3 + 0.4 * g
        one = p * 0.8 + (1 - p) * 0.1
        ones = float(y.sum())
        two = sum(
            math.comb(2, m) * c**m * (1 - c) ** (2 - m) * math.exp(-((1.5 - m) ** 2) / 2)
            for m in range(3)
        )
        weights.append(prior * one**ones * (1 - one) ** (40 - ones) * two)
    n = 20_000
    posterior = cp.abduct(model, method=cp.Enumeration(), num_samples=n, seed=0)()
    share = weights[1] / sum(weights)
    assert 0.1 < share < 0.9
    g = posterior.latents["g"]
    assert float(g.mean()) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / n))
    for g_value in (0, 1):
        p = 0.2 + 0.4 * g_value
        for unit, seen in ((0, 1), (1, 0)):
            lit = p * (0.8 if seen else 0.2), (1 - p) * (0.1 if seen else 0.9)
            k = posterior.latents["k"][g == g_value, unit]
            assert float(k.mean()) == pytest.approx(lit[0] / sum(lit), abs=0.03)


def test_evidence_that_sees_all_sites_at_once_has_no_small_tables() -> None:
    def model() -> None:
        k = [pyro.sample(f"k{i}", dist.Bernoulli(0.5)) for i in range(20)]
        pyro.sample("y", N(sum(k), 1.0), obs=torch.tensor(8.0))

    with pytest.raises(cp.errors.MethodError, match=r"1048576 assignments.*ImportanceSampling"):
        cp.abduct(model, method=cp.Enumeration(), seed=0)()


def test_an_impossible_chain() -> None:
    def model() -> None:
        x = pyro.sample("x0", dist.Bernoulli(0.0))
        for t in range(1, 30):
            x = pyro.sample(f"x{t}", dist.Bernoulli(x))
        pyro.sample("y", dist.Bernoulli(x), obs=torch.tensor(1.0))

    with pytest.raises(cp.errors.ImpossibleEvidenceError):
        cp.abduct(model, method=cp.Enumeration(), seed=0)()


def test_counterfactuals_of_a_chain_keep_its_draws() -> None:
    """A null intervention on a chain abducted step by step changes nothing."""
    y = observations((STEPS,))
    worlds = cp.abduct(chain, num_samples=50, seed=0)(y).predict({"y49": y[49]})
    for name in ("x0", "x30", "y10"):
        a, b = (worlds.tensor(name, world=w) for w in ("factual", "counterfactual"))
        assert torch.equal(a, b)


# --- Discrete and continuous together -----------------------------------------------------------


def mixture(y: torch.Tensor) -> None:
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    level = pyro.sample("level", N(2.0, 1.0))
    with pyro.plate("people", len(y)):
        k = pyro.sample("k", dist.Bernoulli(share))
        pyro.sample("y", N(k * level, 0.5), obs=y)


PEOPLE = torch.tensor([0.1, -0.4, 2.2, 1.7, 1.0, 0.3, 2.9])


def mixture_by_quadrature() -> dict[str, Any]:
    """Posterior means of share and level, and P(k = 1) of each person, on a grid."""
    s, m = np.meshgrid(np.linspace(1e-4, 1 - 1e-4, 400), np.linspace(-3, 6, 500), indexing="ij")
    y = PEOPLE.double().numpy()[:, None, None]
    one = s * np.exp(-((y - m) ** 2) / 0.5)
    zero = (1 - s) * np.exp(-(y**2) / 0.5) + 0 * m
    logs = np.log(s * (1 - s)) - (m - 2) ** 2 / 2 + np.log(one + zero).sum(0)
    w = np.exp(logs - logs.max())
    w /= w.sum()
    mean = {"share": (w * s).sum(), "level": (w * m).sum()}
    sd = {
        "share": math.sqrt((w * s**2).sum() - mean["share"] ** 2),
        "level": math.sqrt((w * m**2).sum() - mean["level"] ** 2),
    }
    return {"mean": mean, "sd": sd, "k": (w * one / (one + zero)).sum((1, 2))}


@pytest.mark.parametrize(
    ("method", "effective"),
    [
        (cp.ImportanceSampling("laplace"), 2500),
        pytest.param(cp.NUTS(chains=2, warmup=300), 700, marks=pytest.mark.slow),
    ],
    ids=["laplace", "nuts"],
)
def test_a_mixture_with_unknown_share_and_level(method: Any, effective: int) -> None:
    posterior = cp.abduct(mixture, method=method, num_samples=4000, seed=0)(PEOPLE)
    expected = mixture_by_quadrature()
    for name in ("share", "level"):
        draws, sd = posterior.latents[name].double(), expected["sd"][name]
        assert float(draws.mean()) == pytest.approx(
            expected["mean"][name], abs=4 * sd / math.sqrt(effective)
        )
        assert float(draws.std()) == pytest.approx(sd, rel=0.12)
    k = posterior.latents["k"]
    assert k.shape == (4000, 7)
    np.testing.assert_allclose(k.mean(0), expected["k"], atol=4 * 0.5 / math.sqrt(effective))
    # given the others k is drawn exactly, so that Cov(k, level) is kept: among those with k = 1 the level sees y = 2.9
    level = posterior.latents["level"].double()
    assert float(level[k[:, 4] == 1].mean()) < float(level[k[:, 4] == 0].mean())


def test_a_discrete_latent_of_each_unit_beside_a_continuous_one() -> None:
    """Per unit: k ~ Bernoulli(.5), z ~ N(0, 1), y ~ N(z + 2 k, .5). P(k = 1 | y) = sigmoid((4 y - 4) / 2.5)."""
    y = torch.linspace(-1, 3, 30)

    def model() -> None:
        with pyro.plate("units", 30):
            k = pyro.sample("k", dist.Bernoulli(0.5))
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("y", N(z + 2 * k, 0.5), obs=y)

    posterior = cp.abduct(
        model, method=cp.ImportanceSampling("laplace"), num_samples=4000, seed=0
    )()
    assert dict(posterior.predict().diagnostics.ess.sizes) == {"units": 30}
    expected = torch.sigmoid((4 * y - 4) / 2.5)
    k, z = posterior.latents["k"], posterior.latents["z"]
    torch.testing.assert_close(k.mean(0), expected, rtol=0, atol=4.5 * 0.5 / math.sqrt(2000))
    # z given k is N(.8 (y - 2 k), .2)
    mean = 0.8 * (y - 2 * expected)
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=4.5 * 0.9 / math.sqrt(2000))
    given = z[k[:, 15] == 1, 15]
    assert float(given.mean()) == pytest.approx(0.8 * (float(y[15]) - 2), abs=0.06)
    assert float(given.var()) == pytest.approx(0.2, rel=0.15)


def test_a_support_that_depends_on_a_discrete_latent() -> None:
    """u ~ Uniform(0, 1 + k): the same coordinate is another value for each k. By quadrature."""

    def model() -> None:
        k = pyro.sample("k", dist.Bernoulli(0.4))
        u = pyro.sample("u", dist.Uniform(0.0, 1 + k))
        pyro.sample("y", N(u, 0.3), obs=torch.tensor(0.9))

    grid = np.linspace(0, 2, 20_001)
    likelihood = np.exp(-((0.9 - grid) ** 2) / 0.18)
    zero = 0.6 * likelihood[grid <= 1].sum()
    one = 0.4 * likelihood.sum() / 2
    found = cp.abduct(
        model, method=cp.ImportanceSampling("laplace"), num_samples=8000, seed=0
    )().latents
    share = one / (one + zero)
    assert float(found["k"].mean()) == pytest.approx(share, abs=4 * 0.5 / math.sqrt(4000))
    u = found["u"]
    assert bool((u[found["k"] == 0] <= 1).all()) and float(u.max()) > 1.1
    above = 0.4 * likelihood[grid > 1].sum() / 2 / (one + zero)
    assert float((u > 1).float().mean()) == pytest.approx(above, abs=4 * 0.5 / math.sqrt(4000))


def test_a_chain_with_an_unknown_stickiness() -> None:
    """A hidden chain under a continuous parameter: p(y | stay) by forward-backward on a grid."""
    y = observations((25,))

    def model() -> None:
        stay = pyro.sample("stay", dist.Beta(3.0, 2.0))
        moves = torch.eye(3) * stay + (1 - stay) / 3
        x: Any = None
        for t in range(25):
            x = pyro.sample(f"x{t}", dist.Categorical(START if x is None else moves[x]))
            pyro.sample(f"y{t}", N(x.float(), NOISE), obs=y[t])

    grid = np.linspace(0.005, 0.995, 199)
    logs, first = [], []
    for s in grid:
        single, _, log_total = forward_backward(y.double().numpy(), np.eye(3) * s + (1 - s) / 3)
        logs.append(log_total + 2 * math.log(s) + math.log(1 - s))
        first.append(single[10])
    w = np.exp(np.array(logs) - max(logs))
    w /= w.sum()
    posterior = cp.abduct(
        model, method=cp.ImportanceSampling("laplace", num_proposals=4000), num_samples=2000, seed=0
    )()
    mean, sd = w @ grid, math.sqrt(w @ grid**2 - (w @ grid) ** 2)
    stay = posterior.latents["stay"]
    assert float(stay.mean()) == pytest.approx(mean, abs=4 * sd / math.sqrt(1500))
    assert float(stay.std()) == pytest.approx(sd, rel=0.1)
    found = np.bincount(posterior.latents["x10"].numpy(), minlength=3) / 2000
    np.testing.assert_allclose(found, w @ np.array(first), atol=4 * 0.5 / math.sqrt(1500))


def test_the_choice_takes_mixed_latents_and_says_why() -> None:
    diagnostics = cp.abduct(mixture, num_samples=200, seed=0)(PEOPLE).predict().diagnostics
    assert diagnostics.method == "ImportanceSampling(laplace)"


def test_discrete_latents_alone_are_for_enumeration() -> None:
    def model() -> None:
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("y", N(k, 1.0), obs=torch.tensor(1.0))

    for method in (cp.NUTS(), cp.ImportanceSampling("laplace")):
        with pytest.raises(cp.errors.MethodError, match=r"cp\.Enumeration"):
            cp.abduct(model, method=method, seed=0)()
