"""Abduction, action, prediction: the posterior of a program's noise, and the worlds it implies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import MethodError, site_list
from .inference import (
    Method,
    PosteriorDraws,
    WorldEvidence,
    choose_and_sample,
    local_draws,
    method_from,
    read_posterior,
    write_posterior,
)
from .interventions import unknown_site
from .progress import Progress, progress_from
from .results import Diagnostics, SiteLabels, Worlds
from .structural.evaluation import Evaluation
from .structural.form import ROW, StructuralForm
from .structural.noise import fresh_seed
from .structural.question import Question, named_worlds
from .structural.units import needs_parameters, parameters
from .typing import Noise, Program

if TYPE_CHECKING:
    from .structural.compiled import Compiler

__all__ = ["Posterior", "abduct"]


class Posterior:
    """Draws of the factual world and of every site's exogenous noise: abduct once, ask many times.

    Attributes:
        num_samples: number of equally weighted draws.
        latents: latent site to draws, shape ``(num_samples,) + site shape``.
    """

    def __init__(
        self,
        form: StructuralForm,
        draws: PosteriorDraws,
        requested: int = 1,
        evaluation: Evaluation | None = None,
    ) -> None:
        self._form, self._draws, self._requested = form, draws, requested
        self.num_samples = draws.num_samples
        self.latents = {n: v for n, v in draws.latents.items() if n != ROW}
        self._evaluation = evaluation or Evaluation(form, self.num_samples, draws.latents)
        self._given = evaluation

    def __repr__(self) -> str:
        return f"Posterior({self.num_samples} draws of {site_list(self._form.sites)} by {self._draws.method}: {self._draws.why})"

    @property
    def noise(self) -> dict[str, Noise]:
        """Abducted noise by site, shape ``(num_samples,) + noise shape``; only where the program can be batched."""
        noise = self._evaluation.known[1]
        if isinstance(noise, list):
            raise MethodError(
                "the program runs row by row, so its noise has no common shape; ask for worlds instead"
            )
        return dict(noise)

    def predict(
        self,
        interventions: Mapping[Any, Any] | None = None,
        *,
        worlds: Mapping[str, Mapping[Any, Any]] | None = None,
        sites: list[str] | None = None,
        compile: bool = False,
    ) -> Worlds:
        r"""The factual world and others that share its noise: :math:`f(\text{abduct}(v), do)`.

        Args:
            interventions: one world, named ``"counterfactual"``: site to anything :func:`causalppl.do` takes, and to
                :func:`causalppl.from_world`.
            worlds: several worlds by name.
            sites: sites to keep; all by default.
            compile: trace the question once and compile it to machine code: seconds once, then as fast as torch code written
                by hand, for every question of the same structure (other values, say). A trace is used only where it agrees with
                the program at other values; otherwise a warning says why not, and the numbers are the same.

        Returns:
            :class:`~causalppl.results.Worlds`, every tensor of shape ``(num_samples,) + site shape``.

        Raises:
            UnknownSiteError, InterventionError, ShapeError, SupportError, WorldNameError: a request that does not fit.
            NoMechanismError: a site downstream of an intervention has no structural assignment.
            IncompatibleMechanismError: a site's family or noise shape differs between worlds.
            NondeterministicProgramError: a world is random outside its sample sites.
        """
        form, evaluation = self._form, self._evaluation
        hidden = set(form.halves.values())
        question = Question(form, named_worlds(interventions, worlds), evaluation.has)
        if self.num_samples == 1 and question.stochastic and self._requested > 1:
            # nothing was random until this question: as many draws as were asked for
            evaluation = Evaluation(form, self._requested, {})
        executor = None
        if compile:
            values, executor = self._compiler.worlds(evaluation, question)
        else:
            values = evaluation.worlds(question)
        shown = [n for n in dict.fromkeys(n for v in values.values() for n in v) if n not in hidden]
        for name in sites or ():
            if name not in shown:
                raise unknown_site("sites", str(name), shown)
        return self._result(values, sites, executor, question)

    @cached_property
    def _compiler(self) -> Compiler:
        from .structural.compiled import Compiler

        return Compiler()

    def _result(
        self,
        values: dict[str, dict[str, Tensor]],
        sites: list[str] | None,
        executor: str | None,
        question: Question,
    ) -> Worlds:
        form = self._form
        hidden = set(form.halves.values())
        visible = [n for n in form.sites if n not in hidden]
        extra = [n for v in values.values() for n in v if n not in form.sites]
        wanted = dict.fromkeys(visible + extra if sites is None else sites)
        wanted = {
            n: None
            for n in wanted
            if n not in hidden and (n not in form.sites or form.sites[n].kind != "factor")
        }
        shown = {n: next(v[n] for v in values.values() if n in v) for n in wanted}
        lacking = {
            n: _nowhere(t) for n, t in shown.items() if any(n not in v for v in values.values())
        }
        chosen = {w: {n: v[n] if n in v else lacking[n] for n in wanted} for w, v in values.items()}
        labels = {n: self._labels(n, t) for n, t in shown.items()}
        return Worlds(chosen, labels, self._diagnostics(executor, question, tuple(wanted)))

    def for_units(
        self,
        *args: Any,
        evidence: Any = None,
        seed: int | None = None,
        parameters: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> Posterior:
        """The posterior for new units: draws of the parameters are reused, the new units alone abducted.

        Parameters are the latent sites outside the units' plate that no unit influences, the units being those of the plates
        that the observed sites share; or those named. What stays latent in the new units is drawn given each parameter draw, by
        importance resampling for each unit.

        Args:
            args: the program's arguments for the new units.
            evidence: what is known of them.
            parameters: names of the latent sites whose draws are reused.

        Raises:
            MethodError: a parameter's shape differs, or the program has no plate and no parameters are named.
        """
        own = self._form
        new_seed = own.seed if seed is None else fresh_seed(seed)
        with own.modules.restored():  # networks as they were when the parameters were learnt
            form = StructuralForm(own.model, args, kwargs, evidence, new_seed, own.params)
        shared = parameters_of(own, parameters)
        used = {n: self.latents[n] for n in form.latent if n in shared}
        for name, value in used.items():
            if value.shape[1:] != form.sites[name].value.shape:
                raise MethodError(
                    f"for_units: the parameter {name!r} has shape {tuple(form.sites[name].value.shape)} for the new "
                    f"arguments and {tuple(value.shape[1:])} in the posterior; give arguments of the same columns"
                )
        if any(n not in used for n in form.latent):
            used = local_draws(form, used, self.num_samples)
        draws = PosteriorDraws(
            used,
            self.num_samples,
            self._draws.method,
            f"parameter draws reused; {self._draws.why}",
            rhat=self._draws.rhat,
        )
        return Posterior(form, draws, self._requested)

    def save(self, path: str | PathLike[str]) -> None:
        """Write draws, evidence, parameters, seed, and the program's arguments where these are tensors, numbers or text.

        The file holds no code: :meth:`load` needs the program again. Answers after loading are those from before.
        """
        write_posterior(path, self._form, self._draws, self._requested, self._given)

    @classmethod
    def load(
        cls, path: str | PathLike[str], model: Program, *args: Any, **kwargs: Any
    ) -> Posterior:
        """Read what :meth:`save` wrote.

        Args:
            path: the file.
            model: the program; its networks get the parameters in the file while they are used for this posterior.
            args: the program's arguments; those in the file by default.

        Raises:
            ProgramError: the file is of another program, or holds something else.
        """
        return cls(*read_posterior(path, model, args, kwargs))

    def _labels(self, name: str, value: Tensor) -> SiteLabels:
        site = self._form.sites.get(name)
        shape = value.shape[1:]
        if site is None:
            return SiteLabels(name, (), torch.Size(), shape)
        batch = shape[: len(shape) - site.event_dim]
        plates = tuple(
            (f.name, f.dim, f.size, self._form.indices.get(f.name))
            for f in site.frames
            if f.vectorized and len(batch) >= -f.dim and batch[f.dim] == f.size
        )
        return SiteLabels(name, plates, batch, shape[len(batch) :])

    def _diagnostics(
        self, executor: str | None, question: Question, sites: tuple[str, ...]
    ) -> Diagnostics:
        draws, form = self._draws, self._form
        elsewhere = self._given is not None  # evidence in other worlds, which no graph of one knows

        def identification() -> str | None:
            from .graph.worlds import grounds_of_worlds  # only where it is read

            return None if elsewhere else grounds_of_worlds(form, question.worlds, sites)

        whole = {half: half.removesuffix("_observed") for half in form.halves.values()}
        return Diagnostics(
            method=draws.method,
            why=draws.why,
            ess=draws.ess,
            pareto_k=draws.pareto_k,
            rhat=draws.rhat,
            mechanisms={
                whole.get(n, n): getattr(s.mechanism, "name", type(s.mechanism).__name__)
                for n, s in form.sites.items()
                if s.kind == "sample" and s.mechanism is not None
            },
            identification=identification if question.worlds else None,
            executor=executor or form.executor.name,
            notes=(*draws.notes, *form.notes),
            unit_names=draws.unit_names,
        )


def parameters_of(form: StructuralForm, named: Iterable[str] | None) -> list[str]:
    """The parameters of a program whose draws are reused.

    Raises:
        MethodError: there is no plate, and none is named.
    """
    found = parameters(form, named)
    if (
        not found
        and form.latent
        and named is None
        and not any(s.frames for s in form.sites.values())
    ):
        raise needs_parameters(form)
    return found


def _nowhere(like: Tensor) -> Tensor:
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    return torch.full_like(like, float("nan"), dtype=dtype)


def abduct(
    model: Program,
    evidence: Any = None,
    *,
    method: Method | None = None,
    num_samples: int = 1000,
    worlds: Mapping[str, Mapping[Any, Any]] | None = None,
    seed: int | None = None,
    progress: bool | Progress = False,
) -> Callable[..., Posterior]:
    r"""Abduction: the posterior of what is latent, and of every site's exogenous noise.

    .. math:: p(\text{noise} \mid \text{trace}) = \prod_i p(\text{noise}_i \mid v_i, pa_i)

    so inference runs on the program as it is written, and noise follows site by site in closed form.

    Args:
        model: a Pyro program.
        evidence: site to number, array, column or tensor in the site's shape as the program runs it, or a data frame whose columns
            are sites; NaN where an entry is missing, :class:`causalppl.Interval` where a range is known. ``obs=`` sites are
            evidence already; their entries that are NaN or masked out are missing. Missingness is taken as ignorable.
            ``"world/site"`` is evidence in a world that ``worlds`` declares.
        method: an inference method, or a guide of :class:`causalppl.AmortizedGuide`; ``None`` chooses one, and the result's diagnostics
            say which and why.
        num_samples: draws of the posterior; one where nothing is random.
        worlds: worlds in which something is known, by name, with their interventions.
        seed: an integer; ``None`` takes one from torch's generator. With a seed, that generator is left untouched.
        progress: ``True`` draws a bar.

    Returns:
        a callable that takes the program's own arguments and returns a :class:`Posterior`.

    Raises:
        UnknownSiteError, EvidenceError, ShapeError, SupportError: evidence that does not fit the program.
        ImpossibleEvidenceError: evidence of probability zero.
        MethodError: a method that cannot serve.

    References:
        J. Pearl (2009), Causality, theorem 7.1.7.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(x, 1.0))
        >>> posterior = cp.abduct(model, {"x": 0.5, "y": 1.5})()
        >>> posterior.predict({"x": 0.0}).tensor("y", world="counterfactual")
        tensor([1.])
    """
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
        raise MethodError(f"num_samples={num_samples!r}: give a positive integer")
    if method is not None and (isinstance(method, type) or not hasattr(method, "sample")):
        raise MethodError(
            f"method={method!r} is no inference method; give cp.Exact(), cp.NUTS(), ... or None"
        )
    method = method_from(method)
    elsewhere = WorldEvidence.split(evidence, named_worlds(None, worlds))

    def run(*args: Any, **kwargs: Any) -> Posterior:
        form = StructuralForm(model, args, kwargs, elsewhere.factual, fresh_seed(seed))
        report = progress_from(progress)
        try:
            if elsewhere.worlds:
                draws, evaluation = elsewhere.sample(form, method, num_samples, report)
                return Posterior(form, draws, num_samples, evaluation)
            draws = (
                choose_and_sample(form, num_samples, report)
                if method is None
                else method.sample(form, num_samples, report)
            )
        finally:
            report.stop()
        return Posterior(form, draws, num_samples)

    return run
