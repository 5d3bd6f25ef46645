"""What a method says of its own answer."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import pytest
import torch
import xarray as xr

from causalppl import errors
from causalppl.results import Diagnostics

PER_UNIT = Diagnostics(
    "ImportanceSampling",
    "weights per unit",
    ess=torch.tensor([[40.0, 80.0], [20.0, 60.0], [90.0, 70.0]]),
    pareto_k=torch.tensor([[0.1, 0.2], [0.9, 0.3], [0.0, 0.4]], dtype=torch.float64),
    mechanisms={"x": "affine", "y": "affine", "z": "gumbel_max"},
    executor="vmap",
    notes=("missingness is taken as ignorable", "another note"),
    unit_names=("people", "towns"),
)


def test_nothing_is_known_unless_given() -> None:
    found = Diagnostics("Exact")
    assert (found.ess, found.pareto_k, found.rhat, found.identification) == (None, None, None, None)
    assert str(found) == f"{'method':<16}Exact"


def test_numbers_stay_numbers() -> None:
    found = Diagnostics(
        "NUTS", "continuous latents", ess=412, pareto_k=torch.tensor(0.25), rhat=1.004
    )
    assert type(found.ess) is float and found.ess == 412.0
    assert type(found.pareto_k) is float and found.pareto_k == 0.25
    assert found.rhat == 1.004


def test_arrays_bear_the_plates_names() -> None:
    ess, k = PER_UNIT.ess, PER_UNIT.pareto_k
    assert isinstance(ess, xr.DataArray) and isinstance(k, xr.DataArray)
    assert ess.sizes == k.sizes == {"people": 3, "towns": 2}
    assert ess.dtype == "float32" and k.dtype == "float64"
    assert float(k.max()) == 0.9
    assert ess.where(ess == ess.min(), drop=True)["people"].item() == 1


def test_a_reader_cannot_change_what_is_stored() -> None:
    found = Diagnostics("ImportanceSampling", ess=torch.ones(2), unit_names=("people",))
    found.ess[:] = 0.0  # type: ignore[index]
    assert float(found.ess.max()) == 1.0  # type: ignore[union-attr]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.method = "NUTS"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.ess = 3.0  # type: ignore[misc]


def test_names_must_fit_the_tensor() -> None:
    with pytest.raises(errors.ShapeError, match=r"ess has shape \(2,\) and unit_names are \(\)"):
        Diagnostics("ImportanceSampling", ess=torch.ones(2))


def test_text_says_the_worst() -> None:
    text = str(PER_UNIT)
    assert text == repr(PER_UNIT)
    assert "lowest 20, over people (3) x towns (2)" in text
    assert "highest 0.9, over" in text
    assert "affine: x, y; gumbel_max: z" in text
    lines = text.splitlines()
    starts = {line[:16].strip() for line in lines}
    assert starts == {"method", "why", "ess", "pareto k", "mechanisms", "executor", "note", ""}
    assert all(line[16] != " " for line in lines)  # aligned


def test_no_units_is_no_error() -> None:
    found = Diagnostics("ImportanceSampling", ess=torch.ones(0), unit_names=("people",))
    assert "no units" in str(found)
    json.dumps(found.as_attrs())


def test_attributes_are_text_and_numbers() -> None:
    attrs = PER_UNIT.as_attrs()
    assert attrs["ess_min"] == 20.0 and attrs["pareto_k_max"] == 0.9
    assert all(isinstance(v, (str, float)) for v in attrs.values())
    assert json.loads(json.dumps(attrs)) == attrs


@pytest.mark.parametrize(
    "change",
    [
        lambda d: dataclasses.replace(d),
        lambda d: pickle.loads(pickle.dumps(d)),
        copy.deepcopy,
        lambda d: Diagnostics.from_record(json.loads(json.dumps(d.record())), d.arrays()),
    ],
    ids=["replace", "pickle", "deepcopy", "record"],
)
@pytest.mark.parametrize(
    "found", [PER_UNIT, Diagnostics("Exact"), Diagnostics("NUTS", ess=3.0, rhat=1.5)]
)
def test_copies_say_the_same(found: Diagnostics, change) -> None:
    again = change(found)
    assert str(again) == str(found)
    assert again.record() == found.record()
    for name, array in found.arrays().items():
        xr.testing.assert_identical(array, again.arrays()[name])


def test_replace_changes_one_thing() -> None:
    again = dataclasses.replace(PER_UNIT, notes=("new",))
    assert again.notes == ("new",)
    xr.testing.assert_identical(again.ess, PER_UNIT.ess)
