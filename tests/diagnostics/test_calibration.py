"""Calibration: exact posteriors pass at the rate that was promised, and each way of going wrong is caught."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from scipy import stats
from torch import Tensor

import causalppl as cp
from causalppl import errors
from causalppl.diagnostics import Calibration, coverage, simulation_based_calibration
from models.confounded_treatment import model as confounded

from .methods import OBSERVATIONS, Conjugate, gaussian

DATA = torch.zeros(OBSERVATIONS)


def check(method: Any, simulations: int = 60, **options: Any) -> Calibration:
    """Calibration of the conjugate program."""
    options = {"seed": 3, "num_samples": 99, **options}
    return simulation_based_calibration(gaussian, method, num_simulations=simulations, **options)(
        DATA
    )


def effect(posterior: cp.Posterior) -> xr.DataArray:
    """The effect of treatment on each unit's outcome."""
    worlds = {"treated": {"x": 1.0}, "untreated": {"x": 0.0}}
    return posterior.predict(worlds=worlds, sites=["y"]).contrast("y", "treated", "untreated")


def untreated(posterior: cp.Posterior) -> Tensor:
    """Each unit's outcome without treatment."""
    return posterior.predict({"x": 0.0}, sites=["y"]).tensor("y", world="counterfactual")


# --- One posterior that must pass, and those that must be caught ----------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_exact_posterior_passes(seed: int) -> None:
    found = check(Conjugate(), seed=seed)
    assert found.passed and found.p_value > 0.05
    assert set(found.p_values) == {"mean", "log_likelihood"}
    assert found.ranks["mean"].dims == ("simulation",)
    assert (found.summary().finding == "no contradiction").all()
    assert str(found).startswith("passed: Conjugate, 60 simulations")


@pytest.mark.parametrize(
    ("method", "finding"),
    [
        (Conjugate(width=0.5), "too narrow"),
        (Conjugate(width=2.0), "too wide"),
        (Conjugate(shift=0.8), "draws too high"),
        (Conjugate(shift=-0.8), "draws too low"),
    ],
)
def test_wrong_width_and_bias_are_caught_and_named(method: Conjugate, finding: str) -> None:
    found = check(method)
    assert not found.passed and found.p_value < 1e-3
    assert finding in found.summary().loc["mean", "finding"]
    assert str(found).startswith("NOT CALIBRATED")


def test_the_prior_is_caught_by_the_likelihood_alone() -> None:
    found = check(Conjugate(prior=True))
    assert found.p_values["mean"] > 0.05
    assert found.p_values["log_likelihood"] < 1e-6
    assert not found.passed


def test_one_seed_for_all_data_sets_is_caught() -> None:
    # few draws, so that the one set of random numbers is far from normal
    assert check(Conjugate(), 100, num_samples=4, thin=1).passed
    assert not check(Conjugate(seed=5), 100, num_samples=4, thin=1).passed


@pytest.mark.slow
def test_autocorrelated_draws_pass_where_thinned_and_fail_otherwise() -> None:
    sticky = Conjugate(sticky=0.95)
    assert not check(sticky, 150, num_samples=49, thin=1).passed
    assert check(sticky, 150, num_samples=49, thin=60).passed
    # where the method says how few effective draws it has, that many are kept
    told = Conjugate(sticky=0.95, ess=10 * 49 * (1 - 0.95) / (1 + 0.95))
    assert not check(Conjugate(sticky=0.95), 150, num_samples=49, thin=10, seed=4).passed
    assert check(told, 150, num_samples=49, thin=10, seed=4).passed


def test_the_rate_of_false_alarms_is_kept_by_exact_posteriors() -> None:
    # Conjugate posteriors drawn by NumPy: parameters, dependent local latents and the log likelihood, nothing of the toolkit.
    generator, draws, simulations, units, repeats = np.random.default_rng(0), 19, 40, 6, 500
    failed = 0
    for _ in range(repeats):
        m = generator.normal(size=(1, simulations, 1))
        z = m + generator.normal(size=(1, simulations, units))
        y = z + generator.normal(size=(1, simulations, units))
        # y | m ~ N(m, 2), z | m, y ~ N((m + y) / 2, 1/2)
        precision = 1 + units / 2
        noise = generator.normal(size=(draws, simulations, 1))
        ms = y.sum(-1, keepdims=True) / 2 / precision + noise / precision**0.5
        zs = (ms + y) / 2 + generator.normal(size=(draws, simulations, units)) / 2**0.5
        fit, fits = -((y - z) ** 2).sum(-1), -((y - zs) ** 2).sum(-1)
        ranks = {
            "m": (ms < m).sum(0)[:, 0],
            "z": (zs < z).sum(0),
            "log_likelihood": (fits < fit).sum(0),
        }
        arrays = {
            n: xr.DataArray(r, dims=("simulation", "units")[: r.ndim]) for n, r in ranks.items()
        }
        tested = {n: np.ones(a.shape[1:], dtype=bool) for n, a in arrays.items()}
        failed += not Calibration(xr.Dataset(arrays), draws, tested, 0.9, "exact").passed
    assert stats.binomtest(failed, repeats, 0.1, alternative="greater").pvalue > 1e-3
    assert failed / repeats > 0.03, "adjusted p-values need not waste all of the level"


