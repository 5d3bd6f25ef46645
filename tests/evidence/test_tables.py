"""Evidence as people keep it: data frames, columns with missing values, arrays, lists."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

import causalppl as cp
from causalppl import errors

N = dist.Normal


def model() -> None:
    with pyro.plate("people", 3):
        a = pyro.sample("a", dist.Bernoulli(0.5))
        c = pyro.sample("c", dist.Categorical(torch.ones(3) / 3))
        pyro.sample("y", N(a + c, 1.0))


COMPLETE = {"a": [1.0, 0.0, 1.0], "c": [0, 2, 1], "y": [1.5, 2.0, -1.0]}


@pytest.mark.parametrize(
    "evidence",
    [
        COMPLETE,
        {k: np.array(v) for k, v in COMPLETE.items()},
        {k: np.array(v, dtype=object) for k, v in COMPLETE.items()},
        {k: torch.tensor(v) for k, v in COMPLETE.items()},
        {k: torch.tensor(v, dtype=torch.float64) for k, v in COMPLETE.items()},
        {k: tuple(v) for k, v in COMPLETE.items()},
        {k: pd.Series(v, index=["p", "q", "r"]) for k, v in COMPLETE.items()},
        {k: xr.DataArray(v) for k, v in COMPLETE.items()},
        pd.DataFrame(COMPLETE),
        pd.DataFrame(COMPLETE, index=[7, 3, 5]).astype({"a": bool}),
        pd.DataFrame(COMPLETE).astype({"c": "Int64", "y": "float32"}),
        pd.DataFrame(COMPLETE).assign(c=pd.Categorical(["lo", "hi", "mid"], ["lo", "mid", "hi"])),
        xr.Dataset({k: ("people", v) for k, v in COMPLETE.items()}).to_dataframe(),
    ],
)
def test_every_form_is_the_same_evidence(evidence: Any) -> None:
    worlds = cp.counterfactual(model, {"a": 0.0}, evidence)()
    assert worlds.diagnostics.method == "Exact"
    for site, values in COMPLETE.items():
        drawn = worlds.tensor(site, "factual")[0]
        torch.testing.assert_close(drawn.double(), torch.tensor(values).double())
    expected = torch.tensor(COMPLETE["y"]) - torch.tensor(COMPLETE["a"])
    torch.testing.assert_close(worlds.tensor("y", "counterfactual")[0], expected)


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1.5, None, -1.0], dtype="Float64"),
        pd.Series([1.5, None, -1.0], dtype=object),
        np.ma.masked_array([1.5, 99.0, -1.0], mask=[False, True, False]),
        [1.5, math.nan, -1.0],
    ],
)
def test_missing_entries_of_every_kind_of_column(column: Any) -> None:
    evidence = {**COMPLETE, "y": column}
    posterior = cp.abduct(model, evidence, num_samples=50, seed=0)()
    y = posterior.predict().tensor("y", "factual")
    assert bool((y[:, [0, 2]] == torch.tensor([1.5, -1.0])).all())
    assert float(y[:, 1].std()) > 0.5


def test_missing_categories_and_booleans() -> None:
    frame = pd.DataFrame(
        {
            "a": pd.array([True, None, False], dtype="boolean"),
            "c": pd.Categorical(["hi", None, "lo"], ["lo", "mid", "hi"]),
        }
    )
    posterior = cp.abduct(model, frame, num_samples=400, seed=0)()
    a, c = (posterior.predict().tensor(n, "factual") for n in "ac")
    assert bool((a[:, [0, 2]] == torch.tensor([1.0, 0.0])).all())
    assert bool((c[:, [0, 2]] == torch.tensor([2, 0])).all())
    assert set(a[:, 1].tolist()) == {0.0, 1.0} and set(c[:, 1].tolist()) == {0, 1, 2}


def test_a_frame_is_copied() -> None:
    frame = pd.DataFrame(COMPLETE)
    posterior = cp.abduct(model, frame)()
    frame.loc[:, "y"] = 0.0
    assert posterior.predict().tensor("y", "factual")[0].tolist() == COMPLETE["y"]


@pytest.mark.parametrize(
    ("evidence", "error", "message"),
    [
        (pd.DataFrame({"y": ["a", "b", "c"]}), errors.EvidenceError, "is no value; give a number"),
        (pd.DataFrame({0: [1.0, 2.0, 3.0]}), errors.EvidenceError, "is no site name"),
        (pd.DataFrame({"height": [1.0, 2.0, 3.0]}), errors.UnknownSiteError, "Its sites: 'a', 'c'"),
        (pd.DataFrame({"y": [1.0, 2.0]}), errors.ShapeError, "does not broadcast"),
        (pd.DataFrame({"c": [0.5, 1.0, 2.0]}), errors.InterventionError, "is a fraction"),
        (pd.DataFrame({"c": [0, 1, 3]}), errors.SupportError, "outside the support"),
        (pd.DataFrame({"y": [1.0, math.inf, 0.0]}), errors.SupportError, "is infinite"),
        ([("y", 1.0)], errors.EvidenceError, "a data frame whose columns are sites"),
        ({"y": None}, errors.EvidenceError, "give NaN for a missing entry"),
        ({"y": "1"}, errors.EvidenceError, "is no value"),
    ],
)
def test_messages(evidence: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cp.abduct(model, evidence)()
