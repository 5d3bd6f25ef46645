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

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from .protocol import Mechanism
from .registry import mechanism_for

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
_ROUND_TRIP = {torch.float32: 1e-5, torch.float64: 1e-9}


class LawError(AssertionError):
    """A mechanism breaks a law."""


@dataclass(frozen=True)
class MechanismCase:
    """A family with the parameters of two worlds.

    Args:
        family: makes the distribution from parameters, given by name as tensors.
        parameters: numbers or nested lists, the parameters in one world; floats become tensors of the dtype under test, anything
            else is passed as it is.
        others: the same in another world, with the same shapes.
        mechanism: the mechanism, or its name; the family's default where ``None``.
        draws: sample size of the statistical laws.
        differentiable: the parameters whose gradients are checked; all floating ones where ``None``.
        dtypes: the dtypes under test.
        round_trip: relative tolerance by dtype, where it is another than 1e-5 and 1e-9.
        seed: of all draws.
        relative: whether positive values come back relative to themselves; else, as for those of either sign, relative to
            themselves plus the median size.
        batchable: whether the family's own constructor works under ``torch.func.vmap``.
    """

    family: Callable[..., Any]
    parameters: Mapping[str, Any]
    others: Mapping[str, Any]
    mechanism: str | Mechanism | None = None
    draws: int = 20_000
    differentiable: tuple[str, ...] | None = None
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
    round_trip: Mapping[torch.dtype, float] = field(default_factory=lambda: _ROUND_TRIP)
    seed: int = 0
    relative: bool = True
    batchable: bool = True

    def tensors(self, dtype: torch.dtype, other: bool = False) -> dict[str, Any]:
        """The parameters of one world."""
        given = self.others if other else self.parameters
        return {name: _tensor(value, dtype) for name, value in given.items()}

    def distribution(self, dtype: torch.dtype, other: bool = False) -> Any:
        """The distribution in one world."""
        return self.family(**self.tensors(dtype, other))

    def resolve(self, fn: Any) -> Mechanism:
        """The mechanism under test."""
        if self.mechanism is None or isinstance(self.mechanism, str):
            return mechanism_for(fn, self.mechanism)
        return self.mechanism


def round_trip(case: MechanismCase) -> None:
    """``forward(abduct(v)) == v``: exactly for discrete values, relatively for continuous ones, up to the 1e-6 tails."""
    for dtype, fn, _ in _worlds(case):
        rows, mechanism = _rows(case, fn)
        values = [rows.sample(), mechanism.forward(rows, mechanism.noise(rows).sample())]
        tails = _tails(mechanism, rows)
        for value in values if tails is None else [*values, tails]:
            back = mechanism.forward(rows, _abduct(mechanism, rows, value))
            if back.dtype != value.dtype or back.shape != value.shape:
                became = f"{value.dtype} {value.shape} became {back.dtype} {back.shape}"
                raise _broken(round_trip, case, became)
            wrong = back != value
            if value.is_floating_point() and not _whole(value):
                own = value.abs()
                size = own if case.relative and bool((value >= 0).all()) else own + own.median()
                wrong &= ~((back - value).abs() <= case.round_trip[dtype] * size)
            if bool(wrong.any()):
                worst = wrong.flatten().nonzero()[0]
                became = f"{value.flatten()[worst]!r} became {back.flatten()[worst]!r}"
                raise _broken(round_trip, case, became)


def value_law(case: MechanismCase) -> None:
    """``forward(noise)`` with ``noise ~ noise(fn)`` is distributed as ``fn``."""
    for _, fn, _ in _worlds(case):
        rows, mechanism = _rows(case, fn)
        ours = mechanism.forward(rows, mechanism.noise(rows).sample())
        if not bool(torch.isfinite(ours).all()):
            raise _broken(value_law, case, "a draw is not finite")
        _same_law(value_law, case, ours, fn.sample(torch.Size([case.draws])))


