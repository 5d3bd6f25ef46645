"""Fitting a program's own parameters: by maximum likelihood, or by the evidence lower bound where something is latent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ..errors import InferenceWarning, MethodError, warn_caller
from ..progress import Progress
from ..structural.noise import fresh_seed, isolated_rng, keyed_seed
from ..structural.state import reachable
from ..training import History, saved_seed, train
from ..typing import Program
from .batches import batches_from
from .fit_objective import Objective

__all__ = ["Fit", "fit"]


@dataclass(frozen=True)
class Fit:
    """A program whose parameters were learned; they are in the program's own modules and in Pyro's store.

    Attributes:
        model: the program, ready for ``cp.abduct`` and all else.
        guide: the guide that was given, trained; ``None`` without one.
        history: loss and learning rate of every step, see :class:`causalppl.training.History`. The loss is minus the log likelihood,
            or minus its bound, in nats for each unit of the plates that the observed sites share.
        parameters: the learned values by name, constrained, shapes as in the program.
        method: ``"maximum likelihood"`` or ``"evidence lower bound"``.
        why: the reason, and what was done with what is latent.
    """

    model: Program
    guide: Program | None
    history: History
    parameters: dict[str, Tensor] = field(repr=False)
    method: str
    why: str


def fit(
    model: Program,
    data: Any = None,
    guide: Program | None = None,
    *,
    steps: int = 10_000,
    batch_size: int | None = None,
    plate: str | None = None,
    learning_rate: float = 0.01,
    schedule: str | Callable[[float], float] = "settle",
    clip_norm: float | None = 10.0,
    held_out: float = 0.0,
    check_every: int = 100,
    patience: int = 10,
    num_particles: int = 1,
    checkpoint: str | PathLike[str] | None = None,
    monitors: Callable[[], Mapping[str, float]] | None = None,
    seed: int | None = None,
    progress: bool | Progress = False,
) -> Callable[..., Fit]:
    r"""Learn a program's own parameters: ``pyro.param`` and the parameters of the networks that it uses.

    Maximum likelihood where nothing is latent; finite latents are summed out; otherwise the evidence lower bound,

    .. math:: \max_\theta \log p_\theta(\text{data}) \ge \max_{\theta, q} E_q[\log p_\theta(\text{latents}, \text{data}) - \log q]

    with the guide that is given, or with normal approximations of the latents, which the result's ``why`` describes. The parameters are
    changed in place, in the modules and in Pyro's store, and nothing else is. Those with ``requires_grad=False`` stay as they are.

    Args:
        model: a Pyro program.
        data: site to values, as evidence in ``cp.abduct``: NaN entries are missing (left out where nothing depends on them, else
            latent). Or a data frame whose columns are sites; or a torch dataset whose items are mappings, or a ``DataLoader`` of one,
            where a name may be that of an argument of the program too. ``obs=`` sites are data already.
        guide: a Pyro guide, called with the program's arguments, whose parameters are learned with the program's. Finite latents that
            it leaves out are summed out by Pyro's parallel enumeration, for which the program has to broadcast.
        steps: at most so many.
        batch_size: units in each step; all data in each step where it is ``None``. Arrays may be memory-mapped files: each step reads
            its rows alone. Data have their units first, and so have the arguments of the program, which are cut where they are arrays
            of as many rows. The plate of the units either has the length of its batch, or is cut to the same units.
        plate: the plate of the units, where several plates have their number.
        learning_rate: of Adam.
        schedule: see :func:`causalppl.training.train`; ``"settle"`` ends by itself.
        clip_norm: the largest norm of the gradient of the loss.
        held_out: the share of units that is not trained on; the parameters with the lowest loss on it are kept. It needs ``batch_size``.
        check_every, patience, checkpoint, monitors: see :func:`causalppl.training.train`.
        num_particles: draws of the guide in each step.
        seed: an integer; ``None`` takes one from torch's generator. With a seed, that generator is left untouched.
        progress: ``True`` draws a bar.

    Returns:
        a callable that takes the program's own arguments and returns a :class:`Fit`.

    Raises:
        UnknownSiteError, EvidenceError, ShapeError, SupportError: data that do not fit the program.
        MethodError: nothing to learn, latents that need a guide, or data that cannot be cut.
        GuideMismatchError: the guide's sites are not the program's latent sites.
        TrainingError: a loss that is not finite.

    Warns:
        InferenceWarning: with ``schedule="settle"``, the loss had not settled.

    References:
        Diederik Kingma, Max Welling (2014), Auto-Encoding Variational Bayes. https://arxiv.org/abs/1312.6114
        Arthur Dempster, Nan Laird, Donald Rubin (1977), Maximum Likelihood from Incomplete Data via the EM Algorithm.
        https://doi.org/10.1111/j.2517-6161.1977.tb01600.x

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model():
        ...     rate = pyro.param("rate", torch.tensor(1.0), constraint=dist.constraints.positive)
        ...     with pyro.plate("visits", 4):
        ...         pyro.sample("wait", dist.Exponential(rate))
        >>> found = cp.fit(model, {"wait": [1.0, 2.0, 3.0, 2.0]}, seed=0)()
        >>> round(float(found.parameters["rate"]), 3)
        0.5
    """
    if guide is not None and not callable(guide):
        raise MethodError(f"fit: guide={guide!r} is no Pyro guide; give a callable, or None")
    if not isinstance(num_particles, int) or num_particles < 1:
        raise MethodError(f"fit: num_particles={num_particles!r}; give a positive integer")
    if not 0 <= held_out < 1:
        raise MethodError(f"fit: held_out={held_out!r}; give a share of the units, such as 0.1")

    def run(*args: Any, **kwargs: Any) -> Fit:
        own_seed = fresh_seed(saved_seed(checkpoint) if seed is None else seed)
        arguments = [*args, *kwargs.values()]
        batches = batches_from(data, batch_size, arguments, held_out, own_seed)
        with torch.inference_mode(False), isolated_rng(keyed_seed(own_seed, "fit")):
            found = Objective(
                model,
                guide,
                batches,
                args,
                kwargs,
                plate=plate,
                particles=num_particles,
                seed=own_seed,
            )
            trained = _trained(found, model, guide, args, kwargs)
            history = train(
                found.loss,
                trained,
                steps=steps,
                learning_rate=learning_rate,
                schedule=schedule,
                clip_norm=clip_norm,
                held_out=found.held_out if held_out else None,
                check_every=check_every,
                patience=patience,
                checkpoint=checkpoint,
                monitors=monitors,
                seed=own_seed,
                progress=progress,
                name="fit",
            )
        if schedule == "settle" and history.stopped == "steps":
            warn_caller(
                f"fit: the loss had not settled after {steps} steps; raise steps or learning_rate, or give another schedule",
                InferenceWarning,
            )
        return Fit(model, guide, history, _values(found, trained), found.method, found.why)

    return run


def _trained(
    found: Objective, model: Program, guide: Program | None, args: Any, kwargs: Any
) -> dict[str, nn.Module | Tensor]:
    """Everything that the program, the guide and the bound have to learn, by name; nothing twice."""
    trained: dict[str, nn.Module | Tensor] = {}
    inside: set[int] = set()
    for module in reachable([model, guide, args, kwargs]):
        own = [p for p in module.parameters() if p.requires_grad]
        if all(id(p) in inside for p in own):
            continue
        inside |= {id(p) for p in own}
        name = base = type(module).__name__
        count = 1
        while name in trained:
            count += 1
            name = f"{base}_{count}"
        trained[name] = module
    for name, param in found.params.items():
        if id(param) not in inside:
            trained[name] = param
    return trained | {f"approximation of the latents: {n}": t for n, t in found.tensors.items()}


def _values(found: Objective, trained: Mapping[str, nn.Module | Tensor]) -> dict[str, Tensor]:
    """What the user calls parameters: those in the store, constrained, and those of networks that are not there."""
    store = pyro.get_param_store()
    values = {n: store[n].detach().clone() for n in found.params if n in store}
    known = {id(p) for p in found.params.values()}
    for name, part in trained.items():
        if isinstance(part, nn.Module):
            for own, parameter in part.named_parameters():
                if id(parameter) not in known:
                    values[f"{name}.{own}"] = parameter.detach().clone()
    return values
