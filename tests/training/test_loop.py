"""The training loop: its minimum, its guards, and that a seed, a checkpoint and a break change nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import causalppl as cp
from causalppl.training import History, train

X = torch.linspace(-2, 2, 40)[:, None]
Y = torch.sin(2 * X) + 0.1 * torch.cos(37 * X)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))


def batch_loss(net: nn.Module) -> Callable[[int], torch.Tensor]:
    def loss(step: int) -> torch.Tensor:
        rows = torch.randint(len(X), (8,))
        return ((net(X[rows]) - Y[rows]) ** 2).mean()

    return loss


def weights(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


class Broken(Exception):
    """A power cut."""


def test_least_squares_is_found() -> None:
    """Against the normal equations."""
    design = torch.cat([X.double(), torch.ones_like(X).double()], 1)
    exact = torch.linalg.solve(design.T @ design, design.T @ Y.double())
    line = nn.Linear(1, 1).double()
    history = train(
        lambda step: ((line(X.double()) - Y.double()) ** 2).mean(),
        {"line": line},
        steps=800,
        learning_rate=0.1,
        seed=0,
    )
    torch.testing.assert_close(weights(line), exact.flatten(), rtol=0, atol=1e-5)
    assert history.stopped == "steps" and history.steps == 800
    assert history.learning_rate[0] == 0.1 and history.learning_rate[-1] < 1e-6
    assert history.loss[-1] < history.loss[0]


def test_a_seed_reproduces_and_the_generator_is_untouched() -> None:
    found = []
    for seed in (1, 1, 2):
        net = network()
        before = torch.get_rng_state()
        train(batch_loss(net), {"net": net}, steps=50, seed=seed)
        assert torch.equal(before, torch.get_rng_state())
        found.append(weights(net))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "warmup_cosine"])
def test_a_training_that_breaks_off_goes_on_exactly(tmp_path: Path, schedule: str) -> None:
    """Weights, best weights and every number of the history are those of one that was never broken off."""

    def run(net: nn.Module, breaks_at: int | None, path: Path) -> History:
        loss = batch_loss(net)

        def fragile(step: int) -> torch.Tensor:
            if step == breaks_at:
                raise Broken
            return loss(step)

        return train(
            fragile,
            {"net": net},
            steps=240,
            schedule=schedule,
            learning_rate=0.02,
            held_out=lambda: ((net(X) - Y) ** 2).mean(),
            monitors=lambda: {"size": float(weights(net).norm())},
            check_every=30,
            checkpoint=path,
            seed=5,
        )

    whole_net = network()
    whole = run(whole_net, None, tmp_path / "whole")
    for breaks_at in (100, 171):
        with pytest.raises(Broken):
            run(network(), breaks_at, tmp_path / "parts")
    net = network()
    parts = run(net, None, tmp_path / "parts")
    assert torch.equal(weights(net), weights(whole_net))
    for name in ("loss", "learning_rate", "checks", "held_out", "monitors", "best_step", "stopped"):
        assert getattr(parts, name) == getattr(whole, name), name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts", "whole"]  # no drafts are left
    # once it has ended, the file is the result
    again_net = network()
    again = run(again_net, 0, tmp_path / "parts")
    assert again.loss == whole.loss and torch.equal(weights(again_net), weights(whole_net))


def test_a_constant_rate_goes_on_to_more_steps(tmp_path: Path) -> None:
    found = []
    for stops in ([100], [60, 100]):
        net = network()
        for steps in stops:
            train(
                batch_loss(net), {"net": net}, steps=steps, schedule="constant", seed=5,
                checkpoint=tmp_path / str(stops),
            )  # fmt: skip
        found.append(weights(net))
    assert torch.equal(found[0], found[1])


def test_the_weights_with_the_lowest_held_out_loss_are_kept() -> None:
    """The loss pulls one way; the held-out loss has its minimum on the way."""
    at = torch.zeros(2, requires_grad=True)
    history = train(
        lambda step: (at - 10).sum(),
        {"at": at},
        steps=1000,
        learning_rate=0.01,
        schedule="constant",
        held_out=lambda: ((at + 1) ** 2).sum(),
        check_every=20,
        patience=4,
        seed=0,
    )
    assert history.stopped == "held_out" and history.best_step == 100
    assert history.steps == 180 and history.checks[-1] == 180
    torch.testing.assert_close(at.detach(), torch.full((2,), -1.0), rtol=0, atol=1e-4)
    assert min(history.held_out) == history.held_out[history.checks.index(100)]
    assert "after 180 steps; the weights after 100 are kept" in history.reason()


def test_a_training_settles() -> None:
    at = torch.full((), 3.0, requires_grad=True)
    history = train(
        lambda step: at**2 + torch.randn(()),
        {"at": at},
        steps=100_000,
        learning_rate=0.1,
        schedule="settle",
        seed=0,
    )
    assert history.stopped == "settled" and history.steps % 200 == 0
    assert sorted(set(history.learning_rate)) == pytest.approx([0.001, 0.01, 0.1])
    assert abs(float(at.detach())) < 0.05


def test_what_is_not_finite_ends_it_with_the_reason() -> None:
    at = torch.ones((), requires_grad=True)

    def train_on(loss: Callable[[int], torch.Tensor], **more: Any) -> History:
        return train(loss, {"at": at}, steps=20, check_every=5, seed=0, name="walk", **more)

    with pytest.raises(cp.errors.TrainingError, match="walk: the loss is nan after 7 ") as caught:
        train_on(lambda step: at * (math.nan if step == 7 else 1.0))
    assert len(caught.value.history.loss) == 7
    assert bool(at.isfinite())
    kept = at.detach().clone()
    with pytest.raises(cp.errors.TrainingError, match="gradient of 'at' is not finite after 0"):
        train_on(lambda step: (at - at.detach()).sqrt())
    assert torch.equal(kept, at.detach())
    values = itertools.chain([1.0], itertools.repeat(math.inf))
    with pytest.raises(cp.errors.TrainingError, match="held-out loss is inf after 5 steps"):
        train_on(lambda step: at**2, held_out=lambda: next(values))


@pytest.mark.parametrize(("clip_norm", "first"), [(5.0, 5.0), (None, 100.0)])
def test_steep_gradients_are_clipped(clip_norm: float | None, first: float) -> None:
    """Adam's second step, by hand, shows how large it took the first gradient to be."""
    at = torch.zeros((), requires_grad=True)
    gradients = [100.0, -1.0]
    places = []

    def loss(step: int) -> torch.Tensor:
        places.append(float(at.detach()))
        return gradients[step] * at

    train(
        loss,
        {"at": at},
        steps=2,
        learning_rate=1.0,
        clip_norm=clip_norm,
        schedule="constant",
        seed=0,
    )
    mean = (0.9 * 0.1 * first - 0.1) / (1 - 0.9**2)
    square = (0.999 * 0.001 * first**2 + 0.001) / (1 - 0.999**2)
    assert places[1] == pytest.approx(-1.0, rel=1e-5)
    assert float(at.detach()) - places[1] == pytest.approx(-mean / math.sqrt(square), rel=1e-4)


