"""Queries answered by sampling: closed forms, exact answers on the same programs, and intervals that cover."""

from __future__ import annotations

import math
import warnings

import noise_cells
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats
import torch
from test_exact_queries import QUERIES

import causalppl as cp
from causalppl.query import draws
from models import encouragement

#: Couplings matter to most of these answers; what is said of them has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore::causalppl.errors.CouplingWarning")


def near(estimate, expected, width=4.5):
    """Within Monte Carlo error of what is expected."""
    assert abs(float(estimate) - expected) <= width * max(estimate.standard_error, 1e-6)


# --- Programs without plates ------------------------------------------------------------------------------------------


def test_joe():
    joe = cp.query("E[y[h=2] | x=0.5, h=1, y=1.5]", encouragement.model)()
    assert float(joe) == pytest.approx(1.9, abs=1e-6)
    assert (joe.rung, joe.exact, joe.diagnostics.method) == (3, True, "Exact")
    assert joe.diagnostics.mechanisms == {"y": "affine"}
    evidence = {"x": 0.5, "h": 1.0, "y": 1.5}
    by_evidence = cp.query("E[y[h=2]]", encouragement.model, evidence=evidence, over="sample")()
    assert float(by_evidence) == pytest.approx(1.9, abs=1e-6)


def test_everybody_but_joe():
    doing = cp.query("E[y | do(h=2)]", encouragement.model, seed=1)()
    near(doing, encouragement.KNOWN["doing"])
    assert (doing.rung, doing.exact, doing.draws) == (2, False, None)
    assert doing.standard_error == pytest.approx(math.sqrt(1.49 / 10_000), rel=0.05)
    seeing = cp.query("E[y | h=2]", encouragement.model, seed=2)()
    near(seeing, encouragement.KNOWN["seeing"])
    assert seeing.rung == 1
    # the population, whatever is known of Joe
    evidence = {"x": 0.5, "h": 1.0, "y": 1.5}
    near(cp.query("E[y[h=2]]", encouragement.model, evidence=evidence, seed=3)(), 0.8)


def primer(b):
    """Primer 4.3.2 with noise on the outcome: Z = X + U2, Y = bZ + N(0, 1), X and U2 standard normal or coins."""
    x = pyro.sample("x", dist.Bernoulli(0.5))
    u = pyro.sample("u", dist.Bernoulli(0.5))
    z = pyro.deterministic("z", x + u)
    return pyro.sample("y", dist.Normal(b * z, 1.0))


def test_primer_4_3_2():
    near(cp.query("E[y[x=1] | z=1]", primer, seed=1)(2.0), 3.0)
    near(cp.query("E[y[x=0] | z=1]", primer, seed=2)(2.0), 1.0)
    # x and u are one each of 0 and 1, so y moves by b or not at all
    near(cp.query("P(y[x=1] - y > 1 | z=1)", primer, seed=3)(2.0), 0.5)


def test_conditions_are_met_exactly_or_select():
    def pair():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        return pyro.sample("y", dist.Normal(0.5 * x, math.sqrt(0.75)))  # correlation one half

    near(cp.query("E[x | y=1]", pair, seed=1)(), 0.5)
    phi = 2 / math.sqrt(2 * math.pi)  # mean of a half normal
    near(cp.query("E[y | x>0]", pair, seed=2)(), 0.5 * phi)
    near(cp.query("P(x>0, y>0)", pair, seed=3)(), 0.25 + math.asin(0.5) / (2 * math.pi))
    # doing x says nothing of the x that was
    near(cp.query("E[x[y=1]]", pair, seed=4)(), 0.0)
    near(cp.query("E[y[x=2] | y=1]", pair, seed=5)(), 1.0 + 0.5 * (2 - 0.5))


