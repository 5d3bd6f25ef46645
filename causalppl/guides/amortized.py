"""The public face: a builder that reads a program, and the guide that it gives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MethodError, UnknownSiteError, closest_name, site_list
from ..networks import FLOWS
from ..progress import Progress
from ..structural.noise import fresh_seed, isolated_rng, keyed_seed
from ..training import History, train
from ..typing import Program
from .encoding import supports_of
from .evidence import evidence_from
from .objectives import objective_for
from .outliers import Familiar, Unusual
from .posterior_network import Evidence, PosteriorNetwork
from .pyro_guide import run_guide
from .reading import Reading, refuse_moving_supports
from .simulator import simulated

__all__ = ["AmortizedGuide", "Guide"]

_SCALES = 4096  # simulated runs that means and scales are taken from, or fewer where one run has many units
_ELEMENTS = 400_000  # rows times units that networks see at a time


@dataclass(frozen=True)
class AmortizedGuide:
    r"""Builds a guide that answers for any evidence on a program in one forward pass.

    .. math:: q(x \mid y) = \prod_i q(x_i \mid \text{context}_i), \qquad \text{context}_i \subseteq \{y, x_1, \ldots, x_{i-1}\}

    Latent sites, supports, plates and dependencies are read off the program. Sites are sampled in the order of a faithful inverse of its
    graph, each given what its posterior depends on. Continuous ones have conditional flows through their support's bijection,
    neighbours in the order a common one; discrete ones have autoregressive categorical laws, open-ended counts with a geometric tail.
    A site in a plate is amortized over units; one outside sees the plate's units as a set. Sites that nothing observed depends on are
    drawn from the program itself.

    Args:
        model: a Pyro program.
        observed: the sites whose values may be evidence; those with ``obs=`` by default.
        embed: observed site to an ``nn.Module`` from ``(batch,) + event_shape`` to ``(batch, size)``, which sees values as they are;
            or to ``"vector"``, ``"image"`` or ``"sequence"``, where the shape alone would mislead
            (:func:`causalppl.networks.embedding_for`).
        flow: ``"spline"``, ``"gaussian"``, ``"autoregressive"``, or a callable of features and context
            (:class:`causalppl.networks.ConditionalFlow`).
        arbitrary_evidence: whether one guide answers for every subset of the observed sites, and of the units of each; training then
            shows random parts of the data.
        width: of the networks.
        seed: fixes the initial weights and all simulations; ``None`` takes one from torch's generator.

    Called with the program's arguments it returns a :class:`~causalppl.guides.amortized.Guide`, with initial weights: ``fit`` it. Networks
    see values of sites only; the program's arguments, covariates say, are those of this call unless they are sites.

    Raises:
        UnknownSiteError: ``observed`` or ``embed`` names no site.
        MethodError: nothing is observed or latent, a plate is subsampled, or a latent site has no law that a network can have.

    References:
        Kyle Cranmer, Johann Brehmer, Gilles Louppe (2020), The frontier of simulation-based inference.
        https://arxiv.org/abs/1911.01429
        Tuan Anh Le, Atılım Güneş Baydin, Frank Wood (2017), Inference Compilation and Universal Probabilistic Programming.
        https://arxiv.org/abs/1610.09900

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(z, 1.0))
        >>> guide = cp.AmortizedGuide(model, observed=["y"], flow="gaussian", seed=0)()
        >>> history = guide.fit(steps=300)
        >>> posterior = cp.abduct(model, {"y": 2.0}, method=guide, seed=0)()
        >>> abs(float(posterior.latents["z"].mean()) - 1.0) < 0.15
        True
    """

    model: Program
    observed: Iterable[str] | None = None
    embed: Mapping[str, Any] = field(default_factory=dict)
    flow: str | Callable[[int, int], nn.Module] = "spline"
    arbitrary_evidence: bool = True
    width: int = 64
    seed: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.observed, str):
            raise MethodError(
                f"observed={self.observed!r}: give a list of sites, [{self.observed!r}]"
            )
        if isinstance(self.flow, str) and self.flow not in FLOWS:
            raise MethodError(
                f"flow={self.flow!r} is not known; it can be one of {site_list(FLOWS)}, or a callable of features and context"
            )
        if not isinstance(self.width, int) or self.width < 1:
            raise MethodError(f"width={self.width!r}: give a positive integer")

    def __call__(self, *args: Any, **kwargs: Any) -> Guide:
        """The guide for the program with these arguments."""
        seed = fresh_seed(self.seed)
        reading = Reading(self.model, args, kwargs, self.observed, self.arbitrary_evidence, seed)
        for name in self.embed:
            if name not in reading.observed:
                near = closest_name(name, reading.observed)
                raise UnknownSiteError(
                    f"embed: {name!r} is no observed site; these are {site_list(reading.observed)}"
                    + (f"; did you mean {near!r}?" if near else "")
                )
        return Guide(self, reading, seed)

    @staticmethod
    def load(
        path: str | PathLike[str],
        model: Program,
        *args: Any,
        embed: Mapping[str, Any] | None = None,
        flow: str | Callable[[int, int], nn.Module] | None = None,
        **kwargs: Any,
    ) -> Guide:
        """Read a guide that :meth:`Guide.save` wrote.

        Args:
            path: the file. It holds numbers and text only.
            model: the program.
            args: its arguments; those in the file by default.
            embed: networks of one's own, for the sites that had one; their weights are in the file.
            flow: a callable of one's own, where there was one.

        Raises:
            GuideMismatchError: the guide is for another program; the message says what differs.
            ProgramError: the file holds no guide.
        """
        from .file import read_guide  # builds a guide, and so knows this module

        return read_guide(path, model, args, kwargs, embed, flow)


class Guide:
    """A guide for one program and any evidence on its observed sites: a proposal for ``cp.abduct``, and a Pyro guide.

    Called with the program's arguments, as Pyro's inference does, it samples what is latent in the program given the values that
    the program's ``obs=`` sites have then, or given the evidence of :meth:`given`.

    Attributes:
        builder: what it was made by.
        reading: what it knows of the program.
        network: its networks.
        history: how it was trained, the last time; ``None`` before.
        seed: of the initial weights and the simulations.
    """

    def __init__(self, builder: AmortizedGuide, reading: Reading, seed: int) -> None:
        self.builder, self.reading, self.seed = builder, reading, seed
        self.history: History | None = None
        self._evidence: dict[str, Any] | None = None
        units = max((s.value.numel() for s in reading.form.sites.values()), default=1)
        rows = max(256, min(_SCALES, 40_000_000 // max(units, 1)))
        values = simulated(reading.form, rows, "scales")
        refuse_moving_supports(reading, values)
        supports = supports_of(reading.form.sites)
        with isolated_rng(keyed_seed(seed, "weights")):
            self.network = PosteriorNetwork(
                reading, values, supports, builder.embed, builder.flow, builder.width
            )
        groups: dict[tuple[str, ...], list[str]] = {}
        for name in reading.observed:
            groups.setdefault(reading.shapes[name].plates, []).append(name)
        self.familiar = nn.ModuleList(
            Familiar(reading.shapes, values, tuple(names)) for names in groups.values()
        )

    def __repr__(self) -> str:
        trained = "not trained" if self.history is None else self.history.reason()
        return (
            f"Guide(for {site_list(self.reading.latent)} given any of {site_list(self.observed)}; {trained})"
            if self.builder.arbitrary_evidence
            else f"Guide(for {site_list(self.reading.latent)} given {site_list(self.observed)}; {trained})"
        )

    @property
    def observed(self) -> tuple[str, ...]:
        """The sites whose values may be evidence."""
        return self.reading.observed

    @property
    def latent(self) -> tuple[str, ...]:
        """The sites that the networks have laws for and that are never evidence, in the order of sampling."""
        return self.reading.latent

    # --- Training -------------------------------------------------------------------------------------------------

    def fit(
        self,
        steps: int = 2000,
        objective: str = "forward_kl",
        *,
        data: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        particles: int = 10,
        learning_rate: float = 2e-3,
        schedule: str | Callable[[float], float] = "cosine",
        clip_norm: float | None = 10.0,
        check_every: int = 100,
        patience: int = 10,
        checkpoint: str | PathLike[str] | None = None,
        seed: int | None = None,
        progress: bool | Progress = False,
    ) -> History:
        r"""Train the networks; a second call goes on from where the first ended.

        ``"forward_kl"`` (neural posterior estimation): simulations of the program, fresh in every step and drawn in bulk. Nothing has to be
        reparametrised, and discrete sites are no different.

        .. math:: \min_q \; E_{p(x, y)}\left[-\log q(x \mid y_{\text{shown}})\right]

        ``"elbo"``: on data, by reparametrised draws of continuous latents, learning the program's own parameters too.

        ``"rws"`` (reweighted wake-sleep): on data, by self-normalised weights of ``particles`` draws, learning the program's own
        parameters too; every second step the networks learn from simulations of the program as it is by then.

        Args:
            steps: at most so many.
            objective: ``"forward_kl"``, ``"elbo"`` or ``"rws"``.
            data: for the last two: observed site to values, units first. In a program without plates a unit is a run of it. In one whose
                observed sites share a plate, it runs for as many units at a time as the plate has; with latent sites outside the
                plate, the data are exactly these. NaN where a unit's value is missing.
            batch_size: runs in a step; by default as many as make about 256 units.
            particles: draws for each datum in ``"elbo"`` and ``"rws"``.
            learning_rate, schedule, clip_norm, check_every, patience, checkpoint, progress: see :func:`causalppl.training.train`.
            seed: an integer; the guide's own by default, so that training is reproducible.

        Returns:
            :class:`~causalppl.training.History`; its monitor ``"ess"`` is the effective share of draws, among ``particles`` or 100, on
            held-out runs.

        Raises:
            MethodError: an objective that does not fit the program or the data.
            TrainingError: the loss is not finite; the weights are the last finite ones.

        References:
            George Papamakarios, Iain Murray (2016), Fast epsilon-free Inference of Simulation Models with Bayesian Conditional Density
            Estimation. https://arxiv.org/abs/1605.06376
            Jörg Bornschein, Yoshua Bengio (2015), Reweighted Wake-Sleep. https://arxiv.org/abs/1406.2751
        """
        own = self.seed if seed is None else fresh_seed(seed)
        if seed is None and self.history is not None and checkpoint is None:
            own = keyed_seed(own, "again", self.history.steps)  # other simulations than before
        task = objective_for(self, objective, data, batch_size, particles, own)
        self.history = train(
            task.loss,
            task.modules,
            steps=steps,
            learning_rate=learning_rate,
            schedule=schedule,
            clip_norm=clip_norm,
            held_out=task.held_out,
            check_every=check_every,
            patience=patience,
            checkpoint=checkpoint,
            monitors=task.monitors,
            seed=own % 2**31,
            progress=progress,
            name=f"guide ({objective})",
        )
        return self.history

    # --- Draws ----------------------------------------------------------------------------------------------------

    def sample(
        self, evidence: Mapping[str, Any], num_samples: int = 1000, seed: int | None = None
    ) -> dict[str, Tensor]:
        """Draws of the guide itself, not corrected: one forward pass, without a run of the program.

        Args:
            evidence: observed site to value in the site's shape; a site that is left out is unknown.
            num_samples: number of draws.
            seed: an integer; ``None`` takes one from torch's generator.

        Returns:
            site to draws, ``(num_samples,) + site shape``.

        Raises:
            GuideMismatchError: evidence on a site that is not among the observed ones.
            ShapeError: a value that does not fit its site.
        """
        found = evidence_from(self, evidence)
        values, _ = self.draw(found, num_samples, keyed_seed(fresh_seed(seed), "guide"))
        return {
            n: v
            for n, v in values.items()
            if n not in found.known or not bool(found.known[n].all())
        }

    @torch.no_grad()
    def draw(
        self,
        evidence: Evidence,
        samples: int,
        seed: int,
        dtypes: Mapping[str, torch.dtype] | None = None,
        inside: frozenset[str] = frozenset(),
        each: int = 1,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Draws given one row of evidence and each head's log density, in as many passes as memory asks for.

        See :meth:`~causalppl.guides.posterior_network.PosteriorNetwork.draw`.
        """
        form = self.reading.form
        kinds = {n: s.value.dtype for n, s in form.sites.items()} | dict(dtypes or {})
        size = each * torch.Size(evidence.sizes.values()).numel()
        at_once = max(1, _ELEMENTS // max(size, 1))
        parts = []
        with isolated_rng(seed):
            for begin in range(0, samples, at_once):
                count = min(at_once, samples - begin)
                parts.append(self.network.draw(evidence, count, kinds, inside, each))
        if len(parts) == 1:
            return parts[0]
        values = {n: torch.cat([v[n] for v, _ in parts]) for n in parts[0][0]}
        return values, [torch.cat([q[i] for _, q in parts]) for i in range(len(parts[0][1]))]

    def unusual(self, evidence: Evidence) -> list[Unusual]:
        """What of one row of evidence hardly any simulation is like."""
        found = [f.check(evidence.values, evidence.known) for f in self.familiar]  # type: ignore[operator]
        return [f for f in found if f is not None]

    # --- A guide of Pyro's ----------------------------------------------------------------------------------------

    def given(self, evidence: Mapping[str, Any]) -> Guide:
        """The same guide, networks included, as a Pyro guide for this evidence in place of the program's ``obs=``."""
        found = copy.copy(self)
        found._evidence = dict(evidence)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample what is latent, by ``pyro.sample``; see the class."""
        return run_guide(self, args, kwargs)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the networks and what identifies the program. The file holds numbers and text and no code."""
        from .file import write_guide

        write_guide(path, self)
