"""What a graph of a question is given: the tensors of programs, evidence and interventions, and what else it depends on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..interventions import Hard, Intervention, Shift, Stochastic, Where
from .evaluation import Evaluation
from .form import StructuralForm
from .question import Group, Question

__all__ = [
    "NotCompiled",
    "do_inputs",
    "form_key",
    "free_inputs",
    "fresh_inputs",
    "joined",
    "leaves_of",
    "moved",
    "question_key",
    "signature",
    "split",
    "with_inputs",
]


_PLAIN = frozenset({bool, int, float, str, type(None)})


class NotCompiled(Exception):
    """Why a question is not compiled."""


def signature(tensor: Tensor) -> tuple[Any, ...]:
    """What code made for one tensor asks of another."""
    return (tensor.shape, tensor.stride(), tensor.dtype, tensor.device)


def tensors_of(intervention: Intervention) -> Iterator[Tensor]:
    if isinstance(intervention, Hard):
        yield intervention.value
    elif isinstance(intervention, Shift):
        yield intervention.amount
    elif isinstance(intervention, Where):
        yield intervention.mask
        yield from tensors_of(intervention.inner)


def _rebuilt(intervention: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(intervention, Hard):
        return Hard(next(tensors))
    if isinstance(intervention, Shift):
        return Shift(next(tensors))
    if isinstance(intervention, Where):
        return Where(next(tensors), _rebuilt(intervention.inner, tensors))
    return intervention


def _kind(intervention: Any) -> Any:
    """What distinguishes interventions beyond their tensors."""
    if isinstance(intervention, Where):
        return ("where", _kind(intervention.inner))
    if isinstance(intervention, Hard | Shift):
        return type(intervention).__name__
    if isinstance(intervention, Stochastic):
        return ("stochastic", _law(intervention.distribution))
    for name in ("function", "world"):
        if hasattr(intervention, name):
            return (type(intervention).__name__, getattr(intervention, name))
    return intervention


def _law(distribution: Any) -> Any:
    """A distribution by family and parameters where these are few numbers; otherwise by identity."""
    parts: list[Any] = [type(distribution)]
    for name, part in sorted(vars(distribution).items()):
        if isinstance(part, Tensor):
            if part.numel() > 16:
                return distribution
            parts.append((name, signature(part), tuple(part.detach().reshape(-1).tolist())))
        elif isinstance(part, torch.distributions.Distribution):
            parts.append((name, _law(part)))
        elif isinstance(part, int | float | bool | str | torch.Size | None):
            parts.append((name, part))
        elif not name.startswith("_"):
            return distribution
    return tuple(parts)


def fresh_inputs(evaluation: Evaluation, question: Question) -> dict[str, Any]:
    """Noise of the mechanisms that a question's stochastic interventions bring."""
    fresh: dict[str, Any] = {}
    for group in question.groups:
        fresh |= evaluation.fresh_noise(group.other)
    return fresh


def split(thing: Any, tensors: list[Tensor]) -> Any:
    """What is left of arguments without their tensors, which go to ``tensors``: a key."""
    kind = type(thing)
    if kind in _PLAIN:
        return (kind, thing)
    if kind is tuple or kind is list:
        return (kind, *[split(part, tensors) for part in thing])
    if kind is dict:
        return (dict, *[(name, split(part, tensors)) for name, part in thing.items()])
    if isinstance(thing, Tensor):
        tensors.append(thing.detach())
        return Tensor
    if isinstance(thing, int | float | str):
        return (kind, thing)
    raise NotCompiled(
        f"an argument is a {kind.__name__}; give tensors, numbers, text, and lists, tuples or dicts of these"
    )


def leaves_of(tree: Any, found: list[Tensor] | None = None) -> list[Tensor]:
    """The tensors of dicts, lists and tuples in order; a tenth of the cost of torch's general pytrees, at every call."""
    found = [] if found is None else found
    if isinstance(tree, Tensor):
        found.append(tree)
        return found
    for part in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(part, Tensor):
            found.append(part)
        else:
            leaves_of(part, found)
    return found


def joined(thing: Any, tensors: Iterator[Tensor]) -> Any:
    """Arguments with other tensors in the places of theirs."""
    if isinstance(thing, Tensor):
        return next(tensors)
    if type(thing) in (list, tuple):
        return type(thing)(joined(part, tensors) for part in thing)
    if type(thing) is dict:
        return {name: joined(part, tensors) for name, part in thing.items()}
    return thing


def free_inputs(form: StructuralForm) -> dict[str, Any]:
    """The tensors of a form that another of the same structure has others of: arguments, parameters, modules, evidence."""
    tensors: list[Tensor] = []
    split((form.args, form.kwargs), tensors)
    return {
        "args": tensors,
        "params": dict(form.params),
        "modules": form.modules.copies(),
        "evidence": dict(form.conditioned),
    }


def form_key(form: StructuralForm) -> tuple[Any, ...]:
    """What two forms of one program must share for the same graph."""
    frames = [f for s in form.sites.values() for f in s.frames]
    if any(f.full_size is not None and f.size != f.full_size for f in frames):
        raise NotCompiled("the program takes a subsample of a plate")
    if any(
        s.missing is not None or s.interval is not None or s.masked for s in form.sites.values()
    ):
        raise NotCompiled("some of the evidence is missing, masked or a range")
    key = split((form.args, form.kwargs), [])
    sites = tuple(
        (n, s.kind, s.observed, s.value.shape, s.value.dtype) for n, s in form.sites.items()
    )
    return (key, sites, torch.get_default_dtype())


def do_inputs(question: Question) -> list[Any]:
    """The tensors of a question's interventions, group by group."""
    return [
        (dict(g.values), {n: list(tensors_of(i)) for n, i in g.other.items()})
        for g in question.groups
    ]


def with_inputs(question: Question, inputs: Sequence[Any]) -> Question:
    """The same question with other tensors."""
    found = copy.copy(question)
    found.groups = [
        Group(
            g.worlds,
            values,
            g.masks,
            {n: _rebuilt(i, iter(other[n])) for n, i in g.other.items()},
        )
        for g, (values, other) in zip(question.groups, inputs, strict=True)
    ]
    return found


def question_key(question: Question) -> tuple[Any, ...]:
    """What a question must share with another for the same graph, tensors aside."""
    return tuple(
        (
            tuple(g.worlds),
            tuple(g.values),
            tuple((n, tuple(m.tolist())) for n, m in g.masks.items()),
            tuple((n, _kind(i)) for n, i in g.other.items()),
        )
        for g in question.groups
    )


def moved(tensor: Tensor, k: int = 0) -> Tensor:
    """Other values of the same kind: fractions moved by about a twentieth, all else in another order."""
    generator = torch.Generator().manual_seed(k)
    if tensor.is_floating_point() and bool((tensor != tensor.round()).any()):
        step = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        step = 0.05 * step.to(tensor.dtype).to(tensor.device)
        return torch.where(tensor == 0, step, tensor * (1 + step))
    if tensor.numel() < 2:
        return tensor
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    return tensor.reshape(-1)[order].reshape(tensor.shape)