def test_nested_settings():
    def mediation(a=0.7, b=2.0, c=1.5, d=0.4):
        t = pyro.sample("t", dist.Bernoulli(0.5))
        m = pyro.sample("m", dist.Normal(a * t, 1.0))
        return pyro.sample("y", dist.Normal(b * m + c * t + d * t * m, 1.0))

    direct = cp.query("E[y[t=1, m=m[t=0]]] - E[y[t=0]]", mediation, seed=1)()
    near(direct, 1.5)  # c + d E[m[t=0]]
    assert direct.rung == 3
    near(cp.query("E[y[t=0, m=m[t=1]]] - E[y[t=0]]", mediation, seed=2)(), 1.4)
    near(cp.query("E[y | do(t=1)] - E[y | do(t=0)]", mediation, seed=3)(), 1.4 + 1.5 + 0.28)
    # the noise of y is shared by both worlds, so the direct effect of one unit is c + d m
    spread = cp.query("P(y[t=1, m=m[t=0]] - y[t=0] > 1.5)", mediation, seed=4)()
    near(spread, 0.5)


def test_expectations_of_vectors():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        return pyro.sample("y", dist.Normal(torch.arange(3.0) * x, 1.0).to_event(1))

    found = cp.query("E[y | do(x=2)] - E[y | do(x=1)]", model, seed=1)()
    # the noise of the two worlds is the same, so that nothing but round-off is left of it
    np.testing.assert_allclose(found.value, [0.0, 1.0, 2.0], atol=1e-6)
    assert np.all(found.standard_error < 1e-6)
    assert found.interval[0].shape == (3,)
    with pytest.raises(cp.errors.ShapeError, match="take a part"):
        float(found)
    with pytest.raises(cp.errors.QueryError, match=r"compares 'y', whose values have shape \(3,\)"):
        cp.query("P(y > 0)", model)()
    with pytest.raises(cp.errors.QueryError, match="mixes values of the shapes"):
        cp.query("E[y - x]", model)()


@pytest.mark.parametrize("make", [noise_cells.binary_model, noise_cells.ternary_model])
def test_sampled_and_exact_agree(make):
    run = noise_cells.program(make(np.random.default_rng(7)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cp.errors.CouplingWarning)
        for i, (text, _, _) in enumerate(QUERIES):
            exact = cp.query(text, run)()
            sampled = cp.query(text, run, method=cp.Enumeration(), num_samples=4000, seed=i)()
            assert not sampled.exact
            assert sampled.rung == exact.rung
            near(sampled, float(exact))


def test_terms_of_one_run_share_their_draws():
    def model():
        x = pyro.sample("x", dist.Normal(5.0, 1.0))
        return pyro.sample("y", dist.Normal(x, 0.01))

    # the difference is far better known than either mean
    apart = cp.query("E[y] - E[x]", model, seed=1)()
    assert apart.standard_error == pytest.approx(0.01 / 100, rel=0.05)
    ratio = cp.query("E[y] / E[x]", model, seed=1)()
    assert ratio.standard_error == pytest.approx(0.01 / 100 / 5, rel=0.05)


def test_an_event_that_never_happened_has_an_interval():
    def model():
        return pyro.sample("x", dist.Normal(0.0, 1.0))

    low, high = cp.query("P(x > 9)", model, seed=1)().interval
    assert low == 0.0
    assert high == pytest.approx(1.96**2 / 10_000, rel=0.01)


def test_factors_weigh_the_observed_unit_only():
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        pyro.factor("odds", x * math.log(3.0))
        return pyro.sample("y", dist.Bernoulli(0.2 + 0.6 * x))

    assert float(cp.query("P(x=1)", model)()) == 0.5
    near(cp.query("P(x=1)", model, over="sample", seed=1)(), 0.75)
    # P(x=1 | y=1) = .6 / .65, and of those with x=1, y=1 a share of .6 / .8 has y[x=0]=0
    near(cp.query("P(y[x=0]=0 | y=1)", model, seed=1)(), 0.6 / 0.65 * 0.75)


def test_sites_of_branches():
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        m = pyro.sample("m", dist.Normal(2.0, 1.0)) if x > 0 else torch.tensor(0.0)
        return pyro.sample("y", dist.Normal(m, 1.0))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cp.errors.ExecutorWarning)
        near(cp.query("E[m | x=1]", model, num_samples=400, seed=1)(), 2.0)
        near(cp.query("E[y[x=1] - y | x=0]", model, num_samples=400, seed=2)(), 2.0)
        near(cp.query("E[y | do(x=1)]", model, num_samples=400, seed=3)(), 2.0)