def noise_law(case: MechanismCase) -> None:
    """``abduct(v, base)`` with ``v ~ fn`` and ``base ~ base(fn)`` is distributed as ``noise(fn)``, jointly over its parts."""
    for _, fn, _ in _worlds(case):
        rows, mechanism = _rows(case, fn)
        abducted = _columns(_abduct(mechanism, rows, fn.sample(torch.Size([case.draws]))))
        prior = _columns(mechanism.noise(rows).sample())
        known = ~torch.isnan(prior).any(0)  # NaN: no reference world
        _same_law(noise_law, case, abducted[:, known], prior[:, known])


def exogenous(case: MechanismCase) -> None:
    """The law of the noise is the same whatever the parameters: one seed gives the same draws, finite and of the same dtype."""
    for dtype in case.dtypes:
        draws = []
        for other in (False, True):
            fn = case.distribution(dtype, other)
            with torch.random.fork_rng():
                torch.manual_seed(case.seed)
                draws.append(list(_leaves(case.resolve(fn).noise(fn).sample(torch.Size([5])))))
        for a, b in zip(*draws, strict=True):
            if a.dtype != b.dtype or not torch.equal(a.nan_to_num(), b.nan_to_num()):
                raise _broken(exogenous, case, "the noise differs between two sets of parameters")


def batches(case: MechanismCase) -> None:
    """An expanded batch is as many sites as it has elements, by ``expand`` and in ``to_event`` and ``mask`` wrappers."""
    for _, fn, mechanism in _worlds(case):
        wide = fn.expand(torch.Size([3, 2, *fn.batch_shape]))
        named = case.mechanism is None or isinstance(case.mechanism, str)
        for wrapped in (wide, wide.to_event(1), wide.mask(True)) if named else (wide,):
            outer = case.resolve(wrapped)
            noise = outer.noise(wrapped).sample()
            if any(
                leaf.shape[: len(wide.batch_shape)] != (3, 2, *fn.batch_shape)
                for leaf in _leaves(noise)
            ):
                raise _broken(
                    batches, case, "a noise tensor's shape does not begin with the batch's"
                )
            value = outer.forward(wrapped, noise)
            if value.shape != (3, 2, *fn.batch_shape, *fn.event_shape):
                raise _broken(
                    batches,
                    case,
                    f"a batch (3, 2) of sites gave a value of shape {tuple(value.shape)}",
                )
            for i, j in ((0, 1), (2, 0)):
                one = mechanism.forward(fn, _map(_at((i, j)), noise))
                _close(batches, case, one, value[i, j])
            again = outer.forward(wrapped, _abduct(outer, wrapped, value))
            _close(batches, case, again, value, loose=True)


def gradients(case: MechanismCase) -> None:
    """Derivatives of ``forward`` in the parameters, at abducted noise, agree with central differences in float64."""
    parameters = case.tensors(torch.float64)
    names = case.differentiable
    if names is None:
        names = tuple(
            n for n, v in parameters.items() if isinstance(v, Tensor) and v.is_floating_point()
        )
    rest = {name: value for name, value in parameters.items() if name not in names}
    with _seeded(case):
        fn = case.family(**parameters)
        mechanism, noise = case.resolve(fn), case.resolve(fn).noise(fn).sample(torch.Size([7]))

    def total(*values: Tensor) -> Tensor:
        with _unvalidated():  # a step may leave the constraint: a triangular matrix has zeros
            fn = case.family(**dict(zip(names, values, strict=True)), **rest)
            rows = [_map(_at(i), noise) for i in range(7)]
            return torch.stack([mechanism.forward(fn, row) for row in rows])

    leaves = [parameters[name].clone().requires_grad_() for name in names]
    value = total(*leaves)
    if not value.requires_grad:  # a discrete value is locally constant
        return
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)
    found = torch.autograd.grad((value * weights).sum(), leaves, allow_unused=True)
    for name, leaf, gradient in zip(names, leaves, found, strict=True):
        expected = torch.zeros_like(leaf)
        flat = leaf.detach().flatten()
        for i in range(flat.numel()):
            step = torch.zeros_like(flat)
            step[i] = 1e-5 * max(1.0, float(flat[i].abs()))
            ends = []
            for sign in (1, -1):
                moved = [
                    (flat + sign * step).reshape(leaf.shape) if n == name else p.detach()
                    for n, p in zip(names, leaves, strict=True)
                ]
                ends.append((total(*moved).detach() * weights).sum())
            expected.view(-1)[i] = (ends[0] - ends[1]) / (2 * step[i])
        gradient = torch.zeros_like(leaf) if gradient is None else gradient
        if not torch.allclose(
            gradient, expected, rtol=1e-4, atol=1e-5 * float(1 + expected.abs().max())
        ):
            raise _broken(
                gradients,
                case,
                f"in {name!r}: {gradient.tolist()}, by differences {expected.tolist()}",
            )


