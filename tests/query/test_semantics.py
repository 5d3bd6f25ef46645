"""What queries mean: rungs, worlds, evidence, units, couplings, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp

#: Couplings matter to most of these answers; what is said of them has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore::causalppl.errors.CouplingWarning")


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def table(rows, *parents):
    found = torch.tensor(rows, dtype=torch.float64)
    for parent in parents:
        found = found[parent.long()]
    return dist.Bernoulli(found)


def zxmy():
    """z -> x -> m -> y with z -> y and x -> y."""
    z = pyro.sample("z", table(0.4))
    x = pyro.sample("x", table([0.3, 0.6], z))
    m = pyro.sample("m", table([0.2, 0.7], x))
    return pyro.sample("y", table([[[0.1, 0.5], [0.3, 0.9]], [[0.2, 0.4], [0.6, 0.8]]], z, x, m))


@pytest.mark.parametrize(
    ("text", "rung"),
    [
        ("P(y=1)", 1),
        ("P(y=1, x=0 | z=1)", 1),
        ("E[y | do(x=1)]", 2),
        ("E[y[x=1]]", 2),
        ("E[y | do(x=1), z=1]", 2),
        ("E[y[x=1] | z=1]", 2),  # z is no descendant of x
        ("P(y[x=1] = 1, z = 0)", 2),
        ("E[y[x=1] | m[x=1]=1]", 2),
        ("P(y[x=1]=1, m[x=1]=0)", 2),
        ("E[y[x=1]] - E[y[x=0]]", 2),
        ("E[y[x=1] - y[x=0]]", 2),  # linear: one world at a time
        ("E[2 * y[x=1] - y[x=0] / 3 + 1 | z=1]", 2),
        ("E[y[m=1, x=1] | m[x=1]=1]", 3),
        ("E[y[x=1, m=m[x=1]]]", 2),  # composition
        ("E[y[m=1, x=0]]", 2),
        ("E[m[x=1, z=0]]", 2),
        ("P(z[x=1] = 1)", 2),
        ("E[y[x=1] | x=0]", 3),
        ("E[y[x=1] | m=1]", 3),
        ("P(y[x=1]=1, y[x=0]=0)", 3),
        ("E[y[x=1] * y[x=0]]", 3),
        ("E[y[x=1, m=m[x=0]]]", 3),
        ("E[y[x=1, m=m]]", 3),
        ("E[y | do(x=1)] + P(y[x=0]=0 | x=1, y=1)", 3),
    ],
)
def test_rungs(text, rung):
    assert cp.query(text, zxmy)().rung == rung


EQUAL = [
    ("E[y[x=1, m=m[x=1]]]", "E[y[x=1]]"),
    ("E[y[x=1] | z=1]", "E[y | do(x=1), z=1]"),
    ("E[y[x=1, m=m] | x=1]", "E[y | x=1]"),  # consistency
    ("E[y[x=1] | x=1, z=0]", "E[y | x=1, z=0]"),
    ("P(z[x=1] = 1)", "P(z = 1)"),
    ("E[m[x=1, z=0]]", "E[m[x=1]]"),
    ("E[x[x=1]]", "E[y] / E[y]"),
    ("P(y=1 | x=0)", "P(y=1, x=0) / P(x=0)"),
    ("E[y]", "P(y=1)"),
    ("1 - P(y=1)", "P(y != 1)"),
    ("P(1 > y)", "P(y <= 0)"),
    ("-E[y] + 2 * 3", "6 - E[y]"),
    ("E[y[x=1] - y[x=0] | m=1]", "E[y[x=1] | m=1] - E[y[x=0] | m=1]"),
]


@pytest.mark.parametrize(("left", "right"), EQUAL)
def test_queries_that_mean_the_same(left, right):
    assert float(cp.query(left, zxmy)()) == pytest.approx(float(cp.query(right, zxmy)()), abs=1e-12)


# --- Evidence, units and parameters -----------------------------------------------------------------------------------


def test_evidence_speaks_of_the_observed_unit_on_rung_3_only():
    by_condition = float(cp.query("E[y[x=1] | x=0, y=0]", zxmy)())
    evidence = {"x": 0.0, "y": 0.0}
    assert float(cp.query("E[y[x=1] | x=0, y=0]", zxmy, evidence=evidence)()) == by_condition
    population = cp.query("E[y[x=1]]", zxmy, evidence=evidence)()
    assert float(population) == float(cp.query("E[y[x=1]]", zxmy)())
    assert any("over='sample'" in note for note in population.diagnostics.notes)
    sample = cp.query("E[y[x=1]]", zxmy, evidence=evidence, over="sample")()
    assert float(sample) == pytest.approx(by_condition, abs=1e-12)
    free = cp.query("P(y[x=1]=1, y[x=0]=0)", zxmy, evidence=evidence, over="population")()
    assert float(free) == pytest.approx(float(cp.query("P(y[x=1]=1, y[x=0]=0)", zxmy)()), abs=1e-12)


def test_obs_sites_are_evidence():
    def observed():
        x = pyro.sample("x", table(0.5), obs=double(1.0)[0])
        pyro.sample("y", table([0.4, 0.7], x), obs=double(1.0)[0])

    assert float(cp.query("P(y[x=0]=0 | x=1)", observed)()) == pytest.approx(3 / 7, abs=1e-12)
    assert float(cp.query("P(y=1)", observed)()) == pytest.approx(0.55, abs=1e-12)
    assert float(cp.query("P(y=1)", observed, over="sample")()) == 1.0


def test_finite_parameters_are_learnt_and_give_the_interval():
    def coin():
        p = pyro.sample("kind", dist.Categorical(double(0.2, 0.3, 0.5)))
        first = double(0.1, 0.5, 0.9)[p]
        pyro.sample("before", dist.Bernoulli(first))
        pyro.sample("next", dist.Bernoulli(first))

    found = cp.query("P(next=1)", coin, evidence={"before": 1.0}, parameters=["kind"])()
    weights = np.array([0.2, 0.3, 0.5]) * [0.1, 0.5, 0.9]
    weights /= weights.sum()
    assert found.exact
    assert float(found) == pytest.approx(float(weights @ [0.1, 0.5, 0.9]), abs=1e-12)
    assert found.interval == pytest.approx((0.1, 0.9))
    unaware = cp.query("P(next=1)", coin, evidence={"before": 1.0})()
    assert float(unaware) == pytest.approx(0.62, abs=1e-12)


def test_nested_settings_with_branches():
    def branch():
        x = pyro.sample("x", table(0.5))
        if x > 0:
            m = pyro.sample("m", table(0.3))
        else:
            m = torch.zeros(())
        return pyro.sample("y", table([[0.1, 0.2], [0.3, 0.9]], x, m))

    def ask(text):
        estimate = cp.query(text, branch)()
        assert estimate.exact
        return float(estimate)

    # y is 1 where u < p: monotone, p = .1 without treatment, .3 or .9 with it
    assert ask("E[y | do(x=1)]") == pytest.approx(0.7 * 0.3 + 0.3 * 0.9, abs=1e-12)
    assert ask("P(y[x=1]=0, y[x=0]=1)") == 0.0
    assert ask("P(y[x=1]=1 | x=0, y=0)") == pytest.approx((0.7 * 0.2 + 0.3 * 0.8) / 0.9, abs=1e-12)
    assert ask("P(m=1 | x=1)") == pytest.approx(0.3, abs=1e-12)
    assert ask("P(m=1)") == pytest.approx(0.15, abs=1e-12)  # an absent site is not 1
    with pytest.raises(cp.errors.QueryError, match="runs that lack"):
        cp.query("E[m]", branch)()


# --- Couplings --------------------------------------------------------------------------------------------------------


def ternary(rows=((0.2, 0.3, 0.5), (0.5, 0.3, 0.2)), **infer):
    def model():
        x = pyro.sample("x", dist.Categorical(torch.full((len(rows),), 1 / len(rows)).double()))
        probs = torch.tensor(rows, dtype=torch.float64)[x]
        return pyro.sample("y", dist.Categorical(probs), infer=infer)

    return model


def test_a_default_coupling_that_matters_is_named():
    with pytest.warns(cp.errors.CouplingWarning, match=r"'y' \(gumbel_max; also inverse_cdf, .*sensitivity.*cp.bounds"):  # fmt: skip
        estimate = cp.query("P(y[x=1] = 0 | x=0, y=1)", ternary())()
    assert estimate.diagnostics.mechanisms == {"y": "gumbel_max"}


def test_two_values_have_several_couplings_too():
    with pytest.warns(
        cp.errors.CouplingWarning, match=r"'m' \(inverse_cdf; also antitone, independent\)"
    ):
        found = cp.query("P(m[x=1] = 0 | x=0, m=1)", zxmy)()
    assert found.diagnostics.identification == "graph and couplings"


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("E[y | do(x=1)]", ternary()),
        ("E[y[x=1] - y[x=0]]", ternary()),
        ("P(y[x=1] = 0 | x=0, y=1)", ternary(mechanism="gumbel_max")),
        ("P(y[x=1] = 0 | x=0, y=1)", ternary(((0.2, 0.8), (0.0, 1.0)))),  # certain in one world
        ("P(y[x=1] = 0 | x=0, y=1)", ternary(((0.2, 0.3, 0.5), (0.2, 0.3, 0.5)))),  # same law
    ],
)
def test_no_warning_where_the_coupling_does_not_matter_or_was_chosen(text, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cp.query(text, model)()


def test_mechanism_sensitivity():
    found = cp.mechanism_sensitivity(
        "P(y[x=1] = 0 | x=0, y=1)", ternary(), {"y": ["inverse_cdf", "gumbel_max"]}
    )()
    by_name = {dict(choice)["y"]: float(estimate) for choice, estimate in found.items()}
    assert by_name == pytest.approx({"inverse_cdf": 1.0, "gumbel_max": 3 / 13}, abs=1e-12)
    assert found[("y", "inverse_cdf"),].diagnostics.mechanisms == {"y": "inverse_cdf"}


def test_mechanism_sensitivity_of_a_continuous_site():
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        return pyro.sample("y", dist.Normal(x, 1.0))

    names = ["affine", "antitone", "independent"]
    text = "P(y[x=1] > y | x=0)"
    found = cp.mechanism_sensitivity(text, model, {"y": names}, seed=3)()
    values = {dict(choice)["y"]: estimate for choice, estimate in found.items()}
    for name, expected in zip(names, [1.0, 0.6915, 0.7602], strict=True):
        low, high = values[name].interval
        assert low - 0.005 <= expected <= high + 0.005, name


def test_three_worlds_of_a_gumbel_max_site_are_sampled_and_say_so():
    rows = [(0.2, 0.3, 0.5), (0.5, 0.3, 0.2), (0.3, 0.6, 0.1)]
    text = "P(y[x=2] = 1 | y[x=0] = 2, y[x=1] = 0)"
    found = cp.query(text, ternary(rows, mechanism="gumbel_max"), seed=0)()
    assert not found.exact
    assert found.standard_error > 0
    assert any("sampled: y" in note for note in found.diagnostics.notes)
    rng = np.random.default_rng(1)
    gumbels = rng.gumbel(size=(1_000_000, 3))
    wins = [(gumbels + np.log(row)).argmax(1) for row in rows]
    fits = (wins[0] == 2) & (wins[1] == 0)
    expected = (wins[2][fits] == 1).mean()
    error = np.hypot(found.standard_error, np.sqrt(expected * (1 - expected) / fits.sum()))
    assert abs(float(found) - expected) < 4.5 * error


def test_three_monotone_worlds_are_exact():
    model = ternary([(0.2, 0.3, 0.5), (0.5, 0.3, 0.2), (0.3, 0.6, 0.1)], mechanism="inverse_cdf")
    found = cp.query("P(y[x=0]=2, y[x=1]=1, y[x=2]=1)", model)()
    # u in (.5, 1), (.5, .8) and (.3, .9)
    assert found.exact
    assert float(found) == pytest.approx(0.3, abs=1e-12)


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keywords", "error", "message"),
    [
        ("E[yy]", {}, cp.errors.UnknownSiteError, "no site 'yy'.*did you mean 'y'"),
        ("E[y[xx=1]]", {}, cp.errors.UnknownSiteError, "no site 'xx'"),
        ("E[y/x]", {}, cp.errors.UnknownSiteError, "write y / x to divide"),
        ("E[y | do(x=1), x=1]", {}, cp.errors.EvidenceError, "conditions on 'x' in a world where do"),
        ("E[y | x[x=1]=1]", {}, cp.errors.EvidenceError, "conditions on 'x'"),
        ("E[y[m=x[z=0]]]", {}, cp.errors.QueryError, "value of another site"),
        ("E[y | x=5]", {}, cp.errors.ImpossibleEvidenceError, "probability zero"),
        ("E[y | do(x=5)]", {}, cp.errors.SupportError, "outside the support"),
        ("E[y]", {"units": "people"}, cp.errors.QueryError, "'people' is no plate"),
        ("E[y]", {"parameters": ["zz"]}, cp.errors.QueryError, "'zz' is no latent site"),
        ("E[y]", {"parameters": "z"}, cp.errors.QueryError, "as a list"),
        ("E[y]", {"observed": "z"}, cp.errors.QueryError, "as a list"),
        ("E[y]", {"observed": ["yy"]}, cp.errors.UnknownSiteError, "observed names 'yy'.*did you mean 'y'"),
        ("E[y]", {"over": "units"}, cp.errors.QueryError, "'sample', 'population' or None"),
        ("E[y]", {"num_samples": 0}, cp.errors.MethodError, "positive integer"),
        ("E[y]", {"method": cp.NUTS}, cp.errors.MethodError, "no inference method"),
    ],
)  # fmt: skip
def test_what_is_refused(text, keywords, error, message):
    with pytest.raises(error, match=message):
        cp.query(text, zxmy, **keywords)()


def test_an_argument_is_no_site():
    def model(dose):
        return pyro.sample("y", dist.Bernoulli(dose))

    with pytest.raises(cp.errors.UnknownSiteError, match=r"'dose' is an argument.*deterministic"):
        cp.query("E[y | do(dose=0.5)]", model)(0.3)


def test_sensitivity_refuses_what_it_cannot_try():
    with pytest.raises(cp.errors.UnknownSiteError, match="no site 'w'"):
        cp.mechanism_sensitivity("E[y]", zxmy, {"w": ["inverse_cdf"]})()
    with pytest.raises(cp.errors.NoMechanismError, match="no mechanism named 'gumbel'"):
        cp.mechanism_sensitivity("E[y]", ternary(), {"y": ["gumbel"]})()
    with pytest.raises(cp.errors.QueryError, match="mapping such as"):
        cp.mechanism_sensitivity("E[y]", zxmy, [])


def test_the_generator_is_left_alone_and_the_estimate_reads_well():
    state = torch.random.get_rng_state()
    estimate = cp.query("P(y=1 | x=0)", zxmy, seed=1)()
    assert torch.equal(state, torch.random.get_rng_state())
    assert repr(estimate).startswith("Estimate(0.")
    assert repr(estimate).endswith("exact, rung 1: P(y=1 | x=0))")
    assert estimate.interval == (float(estimate), float(estimate))
    assert estimate.draws is None


def test_twelve_binary_sites_in_four_worlds_are_quick():
    def chain():
        v = pyro.sample("v0", table(0.5))
        for i in range(1, 12):
            v = pyro.sample(f"v{i}", table([0.2, 0.7], v))

    text = "P(v11[v0=1]=1, v11[v0=0]=0, v11[v5=1]=1 | v11=0)"
    estimate = cp.query(text, chain)()
    assert estimate.exact
    # two worlds side by side: the pair (v0=1, v0=0) stays apart only while one uniform falls between .2 and .7
    assert float(cp.query("P(v11[v0=1]=1, v11[v0=0]=0)", chain)()) == pytest.approx(
        0.5**11, abs=1e-12
    )


# --- Divisions by zero ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["finite", "continuous"])
@pytest.mark.parametrize(
    "text",
    [
        "E[y / x]",
        "E[y] / E[zero]",
        "E[zero / zero]",
        "1 / E[y / x]",
        "1 / E[1 / x]",
        "E[y] / P(y < 0 | x=1)",
    ],
)
def test_a_division_by_zero_is_refused(text, noise):
    def model():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        pyro.deterministic("zero", 0.0 * x)
        law = dist.Exponential(1.0) if noise == "continuous" else dist.Bernoulli(0.5)
        return pyro.sample("y", law)

    with pytest.raises(cp.errors.QueryError, match=r"zero.*a condition after the bar"):
        cp.query(text, model, num_samples=200, seed=0)()
    assert float(cp.query("E[y / x | x != 0]", model, num_samples=200, seed=0)()) > 0


# --- Warnings where laws differ ---------------------------------------------------------------------------------------


def three(row, size=4):
    """Three categories whose probabilities a tracked parent picks by ``row``; in a plate, so that they are sampled."""
    table = double([0.2, 0.3, 0.5], [0.5, 0.3, 0.2])

    def model():
        with pyro.plate("units", size):
            x = pyro.sample("x", dist.Bernoulli(0.5))
            return pyro.sample("y", dist.Categorical(table[row(x)]))

    return model


def test_a_tracked_parent_without_effect_is_no_reason_to_warn():
    text = "P(y[x=1] = 0 | x=0, y=1)"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cp.query(text, three(lambda x: (0 * x).long()), seed=0, num_samples=400)()
        assert float(found) == 0.0
        # the other world's law is the same because the set value is what x is where the condition holds
        cp.query("P(y[x=1] = 0 | x=1, y=1)", three(lambda x: torch.ones_like(x).long()), num_samples=400)()  # fmt: skip
    with pytest.warns(cp.errors.CouplingWarning, match="'y'"):
        cp.query(text, three(lambda x: x.long()), seed=0, num_samples=400)()


def test_a_law_that_rarely_differs_is_still_named():
    def model():
        with pyro.plate("units", 1):
            x = pyro.sample("x", dist.Bernoulli(0.5))
            rare = pyro.sample("rare", dist.Bernoulli(0.02))
            table = double([0.2, 0.3, 0.5], [0.5, 0.3, 0.2])
            return pyro.sample("y", dist.Categorical(table[(x * rare).long()]))

    with pytest.warns(cp.errors.CouplingWarning, match="'y'"):
        cp.query("P(y[x=1] = 0, y[x=0] = 1)", model, seed=0, num_samples=1000)()


def test_what_is_sampled_says_why():
    def vector():
        x = pyro.sample("x", dist.Bernoulli(0.5))
        return pyro.sample("y", dist.OneHotCategorical(torch.tensor([0.5, 0.5]) + 0 * x))

    found = cp.query("E[y | do(x=1)]", vector, num_samples=100, seed=0)()
    assert "site 'y' has shape (2,)" in found.diagnostics.why
    assert cp.query("P(x=1)", vector)().exact