# --- Counterfactual quantities --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def confounded_check() -> Calibration:
    """The confounded treatment with importance sampling per unit."""
    calibrate = simulation_based_calibration(
        confounded,
        cp.ImportanceSampling(num_proposals=4000),
        observed=["x", "y"],
        num_simulations=60,
        thin=4,
        quantities={"effect": effect, "untreated": untreated},
        seed=0,
    )
    return calibrate(12)


def test_counterfactuals_of_a_confounded_treatment_are_calibrated(
    confounded_check: Calibration,
) -> None:
    found = confounded_check
    assert found.passed
    assert found.ranks["effect"].dims == ("simulation", "units")
    assert set(found.tested) == {"z", "effect", "untreated", "log_likelihood"}
    # an untreated unit's outcome without treatment is what was seen, in every world
    table = found.summary()
    assert (table.entries == [12, 12, 12, 1]).all()


class Confounded:
    """Wrong posteriors of the latent ``z``: the prior, or draws much alike."""

    def __init__(self, width: float, prior: bool = False) -> None:
        self.width, self.prior = width, prior

    def sample(self, form: Any, num_samples: int, progress: Any) -> Any:
        """The prior, or a right posterior drawn together around its mean."""
        found = cp.ImportanceSampling(num_proposals=2000).sample(form, num_samples, progress)
        z = found.latents["z"]
        if self.prior:
            z = torch.randn(z.shape, generator=torch.Generator().manual_seed(form.seed % 2**63))
        z = z.mean(0) + self.width * (z - z.mean(0)) if self.width != 1 else z
        return type(found)({"z": z}, len(z), "Confounded", pareto_k=None, ess=None)


def test_wrong_counterfactuals_are_caught() -> None:
    def found(method: Confounded) -> dict[str, float]:
        calibrate = simulation_based_calibration(
            confounded,
            method,
            observed=["x", "y"],
            num_simulations=60,
            thin=2,
            quantities={"effect": effect, "untreated": untreated},
            seed=1,
        )
        return calibrate(12).p_values

    narrow, prior = found(Confounded(0.6)), found(Confounded(1.0, prior=True))
    assert narrow["effect"] < 1e-3
    assert prior["effect"] > 0.05, "1 + z has its prior law if z has"
    assert prior["untreated"] < 1e-3 and prior["log_likelihood"] < 1e-3


def finite(units: int = 6) -> None:
    """A hidden cause of treatment and outcome, all of it finite."""
    rate = pyro.sample("rate", dist.Bernoulli(0.5))
    with pyro.plate("units", units):
        hidden = pyro.sample("hidden", dist.Categorical(torch.tensor([0.2, 0.5, 0.3])))
        x = pyro.sample("x", dist.Bernoulli(0.2 + 0.3 * hidden))
        pyro.sample("y", dist.Bernoulli(0.1 + 0.3 * x + 0.2 * hidden + 0.1 * rate))


def outcomes(posterior: cp.Posterior) -> Tensor:
    """The number of units whose outcome treatment would change."""
    found = posterior.predict(worlds={"a": {"x": 1.0}, "b": {"x": 0.0}}, sites=["y"])
    return (found.tensor("y", world="a") != found.tensor("y", world="b")).sum(-1)


def test_counterfactuals_of_a_finite_program_are_calibrated() -> None:
    calibrate = simulation_based_calibration(
        finite,
        cp.Enumeration(),
        observed=["x", "y"],
        num_simulations=60,
        quantities={"changed": outcomes},
        seed=0,
    )
    found = calibrate()
    assert found.passed
    assert found.summary().loc["changed", "entries"] == 1
    assert found.ranks["hidden"].dims == ("simulation", "units")


