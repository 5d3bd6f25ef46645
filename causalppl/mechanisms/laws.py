"""What every mechanism has to satisfy, as functions that raise: the tests of a new mechanism are one line each.

Example:
    Under pytest, for a mechanism of one's own::

        @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
        def test_my_mechanism(law):
            law(MechanismCase(MyDistribution, {"rate": 1.0}, {"rate": 2.5}))

    >>> import pyro.distributions as dist
    >>> round_trip(MechanismCase(dist.Exponential, {"rate": 1.0}, {"rate": 2.5}))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from .law_cases import (
    REFERENCE,
    MechanismCase,
    abducted,
    drawn,
    expanded,
    leaves,
    sampled,
    seeded,
    unvalidated,
)
from .protocol import Mechanism
from .two_sample import different_columns

__all__ = [
    "LAWS",
    "LawError",
    "MechanismCase",
    "batches",
    "exogenous",
    "gradients",
    "noise_law",
    "round_trip",
    "traces",
    "value_law",
    "vectorises",
]

#: Two-sample tests fail below this; draws are seeded, so a test that passes keeps passing.
P_THRESHOLD = 1e-5
_ROWS = 100  # of each kind, of the round trips that no other law looks at


class LawError(AssertionError):
    """A mechanism breaks a law."""


def round_trip(case: MechanismCase) -> None:
    """``forward(abduct(v)) == v``: exactly for discrete values, relatively for continuous ones, up to the 1e-6 tails."""
    for dtype, other in case.worlds():
        draws = drawn(case, dtype, other)
        back = draws.mechanism.forward(draws.fn, draws.noise)
        _returned(case, dtype, draws.sample, back)
    for dtype in case.dtypes:
        for other in (False, True):
            with seeded(case):
                value = _few(case, case.distribution(dtype, other))
                # afresh: some of Pyro's classes cannot be expanded once they have been used
                rows = expanded(case.distribution(dtype, other), len(value))
                mechanism = case.resolve(rows)
                back = mechanism.forward(rows, abducted(mechanism, rows, value))
            _returned(case, dtype, value, back)


def _few(case: MechanismCase, fn: Any) -> Tensor:
    """Some draws, some values of drawn noise, and a grid from tail to tail where the noise has quantiles."""
    rows = expanded(fn, _ROWS)
    mechanism = case.resolve(rows)
    values = mechanism.forward(rows, mechanism.noise(rows).sample())
    tails = _tails(mechanism, rows)
    parts = [sampled(fn, _ROWS), values, *([] if tails is None else [tails])]
    return torch.cat(parts)


def _returned(case: MechanismCase, dtype: torch.dtype, value: Tensor, back: Tensor) -> None:
    if back.dtype != value.dtype or back.shape != value.shape:
        became = f"{value.dtype} {value.shape} became {back.dtype} {back.shape}"
        raise _broken(round_trip, case, became)
    wrong = back != value
    if value.is_floating_point() and not bool((value == value.round()).all()):
        own = value.abs()
        size = own if case.relative and bool((value >= 0).all()) else own + own.median()
        wrong &= ~((back - value).abs() <= case.round_trip[dtype] * size)
    if bool(wrong.any()):
        worst = wrong.flatten().nonzero()[0]
        became = f"{value.flatten()[worst]!r} became {back.flatten()[worst]!r}"
        raise _broken(round_trip, case, became)


def _tails(mechanism: Mechanism, fn: Any) -> Tensor | None:
    """Values from noise on a grid over all of its law down to probability 1e-6, where the law has quantiles."""
    law = mechanism.noise(fn)
    zero = law.sample()
    if not isinstance(zero, Tensor) or not hasattr(law, "icdf"):
        return None
    grid = torch.linspace(-13.8, 13.8, zero.shape[0], dtype=torch.float64).sigmoid().to(zero.dtype)
    grid = grid.clamp(max=1 - 2e-7).reshape(-1, *[1] * (zero.dim() - 1))
    try:
        noise = law.icdf(grid.expand_as(zero))
    except NotImplementedError:
        return None
    return mechanism.forward(fn, noise)


def value_law(case: MechanismCase) -> None:
    """``forward(noise)`` with ``noise ~ noise(fn)`` is distributed as ``fn``."""
    for dtype, other in case.worlds():
        ours = drawn(case, dtype, other).values
        if not bool(torch.isfinite(ours).all()):
            raise _broken(value_law, case, "a draw is not finite")
        with seeded(case, stream=1):
            theirs = sampled(case.distribution(dtype, other), REFERENCE * case.draws)
        _same_law(value_law, case, _columns(ours), _columns(theirs))


def noise_law(case: MechanismCase) -> None:
    """``abduct(v, base)`` with ``v ~ fn`` and ``base ~ base(fn)`` is distributed as ``noise(fn)``, jointly over its parts."""
    for dtype, other in case.worlds():
        draws = drawn(case, dtype, other)
        many = expanded(case.distribution(dtype, other), REFERENCE * case.draws)
        with seeded(case, stream=2):
            prior = _columns(draws.mechanism.noise(many).sample())
        known = ~torch.isnan(prior).any(0)  # NaN: no reference world
        _same_law(noise_law, case, _columns(draws.noise)[:, known], prior[:, known])


def _columns(noise: Any) -> Tensor:
    parts = [part.double().reshape(len(part), math.prod(part.shape[1:])) for part in leaves(noise)]
    return torch.cat(parts, -1) if parts else torch.zeros(1, 0)


def _same_law(law: Callable[..., None], case: MechanismCase, ours: Tensor, theirs: Tensor) -> None:
    for i, p in different_columns(ours, theirs, P_THRESHOLD):
        which = f"component {i}" if i < ours.shape[1] else "the joint law of the components"
        raise _broken(law, case, f"{which} of {ours.shape[1]} differs (p = {p:.1e})")


def exogenous(case: MechanismCase) -> None:
    """The law of the noise is the same whatever the parameters: one seed gives the same draws, finite and of the same dtype."""
    for dtype in case.dtypes:
        draws = []
        for other in (False, True):
            fn = case.distribution(dtype, other)
            with seeded(case):
                draws.append(list(leaves(case.resolve(fn).noise(fn).sample(torch.Size([5])))))
        for a, b in zip(*draws, strict=True):
            if a.dtype != b.dtype or not torch.equal(a.nan_to_num(), b.nan_to_num()):
                raise _broken(exogenous, case, "the noise differs between two sets of parameters")


def batches(case: MechanismCase) -> None:
    """An expanded batch is as many sites as it has elements, by ``expand`` and in ``to_event`` and ``mask`` wrappers."""
    for dtype, other in case.worlds():
        fn = case.distribution(dtype, other)
        wide = expanded(fn, 3, 2)
        with seeded(case):
            _one_batch(case, fn, wide, alone=True)
            if not other and (case.mechanism is None or isinstance(case.mechanism, str)):
                for wrapped in (wide.to_event(1), wide.mask(True)):
                    _one_batch(case, fn, wrapped)


def _one_batch(case: MechanismCase, fn: Any, wide: Any, alone: bool = False) -> None:
    """That ``wide``, a batch of shape (3, 2) of ``fn``, behaves as six sites, one of which may be looked at alone."""
    outer, shape = case.resolve(wide), (3, 2, *fn.batch_shape)
    noise = outer.noise(wide).sample()
    if any(leaf.shape[: len(shape)] != shape for leaf in leaves(noise)):
        raise _broken(batches, case, "a noise tensor's shape does not begin with the batch's")
    value = outer.forward(wide, noise)
    if value.shape != (*shape, *fn.event_shape):
        became = f"a batch (3, 2) of sites gave a value of shape {tuple(value.shape)}"
        raise _broken(batches, case, became)
    if alone:
        one = case.resolve(fn).forward(fn, _map(_at((2, 0)), noise))
        _close(batches, case, one, value[2, 0])
    again = outer.forward(wide, abducted(outer, wide, value))
    _close(batches, case, again, value, loose=True)


def gradients(case: MechanismCase) -> None:
    """Derivatives of ``forward`` in the parameters, with the noise held fixed, agree with central differences in float64."""
    parameters = case.tensors(torch.float64)
    floating = [n for n, v in parameters.items() if isinstance(v, Tensor) and v.is_floating_point()]
    names = tuple(floating) if case.differentiable is None else case.differentiable
    fixed = {name: value for name, value in parameters.items() if name not in names}
    with seeded(case):
        fn = case.family(**parameters)
        mechanism, noise = case.resolve(fn), case.resolve(fn).noise(fn).sample(torch.Size([3]))

    def total(**values: Tensor) -> Tensor:
        with unvalidated():  # a step may leave the constraint: a triangular matrix has zeros
            fn = case.family(**values, **fixed)
            rows = [mechanism.forward(fn, _map(_at(i), noise)) for i in range(3)]
        value = torch.stack(rows)
        weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype)
        return (value * weights.reshape(value.shape)).sum()

    given = {name: parameters[name].clone().requires_grad_() for name in names}
    value = total(**given)
    if not value.requires_grad:  # a discrete value is locally constant
        return
    found = torch.autograd.grad(value, list(given.values()), allow_unused=True)
    plain = {name: leaf.detach() for name, leaf in given.items()}
    for name, gradient in zip(names, found, strict=True):
        expected = _differences(total, plain, name)
        gradient = torch.zeros_like(expected) if gradient is None else gradient
        room = 1e-5 * float(1 + expected.abs().max())
        if not torch.allclose(gradient, expected, rtol=1e-4, atol=room):
            what = f"in {name!r}: {gradient.tolist()}, by differences {expected.tolist()}"
            raise _broken(gradients, case, what)


def _differences(total: Callable[..., Tensor], given: dict[str, Tensor], name: str) -> Tensor:
    """Central differences of ``total`` in one of its arguments."""
    flat = given[name].flatten()
    found = torch.zeros_like(flat)
    for i in range(flat.numel()):
        step = torch.zeros_like(flat)
        step[i] = 1e-5 * max(1.0, float(flat[i].abs()))
        above, below = (
            total(**{**given, name: (flat + sign * step).reshape(given[name].shape)}).detach()
            for sign in (1, -1)
        )
        found[i] = (above - below) / (2 * step[i])
    return found.reshape(given[name].shape)


def vectorises(case: MechanismCase) -> None:
    """Under ``torch.func.vmap`` over draws and worlds, the values are those of a loop."""
    if not case.batchable:
        return
    inputs, functions = _functions(case, case.dtypes[0])
    for function in functions:
        loop = [function(*_map(_at(i), inputs)) for i in range(4)]
        batch = torch.func.vmap(function)(*inputs)
        for i, row in enumerate(loop):
            for one, many in zip(leaves(row), leaves(batch), strict=True):
                _close(vectorises, case, many[i], one, loose=True)


def traces(case: MechanismCase) -> None:
    """A graph traced by ``make_fx`` on one row agrees with the function on the others."""
    if not case.batchable:
        return
    inputs, functions = _functions(case, case.dtypes[-1])
    for function in functions:
        rows = [_map(_at(i), inputs) for i in range(4)]
        traced = make_fx(function)(*rows[0])
        for row in rows[1:]:
            for one, other in zip(leaves(traced(*row)), leaves(function(*row)), strict=True):
                _close(traces, case, one, other, loose=True)


#: Every law, in the order in which failures are easiest to understand.
LAWS: tuple[Callable[[MechanismCase], None], ...] = (
    round_trip,
    value_law,
    noise_law,
    exogenous,
    batches,
    gradients,
    vectorises,
    traces,
)


def _functions(
    case: MechanismCase, dtype: torch.dtype
) -> tuple[tuple[Any, ...], list[Callable[..., Any]]]:
    """Four rows of inputs, and ``forward`` and ``abduct`` as functions of a row, the distribution made inside."""
    fns = [case.distribution(dtype, other) for other in (False, True)]
    mechanism = case.resolve(fns[0])
    worlds = [case.tensors(dtype, other) for other in (False, True)]
    fixed = {name: value for name, value in worlds[0].items() if not isinstance(value, Tensor)}
    rows = {
        name: torch.stack([worlds[i % 2][name] for i in range(4)])
        for name in worlds[0]
        if name not in fixed
    }
    with seeded(case):
        noise = mechanism.noise(fns[0]).sample(torch.Size([4]))
        base = mechanism.base(fns[0]).sample(torch.Size([4]))
        value = torch.cat([sampled(fns[i % 2], 1) for i in range(4)])

    def forward(parameters: Any, noise: Any, value: Tensor, base: Any) -> Any:
        with unvalidated():
            return mechanism.forward(case.family(**parameters, **fixed), noise)

    def abduct(parameters: Any, noise: Any, value: Tensor, base: Any) -> Any:
        with unvalidated():
            fn = case.family(**parameters, **fixed)
            return mechanism.abduct(fn, value, None if mechanism.invertible else base)

    return (rows, noise, value, base), [forward, abduct]


def _at(index: Any) -> Callable[[Tensor], Tensor]:
    """Picks one entry of each leaf."""
    return lambda leaf: leaf[index]


def _map(function: Callable[[Tensor], Any], tree: Any) -> Any:
    if isinstance(tree, tuple):
        return tuple(_map(function, part) for part in tree)
    if isinstance(tree, dict):
        return {key: _map(function, part) for key, part in tree.items()}
    return function(tree)


def _close(
    law: Callable[..., None], case: MechanismCase, a: Tensor, b: Tensor, loose: bool = False
) -> None:
    if a.dtype != b.dtype or a.shape != b.shape:
        raise _broken(
            law, case, f"{a.dtype} {tuple(a.shape)} instead of {b.dtype} {tuple(b.shape)}"
        )
    if not a.is_floating_point():
        same = torch.equal(a, b)
    else:
        tolerance = case.round_trip[a.dtype] * (10 if loose else 1)
        same = torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not same:
        raise _broken(law, case, f"{a.tolist()} instead of {b.tolist()}")


def _broken(law: Callable[..., None], case: MechanismCase, what: str) -> LawError:
    family = getattr(case.family, "__name__", repr(case.family))
    named = getattr(case.mechanism, "name", case.mechanism) or "default"
    return LawError(f"law {law.__name__!r} fails for the {named} mechanism of {family}: {what}")
