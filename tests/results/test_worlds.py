"""Draws of every site in coupled worlds: names, contrasts, probabilities, tables and files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from causalppl import errors
from causalppl.results import Diagnostics, SiteLabels, Worlds

DRAWS = 40
PEOPLE = (("people", -1, 3, None),)
EXACT = Diagnostics("Exact", "nothing is latent", executor="vmap")


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(DRAWS, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def worlds() -> Worlds:
    y, theta = draws(3), draws(seed=1)
    count = torch.randint(0, 9, (DRAWS, 3), generator=torch.Generator().manual_seed(2))
    image = draws(3, 2, 2, seed=3).double()
    return Worlds(
        {
            "factual": {"theta": theta, "y": y, "sick": y > 0, "count": count, "image": image},
            "treated": {
                "theta": theta,
                "y": y + 2.0,
                "sick": y > 1,
                "count": count + 1,
                "image": -image,
            },
            "control": {
                "theta": theta,
                "y": y - 1.0,
                "sick": y > 0,
                "extra": count,
                "a/late": y > 0,
            },
        },
        {
            "theta": SiteLabels("theta"),
            "y": SiteLabels("y", PEOPLE, (3,)),
            "sick": SiteLabels("sick", PEOPLE, (3,)),
            "count": SiteLabels("count", PEOPLE, (3,)),
            "image": SiteLabels("image", PEOPLE, (3,), (2, 2)),
            "extra": SiteLabels("extra", PEOPLE, (3,)),
            "a/late": SiteLabels("a/late", (), (), (3,)),
        },
        Diagnostics(
            "ImportanceSampling",
            "weights per unit",
            ess=torch.tensor([10.0, 20.0, 30.0]),
            pareto_k=torch.tensor([0.1, 0.2, 0.8]),
            mechanisms={"theta": "affine", "y": "affine", "elsewhere": "affine"},
            executor="vmap",
            notes=("a note",),
            unit_names=("people",),
        ),
    )


def two(value: torch.Tensor, other: torch.Tensor, labels: SiteLabels) -> Worlds:
    return Worlds(
        {"factual": {labels.name: value}, "counterfactual": {labels.name: other}},
        {labels.name: labels},
        EXACT,
    )


# --- What there is ------------------------------------------------------------------------------------------------


def test_names(worlds: Worlds) -> None:
    assert worlds.worlds == ("factual", "treated", "control")
    assert worlds.sites == ("theta", "y", "sick", "count", "image", "extra", "a/late")
    assert list(worlds) == list(worlds.sites) and len(worlds) == 7
    assert "y" in worlds and "treated" not in worlds
    assert worlds.num_draws == DRAWS


def test_a_program_without_sites() -> None:
    empty = Worlds({"factual": {}, "counterfactual": {}}, {}, EXACT)
    assert empty.num_draws == 1 and len(empty) == 0
    assert not empty.dataset.data_vars and empty.summary().empty
    assert "1 draw of 2 worlds" in repr(empty)


def test_what_the_constructor_refuses() -> None:
    y, labels = torch.zeros(4), {"y": SiteLabels("y")}
    with pytest.raises(errors.WorldNameError, match=r"first world must be 'factual'"):
        Worlds({"treated": {"y": y}, "factual": {"y": y}}, labels, EXACT)
    with pytest.raises(errors.WorldNameError, match=r"\(none\)"):
        Worlds({}, labels, EXACT)
    with pytest.raises(errors.ShapeError, match=r"no labels for 'x'"):
        Worlds({"factual": {"x": y}}, labels, EXACT)
    with pytest.raises(errors.ShapeError, match=r"\[4, 5\]"):
        Worlds({"factual": {"y": y}, "treated": {"y": torch.zeros(5)}}, labels, EXACT)
    with pytest.raises(errors.ShapeError, match=r"first dim"):
        Worlds({"factual": {"y": torch.tensor(1.0)}}, labels, EXACT)
    with pytest.raises(errors.ShapeError, match=r"draw_coords 'chain'"):
        Worlds({"factual": {"y": y}}, labels, EXACT, draw_coords={"chain": torch.zeros(3)})


# --- Values -------------------------------------------------------------------------------------------------------


def test_a_site_in_all_worlds(worlds: Worlds) -> None:
    y = worlds["y"]
    assert y.sizes == {"draw": DRAWS, "world": 3, "people": 3}
    assert y["world"].values.tolist() == ["factual", "treated", "control"]
    assert y.dtype == np.float32 and y.name == "y"
    assert y.attrs == {"site": "y", "mechanism": "affine"}
    for world in worlds.worlds:
        expected = worlds.tensor("y", world=world).numpy()
        np.testing.assert_array_equal(y.sel(world=world).values, expected)
    assert worlds["image"].dims == ("draw", "world", "people", "image_dim_0", "image_dim_1")
    assert worlds["image"].dtype == np.float64
    assert worlds["theta"].dims == ("draw", "world")
    assert worlds["sick"].dtype == np.bool_


def test_a_world_without_the_site_is_nan(worlds: Worlds) -> None:
    image, count, extra, late = (worlds[s] for s in ("image", "count", "extra", "a/late"))
    assert bool(image.sel(world="control").isnull().all())
    assert not bool(image.sel(world=["factual", "treated"]).isnull().any())
    for array, present in ((count, "treated"), (extra, "control"), (late, "control")):
        assert array.dtype == np.float64
        found = array.sel(world=present)
        np.testing.assert_array_equal(
            found.values, worlds.tensor(str(array.name), present).double().numpy()
        )
    assert bool(extra.sel(world=["factual", "treated"]).isnull().all())
    assert not bool(worlds["y"].isnull().any())


def test_float32_with_a_missing_world_stays_float32() -> None:
    worlds = Worlds({"factual": {"y": draws()}, "gone": {}}, {"y": SiteLabels("y")}, EXACT)
    assert worlds["y"].dtype == np.float32
    assert worlds.contrast("y").dtype == np.float32


def test_dtypes_that_differ_are_promoted() -> None:
    worlds = two(torch.ones(2, dtype=torch.int64), torch.full((2,), 0.5), SiteLabels("y"))
    assert worlds["y"].values.tolist() == [[1.0, 0.5], [1.0, 0.5]]


def test_crossed_plates_and_subsampled_indices_in_one_dataset() -> None:
    indices = torch.tensor([8, 2])
    rows, columns = ("rows", -2, 2, indices), ("columns", -1, 3, None)
    values = {"r": draws(2, 1), "c": draws(3), "both": draws(2, 3, 4), "loose": draws(1, 5)}
    worlds = Worlds(
        {"factual": values},
        {
            "r": SiteLabels("r", (rows,), (2, 1)),
            "c": SiteLabels("c", (columns,), (3,)),
            "both": SiteLabels("both", (rows, columns), (2, 3), (4,)),
            "loose": SiteLabels("loose", (), (1, 5)),
        },
        EXACT,
    )
    data = worlds.dataset
    assert {n: v.dims[2:] for n, v in data.data_vars.items()} == {
        "r": ("rows",),
        "c": ("columns",),
        "both": ("rows", "columns", "both_dim_0"),
        "loose": ("loose_dim_0",),
    }
    assert data["rows"].values.tolist() == [8, 2]
    expected = values["r"][..., None] * values["both"]
    found = (
        (data["r"] * data["both"]).isel(world=0).transpose("draw", "rows", "columns", "both_dim_0")
    )
    np.testing.assert_allclose(found.values, expected.numpy())


def test_tensors_are_not_copied_and_keep_their_gradient() -> None:
    dose = torch.tensor(1.5, requires_grad=True)
    natural = draws(3)
    worlds = two(natural, natural * dose, SiteLabels("y", PEOPLE, (3,)))
    there = worlds.tensor("y", world="counterfactual")
    assert worlds.tensor("y", world="factual") is natural
    (
        worlds["y"],
        worlds.contrast("y"),
        worlds.summary(),
        worlds.dataset,
    )  # none of these disturbs the graph
    worlds.probability(lambda w: w["counterfactual"]["y"] > 0)
    there.sum().backward()
    assert dose.grad is not None
    torch.testing.assert_close(dose.grad, natural.sum())


def test_a_data_array_is_a_copy(worlds: Worlds) -> None:
    before = worlds.tensor("y", "factual").clone()
    worlds["y"][:] = 0.0
    worlds.dataset["y"][:] = 0.0
    worlds.contrast("y", "treated")[:] = 0.0
    assert torch.equal(worlds.tensor("y", "factual"), before)


def test_a_shape_that_differs_between_worlds() -> None:
    worlds = Worlds(
        {"factual": {"y": draws(3)}, "longer": {"y": draws(4)}},
        {"y": SiteLabels("y", PEOPLE, (3,))},
        EXACT,
    )
    assert worlds.tensor("y", world="longer").shape == (DRAWS, 4)
    for ask in (
        lambda: worlds["y"],
        lambda: worlds.dataset,
        lambda: worlds.contrast("y"),
        worlds.summary,
    ):
        with pytest.raises(errors.ShapeError, match=r"y"):
            ask()
    with pytest.raises(errors.ShapeError, match=r"world 'longer'.*take each by itself"):
        worlds["y"]


# --- Names that are not there -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda w: w["yy"],
        lambda w: w.tensor("yy", world="treated"),
        lambda w: w.contrast("yy", "treated", "control"),
        lambda w: w.probability(lambda v: v["treated"]["yy"] > 0),
        lambda w: w.summary("yy"),
        lambda w: w.summary(["y", "yy"]),
    ],
)
def test_unknown_sites(worlds: Worlds, ask: Callable[[Worlds], object]) -> None:
    with pytest.raises(
        errors.UnknownSiteError, match=r"no site 'yy'.*did you mean 'y'.*'theta', 'y', 'sick'"
    ) as e:
        ask(worlds)
    assert isinstance(e.value, ValueError)


@pytest.mark.parametrize(
    "ask",
    [
        lambda w: w.tensor("y", world="traeted"),
        lambda w: w.contrast("y", "traeted"),
        lambda w: w.contrast("y", "treated", "traeted"),
        lambda w: w.probability(lambda v: v["traeted"]["y"] > 0),
        lambda w: w.summary(worlds=["traeted"]),
    ],
)
def test_unknown_worlds(worlds: Worlds, ask: Callable[[Worlds], object]) -> None:
    match = r"^no world 'traeted'.*did you mean 'treated'.*'factual', 'treated', 'control'$"
    with pytest.raises(errors.UnknownWorldError, match=match) as e:
        ask(worlds)
    assert isinstance(e.value, KeyError)


def test_a_world_asked_for_as_a_site(worlds: Worlds) -> None:
    with pytest.raises(errors.UnknownSiteError, match=r"is a world.*sel\(world='treated'\)"):
        worlds["treated"]


@pytest.mark.parametrize("key", [0, ["y"], None, ("y", "treated")])
def test_names_that_are_no_text(worlds: Worlds, key) -> None:
    with pytest.raises(errors.UnknownSiteError):
        worlds[key]
    with pytest.raises(errors.UnknownWorldError):
        worlds.tensor("y", world=key)


def test_a_site_that_only_another_world_has(worlds: Worlds) -> None:
    with pytest.raises(
        errors.UnknownSiteError, match=r"world 'treated' does not have the site 'extra'.*'control'"
    ):
        worlds.tensor("extra", world="treated")
    with pytest.raises(errors.UnknownSiteError, match=r"'factual'.*'extra'"):
        worlds.probability(lambda w: w["factual"]["extra"] > 0)


# --- Contrasts ----------------------------------------------------------------------------------------------------


def test_contrast_is_per_draw_and_per_unit(worlds: Worlds) -> None:
    effect = worlds.contrast("y", "treated", "control")
    assert effect.dims == ("draw", "people") and effect.dtype == np.float32
    np.testing.assert_allclose(effect.values, 3.0, rtol=1e-5)
    assert effect.attrs["contrast"] == "treated - control"
    assert set(effect.coords) == {"draw", "people"}
    np.testing.assert_allclose(worlds.contrast("y", "control").values, -1.0, rtol=1e-5)


def test_contrast_defaults() -> None:
    worlds = two(draws(), draws() + 1.0, SiteLabels("y"))
    assert worlds.contrast("y").attrs["contrast"] == "counterfactual - factual"
    np.testing.assert_allclose(worlds.contrast("y").values, 1.0, rtol=1e-5)
    np.testing.assert_allclose(
        worlds.contrast("y", "factual", "counterfactual").values, -1.0, rtol=1e-5
    )


def test_contrast_needs_a_world_where_there_are_several_or_none(worlds: Worlds) -> None:
    with pytest.raises(
        errors.WorldNameError,
        match=r"'treated', 'control'.*worlds.contrast\('y', world, baseline\)",
    ):
        worlds.contrast("y")
    with pytest.raises(errors.WorldNameError, match=r"\(none\)"):
        Worlds({"factual": {"y": draws()}}, {"y": SiteLabels("y")}, EXACT).contrast("y")


def test_contrast_of_booleans_and_unsigned_integers() -> None:
    now, then = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    assert two(now, then, SiteLabels("y")).contrast("y").values.tolist() == [0, -1, 1, 0]
    small = two(
        torch.tensor([5], dtype=torch.uint8), torch.tensor([3], dtype=torch.uint8), SiteLabels("y")
    )
    assert small.contrast("y").values.tolist() == [-2]


def test_contrast_is_nan_where_a_world_lacks_the_site(worlds: Worlds) -> None:
    for site, other in (("extra", "treated"), ("image", "control"), ("a/late", "treated")):
        effect = worlds.contrast(site, "control", "treated")
        assert bool(effect.isnull().all()), (site, other)
        assert effect.dims == ("draw", *worlds[site].dims[2:])


def test_contrast_agrees_with_xarray(worlds: Worlds) -> None:
    y = worlds["y"]
    by_hand = y.sel(world="treated", drop=True) - y.sel(world="factual", drop=True)
    xr.testing.assert_equal(worlds.contrast("y", "treated"), by_hand)


# --- Probabilities ------------------------------------------------------------------------------------------------


def test_probability_of_a_scalar_event(worlds: Worlds) -> None:
    share = worlds.probability(lambda w: w["factual"]["theta"] > 0)
    assert share.dims == () and share.dtype == np.float64
    assert float(share) == float((worlds.tensor("theta", "factual") > 0).double().mean())
    assert share.attrs["draws"] == DRAWS


def test_probability_across_worlds_by_unit(worlds: Worlds) -> None:
    share = worlds.probability(lambda w: w["factual"]["sick"] & ~w["treated"]["sick"])
    assert share.dims == ("people",)
    y = worlds.tensor("y", "factual")
    np.testing.assert_allclose(share.values, ((y > 0) & ~(y > 1)).double().mean(0).numpy())


def test_probability_extremes_are_exact(worlds: Worlds) -> None:
    assert (
        float(worlds.probability(lambda w: (w["treated"]["y"] > w["control"]["y"]).all(1))) == 1.0
    )
    assert (
        float(worlds.probability(lambda w: (w["treated"]["y"] < w["control"]["y"]).any(1))) == 0.0
    )


@pytest.mark.parametrize(
    ("event", "dims"),
    [
        (lambda w: w["factual"]["y"] > w["factual"]["theta"][:, None], ("people",)),
        (lambda w: w["treated"]["image"] > 0, ("people", "event_dim_0", "event_dim_1")),
        (lambda w: w["treated"]["image"].sum(-1) > 0, ("event_dim_0", "event_dim_1")),
        (lambda w: w["control"]["a/late"], ("event_dim_0",)),
        (lambda w: w["control"]["a/late"] & w["control"]["sick"], ("people",)),
        (lambda w: w["factual"]["y"][:, :2] > 0, ("event_dim_0",)),
        (
            lambda w: w["factual"]["y"][:, :, None] > w["treated"]["y"][:, None, :],
            ("event_dim_0", "event_dim_1"),
        ),
    ],
)
def test_dims_of_events(worlds: Worlds, event, dims: tuple[str, ...]) -> None:
    assert worlds.probability(event).dims == dims


def test_events_over_crossed_plates() -> None:
    rows, columns = ("rows", -2, 2, torch.tensor([5, 9])), ("columns", -1, 3, None)
    worlds = Worlds(
        {"factual": {"r": draws(2, 1), "c": draws(1, 3), "other": draws(2, 3)}},
        {
            "r": SiteLabels("r", (rows,), (2, 1)),
            "c": SiteLabels("c", (columns,), (1, 3)),
            "other": SiteLabels("other", (("left", -2, 2, None), ("right", -1, 3, None)), (2, 3)),
        },
        EXACT,
    )
    share = worlds.probability(lambda w: w["factual"]["r"] > w["factual"]["c"])
    assert share.sizes == {"rows": 2, "columns": 3}
    assert share["rows"].values.tolist() == [5, 9]
    assert worlds.probability(lambda w: w["factual"]["r"] > 0).dims == (
        "rows",
    )  # padding is dropped
    both = worlds.probability(lambda w: w["factual"]["r"] > w["factual"]["other"])
    assert both.dims == ("event_dim_0", "right")  # two plates for one axis: neither


@pytest.mark.parametrize(
    "event",
    [
        lambda w: w["factual"]["y"],
        lambda w: w["factual"]["count"],
        lambda w: True,
        lambda w: None,
        lambda w: np.ones(DRAWS, dtype=bool),
    ],
)
def test_events_that_are_not_boolean(worlds: Worlds, event) -> None:
    with pytest.raises(errors.SupportError, match=r"must return a boolean tensor"):
        worlds.probability(event)


@pytest.mark.parametrize(
    "event", [lambda w: (w["factual"]["theta"] > 0).any(), lambda w: (w["factual"]["y"] > 0).any(0)]
)
def test_events_without_draws(worlds: Worlds, event) -> None:
    with pytest.raises(errors.ShapeError, match=r"first dim must be the 40 draws"):
        worlds.probability(event)


def test_an_event_may_look_around(worlds: Worlds) -> None:
    def event(w) -> torch.Tensor:
        assert list(w) == list(worlds.worlds) and len(w) == 3
        assert "extra" in w["control"] and "extra" not in w["treated"]
        assert (
            list(w["factual"]) == ["theta", "y", "sick", "count", "image"]
            and len(w["factual"]) == 5
        )
        return torch.stack([w[name]["theta"] > 0 for name in w]).all(0)

    assert worlds.probability(event).dims == ()


def test_an_exception_of_the_events_own_passes(worlds: Worlds) -> None:
    with pytest.raises(ZeroDivisionError):
        worlds.probability(lambda w: 1 / 0)


# --- The table ----------------------------------------------------------------------------------------------------


def test_summary_has_one_row_for_each_site_and_world(worlds: Worlds) -> None:
    table = worlds.summary(["theta", "y", "extra"])
    assert list(table.columns) == ["mean", "sd", "lower", "upper"]
    assert table.index.names == ["site", "world"]
    assert list(table.index) == [
        *((site, world) for site in ("theta", "y") for world in worlds.worlds),
        ("extra", "control"),
    ]
    average = worlds["y"].sel(world="treated").mean("people").astype(float)
    row = table.loc[("y", "treated")]
    assert row["mean"] == pytest.approx(float(average.mean()), rel=1e-5)
    assert row["sd"] == pytest.approx(float(average.std("draw")), rel=1e-5)
    assert row["lower"] == pytest.approx(float(average.quantile(0.025)), rel=1e-5)
    assert row["upper"] == pytest.approx(float(average.quantile(0.975)), rel=1e-5)


def test_summary_by_unit(worlds: Worlds) -> None:
    table = worlds.summary("y", "control", prob=0.5, by_unit=True)
    assert list(table.index) == [("y[0]", "control"), ("y[1]", "control"), ("y[2]", "control")]
    unit = worlds["y"].sel(world="control", people=1).astype(float)
    assert table.loc[("y[1]", "control"), "lower"] == pytest.approx(
        float(unit.quantile(0.25)), rel=1e-5
    )
    assert table.attrs["prob"] == 0.5


def test_summary_names_elements_by_coordinates() -> None:
    labels = SiteLabels("y", (("people", -1, 2, torch.tensor([30, 10])),), (2,), (2,))
    worlds = Worlds({"factual": {"y": draws(2, 2)}}, {"y": labels}, EXACT)
    assert list(worlds.summary().index) == [("y[0]", "factual"), ("y[1]", "factual")]
    by_unit = worlds.summary(by_unit=True)
    assert [name for name, _ in by_unit.index] == ["y[30, 0]", "y[30, 1]", "y[10, 0]", "y[10, 1]"]
    expected = worlds["y"].sel(people=10, y_dim_0=0).mean().item()
    assert by_unit.loc[("y[10, 0]", "factual"), "mean"] == pytest.approx(expected, rel=1e-5)


def test_summary_of_booleans_is_a_share(worlds: Worlds) -> None:
    found = worlds.summary("sick").loc[("sick", "factual"), "mean"]
    assert found == pytest.approx(worlds.tensor("sick", "factual").double().mean().item())


@pytest.mark.parametrize("prob", [0.0, 1.0, 95, -0.5, float("nan")])
def test_summary_refuses_a_percentage(worlds: Worlds, prob: float) -> None:
    with pytest.raises(errors.SupportError, match=r"between 0 and 1"):
        worlds.summary(prob=prob)


# --- One draw -----------------------------------------------------------------------------------------------------


def test_one_draw(tmp_path: Path) -> None:
    worlds = two(torch.tensor([1.5]), torch.tensor([1.9]), SiteLabels("y"))
    assert worlds["y"].sizes == {"draw": 1, "world": 2}
    assert worlds.contrast("y").item() == pytest.approx(0.4)
    assert float(worlds.probability(lambda w: w["counterfactual"]["y"] > 1)) == 1.0
    row = worlds.summary().loc[("y", "factual")]
    assert row.tolist() == [1.5, 0.0, 1.5, 1.5]
    assert dict(worlds.to_arviz().posterior.sizes) == {"chain": 1, "draw": 1, "world": 2}
    worlds.save(tmp_path / "one.nc")
    xr.testing.assert_identical(Worlds.load(tmp_path / "one.nc").dataset, worlds.dataset)


# --- Dataset and ArviZ --------------------------------------------------------------------------------------------


def test_dataset_holds_all_and_says_where_it_is_from(worlds: Worlds) -> None:
    data = worlds.dataset
    assert tuple(data.data_vars) == worlds.sites
    for site in worlds:
        xr.testing.assert_identical(data[site].variable, worlds[site].variable)
    assert data.attrs["creation_library"] == "causalppl"
    assert data.attrs["inference_library_version"] and data.attrs["torch_version"]
    assert data.attrs["inference_method"] == "ImportanceSampling"
    assert data.attrs["ess_min"] == 10.0 and data.attrs["pareto_k_max"] == pytest.approx(0.8)
    assert all(isinstance(v, (str, float)) for v in data.attrs.values())


def test_a_plate_that_differs_between_sites_is_refused_in_a_dataset() -> None:
    for other in (("people", -1, 2, None), ("people", -1, 3, torch.tensor([4, 5, 6]))):
        size = other[2]
        worlds = Worlds(
            {"factual": {"x": draws(3), "y": draws(size)}},
            {"x": SiteLabels("x", PEOPLE, (3,)), "y": SiteLabels("y", (other,), (size,))},
            EXACT,
        )
        assert worlds["y"].sizes["people"] == size
        with pytest.raises(
            errors.ProgramError, match=r"'x' and 'y' have different indices along 'people'"
        ):
            _ = worlds.dataset


@pytest.mark.parametrize("name", ["draw", "world", "people"])
def test_a_site_named_as_a_dim_is_refused_in_a_dataset(name: str) -> None:
    worlds = Worlds(
        {"factual": {name: draws(), "y": draws(3)}},
        {name: SiteLabels(name), "y": SiteLabels("y", PEOPLE, (3,))},
        EXACT,
    )
    assert worlds[name].sizes == {"draw": DRAWS, "world": 1}
    with pytest.raises(
        errors.ProgramError, match=rf"the site '{name}' has the name of a dimension"
    ):
        _ = worlds.dataset


def test_arviz_reads_it(worlds: Worlds, tmp_path: Path) -> None:
    import arviz

    found = worlds.to_arviz()
    posterior = found.posterior
    assert posterior["y"].dims == ("chain", "draw", "world", "people")
    np.testing.assert_array_equal(posterior["y"].sel(chain=0).values, worlds["y"].values)
    assert posterior["a.late"].attrs["site"] == "a/late"
    assert posterior["sick"].dtype.kind == "i"
    table = arviz.summary(found, var_names=["y", "sick", "count", "a.late"], round_to="none")
    assert table.loc["y[treated, 1]", "mean"] == pytest.approx(
        worlds["y"].sel(world="treated", people=1).mean().item()
    )
    found.to_netcdf(str(tmp_path / "arviz.nc"))
    again = arviz.from_netcdf(str(tmp_path / "arviz.nc"))
    xr.testing.assert_equal(again.posterior.load(), posterior)
    again.close()


def test_chains_are_chains() -> None:
    import arviz

    y = draws(3)
    chain = torch.arange(DRAWS) % 4
    worlds = Worlds(
        {"factual": {"y": y}},
        {"y": SiteLabels("y", PEOPLE, (3,))},
        EXACT,
        draw_coords={"chain": chain},
    )
    assert worlds["y"].where(worlds["y"]["chain"] == 2, drop=True).sizes["draw"] == DRAWS // 4
    posterior = worlds.to_arviz().posterior
    assert posterior["y"].dims == ("chain", "draw", "world", "people")
    assert posterior.sizes["chain"] == 4 and posterior["chain"].values.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(
        posterior["y"].sel(chain=2, world="factual").values, y[chain == 2].numpy()
    )
    assert np.isfinite(arviz.rhat(worlds.to_arviz())["y"].values).all()


def test_chains_of_different_length_are_one() -> None:
    chain = torch.tensor([0] * (DRAWS - 3) + [1] * 3)
    worlds = Worlds(
        {"factual": {"y": draws()}}, {"y": SiteLabels("y")}, EXACT, draw_coords={"chain": chain}
    )
    assert dict(worlds.to_arviz().posterior.sizes) == {"chain": 1, "draw": DRAWS, "world": 1}


def test_arviz_1_gets_a_data_tree(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    import arviz

    monkeypatch.setattr(arviz, "__version__", "1.2.0")
    monkeypatch.setitem(vars(arviz), "InferenceData", None)  # in 1.x the name is there and warns
    tree = worlds.to_arviz()
    assert isinstance(tree, xr.DataTree)
    assert tree["posterior"]["y"].dims == ("chain", "draw", "world", "people")
    assert "a.late" in tree["posterior"].data_vars


# --- Files --------------------------------------------------------------------------------------------------------


def test_save_and_load(worlds: Worlds, tmp_path: Path) -> None:
    path = tmp_path / "worlds.nc"
    worlds.save(path)
    again = Worlds.load(str(path))
    assert again.worlds == worlds.worlds and again.sites == worlds.sites
    for world in worlds.worlds:
        for site in worlds:
            if site not in worlds._store.values[world]:
                with pytest.raises(errors.UnknownSiteError):
                    again.tensor(site, world)
                continue
            here, there = worlds.tensor(site, world), again.tensor(site, world)
            assert here.dtype == there.dtype and torch.equal(here, there), (site, world)
    xr.testing.assert_identical(again.dataset, worlds.dataset)
    xr.testing.assert_identical(again.diagnostics.ess, worlds.diagnostics.ess)
    assert str(again) == str(worlds)
    again.save(path)  # the file is closed, and may be written again
    xr.testing.assert_identical(Worlds.load(path).dataset, worlds.dataset)


def test_a_file_is_ordinary_netcdf(worlds: Worlds, tmp_path: Path) -> None:
    worlds.save(tmp_path / "worlds.nc")
    with xr.open_dataset(tmp_path / "worlds.nc", engine="h5netcdf") as data:
        assert data["y"].sizes == {"draw": DRAWS, "world": 3, "people": 3}
        assert data["sick"].dtype == np.bool_
        assert data["a.late"].attrs["site"] == "a/late"
        np.testing.assert_array_equal(
            data["y"].sel(world="treated"), worlds["y"].sel(world="treated")
        )


def test_names_with_slashes_that_would_collide(tmp_path: Path) -> None:
    names = ("a/b", "a.b", "a.b_", "a//b")
    values = {name: draws(2, seed=i) for i, name in enumerate(names)}
    labels = {
        name: SiteLabels(name, (("p/q", -1, 2, torch.tensor([3, 1])),), (2,)) for name in names
    }
    worlds = Worlds({"factual": values, "no/thing": {}}, labels, EXACT)
    worlds.save(tmp_path / "slashes.nc")
    again = Worlds.load(tmp_path / "slashes.nc")
    xr.testing.assert_identical(again.dataset, worlds.dataset)
    for name in names:
        assert torch.equal(again.tensor(name, "factual"), values[name])
    sites = {array.attrs["site"] for array in worlds.to_arviz().posterior.data_vars.values()}
    assert sites == set(names)


def test_what_netcdf_cannot_say_survives(tmp_path: Path) -> None:
    indices = torch.tensor([4, 2, 7])
    values = {
        "half": draws(3).half(),
        "brain": draws(3).bfloat16(),
        "byte": torch.arange(DRAWS, dtype=torch.uint8),
        "big": torch.full((DRAWS,), 2**60 + 1),
        "padded": draws(3, 1),
        "event": draws(3, 1),
    }
    labels = {
        "half": SiteLabels("half", (("people", -1, 3, indices),), (3,)),
        "brain": SiteLabels("brain", (("people", -1, 3, indices),), (3,)),
        "byte": SiteLabels("byte"),
        "big": SiteLabels("big"),
        "padded": SiteLabels("padded", (("people", -2, 3, indices),), (3, 1)),
        "event": SiteLabels("event", (("people", -1, 3, indices),), (3,), (1,)),
    }
    worlds = Worlds(
        {"factual": values},
        labels,
        Diagnostics("Exact"),
        draw_coords={"chain": torch.arange(DRAWS) // 20},
        site_attrs={"byte": {"units": "counts"}},
    )
    worlds.save(tmp_path / "odd.nc")
    again = Worlds.load(tmp_path / "odd.nc")
    for name, value in values.items():
        found = again.tensor(name, "factual")
        assert found.dtype == value.dtype and torch.equal(found, value), name
    assert again["padded"]["people"].values.tolist() == [4, 2, 7]
    assert again["byte"].attrs["units"] == "counts"
    assert again.to_arviz().posterior.sizes["chain"] == 2
    assert str(again) == str(worlds)


def test_a_gradient_does_not_stop_a_file(tmp_path: Path) -> None:
    y = draws().requires_grad_()
    worlds = Worlds({"factual": {"y": y}}, {"y": SiteLabels("y")}, EXACT)
    worlds.save(tmp_path / "g.nc")
    assert torch.equal(Worlds.load(tmp_path / "g.nc").tensor("y", "factual"), y.detach())


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    xr.Dataset({"y": ("draw", np.zeros(3))}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(errors.SupportError, match=r"not written by Worlds.save"):
        Worlds.load(tmp_path / "other.nc")
    with pytest.raises(FileNotFoundError):
        Worlds.load(tmp_path / "nowhere.nc")


# --- For the eye and for speed ------------------------------------------------------------------------------------


def test_repr_says_what_there_is(worlds: Worlds) -> None:
    text = repr(worlds)
    first, *rest = text.splitlines()
    assert first == "Worlds: 40 draws of 3 worlds: 'factual', 'treated', 'control'"
    assert any(line.split() == ["y", "(people:", "3)", "float32"] for line in rest)
    assert any("extra" in line and "only in 'control'" in line for line in rest)
    assert "ImportanceSampling" in text and "highest 0.8" in text


def test_repr_html_is_escaped() -> None:
    worlds = Worlds({"factual": {"<y>": draws()}}, {"<y>": SiteLabels("<y>")}, EXACT)
    page = worlds._repr_html_()
    assert "&lt;y&gt;" in page and "<y>" not in page
    assert page.count("<tr>") == page.count("</tr>") == 2


def test_a_thousand_worlds_are_named_lazily() -> None:
    """Building costs nothing per element: values that would need 80 GB as one array are taken as they are."""
    site = torch.zeros(1).expand(1000, 10_000)
    names = ["factual", *(f"w{i}" for i in range(1000))]
    plates = (("people", -1, 10_000, None),)
    sites = [f"s{i}" for i in range(2)]
    start = time.perf_counter()
    worlds = Worlds(
        {name: dict.fromkeys(sites, site) for name in names},
        {name: SiteLabels(name, plates, (10_000,)) for name in sites},
        EXACT,
    )
    text = repr(worlds)
    worlds._repr_html_()
    assert worlds.tensor("s1", world="w999") is site
    assert float(worlds.probability(lambda w: w["w3"]["s0"][:, 0] == 0)) == 1.0
    assert time.perf_counter() - start < 2.0
    assert "and 993 more" in text and len(text) < 2000
