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
from ..interventions import Where
from .evaluation import Evaluation
from .executors import Executor, agree, without_validation
from .form import StructuralForm
from .graph_inputs import (
    NotCompiled,
    do_inputs,
    form_key,
    free_inputs,
    fresh_inputs,
    joined,
    leaves_of,
    moved,
    question_key,
    signature,
    with_inputs,
)
from .guards import Guards
from .noise import draw
from .question import Group, Question
from .tracing import compiled, has_cpp_compiler, traced

__all__ = [
    "Compiler",
    "Graph",
    "InOneGraph",
    "bound_form",
    "guards_of",
    "refuse_gradients",
    "refuse_values_as_numbers",
]

Values = dict[str, dict[str, Tensor]]
_KEPT = 32


class InOneGraph(Executor):
    """Evaluates without looking at a value, so that a trace of it is the program's operations and no more.

    Args:
        always: batch where there is one row too; slower, but an index that is a single number can be traced then.
    """

    checks = False

    def __init__(self, row_bytes: int, always: bool = False) -> None:
        super().__init__(row_bytes)
        self._always = always

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
            if self._always and outer and inner:
                across = torch.func.vmap(function, in_dims=(None,) * len(outer) + (0,) * len(inner))
                return torch.func.vmap(across, in_dims=(0,) * len(outer) + (None,) * len(inner))(
                    *outer, *inner
                )
            if size == (1, 1):
                return self.alone(function, outer, inner)
            return self.batch(function, size, outer, inner)


@dataclass
class Graph:
    """A function of a tree of tensors that has been traced, proved and compiled.

    Attributes:
        names: world and site of each result.
        signatures: of the inputs that it was made for.
        idle: for each input, whether nothing depends on it.
        note: how far it was compiled.
    """

    run: Callable[..., Sequence[Tensor]]
    names: list[tuple[str, str]]
    signatures: list[Any]
    idle: list[bool]
    note: str = ""

    @classmethod
    def of(
        cls, function: Callable[[Any, bool], Values], inputs: Any, others: Sequence[Any] = ()
    ) -> Graph:
        """Trace at ``inputs``; prove there and at ``others``; compile.

        Args:
            function: of inputs, and of whether to batch single rows too, which is tried second.

        Raises:
            NotCompiled: the trace is not the function.
        """
        try:
            return cls._of(lambda given: function(given, False), inputs, others)
        except Exception:
            return cls._of(lambda given: function(given, True), inputs, others)

    @classmethod
    def _of(cls, function: Callable[[Any], Values], inputs: Any, others: Sequence[Any]) -> Graph:
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
        idle = [not node.users for node in graph.graph.nodes if node.op == "placeholder"]
        if not has_cpp_compiler():
            return cls(graph, names, signatures, idle, "traced only: no C++ compiler was found")
        call = compiled(graph, leaves)
        for point, known in zip(points, expected, strict=True):
            if [signature(t) for t in point] == signatures and not agree(list(call(*point)), known):
                raise NotCompiled("its compiled values differ from its plain ones")
        return cls(call, names, signatures, idle)

    def flat(self, leaves: Sequence[Tensor]) -> Values:
        """Worlds from the leaves of the inputs."""
        with torch.no_grad():
            results = self.run(*leaves)
        found: Values = {}
        for (world, site), tensor in zip(self.names, results, strict=True):
            found.setdefault(world, {})[site] = tensor
        return found


def bound_form(
    form: StructuralForm, free: Mapping[str, Any], always: bool = False
) -> StructuralForm:
    """The form evaluated in one graph, its arguments, parameters, modules and evidence replaced by the ``free`` ones, if any."""
    found = copy.copy(form)
    found.dependencies = form.dependencies
    found.executor = InOneGraph(form.executor.row_bytes, always)
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
        refuse_gradients(question)
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
        names = tuple(facts), tuple(noise)
        key = (rows, question_key(question), structure, names, tuple(map(signature, leaves)))
        graph, guards = self._graphs.get(key, (None, None))
        if graph is None or guards is None or not guards.hold():
            guards = guards_of(form, question, self._shared)

            def function(given: Any, always: bool = False) -> Values:
                own = bound_form(form, given["free"], always)
                asked = with_inputs(question, given["do"])
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
        other |= {"facts": facts, "noise": noises}
        return {part: other[part] for part in inputs}


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


def refuse_gradients(question: Question) -> None:
    """Machine code has no gradients.

    Raises:
        NotCompiled: an intervention, or a tensor that its function sees, asks for them.
    """
    tensors = leaves_of(do_inputs(question))
    tensors += Guards([f for g in question.groups for f in _functions(g)]).tensors
    if any(t.requires_grad for t in tensors):
        raise NotCompiled("gradients with respect to interventions are asked for")


def _functions(group: Group) -> Iterator[Any]:
    for intervention in group.other.values():
        inner = intervention.inner if isinstance(intervention, Where) else intervention
        if hasattr(inner, "function"):
            yield inner.function


def _moved(tree: Any, k: int) -> Any:
    return tree_map(lambda tensor: moved(tensor, k), tree)


def describe(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:150]}"
