"""The Worlds object: dims and names, arithmetic between worlds, tensors, tables and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp

N = dist.Normal


def model() -> None:
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("units", 3):
        x = pyro.sample("x", N(0.0, 1.0))
        v = pyro.sample("v", N(torch.zeros(2), 1.0).to_event(1))
        k = pyro.sample("k", dist.Categorical(torch.ones(4) / 4))
        d = pyro.deterministic("d", x + v.sum(-1))
        pyro.sample("y", N(d + k + scale, 1.0))


WORLDS = {"treated": {"x": 1.0}, "control": {"x": 0.0}}
DRAWS = 40


@pytest.fixture(scope="module")
def worlds() -> Any:
    return cp.counterfactual(model, worlds=WORLDS, num_samples=DRAWS, seed=0)()


def test_dims_and_coordinates(worlds: Any) -> None:
    import xarray

    y = worlds["y"]
    assert isinstance(y, xarray.DataArray)
    assert y.dims == ("draw", "world", "units")
    assert y.shape == (DRAWS, 3, 3)
    assert list(y.coords["world"].values) == ["factual", "treated", "control"]
    assert y.name == "y"
    assert worlds["scale"].dims == ("draw", "world")
    v = worlds["v"]
    assert v.dims[:3] == ("draw", "world", "units") and v.shape == (DRAWS, 3, 3, 2)
    assert len(set(v.dims)) == 4
    assert worlds["d"].dims == y.dims


def test_the_default_world_is_called_counterfactual() -> None:
    worlds = cp.counterfactual(model, {"x": 1.0}, num_samples=2, seed=0)()
    assert list(worlds["y"].coords["world"].values) == ["factual", "counterfactual"]


def test_the_positional_world_and_named_ones_together() -> None:
    worlds = cp.counterfactual(
        model, {"x": 1.0}, worlds={"other": {"x": 2.0}}, num_samples=2, seed=0
    )()
    names = set(worlds["y"].coords["world"].values.tolist())
    assert names == {"factual", "counterfactual", "other"}


def test_selection_and_xarrays_own_arithmetic(worlds: Any) -> None:
    y = worlds["y"]
    mean = y.sel(world="treated").mean("draw")
    assert mean.dims == ("units",)
    np.testing.assert_allclose(
        mean.values, worlds.tensor("y", world="treated").mean(0).numpy(), rtol=1e-5
    )
    low, high = y.sel(world="control").quantile([0.05, 0.95], dim="draw").values
    assert (low < high).all()


def test_tensors_are_what_the_array_shows(worlds: Any) -> None:
    for site in ("scale", "x", "v", "k", "d", "y"):
        for world in ("factual", "treated", "control"):
            tensor = worlds.tensor(site, world=world)
            assert isinstance(tensor, torch.Tensor)
            np.testing.assert_array_equal(tensor.numpy(), worlds[site].sel(world=world).values)
    assert worlds.tensor("k", world="factual").dtype == torch.int64
    assert worlds.tensor("y", world="factual").dtype == torch.float32


def test_deterministic_sites_are_recorded(worlds: Any) -> None:
    for world in ("factual", "treated"):
        x, v, d = (worlds.tensor(s, world=world) for s in ("x", "v", "d"))
        torch.testing.assert_close(d, x + v.sum(-1))


def test_contrast(worlds: Any) -> None:
    contrast = worlds.contrast("y", "treated", "control")
    assert contrast.dims == ("draw", "units")
    np.testing.assert_allclose(contrast.values, 1.0, atol=1e-5)
    swapped = worlds.contrast("y", "control", "treated")
    np.testing.assert_allclose(swapped.values, -contrast.values, atol=1e-6)
    against = worlds.contrast("y", "treated", "factual")
    np.testing.assert_allclose(
        against.values, 1.0 - worlds["x"].sel(world="factual").values, atol=1e-5
    )


def test_contrast_of_a_discrete_site_can_be_negative() -> None:
    def coin() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        pyro.sample(
            "k",
            dist.Categorical(probs=torch.stack([x, 1 - x], -1)),
        )

    worlds = cp.counterfactual(
        coin, worlds={"a": {"x": 1.0}, "b": {"x": 0.0}}, num_samples=5, seed=0
    )()
    assert (worlds.contrast("k", "a", "b").values == -1).all()


def test_probability(worlds: Any) -> None:
    def event(w: Any) -> torch.Tensor:
        assert isinstance(w["treated"]["y"], torch.Tensor)
        assert w["treated"]["y"].shape == (DRAWS, 3)
        return (w["treated"]["y"] > 1) & (w["control"]["y"] <= 1)

    found = np.asarray(worlds.probability(event)).mean()
    t, c = worlds.tensor("y", world="treated"), worlds.tensor("y", world="control")
    assert found == pytest.approx(float(((t > 1) & (c <= 1)).double().mean()))
    assert np.asarray(worlds.probability(lambda w: w["factual"]["scale"] > 0)).mean() == 1.0
    assert np.asarray(worlds.probability(lambda w: w["factual"]["x"] > 1e9)).mean() == 0.0


def test_dataset(worlds: Any) -> None:
    import xarray

    assert isinstance(worlds.dataset, xarray.Dataset)
    assert set(worlds.dataset.data_vars) == {"scale", "x", "v", "k", "d", "y"}
    assert worlds.dataset["y"].dims == ("draw", "world", "units")


def test_summary_is_a_table_with_every_world(worlds: Any) -> None:
    summary = worlds.summary()
    text = str(summary)
    for word in ("treated", "control", "factual"):
        assert word in text
    for site in ("scale", "y"):
        assert site in text


def test_repr_is_short_and_says_what_there_is(worlds: Any) -> None:
    text = repr(worlds)
    assert len(text) < 2000
    assert "treated" in text and "y" in text


def test_to_arviz(worlds: Any) -> None:
    data = worlds.to_arviz()
    posterior = data.posterior if hasattr(data, "posterior") else data["posterior"]
    assert {"chain", "draw"} <= set(posterior["y"].dims)
    assert posterior["y"].sizes["chain"] * posterior["y"].sizes["draw"] == DRAWS


def test_save_and_read_with_xarray(worlds: Any, tmp_path: Path) -> None:
    import xarray

    path = tmp_path / "worlds.nc"
    worlds.save(path)
    with xarray.open_dataset(path) as loaded:
        for site in ("scale", "x", "v", "k", "d", "y"):
            np.testing.assert_array_equal(loaded[site].values, worlds[site].values)
            assert loaded[site].dims == worlds[site].dims
        assert list(loaded.coords["world"].values) == ["factual", "treated", "control"]


def test_save_takes_a_string_and_overwrites(worlds: Any, tmp_path: Path) -> None:
    for _ in range(2):
        worlds.save(str(tmp_path / "worlds.nc"))
    assert (tmp_path / "worlds.nc").stat().st_size > 0


def test_a_world_without_a_site_is_nan_also_for_integers_and_in_files(tmp_path: Path) -> None:
    import xarray

    def branch() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        if x > 0:
            pyro.sample("k", dist.Categorical(torch.ones(3) / 3))

    with pytest.warns(cp.errors.ExecutorWarning):
        worlds = cp.counterfactual(
            branch, worlds={"on": {"x": 1.0}, "off": {"x": 0.0}}, num_samples=6, seed=0
        )()
        k = worlds["k"]
    assert bool(np.isnan(k.sel(world="off").values).all())
    on = k.sel(world="on").values
    assert set(on.tolist()) <= {0.0, 1.0, 2.0}
    worlds.save(tmp_path / "w.nc")
    with xarray.open_dataset(tmp_path / "w.nc") as loaded:
        assert bool(np.isnan(loaded["k"].sel(world="off").values).all())


def test_one_draw_where_nothing_is_random() -> None:
    def chain() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", N(x, 1.0))

    worlds = cp.counterfactual(chain, {"x": 1.0}, {"x": 0.0, "y": 1.0}, num_samples=500)()
    assert worlds["y"].sizes["draw"] == 1
    # a stochastic intervention brings randomness back
    worlds = cp.counterfactual(
        chain, {"x": N(0.0, 1.0)}, {"x": 0.0, "y": 1.0}, num_samples=500, seed=0
    )()
    assert worlds["y"].sizes["draw"] == 500

    # and so does a noise that its value does not fix
    def coin() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", dist.Bernoulli(logits=x))

    worlds = cp.counterfactual(coin, {"x": 1.0}, {"x": 0.0, "y": 1.0}, num_samples=500, seed=0)()
    assert worlds["y"].sizes["draw"] == 500


def test_plate_names_in_nested_and_crossed_plates() -> None:
    def crossed() -> None:
        with pyro.plate("rows", 2, dim=-2):
            pyro.sample("r", N(0.0, 1.0))
            with pyro.plate("columns", 3, dim=-1):
                pyro.sample("cell", N(0.0, 1.0))
        with pyro.plate("others", 3, dim=-1):
            pyro.sample("c", N(0.0, 1.0))

    worlds = cp.abduct(crossed, num_samples=4, seed=0)().predict()
    assert worlds["cell"].dims == ("draw", "world", "rows", "columns")
    assert worlds["cell"].shape == (4, 1, 2, 3)
    assert worlds["c"].dims == ("draw", "world", "others")
    assert "rows" in worlds["r"].dims and worlds["r"].sizes["rows"] == 2
    assert worlds.tensor("cell", world="factual").shape == (4, 2, 3)


def test_a_batch_without_a_plate_has_dims_too() -> None:
    """Pyro lets a site have a batch shape no plate declares; it must not be lost or misnamed."""

    def loose() -> None:
        pyro.sample("x", N(torch.zeros(3), 1.0).to_event(1))
        pyro.deterministic("d", torch.ones(2, 5))

    worlds = cp.abduct(loose, num_samples=4, seed=0)().predict()
    assert worlds["x"].shape == (4, 1, 3)
    assert worlds["d"].shape[-2:] == (2, 5)


def test_sites_selects_what_is_recorded() -> None:
    posterior = cp.abduct(model, num_samples=5, seed=0)()
    worlds = posterior.predict({"x": 1.0}, sites=["y"])
    assert set(worlds.dataset.data_vars) == {"y"}
    whole = posterior.predict({"x": 1.0})
    assert torch.equal(
        worlds.tensor("y", world="counterfactual"), whole.tensor("y", world="counterfactual")
    )


def test_factual_alone() -> None:
    worlds = cp.abduct(model, num_samples=5, seed=0)().predict()
    assert list(worlds["y"].coords["world"].values) == ["factual"]


def test_gradients_flow_to_intervention_values() -> None:
    x = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)

    def squares() -> None:
        with pyro.plate("units", 3):
            a = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", N(a**2, 1.0))

    worlds = cp.counterfactual(squares, {"x": x}, {"x": torch.zeros(3), "y": torch.ones(3)})()
    y = worlds.tensor("y", world="counterfactual")
    assert y.requires_grad
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, 2 * x.detach())
    # an array can be made all the same
    np.testing.assert_allclose(
        worlds["y"].sel(world="counterfactual").values[0], 1 + x.detach().numpy() ** 2
    )


def test_gradients_flow_through_draws_and_shifts() -> None:
    by = torch.tensor(0.3, requires_grad=True)
    worlds = cp.counterfactual(model, {"x": cp.shift(by)}, num_samples=7, seed=0)()
    (gradient,) = torch.autograd.grad(worlds.tensor("y", world="counterfactual").sum(), by)
    assert float(gradient) == pytest.approx(7 * 3)


def test_diagnostics_have_their_fields(worlds: Any) -> None:
    d = worlds.diagnostics
    for field in (
        "method",
        "why",
        "ess",
        "pareto_k",
        "rhat",
        "mechanisms",
        "identification",
        "executor",
    ):
        assert hasattr(d, field), field
    assert str(d.method) and str(d.why)
    assert set(d.mechanisms) >= {"x", "y", "k", "v"}
    assert isinstance(repr(d), str)


def test_the_plot_draws_on_given_axes(worlds: Any) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cp.plots.worlds(worlds, "y")
    plt.close("all")


def test_importing_is_light() -> None:
    import subprocess
    import sys

    code = (
        "import causalppl, sys;"
        "heavy = {'xarray', 'arviz', 'matplotlib', 'zuko', 'nutpie', 'ray', 'pandas', 'typer', 'rich'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_writing_into_a_result_does_not_change_the_posterior() -> None:
    posterior = cp.abduct(model, num_samples=4, seed=0)()
    y = posterior.predict().tensor("y", world="factual")
    before = y.clone()
    y.zero_()
    assert torch.equal(posterior.predict().tensor("y", world="factual"), before)


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_writing_into_the_evidence_later_does_not_change_the_posterior(kind: str) -> None:
    def simple() -> None:
        with pyro.plate("units", 3):
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", N(x, 1.0))

    x, y = torch.zeros(3), torch.ones(3)
    evidence = {"x": x, "y": y} if kind == "tensor" else {"x": x.numpy(), "y": y.numpy()}
    posterior = cp.abduct(simple, evidence=evidence)()
    y.fill_(9.0)
    worlds = posterior.predict({"x": 1.0})
    assert torch.equal(worlds.tensor("y", world="counterfactual"), torch.full((1, 3), 2.0))


def test_writing_into_an_intervention_later_does_not_change_the_result() -> None:
    value = torch.ones(3)
    worlds = cp.counterfactual(model, {"x": value}, num_samples=2, seed=0)()
    value.fill_(100.0)
    assert float(worlds.tensor("x", world="counterfactual").max()) == 1.0
