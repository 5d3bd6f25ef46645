"""Counterfactuals whose answers stand in the literature, or follow from one line of algebra."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import reference
import torch

import causalppl as cp

P, Q = (0.2, 0.3, 0.5), (0.5, 0.3, 0.2)
GUMBEL_MAX = np.array([[1, 0, 0], [3 / 13, 10 / 13, 0], [6 / 13, 9 / 65, 2 / 5]])


def standard_error(p: float, n: int) -> float:
    """Of a proportion; never below what one draw in n is worth."""
    return math.sqrt(max(p * (1 - p), 1 / n) / n)


# --- The reference file itself ------------------------------------------------------------------


def test_reference_gumbel_max_by_quadrature_is_the_published_table() -> None:
    table = reference.gumbel_max_joint(P, Q)
    np.testing.assert_allclose(table.sum(1), P, atol=1e-9)
    np.testing.assert_allclose(table.sum(0), Q, atol=1e-9)
    np.testing.assert_allclose(table / np.array(P)[:, None], GUMBEL_MAX, atol=1e-9)


@pytest.mark.parametrize("observed", [0, 1, 2])
def test_reference_gumbel_max_by_rejection_is_the_published_table(observed: int) -> None:
    law = reference.gumbel_max_rejection(P, Q, observed, draws=400_000, seed=observed)
    np.testing.assert_allclose(law, GUMBEL_MAX[observed], atol=0.006)


def test_reference_couplings_on_known_pairs() -> None:
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    assert reference.coupled(dist.Normal(0.0, one), dist.Normal(3.0, two), 1.5) == pytest.approx(
        6.0
    )
    assert reference.coupled(dist.Exponential(one), dist.Exponential(two), 18.0) == pytest.approx(9)
    assert reference.coupled(dist.HalfNormal(one), dist.HalfNormal(two), 5.6) == pytest.approx(11.2)
    assert reference.coupled(
        dist.Uniform(0.0, one), dist.Uniform(one, one * 3), 0.25
    ) == pytest.approx(1.5)
    assert reference.coupled(
        dist.LogNormal(0.0, one), dist.LogNormal(one, one), 2.0
    ) == pytest.approx(2 * math.e, rel=1e-6)
    weibull = dist.Weibull(one, two), dist.Weibull(two, two)
    assert reference.coupled(*weibull, 0.3) == pytest.approx(0.6)
    assert reference.bernoulli_counterfactual(0.7, 0.4, 1) == pytest.approx(4 / 7)
    assert reference.bernoulli_counterfactual(0.7, 0.4, 0) == 0
    assert reference.bernoulli_counterfactual(0.4, 0.7, 0) == pytest.approx(0.5)


def test_reference_enumeration_and_quadrature_on_known_answers() -> None:
    fair = {0: 0.5, 1: 0.5}
    given = reference.conditional(
        {"a": fair, "b": fair}, lambda n: n["a"], lambda n: n["a"] + n["b"] >= 1
    )
    assert given == pytest.approx(2 / 3)
    mean, sd = reference.quadrature(lambda z: -0.5 * z**2 - 0.5 * (z - 2) ** 2, lambda z: z)
    assert mean == pytest.approx(1.0) and sd == pytest.approx(math.sqrt(0.5))
    mean, cov = reference.normal_posterior(
        np.zeros(1), np.eye(1), np.ones((1, 1)), 1.0, np.array([2.0])
    )
    assert mean[0] == pytest.approx(1.0) and cov[0, 0] == pytest.approx(0.5)


# --- Continuous, invertible ---------------------------------------------------------------------


def joe() -> torch.Tensor:
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    h = pyro.sample("h", dist.Normal(0.5 * x, 1.0))
    return pyro.sample("y", dist.Normal(0.7 * x + 0.4 * h, 1.0))


JOE = {"x": 0.5, "h": 1.0, "y": 1.5}


def test_joe_would_have_scored_one_point_nine() -> None:
    worlds = cp.counterfactual(joe, {"h": 2.0}, JOE)()
    y = worlds.tensor("y", world="counterfactual")
    assert y.shape == (1,)
    assert float(y) == pytest.approx(1.90, abs=1e-4)
    for site, value in JOE.items():
        assert float(worlds.tensor(site, world="factual")) == pytest.approx(value, abs=1e-6)
    assert float(worlds.tensor("x", world="counterfactual")) == pytest.approx(0.5, abs=1e-6)
    assert float(worlds.tensor("h", world="counterfactual")) == 2.0


def test_joe_with_method_exact_and_a_model_file() -> None:
    from models import encouragement

    args, evidence = encouragement.data()
    worlds = cp.counterfactual(encouragement.model, {"h": 2.0}, evidence, method=cp.Exact())(*args)
    assert float(worlds.tensor("y", world="counterfactual")) == pytest.approx(1.90, abs=1e-4)


def test_joes_noise() -> None:
    means = {"x": 0.0, "h": 0.5 * 0.5, "y": 0.7 * 0.5 + 0.4 * 1.0}
    for site, expected in {"x": 0.5, "h": 0.75, "y": 0.75}.items():
        fn = dist.Normal(torch.tensor(means[site]), torch.tensor(1.0))
        noise = cp.mechanism_for(fn).abduct(fn, torch.tensor(JOE[site]), None)
        assert float(noise) == pytest.approx(expected, abs=1e-6)


def test_the_population_made_to_do_homework_is_not_joe() -> None:
    n = 40_000
    worlds = cp.counterfactual(joe, {"h": 2.0}, num_samples=n, seed=1)()
    y = worlds.tensor("y", world="counterfactual")
    assert y.shape == (n,)
    assert float(y.mean()) == pytest.approx(0.8, abs=4 * math.sqrt(1.49 / n))
    assert float(y.std()) == pytest.approx(math.sqrt(1.49), abs=0.03)


def test_seeing_homework_is_not_doing_it() -> None:
    worlds = cp.counterfactual(joe, {"x": 0.0}, {"h": 2.0}, num_samples=4000, seed=2)()
    # x given h = 2 is N(.8, .8), so y given h = 2 is N(1.36, 1 + .49 * .8)
    assert float(worlds.tensor("y", world="factual").mean()) == pytest.approx(1.36, abs=0.15)
    # and with x set to 0 as well, h keeps its noise: h = u_h = 2 - .5 x, y = .4 h + u_y, E = .4 (2 - .4)
    assert float(worlds.tensor("y", world="counterfactual").mean()) == pytest.approx(0.64, abs=0.15)


def test_affine_noise_is_shared() -> None:
    """y ~ N(x, 1): an additive effect is the same for everybody."""

    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0))

    worlds = cp.abduct(model, num_samples=500, seed=0)().predict(
        worlds={"one": {"x": 1.0}, "zero": {"x": 0.0}}
    )
    effect = worlds.tensor("y", world="one") - worlds.tensor("y", world="zero")
    torch.testing.assert_close(effect, torch.ones(500), rtol=0, atol=1e-5)
    assert float(worlds.tensor("y", world="one").std()) > 0.8


@pytest.mark.parametrize(
    ("mechanism", "expected"), [("affine", 1.0), ("independent", 0.760250), ("antitone", None)]
)
def test_mechanisms_agree_on_margins_and_disagree_on_rung_three(
    mechanism: str, expected: float | None
) -> None:
    """y ~ N(x, 1): P(y1 > y0) is 1 where the residual is shared, Phi(1 / sqrt 2) where it is drawn afresh."""

    def model() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(x, 1.0), infer={"mechanism": mechanism})

    n = 10_000
    worlds = cp.abduct(model, num_samples=n, seed=4)().predict(
        worlds={"one": {"x": 1.0}, "zero": {"x": 0.0}}
    )
    one, zero = worlds.tensor("y", world="one"), worlds.tensor("y", world="zero")
    for world, mean in (one, 1.0), (zero, 0.0):
        assert float(world.mean()) == pytest.approx(mean, abs=4 / math.sqrt(n))
        assert float(world.std()) == pytest.approx(1.0, abs=4 / math.sqrt(2 * n))
    if expected is not None:
        share = float((one > zero).double().mean())
        assert share == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(n) if expected < 1 else 0)
    assert dict(worlds.diagnostics.mechanisms)["y"] == mechanism


def test_primer_4_3_2_evidence_on_a_deterministic_site() -> None:
    """X = U1, Z = X + U2, Y = b Z with fair coins: seeing Z = 1 leaves (X, U2) = (1, 0) or (0, 1)."""
    b = 2.5

    def model() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        u = pyro.sample("u2", dist.Bernoulli(0.5))
        z = pyro.deterministic("z", x + u)
        pyro.deterministic("y", b * z)

    n = 4000
    worlds = cp.counterfactual(
        model,
        worlds={"one": {"x": 1.0}, "zero": {"x": 0.0}},
        evidence={"z": 1.0},
        num_samples=n,
        seed=3,
    )()
    assert bool((worlds.tensor("z", world="factual") == 1).all())
    for world, expected in {"one": 1.5 * b, "zero": 0.5 * b}.items():
        mean = float(worlds.tensor("y", world=world).mean())
        assert mean == pytest.approx(expected, abs=4 * 0.5 * b / math.sqrt(n))
    difference = worlds.tensor("y", world="one") - worlds.tensor("y", world="zero")
    torch.testing.assert_close(difference, torch.full_like(difference, b))


def test_a_latent_mediator_moves_the_outcome_by_the_path_product() -> None:
    a, b, c = 1.7, -0.6, 0.25

    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        m = pyro.sample("m", dist.Normal(a * x, 0.8))
        pyro.sample("y", dist.Normal(b * m + c * x, 0.5))

    worlds = cp.counterfactual(model, {"x": 2.3}, {"x": 0.3, "y": 1.1}, num_samples=400, seed=0)()
    y = worlds.tensor("y", world="counterfactual")
    torch.testing.assert_close(y, torch.full_like(y, 1.1 + 2.0 * (a * b + c)), rtol=0, atol=1e-4)
    m0, m1 = worlds.tensor("m", world="factual"), worlds.tensor("m", world="counterfactual")
    torch.testing.assert_close(m1 - m0, torch.full_like(m0, 2.0 * a), rtol=0, atol=1e-4)
    # m given (x, y) is normal, by Bayes
    precision = 1 / 0.8**2 + b**2 / 0.5**2
    mean = (a * 0.3 / 0.8**2 + b * (1.1 - c * 0.3) / 0.5**2) / precision
    assert float(m0.mean()) == pytest.approx(mean, abs=0.15 / math.sqrt(precision))
    assert float(m0.std()) == pytest.approx(precision**-0.5, rel=0.2)


# --- Discrete -----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("q", [0.05, 0.5, 1.0])
def test_the_nervous_rifleman(p: float, q: float) -> None:
    def model() -> None:
        order = pyro.sample("order", dist.Bernoulli(p))
        nerves = pyro.sample("nerves", dist.Bernoulli(q))
        a = pyro.deterministic("a", torch.maximum(order, nerves))
        b = pyro.deterministic("b", order)
        pyro.deterministic("death", torch.maximum(a, b))

    n = 4000
    worlds = cp.counterfactual(model, {"a": 0.0}, {"death": 1.0}, num_samples=n, seed=7)()
    expected = reference.conditional(
        {"order": {0: 1 - p, 1: p}, "nerves": {0: 1 - q, 1: q}},
        lambda u: 1 - u["order"],
        lambda u: max(u["order"], u["nerves"]) == 1,
    )
    assert expected == pytest.approx(q * (1 - p) / (1 - (1 - p) * (1 - q)))
    alive = worlds.tensor("death", world="counterfactual") == 0
    share = float(alive.double().mean())
    assert share == pytest.approx(expected, abs=4 * standard_error(expected, len(alive)) + 1e-9)
    if expected in (0.0, 1.0):
        assert share == expected
    assert bool((worlds.tensor("death", world="factual") == 1).all())


def one_switch(family: Any) -> Any:
    def model() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        pyro.sample("y", family(x))

    return model


def bernoulli_by_x(x: torch.Tensor) -> dist.Bernoulli:
    return dist.Bernoulli(torch.where(x > 0.5, torch.tensor(0.7), torch.tensor(0.4)))


def categorical_by_x(x: torch.Tensor) -> dist.Categorical:
    return dist.Categorical(torch.where(x[..., None] > 0.5, torch.tensor(P), torch.tensor(Q)))


def test_bernoulli_counterfactual() -> None:
    n = 20_000
    for observed in (1.0, 0.0):
        worlds = cp.counterfactual(
            one_switch(bernoulli_by_x), {"x": 0.0}, {"x": 1.0, "y": observed}, num_samples=n, seed=5
        )()
        assert bool((worlds.tensor("y", world="factual") == observed).all())
        there = worlds.tensor("y", world="counterfactual")
        if observed:
            assert there.shape == (n,)
            zero = float((there == 0).double().mean())
            assert zero == pytest.approx(3 / 7, abs=4 * standard_error(3 / 7, n))
        else:
            assert float(there.max()) == 0


@pytest.mark.parametrize(("p", "q"), [(0.2, 0.9), (0.9, 0.2), (0.5, 0.5), (0.01, 0.02), (1.0, 0.3)])
def test_bernoulli_counterfactual_against_cells(p: float, q: float) -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Bernoulli(p + (q - p) * x))

    n = 20_000
    cells = reference.uniform_cells([p, q])
    for observed in (0.0, 1.0):
        if (p == 1.0 and not observed) or (p == 0 and observed):
            continue
        expected = reference.conditional(
            {"u": cells},
            lambda noise: noise["u"] < q,
            lambda noise, o=observed: (noise["u"] < p) == o,
        )
        assert expected == pytest.approx(reference.bernoulli_counterfactual(p, q, int(observed)))
        worlds = cp.counterfactual(
            model, {"x": 1.0}, {"x": 0.0, "y": observed}, num_samples=n, seed=6
        )()
        there = worlds.tensor("y", world="counterfactual").double()
        assert float(there.mean()) == pytest.approx(
            expected, abs=4 * standard_error(expected, n) if 0 < expected < 1 else 1e-4
        )


def test_gumbel_max_table() -> None:
    n = 30_000
    for observed in range(3):
        worlds = cp.counterfactual(
            one_switch(categorical_by_x),
            {"x": 0.0},
            {"x": 1.0, "y": observed},
            num_samples=n,
            seed=8,
        )()
        there = worlds.tensor("y", world="counterfactual").long()
        share = np.bincount(there.expand(n).numpy(), minlength=3) / n
        for j, expected in enumerate(GUMBEL_MAX[observed]):
            assert share[j] == pytest.approx(
                expected, abs=4 * standard_error(expected, n) if 0 < expected < 1 else 0
            )


def test_gumbel_max_mixes_back_to_the_other_worlds_law() -> None:
    """sum_i p_i cf_i = q, with the factual category drawn rather than seen."""
    n = 30_000
    worlds = cp.abduct(
        one_switch(categorical_by_x), evidence={"x": 1.0}, num_samples=n, seed=9
    )().predict({"x": 0.0})
    here = worlds.tensor("y", world="factual").long()
    there = worlds.tensor("y", world="counterfactual").long()
    joint = np.zeros((3, 3))
    np.add.at(joint, (here.numpy(), there.numpy()), 1 / n)
    expected = np.array(P)[:, None] * GUMBEL_MAX
    np.testing.assert_allclose(joint, expected, atol=4 * 0.5 / math.sqrt(n))
    np.testing.assert_allclose(joint.sum(0), Q, atol=4 * 0.5 / math.sqrt(n))
    assert (joint[expected == 0] == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_gumbel_max_against_rejection_on_a_random_table(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(5, 0.7)), rng.dirichlet(np.full(5, 0.7))
    observed = int(p.argmax())

    def model() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        probs = torch.where(x > 0.5, torch.tensor(q), torch.tensor(p))
        pyro.sample("y", dist.Categorical(probs))

    n = 20_000
    worlds = cp.counterfactual(
        model, {"x": 1.0}, {"x": 0.0, "y": observed}, num_samples=n, seed=seed
    )()
    share = np.bincount(worlds.tensor("y", world="counterfactual").long().numpy(), minlength=5) / n
    by_rejection = reference.gumbel_max_rejection(p, q, observed, draws=100_000, seed=seed)
    by_quadrature = reference.gumbel_max_joint(p, q)[observed] / p[observed]
    np.testing.assert_allclose(share, by_quadrature, atol=4 * 0.5 / math.sqrt(n))
    np.testing.assert_allclose(share, by_rejection, atol=6 * 0.5 / math.sqrt(n))


# Primer, table 3.2: recovered of all, by sex and drug
RECOVERED = {
    ("men", 1): (81, 87),
    ("men", 0): (234, 270),
    ("women", 1): (192, 263),
    ("women", 0): (55, 80),
}


def test_simpsons_drug() -> None:
    men, women = 87 + 270, 263 + 80
    rates = {key: got / of for key, (got, of) in RECOVERED.items()}
    units = 2000

    def model() -> None:
        with pyro.plate("patients", units):
            woman = pyro.sample("woman", dist.Bernoulli(women / (men + women)))
            p_drug = torch.where(woman > 0.5, torch.tensor(263 / women), torch.tensor(87 / men))
            drug = pyro.sample("drug", dist.Bernoulli(p_drug))
            given = torch.where(
                drug > 0.5, torch.tensor(rates["women", 1]), torch.tensor(rates["women", 0])
            )
            other = torch.where(
                drug > 0.5, torch.tensor(rates["men", 1]), torch.tensor(rates["men", 0])
            )
            pyro.sample("recovery", dist.Bernoulli(torch.where(woman > 0.5, given, other)))

    share = women / (men + women)
    exact = share * (rates["women", 1] - rates["women", 0]) + (1 - share) * (
        rates["men", 1] - rates["men", 0]
    )
    assert exact == pytest.approx(0.0537, abs=5e-5)
    worlds = cp.counterfactual(
        model, worlds={"drug": {"drug": 1.0}, "none": {"drug": 0.0}}, num_samples=200, seed=10
    )()
    n = units * 200
    effect = worlds.tensor("recovery", world="drug") - worlds.tensor("recovery", world="none")
    assert float(effect.mean()) == pytest.approx(exact, abs=4 * standard_error(exact, n))
    assert float(effect.min()) == 0.0  # monotone: the drug never hurts anybody here
    took, well = worlds.tensor("drug", world="factual"), worlds.tensor("recovery", world="factual")
    naive = float(well[took == 1].double().mean() - well[took == 0].double().mean())
    assert naive == pytest.approx(-0.0457, abs=4 * math.sqrt(4 * 0.18 / n))


def test_mediation_by_worlds_in_two_steps() -> None:
    """NDE .32, NIE .035, TE .46 (Primer 4.5.2): the mediator of one world is handed to another by hand."""
    table = {(1, 1): 0.8, (1, 0): 0.4, (0, 1): 0.3, (0, 0): 0.2}
    n = 100_000

    def model() -> None:
        with pyro.plate("units", n):
            t = pyro.sample("t", dist.Bernoulli(0.5))
            m = pyro.sample("m", dist.Bernoulli(0.4 + 0.35 * t))
            p = (
                t * m * table[1, 1]
                + t * (1 - m) * table[1, 0]
                + (1 - t) * m * table[0, 1]
                + (1 - t) * (1 - m) * table[0, 0]
            )
            pyro.sample("y", dist.Bernoulli(p))

    posterior = cp.abduct(model, num_samples=1, seed=11)()
    first = posterior.predict(worlds={"treated": {"t": 1.0}, "control": {"t": 0.0}})
    m0 = first.tensor("m", world="control")[0]
    m1 = first.tensor("m", world="treated")[0]
    nested = posterior.predict(
        worlds={"direct": {"t": 1.0, "m": m0}, "indirect": {"t": 0.0, "m": m1}}
    )
    control = first.tensor("y", world="control")
    se = 4 * 0.6 / math.sqrt(n)
    assert float((nested.tensor("y", world="direct") - control).mean()) == pytest.approx(
        0.32, abs=se
    )
    assert float((nested.tensor("y", world="indirect") - control).mean()) == pytest.approx(
        0.035, abs=se
    )
    assert float((first.tensor("y", world="treated") - control).mean()) == pytest.approx(
        0.46, abs=se
    )


def test_mediation_from_world() -> None:
    if not hasattr(cp, "from_world"):
        pytest.skip("cp.from_world is not there yet")
    n = 50_000

    def model() -> None:
        with pyro.plate("units", n):
            t = pyro.sample("t", dist.Bernoulli(0.5))
            m = pyro.sample("m", dist.Bernoulli(0.4 + 0.35 * t))
            pyro.sample("y", dist.Bernoulli(0.2 + 0.2 * t + 0.1 * m + 0.3 * t * m))

    worlds = cp.abduct(model, num_samples=1, seed=12)().predict(
        worlds={"control": {"t": 0.0}, "direct": {"t": 1.0, "m": cp.from_world("control")}}
    )
    effect = worlds.tensor("y", world="direct") - worlds.tensor("y", world="control")
    assert float(effect.mean()) == pytest.approx(0.32, abs=4 * 0.6 / math.sqrt(n))
    assert torch.equal(worlds.tensor("m", world="direct"), worlds.tensor("m", world="control"))


def test_leukaemia_and_fallout() -> None:
    """Exogenous and monotone: PN = (p1 - p0) / p1, PS = (p1 - p0) / (1 - p0), PNS = p1 - p0."""
    p1, p0 = 30 / 69160, 16 / 59026

    def model() -> None:
        exposed = pyro.sample("exposed", dist.Bernoulli(0.5))
        pyro.sample("ill", dist.Bernoulli(p0 + (p1 - p0) * exposed))

    n = 50_000
    worlds = cp.counterfactual(
        model, {"exposed": 0.0}, {"exposed": 1.0, "ill": 1.0}, num_samples=n, seed=0
    )()
    pn = float((worlds.tensor("ill", world="counterfactual") == 0).double().mean())
    assert pn == pytest.approx(0.3751, abs=4 * standard_error(0.3751, n) + 5e-5)

    n = 1_000_000
    worlds = cp.counterfactual(
        model, {"exposed": 1.0}, {"exposed": 0.0, "ill": 0.0}, num_samples=n, seed=1
    )()
    ps = float(worlds.tensor("ill", world="counterfactual").double().mean())
    assert ps == pytest.approx(0.00016275, abs=4 * standard_error(0.00016275, n))


@pytest.mark.parametrize(
    ("kind", "pn", "ps", "pns"), [("or", 0.5, 1.0, 0.5), ("and", 1.0, 0.5, 0.5)]
)
def test_forest_fire(kind: str, pn: float, ps: float, pns: float) -> None:
    join = torch.maximum if kind == "or" else torch.minimum

    def model() -> None:
        lightning = pyro.sample("lightning", dist.Bernoulli(0.5))
        match = pyro.sample("match", dist.Bernoulli(0.5))
        pyro.deterministic("fire", join(lightning, match))

    n = 4000
    two = {"on": {"lightning": 1.0}, "off": {"lightning": 0.0}}

    def share(evidence: dict[str, float] | None, event: Any) -> tuple[float, float]:
        worlds = cp.counterfactual(model, worlds=two, evidence=evidence, num_samples=n, seed=2)()
        return float(np.asarray(worlds.probability(event))), n

    found, _ = share({"lightning": 1.0, "fire": 1.0}, lambda w: w["off"]["fire"] == 0)
    assert found == pytest.approx(pn, abs=4 * standard_error(pn, n) if 0 < pn < 1 else 0)
    found, _ = share({"lightning": 0.0, "fire": 0.0}, lambda w: w["on"]["fire"] == 1)
    assert found == pytest.approx(ps, abs=4 * standard_error(ps, n) if 0 < ps < 1 else 0)
    found, _ = share(None, lambda w: (w["on"]["fire"] == 1) & (w["off"]["fire"] == 0))
    assert found == pytest.approx(pns, abs=4 * standard_error(pns, n))


# --- Latent continuous variables ----------------------------------------------------------------


def confounded(units: int, scale: float = 0.5) -> None:
    with pyro.plate("units", units):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        x = pyro.sample("x", dist.Bernoulli(logits=z))
        pyro.sample("y", dist.Normal(x * (1 + z) + z, scale))


def confounded_answers(x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """Posterior mean and sd of each unit's outcome under the other treatment."""
    rows = []
    for xi, yi in zip(x, y, strict=True):

        def log_density(z: np.ndarray, xi: float = xi, yi: float = yi) -> np.ndarray:
            log_x = -np.logaddexp(0, -z) if xi else -np.logaddexp(0, z)
            return -(z**2) / 2 + log_x - (yi - xi * (1 + z) - z) ** 2 / (2 * scale**2)

        rows.append(
            reference.quadrature(log_density, lambda z, xi=xi, yi=yi: yi + (1 - 2 * xi) * (1 + z))
        )
    return np.array(rows)