def test_gradients_and_modes_of_the_users_are_left() -> None:
    net, other = network(), nn.Linear(1, 1)
    net[2].eval()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    seen = []
    train(
        lambda step: ((net(X) + other(X) - Y) ** 2).mean(),
        {"net": net},
        steps=3,
        monitors=lambda: {"eval": seen.append((net.training, torch.is_grad_enabled())) or 0.0},
        seed=0,
    )
    assert seen == [(False, False)] * 2
    assert net.training and not net[2].training
    assert other.weight.grad is None and net[3].weight.grad is None
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight))


def test_checkpoints_of_other_trainings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def run(net: nn.Module, **more: Any) -> History:
        settings: dict[str, Any] = {"steps": 10, "seed": 0, "checkpoint": path}
        return train(batch_loss(net), {"net": net}, **(settings | more))

    run(network())
    with pytest.raises(cp.errors.ProgramError, match=r"learning_rate is 0\.5, was 0\.001"):
        run(network(), learning_rate=0.5)
    with pytest.raises(cp.errors.ProgramError, match="seed is 1, was 0"):
        run(network(), seed=1)
    with pytest.raises(cp.errors.ProgramError, match=r"'net\.weight' is \(1, 1\), was absent"):
        run(nn.Linear(1, 1))
    assert run(network(), seed=None).steps == 10  # the seed of the file
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(cp.errors.ProgramError, match="holds no training"):
        run(network())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "steps=0"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"schedule": "triangle"}, "'constant', 'cosine', 'warmup_cosine', 'settle'"),
        ({"modules": {"a": torch.zeros(2)}}, "nothing to train"),
        ({"modules": {"a": "net"}}, "'a' is str"),
        ({"loss": lambda step: torch.zeros(())}, "does not depend on what is trained"),
        ({"loss": lambda step: 1.0}, "one number"),
    ],
)
def test_what_it_refuses(settings: dict[str, Any], says: str) -> None:
    at = torch.zeros((), requires_grad=True)
    defaults: dict[str, Any] = {"loss": lambda step: at**2, "modules": {"at": at}, "steps": 2}
    with pytest.raises(cp.errors.MethodError, match=says):
        train(**(defaults | settings))
