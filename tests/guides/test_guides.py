"""What a guide refuses and why; files; Pyro's own inference; training on data; trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import causalppl as cp
from causalppl import errors

from .programs import linear, mixture, mixture_posterior, people, schools

N = dist.Normal


def line(y: Any = None) -> None:
    z = pyro.sample("z", N(0.0, 1.0))
    pyro.sample("y", N(z, 0.5), obs=y)


@pytest.fixture(scope="module")
def of_line() -> Any:
    guide = cp.AmortizedGuide(line, observed=["y"], flow="gaussian", width=16, seed=0)()
    guide.fit(steps=150, learning_rate=1e-2)
    return guide


# --- Building ---------------------------------------------------------------------------------------------------------


def test_names_and_options_are_checked() -> None:
    build = cp.AmortizedGuide
    with pytest.raises(
        errors.MethodError, match=r"none of the program's sites has obs=.*observed="
    ):
        build(line)()
    with pytest.raises(errors.UnknownSiteError, match=r"observed.*'w'"):
        build(line, observed=["w"])()
    with pytest.raises(errors.MethodError, match=r"give a list of sites, \['y'\]"):
        build(line, observed="y")
    with pytest.raises(errors.MethodError, match="flow='realnvp' is not known"):
        build(line, flow="realnvp")
    with pytest.raises(errors.UnknownSiteError, match="embed: 'x' is no observed site"):
        build(line, observed=["y"], embed={"x": "vector"})()
    with pytest.raises(errors.MethodError, match="no latent site influences"):
        build(line, observed=["z"])()


def test_observed_sites_are_those_with_obs_by_default() -> None:
    guide = cp.AmortizedGuide(line, width=16, seed=0)(torch.tensor(1.0))
    assert guide.observed == ("y",) and guide.latent == ("z",)
    assert repr(guide) == "Guide(for 'z' given any of 'y'; not trained)"


def test_a_network_of_ones_own_embeds() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[1:] == (6,)
            return x.sum(-1, keepdim=True)

    guide = cp.AmortizedGuide(
        linear, observed=["y0", "y1"], embed={"y0": Sum()}, width=16, seed=0
    )()
    guide.fit(steps=3, batch_size=8)

    class Wrong(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum()

    with pytest.raises(
        errors.MethodError, match=r"site 'y0' returned \(\).*it must return \(2, features\)"
    ):
        cp.AmortizedGuide(linear, observed=["y0"], embed={"y0": Wrong()})()


def test_images_and_sequences_in_a_plate() -> None:
    def model() -> None:
        with pyro.plate("units", 3):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("picture", N(z[:, None, None].expand(3, 8, 8), 1.0).to_event(2))
            pyro.sample("record", N(z[:, None, None].expand(3, 10, 2), 1.0).to_event(2))

    guide = cp.AmortizedGuide(model, observed=["picture", "record"], width=16, seed=0)()
    names = {type(e.embed).__name__ for e in guide.network.encoders.values() if e.shape.name != "z"}
    assert names == {"ImageEmbedding", "SequenceEmbedding"}
    guide.fit(steps=40, batch_size=8, learning_rate=1e-2)
    draws = guide.sample(
        {"picture": torch.ones(3, 8, 8), "record": torch.ones(3, 10, 2)}, 200, seed=0
    )
    assert draws["z"].shape == (200, 3)
    assert abs(float(draws["z"].mean()) - 84 / 85) < 0.5


def test_a_subsampled_plate_is_refused() -> None:
    def model() -> None:
        with pyro.plate("units", 10, subsample_size=4):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("y", N(z, 1.0))

    with pytest.raises(errors.MethodError, match="plate 'units' is subsampled to 4 of 10"):
        cp.AmortizedGuide(model, observed=["y"])()


def test_values_that_depend_on_each_other_without_being_categories_are_refused() -> None:
    def model() -> None:
        m = pyro.sample("m", dist.Multinomial(5, torch.ones(3) / 3))
        pyro.sample("y", N(m[..., 0], 1.0))

    with pytest.raises(errors.MethodError, match=r"discrete site 'm' \(Multinomial\)"):
        cp.AmortizedGuide(model, observed=["y"])()


def test_a_support_that_moves_is_refused() -> None:
    def model() -> None:
        top = pyro.sample("top", dist.LogNormal(0.0, 1.0))
        z = pyro.sample("z", dist.Uniform(0.0, top))
        pyro.sample("y", N(z, 1.0))

    with pytest.raises(
        errors.MethodError, match="support of site 'z' depends on other latent sites"
    ):
        cp.AmortizedGuide(model, observed=["y"])()


# --- Evidence ---------------------------------------------------------------------------------------------------------


def test_evidence_that_the_guide_does_not_see(of_line: Any) -> None:
    with pytest.raises(
        errors.GuideMismatchError, match=r"does not see site 'z'.*built for evidence on 'y'"
    ):
        cp.abduct(line, {"z": 0.0}, method=of_line)()
    with pytest.raises(errors.GuideMismatchError, match="does not see site 'z'"):
        of_line.sample({"z": 0.0})
    with pytest.raises(errors.MethodError, match="a range is known of site 'y'"):
        cp.abduct(line, {"y": cp.Interval(0.0, 1.0)}, method=of_line)()


def test_another_program_is_refused_with_the_differences(of_line: Any) -> None:
    def renamed() -> None:
        w = pyro.sample("w", N(0.0, 1.0))
        pyro.sample("y", N(w, 0.5))

    def student() -> None:
        z = pyro.sample("z", dist.StudentT(5.0))
        pyro.sample("y", N(z, 0.5).expand([2]).to_event(1))

    with pytest.raises(errors.GuideMismatchError, match="site 'z' is absent; site 'w' is new"):
        cp.abduct(renamed, {"y": 1.0}, method=of_line)()
    with pytest.raises(errors.GuideMismatchError) as caught:
        cp.abduct(student, {"y": torch.ones(2)}, method=of_line)()
    assert "distribution of 'z' is 'StudentT', was 'Normal'" in str(caught.value)
    assert "shape of one value of 'y' is [2], was []" in str(caught.value)
    with pytest.raises(errors.GuideMismatchError, match="another program"):
        cp.abduct(cp.do(line, {"z": 1.0}), {"y": 1.0}, method=of_line)()


def test_a_part_of_a_value_is_refused() -> None:
    guide = cp.AmortizedGuide(linear, observed=["y0"], flow="gaussian", width=8, seed=0)()
    half = torch.zeros(6)
    half[0] = torch.nan
    with pytest.raises(errors.MethodError, match=r"a part of a value of site 'y0' is missing"):
        cp.abduct(linear, {"y0": half}, method=guide)()


def test_a_guide_for_whole_data_needs_whole_data() -> None:
    build = cp.AmortizedGuide(
        linear, observed=["y0", "y1"], arbitrary_evidence=False, flow="gaussian", width=8, seed=0
    )
    with pytest.raises(errors.MethodError, match=r"'y1' is not known.*arbitrary_evidence=False"):
        build().sample({"y0": torch.zeros(6)})
    with pytest.raises(errors.MethodError, match="arbitrary_evidence=False"):
        cp.abduct(linear, {"y0": torch.zeros(6)}, method=build())()


def test_evidence_unlike_all_simulations_is_flagged(of_line: Any) -> None:
    of_line.sample({"y": 40.0})  # the guide itself answers whatever it is asked
    with pytest.warns(
        errors.OutOfDistributionWarning, match="evidence on 'y' is unlike the program's"
    ):
        try:
            posterior = cp.abduct(
                line, {"y": 40.0}, method=cp.Amortized(of_line, refine="tempered"), seed=0
            )()
        except errors.InferenceError:
            return
    assert abs(float(posterior.latents["z"].mean()) - 32.0) < 0.5


def test_evidence_of_the_program_is_not_flagged(of_line: Any) -> None:
    for y in torch.randn(20, generator=torch.Generator().manual_seed(0)).mul(1.118).tolist():
        assert (
            not cp.abduct(line, {"y": y}, method=of_line, num_samples=10, seed=0)()
            .predict()
            .diagnostics.notes
        )


# --- Correction and refinement ----------------------------------------------------------------------------------------


def spoilt(guide: Any, by: float = 1.5) -> Any:
    """A guide that is off by so many posterior spreads, as if it had been trained on something else."""
    with torch.no_grad():
        for head in guide.network.heads:
            head.flow.affine.leave.bias[0] += by
    return guide


@pytest.fixture
def off_line() -> Any:
    guide = cp.AmortizedGuide(line, observed=["y"], flow="gaussian", width=16, seed=0)()
    guide.fit(steps=150, learning_rate=1e-2)
    return spoilt(guide)


@pytest.mark.parametrize("refine", ["tempered", pytest.param("nuts", marks=pytest.mark.slow)])
def test_a_guide_that_is_far_off_is_refined(off_line: Any, refine: str) -> None:
    posterior = cp.abduct(line, {"y": 1.0}, method=cp.Amortized(off_line, refine=refine), seed=0)()
    found = posterior.predict().diagnostics
    assert found.method == f"AmortizedGuide, refined ({refine})"
    assert any("k-hat of the guide's draws was" in note for note in found.notes)
    z = posterior.latents["z"]
    assert abs(float(z.mean()) - 0.8) < 5 * (0.2 / 300) ** 0.5
    assert abs(float(z.var()) / 0.2 - 1) < 0.3


def test_without_refinement_it_is_judged(off_line: Any) -> None:
    with pytest.raises(errors.InferenceError, match="refine='tempered'") as caught:
        with pytest.warns(errors.InferenceWarning, match="k-hat is .* use cp.Amortized"):
            cp.abduct(line, {"y": 1.0}, method=off_line, seed=0)()
            raise errors.InferenceError("refine='tempered' was the advice")
    assert caught.type is errors.InferenceError
    own = cp.abduct(line, {"y": 1.0}, method=cp.Amortized(off_line, correct=False), seed=0)()
    assert float(own.latents["z"].mean()) > 1.2 and own.predict().diagnostics.pareto_k is None


def test_tempering_moves_discrete_sites_and_units() -> None:
    guide = cp.AmortizedGuide(people, observed=["x", "y"], flow="gaussian", width=16, seed=0)(4)
    guide.fit(steps=30, learning_rate=1e-2)
    spoilt(guide, 2.0)
    x, y = torch.tensor([0.0, 1.0, -1.0, 2.0]), torch.tensor([0.5, 2.5, -1.0, 3.0])
    posterior = cp.abduct(
        people, {"x": x, "y": y}, method=cp.Amortized(guide, refine="tempered"), seed=0
    )(4)
    precision = 5 + 1 / 0.49
    mean = (x / 0.49 + 2 * y) / precision
    off = (posterior.latents["z"].mean(0) - mean).abs()
    assert float(off.max()) < 5 * (1 / precision / 300) ** 0.5
    untrained = cp.AmortizedGuide(mixture, observed=["y"], flow="gaussian", width=16, seed=0)()
    method = cp.Amortized(untrained, refine="tempered", num_proposals=4000)
    posterior = cp.abduct(mixture, {"y": 3.4}, method=method, seed=0)()
    weights, mean = mixture_posterior(3.4, None)
    share = torch.bincount(posterior.latents["k"].long(), minlength=3) / 1000
    assert bool(((share - weights).abs() < 0.08).all())
    assert abs(float(posterior.latents["z"].mean()) - mean) < 0.15


def test_options_of_the_method_are_checked(of_line: Any) -> None:
    with pytest.raises(errors.MethodError, match="refine='hmc' is not known"):
        cp.Amortized(of_line, refine="hmc")
    with pytest.raises(errors.MethodError, match="is no amortized guide"):
        cp.Amortized(line)  # type: ignore[arg-type]
    with pytest.raises(errors.MethodError, match="refine= needs the weights"):
        cp.Amortized(of_line, correct=False, refine="nuts")


def test_importance_sampling_takes_it_as_a_proposal_and_svi_refuses_it(of_line: Any) -> None:
    method = cp.ImportanceSampling(of_line, num_proposals=1234)
    posterior = cp.abduct(line, {"y": 0.5}, method=method, num_samples=500, seed=0)()
    assert posterior.predict().diagnostics.method == "AmortizedGuide"
    assert abs(float(posterior.latents["z"].mean()) - 0.4) < 5 * (0.2 / 400) ** 0.5
    with pytest.raises(errors.MethodError, match=r"SVI: this guide is amortized, .*guide\.fit"):
        cp.SVI(of_line)


def test_counterfactuals_by_a_guide(of_line: Any) -> None:
    """In z -> y with y = z + noise, raising z by one raises y by one for every draw."""
    worlds = cp.counterfactual(line, {"z": cp.shift(1.0)}, {"y": 0.7}, method=of_line, seed=0)()
    effect = worlds.contrast("y", "counterfactual", "factual")
    assert float(abs(effect - 1.0).max()) < 1e-5
    found = cp.query("E[y[z=0] | y=0.7]", line, method=of_line, seed=0)()
    assert abs(found.value - 0.7 * 0.2) < 5 * found.standard_error + 0.02


# --- Calibration ------------------------------------------------------------------------------------------------------


def test_calibration_passes_and_a_broken_guide_is_caught(of_line: Any, off_line: Any) -> None:
    good = cp.diagnostics.calibrate(of_line, num_simulations=100, seed=1)
    assert good.passed and good.p_value > 0.05, str(good)
    bad = cp.diagnostics.calibrate(off_line, num_simulations=100, seed=1)
    assert not bad.passed and bad.p_value < 1e-4
    assert "draws too high" in bad.summary().loc["z", "finding"]
    table = cp.diagnostics.coverage(good, [0.5, 0.9], confidence=0.999)
    assert bool((table.low <= table.nominal).all() and (table.nominal <= table.high).all())
    with pytest.raises(errors.MethodError, match="is no amortized guide"):
        cp.diagnostics.calibrate(line)  # type: ignore[arg-type]


# --- Files ------------------------------------------------------------------------------------------------------------


def test_a_guide_comes_back_from_its_file(of_line: Any, tmp_path: Path) -> None:
    path = tmp_path / "guide.pt"
    of_line.save(path)
    again = cp.AmortizedGuide.load(path, line)
    one, two = (g.sample({"y": 0.3}, 20, seed=1)["z"] for g in (of_line, again))
    assert torch.equal(one, two)
    assert again.history is not None and again.history.loss == of_line.history.loss
    assert isinstance(torch.load(path, weights_only=True), dict)  # numbers and text only


def test_a_file_of_another_program_is_refused(of_line: Any, tmp_path: Path) -> None:
    path = tmp_path / "guide.pt"
    of_line.save(path)

    def wider() -> None:
        z = pyro.sample("z", N(0.0, 3.0))
        pyro.sample("y", N(z, 0.5))

    with pytest.raises(errors.GuideMismatchError, match="laws of 'z' have other numbers"):
        cp.AmortizedGuide.load(path, wider)

    def other() -> None:
        z = pyro.sample("z", dist.Laplace(0.0, 1.0))
        pyro.sample("u", N(z, 1.0))
        pyro.sample("y", N(0.0, 0.5))

    with pytest.raises(errors.GuideMismatchError) as caught:
        cp.AmortizedGuide.load(path, other)
    assert "site 'u' is new" in str(caught.value)
    assert "distribution of 'z' is 'Laplace', was 'Normal'" in str(caught.value)

    def turned() -> None:
        y = pyro.sample("y", N(0.0, 1.25**0.5))
        pyro.sample("z", N(0.8 * y, 0.2**0.5))

    with pytest.raises(errors.GuideMismatchError, match="no latent site influences"):
        cp.AmortizedGuide.load(path, turned)


def test_a_damaged_file_is_refused(of_line: Any, tmp_path: Path) -> None:
    """A number of the networks that has changed on the way would be read as any other."""
    path = tmp_path / "guide.pt"
    of_line.save(path)
    whole = path.read_bytes()
    expected, refused = of_line.sample({"y": 0.3}, 20, seed=1)["z"], 0
    for place in range(len(whole) // 8, len(whole), len(whole) // 8):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        try:
            found = cp.AmortizedGuide.load(path, line)
        except errors.ProgramError as error:
            assert "holds no guide" in str(error)
            refused += 1
        else:  # a byte between the parts of the file
            assert torch.equal(found.sample({"y": 0.3}, 20, seed=1)["z"], expected)
    assert refused > 4
    path.write_bytes(b"nothing")
    with pytest.raises(errors.ProgramError, match="holds no guide"):
        cp.AmortizedGuide.load(path, line)
    torch.save({"layout": "causalppl guide 1", "content": torch.zeros(3)}, path)
    with pytest.raises(errors.ProgramError, match="layout 'causalppl guide 1' and this version"):
        cp.AmortizedGuide.load(path, line)


def test_networks_of_ones_own_are_given_again(tmp_path: Path) -> None:
    build = cp.AmortizedGuide(
        linear, observed=["y0"], embed={"y0": nn.Linear(6, 3)}, width=8, seed=0
    )
    path = tmp_path / "guide.pt"
    build().save(path)
    with pytest.raises(errors.GuideMismatchError, match="networks of the user's own"):
        cp.AmortizedGuide.load(path, linear)
    with pytest.raises(errors.GuideMismatchError, match="other shapes"):
        cp.AmortizedGuide.load(path, linear, embed={"y0": nn.Linear(6, 4)})
    cp.AmortizedGuide.load(path, linear, embed={"y0": nn.Linear(6, 3)})


# --- Pyro's own inference ---------------------------------------------------------------------------------------------


def test_traces_and_densities_are_those_of_the_networks() -> None:
    guide = cp.AmortizedGuide(schools, observed=["y"], flow="gaussian", width=16, seed=0)(5)
    y = torch.linspace(-1, 1, 5)
    trace = pyro.poutine.trace(guide.given({"y": y})).get_trace(5)
    trace.compute_log_prob()
    total = float(trace.log_prob_sum().detach())
    from causalppl.guides.evidence import evidence_from

    evidence = evidence_from(guide, {"y": y})
    values = {n: trace.nodes[n]["value"].unsqueeze(0) for n in ("mean", "z")}
    with torch.no_grad():
        own = guide.network.log_prob({**values, "y": y.unsqueeze(0)}, evidence)
    assert total == pytest.approx(float(sum(q.sum() for q in own)), abs=1e-4)


def test_pyro_trains_it_and_predicts_with_it() -> None:
    def model(y: Any) -> None:
        with pyro.plate("units", 6):
            k = pyro.sample("k", dist.Bernoulli(0.5))
            z = pyro.sample("z", N(k, 1.0))
            pyro.sample("spare", N(z, 1.0))
            pyro.sample("y", N(z, 0.5), obs=y)

    y = torch.linspace(-1, 1, 6)
    guide = cp.AmortizedGuide(model, flow="gaussian", width=8, seed=0)(y)
    before = [p.detach().clone() for p in guide.network.parameters()]
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO())
    for _ in range(2):
        assert torch.isfinite(torch.tensor(svi.step(y)))
    assert any(
        not torch.equal(a, b) for a, b in zip(before, guide.network.parameters(), strict=True)
    )
    found = pyro.infer.Predictive(model, guide=guide, num_samples=3)(y)
    assert found["z"].shape[-1] == 6 and set(found) >= {"k", "z", "spare", "y"}
    with pytest.raises(errors.MethodError, match="vectorize_particles"):
        with pyro.plate("particles", 2, dim=-2):
            guide(y)


# --- Training on data -------------------------------------------------------------------------------------------------


def learning(count: int = 1) -> None:
    """Units whose prior mean is a parameter of the program."""
    centre = pyro.param("centre", torch.tensor(0.0))
    with pyro.plate("units", count):
        z = pyro.sample("z", N(centre, 1.0))
        pyro.sample("y", N(z, 0.5))


@pytest.mark.parametrize("objective", ["elbo", "rws"])
def test_the_programs_parameters_are_learnt_from_data(objective: str) -> None:
    """The marginal law of y is N(centre, 1.25), so that the maximum of the likelihood is the mean of the data."""
    generator = torch.Generator().manual_seed(0)
    data = 1.5 + 1.25**0.5 * torch.randn(256, generator=generator)
    guide = cp.AmortizedGuide(learning, observed=["y"], flow="gaussian", width=16, seed=0)(32)
    guide.fit(steps=200, objective=objective, data={"y": data}, learning_rate=5e-2)
    assert abs(float(pyro.param("centre").detach()) - float(data.mean())) < 0.25
    posterior = cp.abduct(learning, {"y": torch.tensor([2.5, 0.0])}, method=guide, seed=0)(2)
    centre = float(pyro.param("centre").detach())
    exact = (torch.tensor([2.5, 0.0]) * 4 + centre) / 5
    assert bool(((posterior.latents["z"].mean(0) - exact).abs() < 5 * (0.2 / 500) ** 0.5).all())


def test_reweighted_wake_sleep_takes_discrete_sites() -> None:
    def coins() -> None:
        rate = pyro.param("rate", torch.tensor(0.5), constraint=dist.constraints.unit_interval)
        k = pyro.sample("k", dist.Bernoulli(rate))
        pyro.sample("y", N(4 * k, 1.0))

    generator = torch.Generator().manual_seed(0)
    kinds = (torch.rand(200, generator=generator) < 0.8).float()
    data = 4 * kinds + torch.randn(200, generator=generator)
    guide = cp.AmortizedGuide(coins, observed=["y"], width=16, seed=0)()
    with pytest.raises(errors.MethodError, match="'k' are discrete; use objective='rws'"):
        guide.fit(steps=1, objective="elbo", data={"y": data})
    guide.fit(steps=200, objective="rws", data={"y": data}, learning_rate=5e-2)
    assert abs(float(pyro.param("rate").detach()) - float(kinds.mean())) < 0.1


def test_what_fit_refuses(of_line: Any) -> None:
    with pytest.raises(errors.MethodError, match="objective='kl' is not known"):
        of_line.fit(steps=1, objective="kl")
    with pytest.raises(errors.MethodError, match="takes no data"):
        of_line.fit(steps=1, data={"y": torch.zeros(3)})
    with pytest.raises(errors.MethodError, match="learns from data; give data="):
        of_line.fit(steps=1, objective="rws")
    with pytest.raises(errors.GuideMismatchError, match="does not see site 'x'"):
        of_line.fit(steps=1, objective="rws", data={"x": torch.zeros(3)})
    with pytest.raises(errors.ShapeError, match=r"site 'y' has shape \(3, 2\)"):
        of_line.fit(steps=1, objective="rws", data={"y": torch.zeros(3, 2)})
    with pytest.raises(errors.MethodError, match="are missing"):
        of_line.fit(steps=1, objective="rws", data={"y": torch.tensor([0.0, torch.nan])})

    def weighed() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 1.0))
        pyro.factor("prior", -(z**2))

    guide = cp.AmortizedGuide(weighed, observed=["y"], width=8, seed=0)()
    with pytest.raises(errors.MethodError, match="weighs its runs by factors 'prior'"):
        guide.fit(steps=1)
    whole = cp.AmortizedGuide(schools, observed=["y"], width=8, seed=0)(5)
    with pytest.raises(errors.MethodError, match="'mean' depend on all; the program runs for 5"):
        whole.fit(steps=1, objective="elbo", data={"y": torch.zeros(10)})


def test_a_checkpoint_resumes_exactly(tmp_path: Path) -> None:
    def guide() -> Any:
        return cp.AmortizedGuide(line, observed=["y"], flow="gaussian", width=8, seed=0)()

    options: dict[str, Any] = {"schedule": "constant", "check_every": 5, "batch_size": 16}
    straight, broken = guide(), guide()
    straight.fit(steps=20, **options)
    broken.fit(steps=10, checkpoint=tmp_path / "training.pt", **options)
    resumed = guide()
    resumed.fit(steps=20, checkpoint=tmp_path / "training.pt", **options)
    assert resumed.history.loss == straight.history.loss
    for a, b in zip(straight.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(a, b)
