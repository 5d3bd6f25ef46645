"""What a fit minimises: chosen by what is latent and by whether there is a guide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, autoguide, config_enumerate
from pyro.poutine import trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor, nn

from ..errors import GuideMismatchError, MethodError, site_list
from ..interventions import program_arguments
from ..structural.executors import without_validation
from ..structural.form import StructuralForm
from ..structural.sites import Site, elements, site_kind
from ..structural.state import reachable
from ..typing import Message, Program
from .batches import Batch, Batches, is_array, rows_of
from .finite_latents import support_of
from .latent_bound import LatentBound, live
from .observing import InBatch, Observing, own_rows
from .posterior_draws import common_units, is_subsampled

__all__ = ["Objective"]


class _Seen(Messenger):
    """The parameters, plates and sites that a run shows."""

    def __init__(self) -> None:
        super().__init__()
        self.params: dict[str, Tensor] = {}
        self.plates: dict[str, int] = {}
        self.indices: dict[str, Tensor] = {}
        self.sites: dict[str, Message] = {}

    def _pyro_post_param(self, msg: Message) -> None:
        value = msg["value"]
        found = value.unconstrained() if hasattr(value, "unconstrained") else value
        if found.requires_grad:
            self.params[msg["name"]] = found

    def _pyro_post_sample(self, msg: Message) -> None:
        if not isinstance(msg["fn"], _Subsample):
            self.sites[msg["name"]] = msg
            return
        self.plates[msg["name"]] = msg["fn"].size
        if msg["value"] is not None and len(msg["value"]) < msg["fn"].size:
            self.indices[msg["name"]] = msg["value"]


@contextmanager
def _in_eval_mode(*things: Any) -> Iterator[None]:
    """Networks in eval mode while the program is read: with dropout it would not be a function of its sites."""
    modules = [m for root in reachable(list(things)) for m in root.modules()]
    modes = [(m, m.training) for m in modules]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in reversed(modes):
            module.training = mode


class Objective:
    """A loss for each step, in nats for each unit.

    Args:
        plate: the plate that comes in batches, where the user names it.
        particles: draws of the guide in each step.

    Attributes:
        method, why: what it is, in words.
        params: parameters in Pyro's store, by name, unconstrained.
        tensors: what the bound has to learn itself.

    Raises:
        MethodError: nothing to learn from, or latents that cannot be served.
        GuideMismatchError: the guide's sites are not the program's latent sites.
    """

    def __init__(
        self,
        model: Program,
        guide: Program | None,
        batches: Batches,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        plate: str | None,
        particles: int,
        seed: int,
    ) -> None:
        self.model, self.guide, self.batches = model, guide, batches
        self.args, self.kwargs, self.seed = args, kwargs, seed
        self.names = set(program_arguments(model))
        self.plate = plate
        self.tensors: dict[str, Tensor] = {}
        with _in_eval_mode(model, guide, args, kwargs):
            self._choose(particles)

    def _choose(self, particles: int) -> None:
        batches, guide = self.batches, self.guide
        first = batches.at(0)
        seen = self._look(first)
        self.params = seen.params
        form = self._read(first, seen)
        self.count = self._units(form)
        self.dtypes = {n: s.value.dtype for n, s in form.sites.items()}
        graph = form.dependencies
        behind = {n for n, k in graph.kinds.items() if k != "deterministic"}
        weighing = {p for parents in graph.weights.values() for p in parents}
        self.leaves = {n for n in graph.sites if n not in weighing and not graph.descendants(n) & behind}  # fmt: skip
        given = {n for n, m in seen.sites.items() if m["is_observed"] or n in first.values}
        self.halves = dict(form.halves)
        latent = {
            n: s
            for n, s in form.latent.items()
            if n not in given & self.leaves or s.interval is not None
        }
        self.estimate: Callable[[Batch], Tensor]
        if guide is not None:
            self._guided(form, first, set(latent), particles)
        elif latent:
            self._bounded(form)
        else:
            self.method, self.why = "maximum likelihood", "nothing is latent"
            self.estimate = self._likelihood

    def loss(self, step: int) -> Tensor:
        """That of the step's batch."""
        # data are checked as they come; of parameters that went astray the loop tells more than a distribution's check
        with without_validation():
            return self.estimate(self.batches.at(step)) / self.count

    def held_out(self) -> float:
        """That of the units that are not trained on."""
        total, units = 0.0, 0
        for batch in self.batches.held_out():
            assert batch.size is not None
            with without_validation():
                total += float(self.estimate(batch)) / self.count * batch.size
            units += batch.size
        return total / units

    # --- The program at a batch -----------------------------------------------------------------------------------

    def _arguments(self, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """The program's arguments, and the values of its sites; a name may be both an argument's and a site's."""

        def own(given: Any) -> Any:
            if batch.rows is None or not is_array(given) or not len(given.shape):
                return given
            return rows_of(given, batch.rows) if len(given) == self.batches.total else given

        named = {n: v for n, v in batch.values.items() if n in self.names}
        kwargs = {n: own(v) for n, v in self.kwargs.items()}
        return tuple(own(a) for a in self.args), kwargs | named, dict(batch.values)

    def _scale(self, batch: Batch) -> float:
        """How often each unit of a batch counts."""
        return 1.0 if batch.size is None else (self.batches.units or 1) / batch.size

    def _placed(self, program: Program, batch: Batch, scaled: bool = True) -> Program:
        """The program with its plate at a batch."""
        if batch.size is None:
            return program
        assert self.batches.total is not None
        scale = self._scale(batch) if scaled else 1.0
        return InBatch(self.plate, self.batches.total, batch.size, batch.rows, scale)(program)  # type: ignore[no-any-return]

    def _look(self, batch: Batch) -> _Seen:
        """One plain run, which creates the parameters and shows which plate comes in batches."""
        args, kwargs, _ = self._arguments(batch)
        with torch.no_grad(), _Seen() as seen:
            self._placed(self.model, batch)(*args, **kwargs)
        if batch.size is not None:
            fitting = [n for n, size in seen.plates.items() if size in (batch.size, self.batches.total)]  # fmt: skip
            wanted = fitting if self.plate is None else [n for n in fitting if n == self.plate]
            if len(wanted) != 1:
                which = "no plate" if not wanted else "more than one plate"
                named = "" if self.plate is None else f" named {self.plate!r}"
                advice = "name that of the units, plate=" if wanted else "put the units into a plate"  # fmt: skip
                raise MethodError(
                    f"fit: {which}{named} has the {self.batches.total} units of the data or the {batch.size} of a batch (plates and sizes: "
                    f"{seen.plates}); {advice}"
                )
            self.plate = wanted[0]
        return seen

    def _read(self, batch: Batch, seen: _Seen, scaled: bool = True) -> StructuralForm:
        args, kwargs, values = self._arguments(batch)
        values = {n: v for n, v in values.items() if n in seen.sites or n not in self.names}
        for name in values.keys() & seen.sites.keys():
            values[name] = own_rows(values[name], seen.sites[name], seen.indices)
        rows = {n: i for n, i in seen.indices.items() if n != self.plate}
        placed = self._placed(self.model, batch, scaled)
        return StructuralForm(placed, args, kwargs, values, self.seed, indices=rows)

    def _units(self, form: StructuralForm) -> int:
        """How many units there are in all; one where what is observed shares no plate."""
        if self.batches.units is not None:
            return self.batches.units
        known = {n: s for n, s in form.sites.items() if s.kind == "sample" and s.observed}
        full = {f.name: f.full_size or f.size for s in known.values() for f in s.frames}
        return max(1, torch.Size([full[n] for n in common_units(known).names]).numel())

    # --- The three objectives -------------------------------------------------------------------------------------

    def _observed(self, batch: Batch) -> tuple[Program, tuple[Any, ...], dict[str, Any]]:
        args, kwargs, values = self._arguments(batch)
        observing = Observing(values, self.leaves, self.dtypes)
        return self._placed(observing(self.model), batch), args, kwargs

    def _likelihood(self, batch: Batch) -> Tensor:
        program, args, kwargs = self._observed(batch)
        found = trace(program).get_trace(*args, **kwargs)
        total = torch.zeros(())
        for name, site in found.nodes.items():
            if site["type"] != "sample" or isinstance(site["fn"], _Subsample):
                continue
            if site["is_observed"]:
                fn: Any = site["fn"]
                log_prob = fn.log_prob(site["value"])
                total = total - scale_and_mask(log_prob, site["scale"], site["mask"]).sum()
            elif name not in self.halves and site_kind(dict(site)) == "sample":
                raise MethodError(
                    f"fit: the site {name!r} was not in the first batch's run and is latent; give a guide"
                )
        return total

    def _bounded(self, form: StructuralForm) -> None:
        bound = LatentBound(self._live(form), self.plate, self.batches.total)
        if bound.tensors and bound.by_unit and self.batches.units != self.batches.total:
            raise MethodError(
                "fit: units that are held out would have approximations of their latents that no step trains; leave out held_out, or give "
                "a guide that sees the data"
            )
        self.method, self.why, self.tensors = "evidence lower bound", bound.why, bound.tensors
        if bound.finite:
            self.method = "maximum likelihood"
        fixed = form if self.batches.units is None and not is_subsampled(form) else None

        def estimate(batch: Batch) -> Tensor:
            own = fixed
            if own is None:
                with torch.no_grad(), _in_eval_mode(self.model, self.args, self.kwargs):
                    own = self._live(self._read(batch, self._look(batch), not bound.by_unit))
            return bound.loss(own, batch.rows, self._scale(batch))

        self.estimate = estimate

    def _live(self, form: StructuralForm) -> StructuralForm:
        """The form for training, without what is missing of sites that nothing depends on."""
        form.latent = {n: s for n, s in form.latent.items() if not self._is_left_out(s)}
        return live(form)

    def _is_left_out(self, site: Site) -> bool:
        if site.name not in self.leaves or site.missing is None or site.interval is not None:
            return False
        if elements(site.fn) is not None:
            return True
        flat = site.missing.flatten(site.missing.dim() - site.fn.event_dim)
        return bool((flat.all(-1) | ~flat.any(-1)).all())

    def _guided(self, form: StructuralForm, first: Batch, latent: set[str], particles: int) -> None:
        guide = self.guide
        assert guide is not None
        args, kwargs, _ = self._arguments(first)
        with self._conditioned(guide, first), torch.no_grad(), _Seen() as seen:
            self._placed(guide, first)(*args, **kwargs)
        self.params = self.params | seen.params
        own = {n for n, m in seen.sites.items() if site_kind(m) == "sample"}
        auxiliary = {n for n in own if (seen.sites[n]["infer"] or {}).get("is_auxiliary", False)}
        absent, extra = latent - own, own - auxiliary - latent - self.halves.keys()
        summed = {n for n in absent if support_of(form.sites[n]) is not None}
        if extra or absent - summed:
            raise GuideMismatchError(
                f"fit: the guide and the program differ: without a site in the guide are {site_list(sorted(absent - summed))}, without a "
                f"latent site in the program {site_list(sorted(extra))}. A guide samples every latent site that is not finite; mark its "
                "own ones with infer={'is_auxiliary': True}"
            )
        frames = [f.dim for s in form.sites.values() for f in s.frames if f.vectorized]
        nesting = -min(frames, default=0)
        elbo: Any = Trace_ELBO(particles)
        if summed:
            elbo = TraceEnum_ELBO(particles, max_plate_nesting=nesting)
        self.method = "evidence lower bound"
        self.why = "a guide was given" + (f"; {site_list(sorted(summed))} are summed out" if summed else "")  # fmt: skip

        def estimate(batch: Batch) -> Tensor:
            program, args, kwargs = self._observed(batch)
            if summed:
                program = config_enumerate(program, expand=False)
            with self._conditioned(guide, batch):
                return elbo.differentiable_loss(  # type: ignore[no-any-return]
                    program, self._placed(guide, batch), *args, **kwargs
                )

        self.estimate = estimate

    @contextmanager
    def _conditioned(self, guide: Program, batch: Batch) -> Iterator[None]:
        """An autoguide looks at the latents of its program, which has to have its data for that."""
        parts = guide.modules() if isinstance(guide, nn.Module) else ()
        autos = [m for m in parts if isinstance(m, autoguide.AutoGuide)]
        kept = [auto._model for auto in autos]
        values = self._arguments(batch)[2]
        try:
            for auto, (own,) in zip(autos, kept, strict=True):
                observing = Observing(values, self.leaves, self.dtypes)
                auto._model = (self._placed(observing(own), batch),)
            yield
        finally:
            for auto, own in zip(autos, kept, strict=True):
                auto._model = own