def test_user_evidence_with_ranges():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        return pyro.sample("y", dist.Normal(x, 1.0))

    found = cp.query(
        "E[y[x=1] - y]", model, evidence={"x": cp.Interval(2.0, math.inf)}, over="sample", seed=1
    )()
    tail = math.exp(-2.0) / math.sqrt(2 * math.pi) / (0.5 * math.erfc(math.sqrt(2.0)))
    near(found, 1.0 - tail)
    # a condition inside the range wins, one outside is impossible
    inside = {"x": cp.Interval(0.0, 2.0)}
    near(cp.query("E[y[x=0] | x=1]", model, evidence=inside, seed=1)(), 0.0)
    with pytest.raises(cp.errors.ImpossibleEvidenceError, match="contradicts"):
        cp.query("E[y[x=0] | x=3]", model, evidence=inside)()


# --- Plates and parameters --------------------------------------------------------------------------------------------


def people(x=None, y=None):
    """Known coefficients, five people."""
    with pyro.plate("people", 5):
        x = pyro.sample("x", dist.Normal(1.0, 1.0), obs=x)
        return pyro.sample("y", dist.Normal(2.0 * x, 1.0), obs=y)


X, Y = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 1.0, 5.0, 5.0, 9.0])


def test_sample_and_population():
    sample = cp.query("E[y[x=1] - y]", people, over="sample")(X, Y)
    assert float(sample) == pytest.approx(2.0 * (1.0 - 2.0), abs=1e-6)
    near(cp.query("E[y[x=1] - y]", people, seed=1)(X, Y), 0.0)  # new people
    # the treated: three of five observed people have x > 1
    treated = cp.query("E[y[x=0] | x > 1]", people)(X, Y)
    assert treated.rung == 3
    assert float(treated) == pytest.approx(float((Y - 2 * X)[2:].mean()), abs=1e-6)
    near(cp.query("E[y[x=0] | x > 1]", people, over="population", seed=2)(X, Y), 0.0)
    seen = cp.query("P(y > 4 | x > 1)", people, over="sample")(X, Y)
    assert float(seen) == 1.0
    near(cp.query("P(y > 2)", people, seed=3)(X, Y), 0.5)


def mean_model(y=None, size=20):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("units", size):
        x = pyro.sample("x", dist.Bernoulli(0.5))
        return pyro.sample("y", dist.Normal(mu + x, 1.0), obs=y)


def conjugate(y, count, seed):
    """Posterior draws of the mean of known treatments, by the formula."""
    precision = 1 / 4.0 + len(y)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, generator=generator)
    return (y.sum() / precision + noise / precision**0.5), y.sum() / precision, precision**-0.5


def observed_model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("units", len(y)):
        return pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_parameters_give_draws_of_the_estimand():
    y = 1.0 + torch.randn(20, generator=torch.Generator().manual_seed(0))
    samples, mean, sd = conjugate(y, 2000, 1)
    method = cp.PosteriorSamples({"mu": samples})
    new = cp.query("E[y]", observed_model, method=method, seed=1)(y)
    assert new.draws.shape == (2000,)
    assert float(new) == pytest.approx(float(mean), abs=5 * float(sd) / 2000**0.5)
    # as wide as the posterior, not as the finite number of simulated units makes it
    assert new.draws.std() == pytest.approx(float(sd), rel=0.06)
    assert new.interval == pytest.approx(
        (float(mean - 1.96 * sd), float(mean + 1.96 * sd)), abs=0.05
    )
    tail = cp.query("P(y > 1)", observed_model, method=method, seed=1)(y)
    direct = 0.5 * torch.erfc((1 - samples) / 2**0.5)
    assert float(tail) == pytest.approx(float(direct.mean()), abs=0.003)
    assert tail.draws.std() == pytest.approx(float(direct.std()), rel=0.06)
    assert any("'mu'" in note for note in tail.diagnostics.notes)
    # the parameter itself is the same for everybody
    own = cp.query("E[mu]", observed_model, method=method, seed=1)(y)
    np.testing.assert_allclose(own.draws, samples.numpy(), atol=1e-6)
    seen = cp.query("E[y]", observed_model, method=method, over="sample", seed=1)(y)
    assert float(seen) == pytest.approx(float(y.mean()), abs=1e-6)


