"""Inverses of flows against the inverse of the Jacobian of the forward map, and what is refused because nothing inverts it."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import pytest
import torch
from flow_cases import CONDITIONAL, PLAIN, flow
from torch import Tensor

from causalppl import errors
from causalppl.mechanisms import exact_log_prob, mechanism_for

_VECTORS = [
    name
    for name, (shape, _) in (PLAIN | CONDITIONAL).items()
    if len(shape) == 1 and name not in ("ReshapeTransform", "inverse of AffineAutoregressive")
]
#: From three numbers to four, or to a matrix: their Jacobians are not square.
_LARGER = {"StickBreakingTransform", "CorrCholeskyTransform", "CorrMatrixCholeskyTransform"}


@pytest.mark.parametrize("name", sorted(set(_VECTORS) - _LARGER))
def test_inverse_has_the_derivatives_and_the_density_of_the_inverse_map(name: str) -> None:
    torch.manual_seed(1)
    one = torch.ones((), dtype=torch.float64)
    context = torch.tensor([0.5, -1.0], dtype=torch.float64) if name in CONDITIONAL else None
    fn = flow(name, 0 * one, one, context)
    mechanism = mechanism_for(fn)
    noise = 0.7 * torch.randn(fn.event_shape, dtype=torch.float64)
    value = mechanism.forward(fn, noise).detach()

    def there(noise: Tensor) -> Tensor:
        return mechanism.forward(fn, noise)

    def back(value: Tensor) -> Tensor:
        found: Tensor = mechanism.abduct(fn, value, None)
        return found

    forward = torch.autograd.functional.jacobian(there, noise)
    backward = torch.autograd.functional.jacobian(back, value)
    torch.testing.assert_close(back(value), noise, rtol=1e-7, atol=1e-7)
    identity = torch.eye(len(noise), dtype=torch.float64)
    torch.testing.assert_close(backward @ forward, identity, rtol=1e-5, atol=1e-5)
    density = dist.Normal(0 * one, one).log_prob(noise).sum() - torch.linalg.slogdet(forward)[1]
    torch.testing.assert_close(exact_log_prob(fn, value), density, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["Planar", "Radial", "NeuralAutoregressive"])
def test_inverse_has_derivatives_in_the_parameters(name: str) -> None:
    torch.manual_seed(2)
    transform = getattr(
        transforms, name.lower() if name != "NeuralAutoregressive" else "neural_autoregressive"
    )(2)
    transform = transform.double()
    parameters = [p for p in transform.parameters() if p.requires_grad]
    base = dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1)
    fn = dist.TransformedDistribution(base, [transform])
    value, mechanism = torch.tensor([0.4, -0.3], dtype=torch.float64), mechanism_for(fn)

    def total() -> Tensor:
        found: Tensor = mechanism.abduct(fn, value, None)
        return (found * torch.tensor([1.0, 2.0], dtype=torch.float64)).sum()

    for parameter, gradient in zip(
        parameters, torch.autograd.grad(total(), parameters), strict=True
    ):
        with torch.no_grad():
            kept = parameter.flatten()[0].item()
            ends = []
            for step in (1e-6, -1e-6):
                parameter.view(-1)[0] = kept + step
                ends.append(float(total()))
            parameter.view(-1)[0] = kept
        difference = (ends[0] - ends[1]) / 2e-6
        assert float(gradient.flatten()[0]) == pytest.approx(difference, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        (transforms.Sylvester(2), "not one-to-one"),
        (transforms.AbsTransform(), "FoldedDistribution"),
        (transforms.SoftmaxTransform(), "StickBreakingTransform"),
        (transforms.Normalize(), "Normalize, which is not bijective"),
        (transforms.ComposeTransform([transforms.ExpTransform(), transforms.AbsTransform()]), "not bijective"),
    ],
    ids=lambda x: type(x).__name__,
)  # fmt: skip
def test_what_cannot_be_inverted_is_refused_and_says_why(transform: Any, says: str) -> None:
    fn = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), [transform])
    with pytest.raises(errors.NoMechanismError, match=says):
        mechanism_for(fn)
