"""A question about a program, kept so that it can be asked of many arguments: what ``cp.counterfactual`` returns."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .counterfactual import Posterior, abduct
from .errors import MethodError, ShapeError, UnknownSiteError, site_list
from .inference import Method, WorldEvidence
from .interventions import Interventions
from .mechanisms import possible
from .progress import Progress
from .results import Worlds
from .structural.densities import log_probs
from .structural.evaluation import Evaluation
from .structural.form import StructuralForm
from .structural.graph_inputs import (
    NotCompiled,
    form_key,
    fresh_inputs,
    leaves_of,
    moved,
    signature,
    split,
)
from .structural.noise import draw, fresh_seed
from .structural.question import Question, named_worlds
from .typing import Noise, Program

__all__ = ["Counterfactual", "compile", "counterfactual"]

_KEPT = 16
_VALID = "\x00valid"


@dataclass
class _Prepared:
    """A question read against one structure of arguments, and its graphs by the signatures of their inputs."""

    form: StructuralForm
    question: Question
    guards: Any
    posterior: Posterior | None = None
    rows: int = 1
    graphs: dict[Any, Any] = field(default_factory=dict)
    idle: dict[str, Noise] | None = None  # the randomness of abduction that no result depends on


class Counterfactual:
    """A counterfactual question about a program; call it with the program's own arguments for :class:`Worlds`.

    Made by :func:`counterfactual`; :func:`compile` makes a faster one.
    """

    def __init__(
        self,
        model: Program,
        named: dict[str, Interventions],
        evidence: Any,
        method: Method | None,
        num_samples: int,
        seed: int | None,
        progress: bool | Progress,
        compiled: bool,
    ) -> None:
        self._model, self._named, self._evidence = model, named, evidence
        self._method, self._num_samples, self._seed = method, num_samples, seed
        self._progress, self.compiled = progress, compiled
        self._abducted = abduct(
            model,
            evidence,
            method=method,
            num_samples=num_samples,
            worlds=named,
            seed=seed,
            progress=progress,
        )
        self._kept: OrderedDict[Any, _Prepared] = OrderedDict()
        self._compiler: Any = None

    def __repr__(self) -> str:
        how = ", compiled" if self.compiled else ""
        return f"Counterfactual(worlds {site_list(self._named)}{how})"

    def __call__(self, *args: Any, **kwargs: Any) -> Worlds:
        """The worlds, given the program's own arguments."""
        if not self.compiled:
            return self._abducted(*args, **kwargs).predict(worlds=self._named)
        tensors: list[Tensor] = []
        key = _key(args, kwargs, tensors)
        prepared = self._find(("values", key)) if key is not None else None
        if prepared is not None:
            answer = self._at_once(prepared, tensors, fresh_seed(self._seed))
            if answer is not None:
                return answer
        posterior = self._abducted(*args, **kwargs)
        if prepared is None and key is not None and self._is_function_of_noise(posterior):
            answer = self._first(("values", key), posterior, tensors)
            if answer is not None:
                return answer
        return self._predict(posterior)

    def _predict(self, posterior: Posterior) -> Worlds:
        """The posterior as for any method, then all other worlds in one graph."""
        from .structural.compiled import Compiler

        try:
            form_key(posterior._form)
            shared = True
        except NotCompiled:
            shared = False
        if shared:
            self._compiler = self._compiler or Compiler(shared=True)
            posterior._compiler = self._compiler
        return posterior.predict(worlds=self._named, compile=True)

    # --- Straight from the arguments --------------------------------------------------------------------------------

    def _is_function_of_noise(self, posterior: Posterior) -> bool:
        """Whether nothing has to be inferred: all is observed, or nothing that is known depends on what is latent."""

        form = posterior._form
        try:
            form_key(form)
        except NotCompiled:
            return False
        plain = self._method is None and posterior._given is None
        return plain and not form.evident and form.executor.sequential_because is None

    def _first(self, key: Any, posterior: Posterior, tensors: list[Tensor]) -> Worlds | None:
        """Trace, prove and compile; ``None``, with a warning, where that cannot be."""
        from .structural.compiled import Compiler
        from .structural.executors import agree

        self._compiler = self._compiler or Compiler(shared=True)
        plain = posterior.predict(worlds=self._named)
        form = posterior._form
        try:
            prepared = self._keep(key, form, posterior)
            prepared.rows = plain.num_draws
            values = self._values(prepared, tensors, form.seed)
            same = values is not None and all(
                agree(values[w][s], plain.tensor(s, world=w))
                for s in plain
                for w in values
                if s in values[w]
            )
            if values is None or not same:
                self._kept.pop(key, None)
                return None
        except Exception as error:
            self._kept.pop(key, None)
            self._compiler.say(error, form)
            return plain
        return posterior._result(values, None, "compiled")

    def _at_once(self, prepared: _Prepared, tensors: list[Tensor], seed: int) -> Worlds | None:
        """The worlds without reading the program again; ``None`` where these arguments have to be looked at."""
        assert prepared.posterior is not None
        values = self._values(prepared, tensors, seed)
        return None if values is None else prepared.posterior._result(values, None, "compiled")

    def _values(
        self, prepared: _Prepared, tensors: list[Tensor], seed: int
    ) -> dict[str, dict[str, Tensor]] | None:
        """All worlds in one graph: draws of what is latent, abduction, prediction, and whether the evidence is possible."""
        from .structural.compiled import bound_form

        form, question, rows = copy.copy(prepared.form), prepared.question, prepared.rows
        form.seed = seed
        free = _free(form, tensors)
        if free is None:
            return None
        evaluation = Evaluation(form, rows, {})
        inputs = {
            "prior": form.prior_noise(rows),
            "index": evaluation.index,
            "bases": evaluation.bases(prepared.idle or {}),
            "fresh": fresh_inputs(evaluation, question),
            "free": free,
        }

        def function(given: Any, always: bool = False) -> dict[str, dict[str, Tensor]]:
            own, latents = bound_form(form, given["free"], always), {}
            if given["prior"]:
                latents = own.executor.map(own.simulate, rows, given["prior"], given["index"])
            found = Evaluation(own, rows, latents, given["bases"], given["fresh"])
            worlds = found.worlds(question)
            worlds[_VALID] = {"": _valid(own, rows, latents, given["index"])}
            return worlds

        graph, leaves = self._graph(prepared, "values", function, inputs)
        found = graph.flat(leaves)
        if prepared.idle is None:
            unused = iter(graph.idle[len(leaves_of([inputs["prior"], evaluation.index])) :])
            prepared.idle = {
                n: base
                for n, base in inputs["bases"].items()
                if all([next(unused) for _ in leaves_of([base])])
            }
        if not bool(found.pop(_VALID)[""]):
            return None
        evaluation.check(question, found)
        return found

    def _graph(
        self, prepared: _Prepared, kind: str, function: Any, inputs: dict[str, Any]
    ) -> tuple[Any, list[Tensor]]:
        """The graph for such inputs, and their leaves."""
        from .structural.compiled import Graph, refuse_values_as_numbers

        leaves = leaves_of(inputs)
        first = inputs.get("noise", {})
        rest = {part: tree for part, tree in inputs.items() if part != "noise"}
        key = _inputs_key(kind, first, leaves_of(first), rest)
        graph = prepared.graphs.get(key)
        if graph is None:
            refuse_values_as_numbers(function, inputs)
            others = [self._elsewhere(prepared, inputs, k, moved) for k in range(2)]
            graph = prepared.graphs[key] = Graph.of(function, inputs, others)
        return graph, leaves

    @staticmethod
    def _elsewhere(prepared: _Prepared, inputs: dict[str, Any], k: int, moved: Any) -> Any:
        """Inputs with other values everywhere."""
        form = prepared.form
        other = {
            part: tree_map(lambda tensor: moved(tensor, k), tree)
            for part, tree in inputs.items()
            if part in ("free", "fresh")
        }
        laws = {"prior": "noise", "bases": "base", "noise": "noise"}
        for part in laws.keys() & inputs.keys():
            other[part] = {
                n: draw(
                    getattr(form.sites[n].mechanism, laws[part])(form.sites[n].fn),
                    prepared.rows,
                    form.seed,
                    n,
                    "proof",
                    part,
                    k,
                )
                for n in inputs[part]
            }
        return {part: other.get(part, tree) for part, tree in inputs.items()}

    # --- Straight from noise ------------------------------------------------------------------------------------------

    def from_noise(
        self, noise: Mapping[str, Noise], *args: Any, **kwargs: Any
    ) -> dict[str, dict[str, Tensor]]:
        r"""The structural form itself: all worlds of given noise, :math:`v = f(\text{noise}, do)`.

        Args:
            noise: site to noise, shape ``(rows,) + noise shape``, as :attr:`Posterior.noise` has it. A site without noise keeps
                its observed value.
            args: the program's arguments.

        Returns:
            world to site to values, shape ``(rows,) + site shape``; ``"factual"`` first.

        Raises:
            UnknownSiteError: noise of a site that the program does not have.
            NoMechanismError: a site has neither noise nor a value.
            ShapeError: the numbers of rows differ.

        Example:
            >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
            >>> def model():
            ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
            ...     pyro.sample("y", dist.Normal(2 * x, 1.0))
            >>> ask = cp.counterfactual(model, {"x": 1.0})
            >>> noise = {"x": torch.tensor([0.5]), "y": torch.tensor([0.1])}
            >>> ask.from_noise(noise)["counterfactual"]["y"]
            tensor([2.1000])
        """
        if self.compiled:
            found = self._compiled_from_noise(noise, args, kwargs)
            if found is not None:
                return found
        key = ("noise", _key(args, kwargs, [], same=True))
        prepared = self._find(key) if key[1] is not None else None
        if prepared is None:
            prepared = self._keep(key, self._read(args, kwargs), None, shared=False)
        rows = _rows(prepared.form, noise)
        return self._evaluated(prepared.form, rows, noise, None).worlds(prepared.question)

    def _compiled_from_noise(
        self, noise: Mapping[str, Noise], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, dict[str, Tensor]] | None:
        tensors: list[Tensor] = []
        key = ("compiled noise", _key(args, kwargs, tensors))
        prepared = self._find(key) if key[1] is not None else None
        if prepared is not None and not prepared.question.stochastic:
            free = _free(prepared.form, tensors)
            leaves = leaves_of(noise)
            graph = free and prepared.graphs.get(_inputs_key("noise", noise, leaves, free))
            if graph:
                found = graph.flat([*leaves, *leaves_of(free)])
                self._check(prepared, found)
                return found  # type: ignore[no-any-return]
        return self._first_from_noise(noise, args, kwargs, key, prepared, tensors)

    def _first_from_noise(
        self,
        noise: Mapping[str, Noise],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        key: Any,
        prepared: _Prepared | None,
        tensors: list[Tensor],
    ) -> dict[str, dict[str, Tensor]] | None:
        """Noise of names or shapes not seen before: looked at, traced and compiled. ``None`` where that cannot be."""
        from .structural.compiled import Compiler, bound_form

        self._compiler = self._compiler or Compiler(shared=True)
        form = self._read(args, kwargs) if prepared is None else prepared.form
        rows = _rows(form, noise)
        try:
            if prepared is None:
                form_key(form)
                prepared = self._keep(key, form, None)
            prepared.rows, question = rows, prepared.question
            free = _free(form, tensors)
            if free is None:
                return None
            fresh = (
                fresh_inputs(Evaluation(form, rows, {}), question) if question.stochastic else {}
            )
            inputs = {"noise": dict(noise), "fresh": fresh, "free": free}

            def function(given: Any, always: bool = False) -> dict[str, dict[str, Tensor]]:
                own = bound_form(form, given["free"], always)
                found = self._evaluated(own, rows, given["noise"], given["fresh"])
                return found.worlds(question)

            graph, leaves = self._graph(prepared, "noise", function, inputs)
            found: dict[str, dict[str, Tensor]] = graph.flat(leaves)
            self._check(prepared, found)
            return found
        except Exception as error:
            self._kept.pop(key, None)
            self._compiler.say(error, form)
            return None

    @staticmethod
    def _check(prepared: _Prepared, found: dict[str, dict[str, Tensor]]) -> None:
        if prepared.question.looks:
            Evaluation(prepared.form, prepared.rows, {}).check(prepared.question, found)

    @staticmethod
    def _evaluated(
        form: StructuralForm, rows: int, noise: Mapping[str, Noise], fresh: Any
    ) -> Evaluation:
        known = {n: v.expand(rows, *v.shape) for n, v in form.conditioned.items() if n not in noise}
        return Evaluation.from_noise(form, rows, noise, known, fresh)

    # --- What is kept -------------------------------------------------------------------------------------------------

    def _read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StructuralForm:
        factual = WorldEvidence.split(self._evidence, self._named).factual
        return StructuralForm(self._model, args, kwargs, factual, fresh_seed(self._seed))

    def _find(self, key: Any) -> _Prepared | None:
        found = self._kept.get(key)
        if found is None:
            return None
        if not found.guards.hold():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found

    def _keep(
        self, key: Any, form: StructuralForm, posterior: Posterior | None, shared: bool = True
    ) -> _Prepared:
        from .structural.compiled import guards_of, refuse_gradients

        question = Question(form, self._named)
        if shared:
            refuse_gradients(question)
        guards = guards_of(form, question, shared, self._evidence)
        prepared = _Prepared(form, question, guards, posterior)
        if key[1] is not None:
            self._kept[key] = prepared
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return prepared