def test_a_latent_confounder_against_quadrature() -> None:
    units, scale, n = 100, 0.5, 2000
    rng = np.random.default_rng(0)
    z = rng.normal(size=units)
    x = (rng.uniform(size=units) < 1 / (1 + np.exp(-z))).astype(float)
    y = x * (1 + z) + z + scale * rng.normal(size=units)
    expected = confounded_answers(x, y, scale)
    worlds = cp.counterfactual(confounded, {"x": 1 - x}, {"x": x, "y": y}, num_samples=n, seed=3)(
        units, scale
    )
    there = worlds.tensor("y", world="counterfactual").double().numpy()
    assert there.shape == (n, units)
    error = there.mean(0) - expected[:, 0]
    # A thousand effective draws would be the worst to accept of 2000; a joint weight over 100 units has about one.
    assert np.abs(error / expected[:, 1]).max() < 5 / math.sqrt(1000)
    assert np.sqrt((error**2).mean()) < 0.02
    assert np.sqrt(((there.std(0) - expected[:, 1]) ** 2).mean()) < 0.02


def coupled_units() -> None:
    with pyro.plate("units", 20):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z.mean(), 0.3), obs=torch.ones(20))


def test_units_coupled_through_their_mean() -> None:
    """z_i ~ N(0, 1), y_i ~ N(mean z, .3), all 1: mean z given y is N(.917, .064); naive weights per unit give .358."""
    mean, cov = reference.normal_posterior(
        np.zeros(20), np.eye(20), np.full((20, 20), 1 / 20), 0.3, np.ones(20)
    )
    assert mean.mean() == pytest.approx(0.05 / (0.05 + 0.09 / 20)) == pytest.approx(0.917, abs=5e-4)
    posterior = cp.abduct(coupled_units, num_samples=1000, seed=0)()
    average = posterior.predict().tensor("z", world="factual").mean(-1).double()
    sd = math.sqrt(cov.mean())
    assert float(average.mean()) == pytest.approx(0.917, abs=0.03)
    assert float(average.std()) == pytest.approx(sd, rel=0.25)