def vectorises(case: MechanismCase) -> None:
    """Under ``torch.func.vmap`` over draws and worlds, the values are those of a loop."""
    for dtype in case.dtypes if case.batchable else ():
        inputs, functions = _functions(case, dtype)
        for function in functions:
            loop = [function(*_map(_at(i), inputs)) for i in range(4)]
            batch = torch.func.vmap(function)(*inputs)
            for i, row in enumerate(loop):
                for one, many in zip(_leaves(row), _leaves(batch), strict=True):
                    _close(vectorises, case, many[i], one, loose=True)


def traces(case: MechanismCase) -> None:
    """A graph traced by ``make_fx`` on one row agrees with the function on the others."""
    for dtype in case.dtypes[:1]:  # tracing is slow, and the same for all
        inputs, functions = _functions(case, dtype)
        for function in functions:
            rows = [_map(_at(i), inputs) for i in range(4)]
            traced = make_fx(function)(*rows[0])
            for row in rows[1:]:
                for one, other in zip(_leaves(traced(*row)), _leaves(function(*row)), strict=True):
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


def _worlds(case: MechanismCase) -> Iterator[tuple[torch.dtype, Any, Mechanism]]:
    for dtype in case.dtypes:
        for other in (False, True):
            fn = case.distribution(dtype, other)
            with _seeded(case):
                yield dtype, fn, case.resolve(fn)


def _rows(case: MechanismCase, fn: Any) -> tuple[Any, Mechanism]:
    """As many sites as the statistical laws need draws."""
    rows = fn.expand(torch.Size([case.draws, *fn.batch_shape]))
    return rows, case.resolve(rows)


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
    with _seeded(case):
        noise = mechanism.noise(fns[0]).sample(torch.Size([4]))
        base = mechanism.base(fns[0]).sample(torch.Size([4]))
        value = torch.stack([fns[i % 2].sample() for i in range(4)])

    def forward(parameters: Any, noise: Any, value: Tensor, base: Any) -> Any:
        with _unvalidated():
            return mechanism.forward(case.family(**parameters, **fixed), noise)

    def abduct(parameters: Any, noise: Any, value: Tensor, base: Any) -> Any:
        with _unvalidated():
            fn = case.family(**parameters, **fixed)
            return mechanism.abduct(fn, value, None if mechanism.invertible else base)

    return (rows, noise, value, base), [forward, abduct]


@contextlib.contextmanager
def _unvalidated() -> Iterator[None]:
    """Distributions' argument checks off: they read values, which neither ``vmap`` nor ``make_fx`` can."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


@contextlib.contextmanager
def _seeded(case: MechanismCase) -> Iterator[None]:
    """Torch's generator seeded by the case inside, restored afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(case.seed)
        yield


def _tensor(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, float | list):
        found = torch.tensor(value, dtype=torch.float64)
        kind = torch.tensor(value).dtype
        return found.to(dtype if kind.is_floating_point else kind)
    return value


def _abduct(mechanism: Mechanism, fn: Any, value: Tensor) -> Any:
    return mechanism.abduct(
        fn, value, None if mechanism.invertible else mechanism.base(fn).sample()
    )