def _key(
    args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor], same: bool = False
) -> Any:
    """The structure of arguments, or with ``same`` their identity; ``None`` where they cannot be compared."""
    try:
        key = split((args, kwargs), tensors)
    except NotCompiled:
        return None
    found = [(id(t), t._version) if same else signature(t) for t in tensors]
    return (key, *found, torch.get_default_dtype())


def _free(form: StructuralForm, tensors: list[Tensor]) -> Any:
    """The present values of everything that a graph takes as input besides noise; ``None`` where something is gone."""
    store: Any = pyro.get_param_store() if form.params else {}
    if any(name not in store for name in form.params):
        return None
    return {
        "args": tensors,
        "params": {name: store[name].detach() for name in form.params},
        "modules": [t.detach() for t in form.modules.now() if t is not None],
        "evidence": dict(form.conditioned),
    }


def _inputs_key(
    kind: str, noise: Mapping[str, Noise], leaves: list[Tensor], others: Any
) -> tuple[Any, ...]:
    """What code made for some inputs asks of others: noise of the same sites in the same order, and tensors of the same kinds."""
    names = tuple(noise)
    if len(leaves) != len(names):  # some noise is a tuple of tensors
        names = split(dict(noise), [])
    return (kind, names, *map(signature, leaves), *map(signature, leaves_of(others)))


