"""Questions as graphs of tensor operations: traced once, proved on other inputs, compiled, then asked many times."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import ExecutorWarning, warn_caller
from ..interventions import Hard, Intervention, Shift, Stochastic, Where
from .evaluation import Evaluation
from .executors import Executor, agree, without_validation
from .form import StructuralForm
from .guards import Guards
from .noise import draw
from .question import Group, Question
from .tracing import compiled, has_cpp_compiler, traced

__all__ = ["Compiler", "Graph", "InOneGraph", "NotCompiled", "signature"]

Values = dict[str, dict[str, Tensor]]
_KEPT = 32


class NotCompiled(Exception):
    """Why a question is not compiled."""


class InOneGraph(Executor):
    """Evaluates without looking at a value, so that a trace of it is the program's operations and no more."""

    checks = False

    def grid(
        self,
        function: Callable[..., Any],
        size: tuple[int, int],
        outer: tuple[Any, ...],
        inner: tuple[Any, ...],
        kind: Any = None,
    ) -> Any:
        """See :meth:`Executor.grid`."""
        with without_validation():
            if size == (1, 1):
                return self.alone(function, outer, inner)
            return self.batch(function, size, outer, inner)


# --- What a graph is given ---------------------------------------------------------------------------------------------


def signature(tensor: Tensor) -> tuple[Any, ...]:
    """What code made for one tensor asks of another."""
    return (tensor.shape, tensor.stride(), tensor.dtype, tensor.device)


def _tensors(intervention: Intervention) -> Iterator[Tensor]:
    if isinstance(intervention, Hard):
        yield intervention.value
    elif isinstance(intervention, Shift):
        yield intervention.amount
    elif isinstance(intervention, Where):
        yield intervention.mask
        yield from _tensors(intervention.inner)


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
    if isinstance(thing, Tensor):
        tensors.append(thing.detach())
        return Tensor
    if type(thing) in (list, tuple):
        return (type(thing), *(split(part, tensors) for part in thing))
    if type(thing) is dict:
        return (dict, *((name, split(part, tensors)) for name, part in thing.items()))
    if isinstance(thing, bool | int | float | str | None):
        return (type(thing), thing)
    raise NotCompiled(
        f"an argument is a {type(thing).__name__}; give tensors, numbers, text, and lists, tuples or dicts of these"
    )


def leaves_of(tree: Any, found: list[Tensor] | None = None) -> list[Tensor]:
    """The tensors of dicts, lists and tuples in order; a tenth of the cost of torch's general pytrees, at every call."""
    found = [] if found is None else found
    if isinstance(tree, Tensor):
        found.append(tree)
    else:
        for part in tree.values() if isinstance(tree, dict) else tree:
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
        (dict(g.values), {n: list(_tensors(i)) for n, i in g.other.items()})
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


# --- One graph ---------------------------------------------------------------------------------------------------------


@dataclass
class Graph:
    """A function of a tree of tensors that has been traced, proved and compiled.

    Attributes:
        names: world and site of each result.
        signatures: of the inputs that it was made for.
        note: how far it was compiled.
    """

    run: Callable[..., Sequence[Tensor]]
    names: list[tuple[str, str]]
    signatures: list[Any]
    note: str = ""

    @classmethod
    def of(
        cls, function: Callable[[Any], Values], inputs: Any, others: Sequence[Any] = ()
    ) -> Graph:
        """Trace at ``inputs``; prove there and at ``others``; compile.

        Raises:
            NotCompiled: the trace is not the function.
        """
        leaves = leaves_of(inputs)
        names: list[tuple[str, str]] = []

        def flat(*tensors: Tensor) -> list[Tensor]:
            found = function(joined(inputs, iter(tensors)))
            names[:] = [(world, site) for world, sites in found.items() for site in sites]
            return [tensor for sites in found.values() for tensor in sites.values()]

        graph = traced(flat, leaves)
        points = [leaves, *map(leaves_of, others)]
        expected = []
        with torch.no_grad():
            for point in points:
                expected.append(flat(*point))
                if not agree(list(graph(*point)), expected[-1]):
                    raise NotCompiled(
                        "a trace does not reproduce it at other values (tensors become Python values in it)"
                    )
        signatures = [signature(t) for t in leaves]
        if not has_cpp_compiler():
            return cls(graph, names, signatures, "traced only: no C++ compiler was found")
        call = compiled(graph, leaves)
        for point, known in zip(points, expected, strict=True):
            if [signature(t) for t in point] == signatures and not agree(list(call(*point)), known):
                raise NotCompiled("its compiled values differ from its plain ones")
        return cls(call, names, signatures)

    def flat(self, leaves: Sequence[Tensor]) -> Values:
        """Worlds from the leaves of the inputs."""
        with torch.no_grad():
            results = self.run(*leaves)
        found: Values = {}
        for (world, site), tensor in zip(self.names, results, strict=True):
            found.setdefault(world, {})[site] = tensor
        return found


def bound_form(form: StructuralForm, free: Mapping[str, Any]) -> StructuralForm:
    """The form evaluated in one graph, its arguments, parameters, modules and evidence replaced by the ``free`` ones, if any."""
    found = copy.copy(form)
    found.dependencies = form.dependencies
    found.executor = InOneGraph(form.executor.row_bytes)
    if free:
        found.args, found.kwargs = joined((form.args, form.kwargs), iter(free["args"]))
        found.params, found.conditioned = dict(free["params"]), dict(free["evidence"])
        found.modules = form.modules.with_values(free["modules"])
    return found


