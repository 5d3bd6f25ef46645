"""NUTS on programs: precision by choice, starts where the density is finite, and divergences that are reported."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp
from causalppl.inference.nuts import _initial
from causalppl.inference.target import Target
from causalppl.structural.form import StructuralForm

N = dist.Normal
SHORT = {"chains": 1, "warmup": 100}


def one() -> None:
    z = pyro.sample("z", N(0.0, 1.0))
    pyro.sample("y", N(z, 0.5), obs=torch.tensor(2.5))


def test_float64_coordinates_and_draws_in_the_programs_dtype() -> None:
    method = cp.NUTS(dtype=torch.float64, **SHORT)
    found = method._target(StructuralForm(one, (), {}, None, 0))
    point = torch.tensor([1.0 + 1e-9], dtype=torch.float64)
    near = found.log_density(point), found.log_density(torch.ones(1, dtype=torch.float64))
    # the slope at 1 is -1 + 1.5 / .25; float32 would not see a step of 1e-9
    assert float(near[0] - near[1]) == pytest.approx(5e-9, rel=1e-4)
    z = cp.abduct(one, method=method, num_samples=1000, seed=0)().latents["z"]
    assert z.dtype == torch.float32
    assert float(z.mean()) == pytest.approx(2.0, abs=5 * (0.2 / 200) ** 0.5)


def test_a_program_that_cannot_mix_precisions() -> None:
    x = torch.ones(4, 2)

    def model() -> None:
        b = pyro.sample("b", N(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("people", 4):
            pyro.sample("y", N(x @ b, 1.0), obs=torch.zeros(4))

    with pytest.raises(
        cp.errors.MethodError, match=r"cannot compute in torch.float64.*leave dtype out"
    ):
        cp.abduct(model, method=cp.NUTS(dtype=torch.float64), seed=0)()
    with pytest.raises(cp.errors.MethodError, match=r"torch.float32, torch.float64, or None"):
        cp.NUTS(dtype=torch.int64)


def test_starts_where_little_of_the_space_has_density() -> None:
    """All units must exceed their thresholds, of which the largest is 4: only draws from the prior get there."""

    def model() -> None:
        z = pyro.sample("z", N(5.0, 0.5))
        seen = torch.where(z > 3.5, 0.0, -torch.inf)
        pyro.factor("threshold", seen)

    starts = _initial(Target(StructuralForm(model, (), {}, None, 0), "NUTS"), 3)
    assert starts.shape == (3, 1) and bool((starts > 3.5).all())


def test_no_start_at_all() -> None:
    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.factor("nowhere", z - torch.inf)

    with pytest.raises(cp.errors.InferenceError, match="no 1 starting points with finite density"):
        cp.abduct(model, method=cp.NUTS(**SHORT), seed=0)()


def test_divergences_are_counted_and_reported() -> None:
    """A density that ends in the middle: trajectories run over the edge."""

    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.factor("edge", torch.where(z < 0.2, 0.0, -torch.inf))

    with pytest.warns(cp.errors.InferenceWarning) as caught:
        posterior = cp.abduct(model, method=cp.NUTS(**SHORT), num_samples=100, seed=0)()
    assert any("divergent transitions" in str(w.message) for w in caught)
    notes = [n for n in posterior.predict().diagnostics.notes if "divergent" in n]
    assert int(notes[0].split()[0]) > 10
    healthy = cp.abduct(one, method=cp.NUTS(**SHORT), num_samples=100, seed=0)().predict()
    assert "0 divergent transitions of 1000" in healthy.diagnostics.notes