def _rows(form: StructuralForm, noise: Mapping[str, Noise]) -> int:
    counts = set()
    for name, value in noise.items():
        if name not in form.sites:
            raise UnknownSiteError(
                f"from_noise: the program has no site {name!r}; its sites are {site_list(form.sites)}"
            )
        counts |= {t.shape[0] for t in leaves_of(value)}
    if len(counts) != 1:
        raise ShapeError(
            f"from_noise: the first dim of every noise is its rows, but their sizes are {sorted(counts)}"
        )
    return int(counts.pop())


def _valid(form: StructuralForm, rows: int, latents: dict[str, Tensor], index: Tensor) -> Tensor:
    """Whether all that is known has positive probability; an entry that is NaN has none."""

    def row(own: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        parts = log_probs(form, values, density=possible)["evidence"].values()
        return {"": torch.stack([own >= 0, *((p > -torch.inf).all() for p in parts)]).all()}

    found: Tensor = form.executor.map(row, rows, index, latents)[""]
    return found.all()


def compile(question: Counterfactual) -> Counterfactual:
    """The same question, traced and compiled at its first call and at machine speed afterwards.

    Where nothing has to be inferred (all is observed, or nothing is), the program is not run again: abduction and all worlds are
    one graph of the arguments, the parameters, the networks' weights, and all randomness. Otherwise inference runs as it
    would, and the worlds are one graph. Compiled for other shapes, dtypes, numbers among the arguments, and for other values
    that the program reads from closures, globals and attributes, it is compiled again.

    Args:
        question: what :func:`causalppl.counterfactual` returned.

    Returns:
        a callable with the same answers; ``worlds.diagnostics.executor`` says ``"compiled"``. Where a program cannot be
        traced, a warning says why, once, and it runs as before.

    Raises:
        MethodError: ``question`` is something else.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model(dose):
        ...     pyro.sample("y", dist.Normal(2 * dose, 1.0).to_event(1))
        >>> ask = cp.compile(cp.counterfactual(model, {"y": 1.0}))  # doctest: +SKIP
        >>> ask(torch.zeros(3)).diagnostics.executor  # doctest: +SKIP
        'compiled'
    """
    if not isinstance(question, Counterfactual):
        raise MethodError(
            f"cp.compile: {question!r} is no question; give what cp.counterfactual(model, ...) returns, before it is called"
        )
    own = question
    return Counterfactual(
        own._model,
        own._named,
        own._evidence,
        own._method,
        own._num_samples,
        own._seed,
        own._progress,
        compiled=True,
    )


def counterfactual(
    model: Program,
    interventions: Mapping[Any, Any] | None = None,
    evidence: Any = None,
    *,
    worlds: Mapping[str, Mapping[Any, Any]] | None = None,
    method: Method | None = None,
    num_samples: int = 1000,
    seed: int | None = None,
    compile: bool = False,
    progress: bool | Progress = False,
) -> Counterfactual:
    """Abduction, action and prediction in one call: :func:`abduct`, then :meth:`Posterior.predict`.

    Evidence may stand in any of the worlds: ``evidence={"y": 1.0, "none/y": 0.0}, worlds={"none": {"x": 0.0}}``.

    Args:
        compile: as by :func:`causalppl.compile`; worth it where the returned callable is kept and called again.

    Returns:
        a callable that takes the program's own arguments and returns :class:`Worlds`.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(x, 1.0))
        >>> worlds = cp.counterfactual(model, {"x": 0.0}, {"x": 0.5, "y": 1.5})()
        >>> worlds.tensor("y", world="counterfactual")
        tensor([1.])
    """
    named = named_worlds(interventions, worlds)
    return Counterfactual(model, named, evidence, method, num_samples, seed, progress, compile)