class Redrawn:
    """A Bernoulli mechanism that forgets the value when noise is abducted, as other toolkits do."""

    invertible = False

    def noise(self, fn: Any) -> Any:
        """Uniform, whatever the parents."""
        return dist.Uniform(torch.zeros(fn.batch_shape), 1.0)

    def forward(self, fn: Any, noise: Tensor) -> Tensor:
        """Inverse CDF."""
        return (noise > 1 - fn.probs).to(fn.probs)

    def base(self, fn: Any) -> Any:
        """The noise itself."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Tensor) -> Tensor:
        """Drawn afresh: this is the defect."""
        return base


class Abducted(Redrawn):
    """The same mechanism, abducted rightly."""

    def abduct(self, fn: Any, value: Tensor, base: Tensor) -> Tensor:
        """Uniform on the part of the unit interval that gives the value."""
        p = fn.probs
        return torch.where(value == 1, 1 - p + p * base, (1 - p) * base)


@pytest.mark.parametrize(("mechanism", "right"), [(Abducted(), True), (Redrawn(), False)])
def test_noise_that_is_not_abducted_is_caught(mechanism: Any, right: bool) -> None:
    def program(y: Tensor) -> None:
        dose = pyro.sample("dose", dist.Normal(0.0, 1.0), obs=torch.zeros(()))
        with pyro.plate("units", len(y)):
            pyro.sample(
                "y", dist.Bernoulli(torch.sigmoid(dose + 1)), obs=y, infer={"mechanism": mechanism}
            )

    def changed(posterior: cp.Posterior) -> Tensor:
        worlds = posterior.predict({"dose": 0.0}, sites=["y"])
        other = worlds.tensor("y", world="counterfactual")
        return (other != worlds.tensor("y", world="factual")).sum(-1)

    calibrate = simulation_based_calibration(
        program,
        num_simulations=50,
        thin=2,
        quantities={"changed": changed},
        seed=1,
    )
    assert calibrate(torch.zeros(20)).passed is right


# --- Programs of all kinds ------------------------------------------------------------------------------------------


def test_data_keep_their_missing_entries() -> None:
    y = torch.tensor([0.0, float("nan"), 0.0])
    calibrate = simulation_based_calibration(
        gaussian, cp.ImportanceSampling(num_proposals=3000), num_simulations=50, thin=3, seed=0
    )
    found = calibrate(y)
    assert found.passed
    assert found.tested["y"].tolist() == [False, True, False]
    assert found.summary().loc["y", "entries"] == 1


def test_a_mask_of_observations_is_kept() -> None:
    def program(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("people", 3):
            mask = torch.tensor([True, False, True])
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y, obs_mask=mask)

    calibrate = simulation_based_calibration(
        program, cp.ImportanceSampling(num_proposals=3000), num_simulations=50, thin=3, seed=0
    )
    found = calibrate(torch.zeros(3))
    assert found.passed
    assert {n: int(t.sum()) for n, t in found.tested.items()} == {
        "mean": 1,
        "y_observed": 1,
        "log_likelihood": 1,
    }


def test_deterministic_sites_can_be_ranked() -> None:
    def program(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.deterministic("square", mean**2)
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    method = cp.ImportanceSampling(num_proposals=2000)
    calibrate = simulation_based_calibration(
        program, method, sites=["square"], num_simulations=30, seed=0
    )
    found = calibrate(torch.zeros(()))
    assert set(found.tested) == {"square", "log_likelihood"}
    assert found.passed


def test_a_site_without_a_mechanism_is_simulated_by_pyro() -> None:
    def program(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("people", len(y)):
            pyro.sample("y", Unregistered(mean), obs=y)

    class Unregistered(dist.TorchDistribution):
        """A normal law under another name, without a mechanism."""

        arg_constraints: ClassVar[dict[str, Any]] = {}
        support = dist.constraints.real

        def __init__(self, loc: Tensor) -> None:
            self.inner = dist.Normal(loc, 1.0)
            super().__init__(self.inner.batch_shape, validate_args=False)

        def sample(self, shape: Any = ()) -> Tensor:
            return self.inner.sample(shape)

        def log_prob(self, value: Tensor) -> Tensor:
            return self.inner.log_prob(value)

        def expand(self, shape: Any, _instance: Any = None) -> Any:
            return Unregistered(self.inner.loc.expand(shape))

    found = simulation_based_calibration(program, Conjugate(), num_simulations=40, seed=0)(DATA)
    assert found.passed
    wrong = simulation_based_calibration(program, Conjugate(width=0.4), num_simulations=40, seed=0)
    assert not wrong(DATA).passed


def test_results_are_those_of_their_seed_and_leave_torch_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b, c = check(Conjugate(), 12), check(Conjugate(), 12), check(Conjugate(), 12, seed=4)
    assert (torch.get_rng_state() == before).all()
    assert a.ranks.equals(b.ranks) and not a.ranks.equals(c.ranks)


def test_warnings_of_the_method_are_counted_in_notes() -> None:
    class Doubtful(Conjugate):
        def sample(self, form: Any, num_samples: int, progress: Any) -> Any:
            errors.warn_caller(
                f"draws are doubtful: k-hat {form.seed}; stop", errors.InferenceWarning
            )
            return super().sample(form, num_samples, progress)

    assert check(Doubtful(), 12).notes == (
        "draws are doubtful: k-hat ... (in 12 of 12 simulations)",
    )


# --- Coverage -------------------------------------------------------------------------------------------------------


def test_coverage_is_nominal_for_exact_posteriors() -> None:
    table = coverage(check(Conjugate(), 100), [0.5, 0.8, 0.96])
    assert list(table.columns) == ["nominal", "empirical", "low", "high"]
    assert np.allclose(table.nominal, np.tile([0.5, 0.8, 0.96], 2)), "levels that 99 draws have"
    assert ((table.low <= table.nominal) & (table.nominal <= table.high)).all()


def test_coverage_of_an_over_confident_posterior_is_what_theory_says() -> None:
    table = coverage(check(Conjugate(width=0.5), 150, sites=["mean"]), [0.5, 0.9]).loc["mean"]
    for level, row in table.iterrows():
        half = 0.5 * stats.norm.ppf((1 + row.nominal) / 2)
        expected = 2 * stats.norm.cdf(half) - 1
        assert row.low <= expected <= row.high, level
        assert row.high < row.nominal


def test_coverage_over_units_has_errors_over_simulations(confounded_check: Calibration) -> None:
    row = coverage(confounded_check, [0.8]).loc[("effect", 0.8)]
    inside = (confounded_check.ranks_of("effect") >= 10) & (
        confounded_check.ranks_of("effect") <= 89
    )
    assert row.empirical == pytest.approx(inside.mean())
    half = stats.t.ppf(0.975, 59) * inside.mean(1).std(ddof=1) / 60**0.5
    assert (row.low, row.high) == pytest.approx((row.empirical - half, row.empirical + half))
    assert row.low <= 0.8 <= row.high


# --- What is refused ------------------------------------------------------------------------------------------------


def test_refusals() -> None:
    with pytest.raises(errors.MethodError, match="num_simulations=0"):
        simulation_based_calibration(gaussian, num_simulations=0)
    with pytest.raises(errors.MethodError, match=r"level=95"):
        simulation_based_calibration(gaussian, level=95)
    with pytest.raises(errors.MethodError, match="no data to simulate"):
        simulation_based_calibration(confounded)(3)
    with pytest.raises(errors.UnknownSiteError, match="'y'"):
        simulation_based_calibration(confounded, observed=["yy"])(3)
    with pytest.raises(errors.UnknownSiteError, match="mean"):
        check(Conjugate(), 2, sites=["men"])
    with pytest.raises(errors.MethodError, match="name of a site"):
        check(Conjugate(), 2, quantities={"mean": lambda p: p.latents["mean"]})
    with pytest.raises(errors.ShapeError, match="one entry for each draw"):
        check(Conjugate(), 2, quantities={"m": lambda p: p.latents["mean"].mean()})
    with pytest.raises(errors.ShapeError, match="none is 'draw'"):
        check(Conjugate(), 2, quantities={"m": lambda p: p.predict()["mean"].mean("draw")})
    with pytest.raises(errors.MethodError, match="NaN in simulation 0"):
        check(Conjugate(), 2, quantities={"m": lambda p: p.latents["mean"] * float("nan")})
    with pytest.raises(errors.MethodError, match="nothing to judge"):
        simulation_based_calibration(confounded, observed=["z", "x", "y"], num_simulations=2)(3)
    with pytest.raises(errors.UnknownSiteError, match="'men'"):
        check(Conjugate(), 2).ranks_of("men")
    with pytest.raises(errors.MethodError, match=r"1\.5 is no probability"):
        coverage(check(Conjugate(), 2), [1.5])


def test_programs_whose_data_have_another_law_are_refused() -> None:
    def factor(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.factor("pull", -(mean**2))
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    def scaled(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.poutine.scale(scale=2.0):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    def branching(y: Tensor) -> None:
        if pyro.sample("a", dist.Bernoulli(0.5)):
            pyro.sample("b", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    with pytest.raises(errors.MethodError, match="factor 'pull'"):
        simulation_based_calibration(factor)(torch.zeros(()))
    with pytest.raises(errors.MethodError, match="'y' is weighed by a scale"):
        simulation_based_calibration(scaled)(torch.zeros(()))
    with (
        pytest.warns(errors.ExecutorWarning),
        pytest.raises(errors.ProgramError, match="differ from run to run"),
    ):
        simulation_based_calibration(branching, num_simulations=8, seed=0)(torch.zeros(()))


@pytest.mark.slow
def test_a_sampler_is_calibrated() -> None:
    def program(y: Tensor) -> None:
        scale = pyro.sample("scale", dist.Gamma(3.0, 3.0))
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("people", len(y)):
            pyro.sample("y", dist.StudentT(5.0, mean, scale), obs=y)

    calibrate = simulation_based_calibration(program, cp.NUTS(chains=1), num_simulations=8, seed=1)
    found = calibrate(torch.zeros(4))
    assert found.passed
    assert set(found.tested) == {"scale", "mean", "log_likelihood"}
