"""Flows, categorical laws and embeddings are what their names say; zuko changes nothing for the process."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from causalppl import errors
from causalppl.networks import (
    FLOWS,
    CategoricalHead,
    ConditionalFlow,
    SetEmbedding,
    embedding_for,
)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Weights away from their start, where many are zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return module


def test_zuko_leaves_validation_as_it_was() -> None:
    code = """
import torch
from torch.distributions import Distribution
from causalppl.networks import ConditionalFlow
for wanted in (True, False):
    Distribution.set_default_validate_args(wanted)
    ConditionalFlow(2, 3, "spline")
    assert Distribution._validate_args is wanted, wanted
import sys
assert "zuko" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_zuko_is_imported_in_one_place() -> None:
    from pathlib import Path

    import causalppl

    root = Path(causalppl.__file__).parent
    users = [p.name for p in root.rglob("*.py") if "import zuko" in p.read_text()]
    assert users == ["flows.py"]


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("features", [1, 3, 30])
def test_flows_are_normalised_and_invert(flow: str, features: int) -> None:
    net = shaken(ConditionalFlow(features, 2, flow, width=16))
    context = torch.randn(7, 2)
    with torch.no_grad():
        x, log_q = net.draw(context)
        assert torch.allclose(net.log_prob(x, context), log_q, atol=2e-3)
    if features == 1:
        grid = torch.linspace(-40, 40, 40_001)
        with torch.no_grad():
            density = net.log_prob(grid.unsqueeze(-1), context[:1].expand(len(grid), 2)).exp()
        assert float(density.sum() * (grid[1] - grid[0])) == pytest.approx(1.0, abs=0.01)


def test_an_unknown_flow_is_refused() -> None:
    with pytest.raises(
        errors.MethodError, match="flow='affine' is not known; it can be one of 'spline'"
    ):
        ConditionalFlow(2, 3, "affine")


def test_a_flow_of_ones_own_serves() -> None:
    import zuko

    net = ConditionalFlow(2, 3, lambda features, context: zuko.flows.MAF(features, context))
    x, log_q = net.draw(torch.zeros(4, 3))
    assert torch.allclose(net.log_prob(x, torch.zeros(4, 3)), log_q, atol=1e-4)


def test_categorical_laws_sum_to_one_and_draw_what_they_say() -> None:
    net = shaken(CategoricalHead(entries=2, categories=3, context=2, width=16))
    context = torch.randn(1, 2)
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    with torch.no_grad():
        p = net.log_prob(every, context.expand(9, 2)).exp()
        drawn, _ = net.draw(context.expand(20_000, 2))
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-5)
    share = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9) / 20_000
    assert bool(((share - p).abs() < 4.5 * (p * (1 - p) / 20_000).sqrt()).all())
    first, second = p.reshape(3, 3).sum(1), p.reshape(3, 3).sum(0)
    assert bool((p.reshape(3, 3) - first[:, None] * second).abs().max() > 1e-3)  # entries depend


def test_counts_have_a_tail() -> None:
    net = shaken(CategoricalHead(entries=1, categories=4, context=2, tail=True, width=16))
    context = torch.randn(1, 2)
    with torch.no_grad():
        p = net.log_prob(torch.arange(400).unsqueeze(-1), context.expand(400, 2)).exp()
        drawn, log_q = net.draw(context.expand(20_000, 2))
        again = net.log_prob(drawn, context.expand(20_000, 2))
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-4)
    assert torch.allclose(again, log_q, atol=1e-4)
    beyond = float(p[6:].sum())
    share = float((drawn >= 6).double().mean())
    assert abs(share - beyond) < 4.5 * (beyond * (1 - beyond) / 20_000) ** 0.5


@pytest.mark.parametrize("shape", [(), (5,), (40,), (12, 3), (8, 8), (3, 16, 16)])
def test_embeddings_by_shape(shape: tuple[int, ...]) -> None:
    net, size = embedding_for(shape)
    assert net(torch.zeros((4, *shape))).shape == (4, size)


def test_an_embedding_that_does_not_fit_is_refused() -> None:
    with pytest.raises(errors.MethodError, match="embed='image' needs"):
        embedding_for((5,), kind="image")
    with pytest.raises(errors.MethodError, match="embed='conv' is not known"):
        embedding_for((5,), kind="conv")


def test_sets_ignore_order_and_what_is_absent() -> None:
    net = shaken(SetEmbedding(3, 8, width=16))
    x, there = torch.randn(2, 6, 3), torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    with torch.no_grad():
        found = net(x, there)
        assert torch.allclose(net(x[:, order], there[:, order]), found, atol=1e-5)
        wild = torch.where(there.unsqueeze(-1), x, torch.full_like(x, 1e3))
        assert torch.allclose(net(wild, there), found, atol=1e-5)
        assert torch.allclose(net(x[:1, :3], there[:1, :3]), found[:1], atol=1e-5)
