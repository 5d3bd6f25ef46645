"""The digits' program: what its file promises, and that a digit that is set is the digit that is seen."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pyro
import pytest
import torch

import causalppl as cp

pytest.importorskip("sklearn")
FILE = Path(__file__).parents[2] / "models" / "digits_vae.py"


@pytest.fixture
def vae() -> ModuleType:
    """The file on its own: its networks are not those of other tests."""
    spec = importlib.util.spec_from_file_location("digits_vae_alone", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = torch.get_rng_state()
    spec.loader.exec_module(module)
    assert torch.equal(before, torch.get_rng_state())
    return module


def test_the_data_are_counts_of_all_digits(vae: ModuleType) -> None:
    (images, digits), _ = vae.data()
    assert images.shape == (1797, 8, 8) and digits.shape == (1797,)
    assert images.min() == 0 and images.max() == 16 and bool((images == images.round()).all())
    assert np.bincount(digits).min() > 170
    trace = pyro.poutine.trace(vae.model).get_trace(images[:3], digits[:3])
    assert bool(torch.isfinite(trace.log_prob_sum()))


def test_some_steps_lower_the_held_out_loss(vae: ModuleType) -> None:
    (images, digits), _ = vae.data()
    run = cp.fit(
        vae.model, guide=vae.guide, batch_size=50, steps=40, learning_rate=3e-3, schedule="cosine",
        held_out=0.1, check_every=20, seed=0,
    )  # fmt: skip
    history = run(images[:500], digits[:500]).history
    assert history.held_out[-1] < 0.6 * history.held_out[0]


@pytest.mark.slow
def test_the_digit_that_is_set_is_read_by_a_classifier_that_saw_real_images_only(
    vae: ModuleType,
) -> None:
    from sklearn.svm import SVC

    (images, digits), _ = vae.data()
    seen, new = slice(0, 1500), slice(1500, None)
    cp.fit(
        vae.model, guide=vae.guide, batch_size=100, steps=1500, learning_rate=3e-3, schedule="cosine",
        held_out=0.1, check_every=250, seed=0,
    )(images[seen], digits[seen])  # fmt: skip
    reader = SVC(gamma=0.001).fit(images[seen].flatten(1), digits[seen])
    real = reader.score(images[new].flatten(1), digits[new])
    assert real > 0.97

    # weights of single images may be bad (the decoder is sharper than 1,500 images can teach), which costs style and not the digit
    method = cp.ImportanceSampling(vae.guide, num_proposals=500, warn=False)
    posterior = cp.abduct(vae.model, method=method, num_samples=2, seed=0)(images[new], digits[new])
    worlds = posterior.predict(worlds={str(k): {"digit": k} for k in range(10)})
    factual = worlds.tensor("image", world="factual")
    assert bool((factual == images[new]).all())
    read, ink = [], []
    for k in range(10):
        image, other = worlds.tensor("image", world=str(k)), digits[new] != k
        # a digit that was written is not changed by setting it
        assert torch.equal(image[:, ~other], factual[:, ~other])
        assert bool((image == image.round()).all()) and image.min() >= 0 and image.max() <= 16
        read.append((reader.predict(image[:, other].flatten(0, 1).flatten(1)) == k).mean())
        ink.append(
            (image[0, other].sum((-1, -2)), factual[0, other].sum((-1, -2)), digits[new][other])
        )
    assert np.mean(read) > 0.93 and min(read) > 0.8
    # the hand stays the same: who pressed hard for one digit does so for another, beyond what the digit itself explains
    changed, before, which = (torch.cat(part) for part in zip(*ink, strict=True))
    target = torch.cat([torch.full((len(part[0]),), k) for k, part in enumerate(ink)])
    rest = [_without_means(changed, target), _without_means(before, which)]
    assert float(torch.corrcoef(torch.stack(rest))[0, 1]) > 0.5


def _without_means(values: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    found = values.clone()
    for k in range(10):
        found[groups == k] -= values[groups == k].mean()
    return found