def test_parameters_of_a_program_without_a_plate():
    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("before", dist.Normal(mu, 1.0))
        return pyro.sample("after", dist.Normal(mu, 1.0))

    found = cp.query("E[after]", model, evidence={"before": 2.0}, parameters=["mu"], num_samples=2000, seed=1)()  # fmt: skip
    near(found, 1.0, width=6)
    assert found.draws.std() == pytest.approx(0.5**0.5, rel=0.1)


def test_evidence_for_latent_treatments():
    y = torch.tensor([0.0, 1.0, 2.0])

    def model(y=None):
        with pyro.plate("units", 3):
            x = pyro.sample("x", dist.Bernoulli(0.5))
            return pyro.sample("y", dist.Normal(x, 1.0), obs=y)

    # weights of x=1 per unit: sigmoid(y - 1/2)
    chance = torch.sigmoid(y - 0.5)
    found = cp.query("E[y[x=0] - y]", model, over="sample", seed=1)(y)
    near(found, -float(chance.mean()))
    among = cp.query("E[y[x=0] | x=1]", model, seed=2)(y)
    near(among, float(((y - 1) * chance).sum() / chance.sum()))


@pytest.mark.slow
def test_intervals_cover_the_estimand():
    """In a conjugate normal model, 95% intervals of E[y] hold the mean in about 95 of 100 data sets."""
    held, trials = 0, 100
    for seed in range(trials):
        generator = torch.Generator().manual_seed(seed)
        mu = 2.0 * torch.randn((), generator=generator)
        y = mu + torch.randn(10, generator=generator)
        method = cp.PosteriorSamples({"mu": conjugate(y, 400, seed)[0]})
        low, high = cp.query("E[y]", observed_model, method=method, seed=seed)(y).interval
        held += low <= float(mu) <= high
    # 4 standard deviations of a binomial share
    assert abs(held / trials - 0.95) <= 4 * math.sqrt(0.95 * 0.05 / trials)


@pytest.mark.slow
def test_standard_errors_are_right():
    """Errors over standard errors have variance one, for ratios of terms and for conditions."""

    def model():
        x = pyro.sample("x", dist.Normal(1.0, 1.0))
        return pyro.sample("y", dist.Normal(2.0 * x, 1.0))

    phi = math.exp(-0.5) / math.sqrt(2 * math.pi) / (0.5 * math.erfc(-1 / math.sqrt(2)))
    for text, expected in [("E[y] / E[x]", 2.0), ("E[y | x > 0]", 2.0 * (1.0 + phi))]:
        scores = []
        for seed in range(200):
            found = cp.query(text, model, num_samples=1000, seed=seed)()
            scores.append((float(found) - expected) / found.standard_error)
        assert abs(np.mean(scores)) < 4 / math.sqrt(200)
        assert abs(np.var(scores) - 1) < 4 * math.sqrt(2 / 200)


