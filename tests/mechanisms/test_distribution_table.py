"""The table of distributions: what is on disk is what the registry says, and every refusal says what to do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch

from causalppl import errors
from causalppl.mechanisms import mechanism_for
from causalppl.mechanisms.refused import REASONS
from causalppl.mechanisms.table import table

_PAGE = Path(__file__).parents[2] / "docs" / "distributions.md"


def test_page_is_up_to_date() -> None:
    assert _PAGE.read_text() == table(), (
        "write it anew: python -m causalppl.mechanisms.table > docs/distributions.md"
    )


one = torch.ones(())
matrix = torch.eye(2)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "DiscreteHMM": (
        lambda: dist.DiscreteHMM(torch.zeros(2), torch.zeros(2, 2), dist.Normal(torch.zeros(2), 1.0), duration=3),
        "pyro.markov",
    ),
    "GaussianHMM": (
        lambda: dist.GaussianHMM(
            dist.Normal(torch.zeros(2), 1.0).to_event(1), matrix, dist.Normal(torch.zeros(2), 1.0).to_event(1), matrix,
            dist.Normal(torch.zeros(2), 1.0).to_event(1), duration=3,
        ),
        "pyro.markov",
    ),
    "ImproperUniform": (lambda: dist.ImproperUniform(dist.constraints.real, (), ()), "proper prior"),
    "SineBivariateVonMises": (
        lambda: dist.SineBivariateVonMises(one, one, one, one, weighted_correlation=0.5 * one),
        "two VonMises sites",
    ),
    "SpanningTree": (lambda: dist.SpanningTree(torch.zeros(3)), "sample sites of their own"),
    "Stable": (lambda: dist.Stable(1.5 * one, 0 * one), "LatentStableReparam"),
    "StableWithLogProb": (lambda: dist.StableWithLogProb(1.5 * one, 0 * one), "LatentStableReparam"),
    "TruncatedPolyaGamma": (lambda: dist.TruncatedPolyaGamma(one), "terms as sites"),
    "VonMises3D": (lambda: dist.VonMises3D(torch.tensor([1.0, 0.0, 0.0])), "ProjectedNormal"),
    "OneOneMatching": (lambda: dist.OneOneMatching(torch.zeros(2, 2)), "sample sites of their own"),
    "GroupedNormalNormal": (
        lambda: dist.GroupedNormalNormal(one[None], one[None], one[None], torch.tensor([0])),
        "effects as a sample site",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_to_do(name: str) -> None:
    make, advice = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some constructors warn
        fn = make()
    for wrapped in (fn, fn.mask(False)):
        with pytest.raises(errors.NoMechanismError, match=rf"{name}.*{advice}.*register_mechanism"):
            mechanism_for(wrapped)


def test_every_reason_is_for_a_class_without_a_mechanism() -> None:
    page = _PAGE.read_text()
    for family in REASONS:
        row = f"| {family.__name__} |"
        assert row not in page or f"{row} none |" in page
