"""Every bijective transform of Pyro behind a normal base; conditional ones with their context as a parameter."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import torch
from case_table import CASES, SLOW_TRACES
from torch import Tensor

from causalppl.mechanisms.laws import MechanismCase

#: Name to the shape of a value and the transforms, made in float32 and moved to the dtype of the parameters.
PLAIN: dict[str, tuple[tuple[int, ...], Callable[[], Any]]] = {
    "AffineAutoregressive": ((3,), lambda: transforms.affine_autoregressive(3)),
    "AffineAutoregressive stable": ((3,), lambda: transforms.affine_autoregressive(3, stable=True)),
    "AffineCoupling": ((3,), lambda: transforms.affine_coupling(3)),
    "BatchNorm": ((3,), lambda: transforms.batchnorm(3).eval()),
    "BlockAutoregressive": ((2,), lambda: transforms.block_autoregressive(2, residual="normal")),
    "GeneralizedChannelPermute": ((2, 2, 2), lambda: transforms.generalized_channel_permute(channels=2)),
    "Householder": ((3,), lambda: transforms.householder(3, count_transforms=2)),
    "MatrixExponential": ((3,), lambda: transforms.matrix_exponential(3)),
    "NeuralAutoregressive": ((2,), lambda: transforms.neural_autoregressive(2, width=4)),
    "Permute": ((3,), lambda: transforms.permute(3)),
    "Planar": ((3,), lambda: transforms.planar(3)),
    "Polynomial": ((2,), lambda: transforms.polynomial(2)),
    "Radial": ((3,), lambda: transforms.radial(3)),
    "Spline": ((3,), lambda: transforms.spline(3)),
    "Spline quadratic": ((3,), lambda: transforms.Spline(3, order="quadratic")),
    "SplineAutoregressive": ((3,), lambda: transforms.spline_autoregressive(3)),
    "SplineCoupling": ((3,), lambda: transforms.spline_coupling(3)),
    "ELUTransform": ((), transforms.elu),
    "LeakyReLUTransform": ((), transforms.leaky_relu),
    "ExpTransform": ((), transforms.ExpTransform),
    "PositivePowerTransform": ((), lambda: [transforms.ExpTransform(), transforms.PositivePowerTransform(torch.tensor(2.0))]),
    "PowerTransform": ((), lambda: [transforms.ExpTransform(), transforms.PowerTransform(torch.tensor(-0.5))]),
    "SigmoidTransform": ((), transforms.SigmoidTransform),
    "SoftplusTransform": ((), transforms.SoftplusTransform),
    "TanhTransform": ((), transforms.TanhTransform),
    "CumulativeDistributionTransform": ((), lambda: transforms.CumulativeDistributionTransform(dist.Logistic(0.0, 1.0))),
    "CorrCholeskyTransform": ((3,), transforms.CorrCholeskyTransform),
    "CorrMatrixCholeskyTransform": ((3,), lambda: [transforms.CorrCholeskyTransform(), transforms.CorrMatrixCholeskyTransform().inv]),
    "DiscreteCosineTransform": ((4,), lambda: transforms.DiscreteCosineTransform(smooth=0.5)),
    "HaarTransform": ((4,), lambda: transforms.HaarTransform(flip=True)),
    "OrderedTransform": ((3,), transforms.OrderedTransform),
    "StickBreakingTransform": ((3,), transforms.StickBreakingTransform),
    "IndependentTransform": ((3,), lambda: transforms.IndependentTransform(transforms.ExpTransform(), 1)),
    "ReshapeTransform": ((4,), lambda: transforms.ReshapeTransform((4,), (2, 2))),
    "CatTransform": (
        (3,),
        lambda: transforms.CatTransform([transforms.ExpTransform(), transforms.AffineTransform(1.0, 2.0)], dim=-1, lengths=[1, 2]),
    ),
    "StackTransform": (
        (2,),
        lambda: transforms.StackTransform([transforms.ExpTransform(), transforms.AffineTransform(1.0, 2.0)], dim=-1),
    ),
    "ComposeTransform": ((), lambda: transforms.ComposeTransform([transforms.ExpTransform(), transforms.AffineTransform(1.0, 2.0)])),
    "ComposeTransformModule": (
        (3,),
        lambda: transforms.ComposeTransformModule([transforms.affine_autoregressive(3), transforms.permute(3), transforms.planar(3)]),
    ),
    # Pyro itself draws from it in float32 only
    "inverse of AffineAutoregressive": ((3,), lambda: transforms.affine_autoregressive(3).inv),
}  # fmt: skip
CONDITIONAL: dict[str, tuple[tuple[int, ...], Callable[[], Any]]] = {
    "ConditionalAffineAutoregressive": ((3,), lambda: transforms.conditional_affine_autoregressive(3, 2)),
    "ConditionalAffineCoupling": ((3,), lambda: transforms.conditional_affine_coupling(3, 2)),
    "ConditionalGeneralizedChannelPermute": (
        (2, 2, 2),
        lambda: transforms.conditional_generalized_channel_permute(2, channels=2),
    ),
    "ConditionalHouseholder": ((3,), lambda: transforms.conditional_householder(3, 2)),
    "ConditionalMatrixExponential": ((3,), lambda: transforms.conditional_matrix_exponential(3, 2)),
    "ConditionalNeuralAutoregressive": ((2,), lambda: transforms.conditional_neural_autoregressive(2, 2)),
    "ConditionalPlanar": ((3,), lambda: transforms.conditional_planar(3, 2)),
    "ConditionalRadial": ((3,), lambda: transforms.conditional_radial(3, 2)),
    "ConditionalSpline": ((3,), lambda: transforms.conditional_spline(3, 2)),
    "ConditionalSplineAutoregressive": ((3,), lambda: transforms.conditional_spline_autoregressive(3, 2)),
}  # fmt: skip
_CONTEXT = {"context": [0.5, -1.0]}, {"context": [2.0, 0.3]}
#: Their code indexes by masks, which neither ``vmap`` nor ``make_fx`` can: such programs run row by row.
_SPLINES = "Spline"
#: Bisections of networks, whose graphs are long.
_ROOTS = ("NeuralAutoregressive", "BlockAutoregressive", "Polynomial")


@functools.cache
def made(name: str, dtype: torch.dtype) -> tuple[Any, ...]:
    """The transforms, with random parameters that are the same in every dtype."""
    build = (PLAIN | CONDITIONAL)[name][1]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        found = build()
        parts = tuple(found) if isinstance(found, list) else (found,)
        return tuple(_moved(part, dtype) for part in parts)


def _moved(transform: Any, dtype: torch.dtype) -> Any:
    module = (
        transform
        if isinstance(transform, torch.nn.Module)
        else transform.inv
        if hasattr(transform, "inv")
        else None
    )
    if isinstance(module, torch.nn.Module):
        module.to(dtype).requires_grad_(False)
    return transform  # fmt: skip


def flow(name: str, loc: Tensor, scale: Tensor, context: Tensor | None = None) -> Any:
    """A flow over independent normals."""
    shape = (PLAIN | CONDITIONAL)[name][0]
    base = dist.Normal(loc, scale).expand(shape).to_event(len(shape))
    steps = list(made(name, loc.dtype))
    if context is None:
        return dist.TransformedDistribution(base, steps)
    return dist.ConditionalTransformedDistribution(base, steps).condition(context)


for _name in PLAIN | CONDITIONAL:
    _family = functools.partial(flow, _name)
    _family.__name__ = _name  # type: ignore[attr-defined]
    _first, _second = _CONTEXT if _name in CONDITIONAL else ({}, {})
    if _name.endswith(_ROOTS):
        SLOW_TRACES.add(f"flow {_name}")
    CASES[f"flow {_name}"] = MechanismCase(
        _family,
        {"loc": 0.3, "scale": 0.8, **_first},
        {"loc": -0.2, "scale": 0.4, **_second},
        draws=400 if _name.endswith(_ROOTS) else 1000,
        relative=False,
        dtypes=(torch.float32,) if _name.startswith("inverse") else (torch.float32, torch.float64),
        batchable=_SPLINES not in _name,
    )