def test_large_requests_run_in_parts(monkeypatch):
    whole = cp.query("P(y[x=2] > 3 | x < 1)", people, over="population", seed=1)(X, Y)
    monkeypatch.setattr(draws, "ELEMENTS", 5_000)
    parts = cp.query("P(y[x=2] > 3 | x < 1)", people, over="population", seed=1)(X, Y)
    # y[x=2] is N(4, 1) whatever x was
    for found in (whole, parts):
        near(found, 0.5 * math.erfc(-1 / math.sqrt(2)))
    assert parts.standard_error == pytest.approx(whole.standard_error, rel=0.2)


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_what_sampling_refuses():
    with pytest.raises(
        cp.errors.QueryError, match=r"probability zero in every unit.*x > 0.9, x < 1.1"
    ):
        cp.query("E[y | x=1]", people)(X, Y)
    with pytest.raises(cp.errors.InferenceError, match="selects none of"):
        cp.query("E[y | x > 50]", encouragement.model)()
    with pytest.raises(cp.errors.QueryError, match="another world has probability zero"):
        cp.query("E[y | y[h=1]=1, h > 0]", encouragement.model)()
    with pytest.raises(
        cp.errors.ImpossibleEvidenceError, match=r"'h = 2'.*contradicts the evidence"
    ):
        cp.query("E[y[h=2] | h=2]", encouragement.model, evidence={"h": 1.0}, over="sample")()


def test_several_plates_need_units():
    def schools():
        with pyro.plate("school", 2):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with pyro.plate("pupil", 3):
                pyro.sample("y", dist.Normal(a, 1.0))

    with pytest.raises(
        cp.errors.QueryError, match=r"say whose indices are the units, as in units="
    ):
        cp.query("E[y]", schools)()
    near(cp.query("E[y]", schools, units="school", seed=1)(), 0.0)


def test_a_default_coupling_that_matters_is_named_when_sampled_too():
    def model():
        with pyro.plate("units", 4):
            x = pyro.sample("x", dist.Bernoulli(0.5))
            table = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]])
            return pyro.sample("y", dist.Categorical(table[x.long()]))

    with pytest.warns(cp.errors.CouplingWarning, match=r"'y' \(gumbel_max; also inverse_cdf, "):
        found = cp.query("P(y[x=1] = 0 | x=0, y=1)", model, seed=1)()
    near(found, 3 / 13)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cp.query("P(y = 0 | do(x=1))", model, seed=1, num_samples=100)()


def test_the_error_of_a_contrast_of_worlds_that_share_their_noise():
    """y = (2 t - 1) z: the two terms are minus each other, so the contrast varies twice as much as one."""

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        t = pyro.sample("t", dist.Bernoulli(0.5))
        pyro.deterministic("y", (2 * t - 1) * z)

    def ask(seed):
        text = "E[y | do(t=1)] - E[y | do(t=0)]"
        return cp.query(text, model, num_samples=1000, seed=seed)()

    answers = [ask(seed) for seed in range(60)]
    exact = 2 / 1000**0.5
    assert answers[0].standard_error == pytest.approx(exact, rel=0.1)
    spread = torch.tensor([a.value for a in answers]).std()
    assert float(spread) == pytest.approx(exact, rel=4.5 / (2 * 59) ** 0.5)


def test_a_condition_on_a_function_with_two_values_selects_draws():
    """y = 1 where x + e > 1: continuous behind, but a condition that draws can meet."""

    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        e = pyro.sample("e", dist.Normal(0.0, 1.0))
        pyro.deterministic("y", (x + e > 1).float())

    norm = scipy.stats.norm
    joint = scipy.integrate.quad(lambda x: norm.pdf(x) * norm.sf(1 - x), 0, 9)[0]
    expected = joint / norm.sf(1 / 2**0.5)
    found = cp.query("P(x > 0 | y=1)", model, num_samples=20_000, seed=0)()
    assert found.value == pytest.approx(expected, abs=4.5 * found.standard_error)
    assert found.standard_error < 0.01
    # among those below 1, e < 1 - x: how many would be above if x were 2?
    joint = scipy.integrate.quad(lambda x: norm.pdf(x) * (norm.cdf(1 - x) - norm.cdf(-1)), -9, 2)
    expected = joint[0] / norm.cdf(1 / 2**0.5)
    found = cp.query("P(y[x=2] = 1 | y=0)", model, num_samples=20_000, seed=0)()
    assert found.value == pytest.approx(expected, abs=4.5 * found.standard_error)