class Compiler:
    """The graphs of a program's questions, by their structure; at most 32 are kept, and each failure is said once.

    Args:
        shared: whether the graphs serve other arguments, evidence and parameters too, which they then take as inputs.
    """

    def __init__(self, shared: bool = False) -> None:
        self._shared = shared
        self._graphs: OrderedDict[Any, tuple[Graph, Guards]] = OrderedDict()
        self._said: set[str] = set()

    def worlds(self, evaluation: Evaluation, question: Question) -> tuple[Values, str]:
        """All worlds of a question, and the executor's name."""
        try:
            found = self._compiled(evaluation, question)
        except Exception as error:  # the program's own errors come again below
            values = evaluation.worlds(question)
            self.say(error, evaluation.form)
            return values, evaluation.form.executor.name
        evaluation.check(question, found)
        return found, "compiled"

    def say(self, error: Exception, form: StructuralForm) -> None:
        """Warn, once, that a question was not compiled."""
        reason = str(error) if isinstance(error, NotCompiled) else describe(error)
        if reason not in self._said:
            self._said.add(reason)
            warn_caller(
                f"compile=True: the question cannot be compiled ({reason}); it runs by {form.executor.name}, with the same "
                "answers",
                ExecutorWarning,
            )

    def _compiled(self, evaluation: Evaluation, question: Question) -> Values:
        form, rows = evaluation.form, evaluation.rows
        facts, noise = evaluation.known
        if isinstance(facts, list):
            raise NotCompiled("the program runs row by row")
        if question.differentiable:
            raise NotCompiled("gradients with respect to interventions are asked for")
        free = free_inputs(form) if self._shared else {}
        inputs = {
            "facts": facts,
            "noise": noise,
            "fresh": fresh_inputs(evaluation, question),
            "do": do_inputs(question),
            "free": free,
        }
        leaves = leaves_of(inputs)
        structure = form_key(form) if self._shared else None
        key = (rows, question_key(question), structure, tuple(map(signature, leaves)))
        graph, guards = self._graphs.get(key, (None, None))
        if graph is None or guards is None or not guards.hold():
            guards = guards_of(form, question, self._shared)

            def function(given: Any) -> Values:
                own, asked = bound_form(form, given["free"]), with_inputs(question, given["do"])
                known = given["facts"], given["noise"]
                return Evaluation.of(own, rows, *known, {}, given["fresh"]).worlds(asked)

            if free:
                refuse_values_as_numbers(function, inputs)
            others = [self._elsewhere(evaluation, inputs, k) for k in range(2)]
            graph = Graph.of(function, inputs, others)
            self._graphs[key] = graph, guards
            while len(self._graphs) > _KEPT:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return graph.flat(leaves)

    @staticmethod
    def _elsewhere(evaluation: Evaluation, inputs: dict[str, Any], k: int) -> dict[str, Any]:
        """Inputs with other values everywhere: noise drawn anew, and what follows from it."""
        form, rows = evaluation.form, evaluation.rows
        other = {part: _moved(inputs[part], k) for part in ("fresh", "do", "free")}
        noise = drawn_noise(form, rows, "proof", k)
        given = {n: v for n, v in inputs["facts"].items() if n not in noise}
        own = bound_form(form, other["free"])
        facts, noises = Evaluation.from_noise(own, rows, noise, given).known
        return {**other, "facts": facts, "noise": noises}


def drawn_noise(form: StructuralForm, rows: int, *key: object) -> dict[str, Any]:
    """Noise of every site that has a structural assignment."""
    return {
        name: draw(site.mechanism.noise(site.fn), rows, form.seed, name, *key)
        for name, site in form.sites.items()
        if site.kind == "sample" and site.mechanism is not None
    }


def refuse_values_as_numbers(function: Callable[[Any], Any], inputs: Any) -> None:
    """Where a program turns any of its inputs into a number, it does so under ``vmap`` too, which refuses.

    Raises:
        NotCompiled: it does.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            torch.func.vmap(function)(tree_map(lambda tensor: tensor[None], inputs))
        except Exception as error:
            raise NotCompiled(
                f"its arguments or parameters cannot be inputs of a graph: {describe(error)}"
            ) from None


def guards_of(form: StructuralForm, question: Question, shared: bool, *others: Any) -> Guards:
    """What must stay as it is for a graph to be right.

    Raises:
        NotCompiled: there is too much of it.
    """
    functions = [f for g in question.groups for f in _functions(g)]
    free = [t for t in form.modules.now() if t is not None] if shared else []
    given = [] if shared else [form.args, form.kwargs]
    guards = Guards(form.model, functions, *given, *others, inputs=free)
    if not guards.complete:
        raise NotCompiled("it sees more Python objects than can be watched for changes")
    return guards


def _functions(group: Group) -> Iterator[Any]:
    for intervention in group.other.values():
        inner = intervention.inner if isinstance(intervention, Where) else intervention
        if hasattr(inner, "function"):
            yield inner.function


def _moved(tree: Any, k: int) -> Any:
    return tree_map(lambda tensor: moved(tensor, k), tree)


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


def describe(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:150]}"
