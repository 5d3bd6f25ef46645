"""Axis names: plates by their names, the rest as ArviZ numbers them."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import causalppl.results
from causalppl import errors
from causalppl.results import SiteLabels

PEOPLE = ("people", -1, 3, None)


def test_a_plate_lends_its_name_and_event_dims_are_numbered() -> None:
    labels = SiteLabels("y", (PEOPLE,), (3,), (2, 4))
    assert labels.dims() == ("people", "y_dim_0", "y_dim_1")
    array = labels.label(torch.arange(10 * 3 * 2 * 4.0).reshape(10, 3, 2, 4))
    assert array.dims == ("draw", *labels.dims())
    assert array.name == "y"
    assert array.sel(draw=1, people=2, y_dim_0=1, y_dim_1=3).item() == 24 + 16 + 4 + 3
    assert {d: c.tolist() for d, c in labels.coords().items()} == {
        "people": [0, 1, 2],
        "y_dim_0": [0, 1],
        "y_dim_1": [0, 1, 2, 3],
    }


def test_a_nested_plate() -> None:
    labels = SiteLabels("y", (("towns", -1, 5, None), ("people", -2, 3, None)), (3, 5))
    assert labels.dims() == ("people", "towns")
    value = torch.arange(15.0).reshape(1, 3, 5)
    assert labels.label(value).sel(people=2, towns=4).item() == 14.0


@pytest.mark.parametrize(
    ("plates", "batch", "dims"),
    [
        ((("rows", -2, 4, None),), (4, 1), ("rows",)),
        ((("columns", -1, 5, None),), (5,), ("columns",)),
        ((("rows", -2, 4, None), ("columns", -1, 5, None)), (4, 5), ("rows", "columns")),
        ((("rows", -3, 4, None),), (4, 1, 1), ("rows",)),
    ],
)
def test_crossed_plates_drop_the_padding(plates, batch, dims) -> None:
    labels = SiteLabels("y", plates, batch, (2,))
    assert labels.dims() == (*dims, "y_dim_0")
    assert labels.label(torch.zeros(7, *batch, 2)).sizes == {
        "draw": 7,
        **{p[0]: p[2] for p in plates},
        "y_dim_0": 2,
    }


def test_a_plate_of_size_one_and_an_event_dim_of_size_one_are_kept() -> None:
    assert SiteLabels("y", (("people", -1, 1, None),), (1,), (1,)).dims() == ("people", "y_dim_0")


def test_batch_dims_without_a_plate() -> None:
    assert SiteLabels("y", (), (4, 1, 2), (3,)).dims() == ("y_dim_0", "y_dim_1", "y_dim_2")
    assert SiteLabels("y", (PEOPLE,), (4, 3), (2,)).dims() == ("y_dim_0", "people", "y_dim_1")


def test_a_plate_along_which_the_value_is_constant_is_passed_over() -> None:
    assert SiteLabels("y", (PEOPLE,), (), ()).dims() == ()
    assert SiteLabels("y", (PEOPLE,), (1,), ()).dims() == ()
    assert SiteLabels("y", (("towns", -2, 2, None), PEOPLE), (1, 3), ()).dims() == ("people",)


def test_subsampled_indices_are_coordinates() -> None:
    indices = torch.tensor([41, 7, 19])
    array = SiteLabels("y", (("people", -1, 3, indices),), (3,)).label(
        torch.tensor([[0.0, 1.0, 2.0]])
    )
    assert array["people"].values.tolist() == [41, 7, 19]
    assert array.sel(people=7, draw=0).item() == 1.0


@pytest.mark.parametrize("name", ["draw", "chain", "world"])
def test_reserved_plate_names(name: str) -> None:
    with pytest.raises(
        errors.ProgramError, match=f"the plate '{name}' around site 'y'.*rename the plate"
    ):
        SiteLabels("y", ((name, -1, 3, None),), (3,))


def test_names_that_collide() -> None:
    with pytest.raises(errors.ProgramError, match="same name"):
        SiteLabels("y", (("y_dim_0", -1, 3, None),), (3,), (2,))


@pytest.mark.parametrize(
    ("plates", "match"),
    [
        ((("people", -1, 4, None),), "size 4 is at dim -1"),
        ((("people", 0, 3, None),), "must be negative"),
        ((("people", -1, 3, torch.arange(2)),), r"indices of shape \(2,\)"),
    ],
)
def test_plates_that_do_not_fit(plates, match: str) -> None:
    with pytest.raises(errors.ShapeError, match=match):
        SiteLabels("y", plates, (3,))


def test_a_value_that_does_not_fit() -> None:
    labels = SiteLabels("y", (PEOPLE,), (3,))
    for shape in ((10, 4), (10,), (10, 1, 3)):
        with pytest.raises(errors.ShapeError, match="site 'y' was given a value of shape"):
            labels.label(torch.zeros(shape))
    with pytest.raises(errors.ShapeError):
        SiteLabels("z").label(torch.tensor(1.0))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool]
)
def test_dtypes_stay(dtype: torch.dtype) -> None:
    array = SiteLabels("y").label(torch.ones(2).to(dtype))
    assert str(array.dtype) == str(dtype).removeprefix("torch.")


def test_bfloat16_becomes_float32() -> None:
    assert SiteLabels("y").label(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32


def test_leading_dims_of_the_callers_choice() -> None:
    array = SiteLabels("y", (PEOPLE,), (3,)).label(
        torch.zeros(2, 4, 3, requires_grad=True),
        leading=("world", "draw"),
        coords={"world": ["a", "b"]},
        attrs={"unit": "kg"},
    )
    assert array.dims == ("world", "draw", "people")
    assert array["world"].values.tolist() == ["a", "b"]
    assert array["draw"].values.tolist() == [0, 1, 2, 3]
    assert array.attrs == {"unit": "kg"}


MODULES = sorted(m.name for m in pkgutil.iter_modules(causalppl.results.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_docstrings_run(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(f"causalppl.results.{name}"))
    assert failed == 0


def test_there_are_examples() -> None:
    tried = sum(
        doctest.testmod(importlib.import_module(f"causalppl.results.{name}")).attempted
        for name in MODULES
    )
    assert tried >= 10


def test_importing_results_imports_no_data_frames() -> None:
    code = "import sys, causalppl.results; print(sorted({'xarray', 'pandas', 'arviz'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