def _tails(mechanism: Mechanism, fn: Any) -> Tensor | None:
    """Values from noise on a grid over all of its law down to probability 1e-6, where the law has quantiles."""
    law = mechanism.noise(fn)
    zero = law.sample()
    if not isinstance(zero, Tensor) or not hasattr(law, "icdf"):
        return None
    grid = torch.linspace(-13.8, 13.8, zero.shape[0], dtype=torch.float64).sigmoid().to(zero.dtype)
    try:
        noise = law.icdf(
            grid.clamp(max=1 - 2e-7).reshape(-1, *[1] * (zero.dim() - 1)).expand_as(zero)
        )
    except NotImplementedError:
        return None
    return mechanism.forward(fn, noise)


def _whole(value: Tensor) -> bool:
    return bool((value == value.round()).all())


def _leaves(noise: Any) -> Iterator[Tensor]:
    if isinstance(noise, tuple):
        for part in noise:
            yield from _leaves(part)
    else:
        yield noise


def _at(index: Any) -> Callable[[Tensor], Tensor]:
    """Picks one entry of each leaf."""
    return lambda leaf: leaf[index]


def _map(function: Callable[[Tensor], Any], tree: Any) -> Any:
    if isinstance(tree, tuple):
        return tuple(_map(function, part) for part in tree)
    if isinstance(tree, dict):
        return {key: _map(function, part) for key, part in tree.items()}
    return function(tree)


def _columns(noise: Any) -> Tensor:
    leaves = [
        leaf.double().reshape(leaf.shape[0], math.prod(leaf.shape[1:])) for leaf in _leaves(noise)
    ]
    return torch.cat(leaves, -1) if leaves else torch.zeros(1, 0)


def _same_law(law: Callable[..., None], case: MechanismCase, ours: Tensor, theirs: Tensor) -> None:
    """Each column, and a few projections of all columns for their dependence, by two-sample tests."""
    ours, theirs = _columns(ours), _columns(theirs)
    columns = [(ours[:, i], theirs[:, i]) for i in range(ours.shape[1])]
    if len(columns) > 1:
        centre, spread = (
            theirs.median(0).values,
            (theirs - theirs.median(0).values).abs().median(0).values,
        )
        for sign in (1.0, -1.0):
            weights = sign ** torch.arange(ours.shape[1], dtype=ours.dtype) / (
                spread + 1e-3 * (spread == 0)
            )
            columns.append(
                (((ours - centre) * weights).sum(-1), ((theirs - centre) * weights).sum(-1))
            )
    for i, (a, b) in enumerate(columns):
        p = two_sample_p(a, b)
        if p < P_THRESHOLD:
            raise _broken(
                law, case, f"component {i} of {len(columns)} has another law (p = {p:.1e})"
            )


def two_sample_p(a: Tensor, b: Tensor) -> float:
    """P-value that two samples have one law: Kolmogorov and Smirnov's, or a chi-squared one for few distinct values."""
    points, where = torch.cat([a, b]).unique(return_inverse=True)
    if len(points) <= 200:
        counts = torch.stack(
            [
                where[: len(a)].bincount(minlength=len(points)),
                where[len(a) :].bincount(minlength=len(points)),
            ]
        )
        common = counts.sum(0) >= 10
        counts = torch.cat([counts[:, common], counts[:, ~common].sum(1, keepdim=True)], 1).double()
        counts = counts[:, counts.sum(0) > 0]
        expected = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum()
        freedom = torch.tensor(max(counts.shape[1] - 1, 1) / 2.0, dtype=torch.float64)
        return float(
            torch.special.gammaincc(freedom, ((counts - expected) ** 2 / expected).sum() / 2)
        )
    cdfs = [torch.searchsorted(x.sort().values, points, right=True) / len(x) for x in (a, b)]
    distance = float((cdfs[0] - cdfs[1]).abs().max()) * math.sqrt(
        len(a) * len(b) / (len(a) + len(b))
    )
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * (k * distance) ** 2) for k in range(1, 101))
    return min(1.0, sum(terms)) if distance > 0.2 else 1.0


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
