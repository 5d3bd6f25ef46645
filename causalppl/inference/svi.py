"""Stochastic variational inference: a guide trained by the ELBO, judged and corrected by importance weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ..errors import InferenceWarning, MethodError, site_list, warn_caller
from ..progress import Progress
from ..structural.form import ROW, StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from ..structural.sites import site_kind
from ..training import History
from ..typing import Message, Program
from .gaussian_fit import fit_gaussian, settled
from .guide_proposal import GuideProposal
from .importance import Weighed, chosen_rows, weighed_guide
from .posterior_draws import PosteriorDraws, is_subsampled, method_from, stacked
from .weights import resample

__all__ = ["SVI"]

_NAMED = ("auto_normal", "auto_multivariate_normal")


@dataclass(frozen=True)
class SVI:
    r"""Stochastic variational inference: the guide :math:`q` that maximises
    :math:`\operatorname{ELBO}(q) = E_q[\log p(\text{latents}, \text{evidence}) - \log q(\text{latents})]`.

    The trained guide is judged by importance weights of its draws. Where every k-hat is at most 0.7 the draws are corrected by
    them; otherwise they are the guide's own, with a warning.

    Every 200 steps the mean ELBO of the last 200 is compared with that of the 200 before. Where it has risen by less than twice the
    standard error of the difference, the learning rate is divided by ten; the third time, training ends. The history is in the
    result's notes. The program's own parameters are held at their present values, and the param store, the guide and the random
    generators are left as they were.

    Args:
        guide: ``"auto_normal"``: independent normals of all latents on the real line. ``"auto_multivariate_normal"``: a normal with
            a full covariance, of each unit where units are independent, else of all latents. Both sum finite discrete latents out.
            Or a Pyro guide of one's own; a copy is trained, from the values that its parameters have.
        steps: at most so many.
        learning_rate: of Adam, in the guide's unconstrained parameters.

    Where the program subsamples its plates, each step takes a minibatch, and the guide may be any of these; its draws are not weighed.

    Raises:
        MethodError: a program that the guide cannot serve.
        GuideMismatchError: the guide's sites are not the program's latent sites.
        TrainingError: the ELBO is not a number, or its gradient is not.

    Warns:
        InferenceWarning: k-hat above 0.7, or an ELBO that had not settled.

    References:
        Alp Kucukelbir, Dustin Tran, Rajesh Ranganath, Andrew Gelman, David Blei (2017), Automatic Differentiation Variational
        Inference. https://jmlr.org/papers/v18/16-107.html
        Yuling Yao, Aki Vehtari, Daniel Simpson, Andrew Gelman (2018), Yes, but Did It Work?: Evaluating Variational Inference.
        https://proceedings.mlr.press/v80/yao18a.html

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(z, 0.5), obs=torch.tensor(2.5))
        >>> posterior = cp.abduct(model, method=cp.SVI(), seed=0)()
        >>> abs(float(posterior.latents["z"].mean()) - 2.0) < 0.1
        True
    """

    guide: str | Program = "auto_normal"
    steps: int = 5000
    learning_rate: float = 0.02

    def __post_init__(self) -> None:
        if self.guide == "auto_delta":
            raise MethodError(
                "SVI: 'auto_delta' gives a point and no posterior; use 'auto_normal', or cp.ImportanceSampling('laplace')"
            )
        if method_from(self.guide) is not self.guide:
            raise MethodError(
                "SVI: this guide is amortized, and trains by guide.fit(objective='elbo', data=...); use method=guide, or "
                "cp.Amortized(guide, refine='tempered')"
            )
        if self.guide not in _NAMED and not callable(self.guide):
            raise MethodError(
                f"SVI: guide={self.guide!r} is not known; it can be one of {site_list(_NAMED)}, or a Pyro guide"
            )
        if not isinstance(self.steps, int) or self.steps < 1 or not self.learning_rate > 0:
            raise MethodError(
                f"SVI: steps={self.steps!r} and learning_rate={self.learning_rate!r}; both must be positive"
            )

    def sample(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        """See :class:`~causalppl.inference.Method`."""
        if not form.latent:
            raise MethodError("SVI: nothing is latent; use cp.Exact()")
        if isinstance(self.guide, str) and not is_subsampled(form):
            return self._gaussian(form, num_samples, progress)
        return self._pyro(form, num_samples, progress)

    def _gaussian(
        self, form: StructuralForm, num_samples: int, progress: Progress
    ) -> PosteriorDraws:
        full = self.guide == "auto_multivariate_normal"
        fit = fit_gaussian(
            form, full, self.steps, self.learning_rate, progress, f"SVI({self.guide})"
        )
        count = max(4000, 4 * num_samples)
        with torch.no_grad():
            vectors, log_q = fit.draw(count, keyed_seed(form.seed, "svi draws"))
            log_p = stacked(form.executor.map(fit.target.log_density, count, vectors))
            rows = {"vector": vectors}
            found = Weighed(rows, log_p - log_q, fit.target.units, fit.reason, "", "")
            chosen, draws = self._judged(form, found, num_samples, fit.training)
            return replace(draws, latents=fit.target.values(chosen["vector"]))

    def _judged(
        self, form: StructuralForm, found: Weighed, num_samples: int, training: History
    ) -> tuple[dict[str, Tensor], PosteriorDraws]:
        """Draws corrected by their weights where these can be trusted."""
        smooth, k_hat, ess = found.smoothed()
        trusted = bool((k_hat <= 0.7).all())
        if trusted:
            generator = torch.Generator().manual_seed(keyed_seed(form.seed, "resample"))
            rows = chosen_rows(form, found, resample(smooth, num_samples, generator))
        else:
            rows = {n: v[:num_samples] for n, v in found.rows.items()}
            bad = (
                f" for {int((k_hat > 0.7).sum())} of {k_hat.numel()} units"
                if found.units.dims
                else ""
            )
            warn_caller(
                f"SVI: the guide is no good stand-in for the posterior: k-hat is {float(k_hat.max()):.2f} (at most 0.7 is good){bad}; "
                "use a richer guide, cp.ImportanceSampling('laplace') or cp.NUTS()",
                InferenceWarning,
            )
        self._warn(training)
        scalar = not found.units.dims
        what = "corrected by their importance weights" if trusted else "not corrected"
        return rows, PosteriorDraws(
            {},
            num_samples,
            f"SVI({self.guide})" if isinstance(self.guide, str) else "SVI(guide)",
            f"draws of the trained guide, {what}; {found.reason}",
            float(ess) if scalar else ess,
            float(k_hat) if scalar else k_hat,
            unit_names=found.units.names,
            notes=(_note(training),),
            history=tuple(-v for v in training.loss),
        )

    @staticmethod
    def _warn(training: History) -> None:
        if training.stopped != "settled":
            warn_caller(
                f"SVI: the ELBO had not settled after {training.steps} steps; raise steps or learning_rate",
                InferenceWarning,
            )

    # --- Guides of Pyro -------------------------------------------------------------------------------------------

    def _pyro(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        partial = is_subsampled(form)
        model = _program(form, fixed=not partial)
        with _own_store(self.guide), isolated_rng(keyed_seed(form.seed, "svi")):
            guide = self._guide(model)
            with form.modules.restored():
                training = _train(model, guide, form, self.steps, self.learning_rate, progress)
            with torch.no_grad():
                values = {n: v.detach().clone() for n, v in pyro.get_param_store().items()}
                proposal = GuideProposal.of(guide, form, values)
                if partial:
                    return self._unweighed(proposal, num_samples, training)
                found = weighed_guide(proposal, max(4000, 4 * num_samples))
                rows, draws = self._judged(form, found, num_samples, training)
        return replace(draws, latents={n: rows[n] for n in form.latent})

    def _guide(self, model: Program) -> Program:
        from pyro.infer import autoguide

        if not isinstance(self.guide, str):
            if not isinstance(self.guide, nn.Module):
                return self.guide
            # an autoguide that is copied loses its model, and so does the copy
            autos = [m for m in self.guide.modules() if isinstance(m, autoguide.AutoGuide)]
            kept = [(m._model, m.master) for m in autos]
            found = copy.deepcopy(self.guide)
            for auto, (own, master) in zip(autos, kept, strict=True):
                auto._model, auto.master = own, master
            if isinstance(found, autoguide.AutoGuide):
                found._model = (model,)
            return found

        kinds = {
            "auto_normal": autoguide.AutoNormal,
            "auto_multivariate_normal": autoguide.AutoMultivariateNormal,
        }
        return kinds[self.guide](model)  # type: ignore[no-any-return]

    def _unweighed(
        self, proposal: GuideProposal, num_samples: int, training: History
    ) -> PosteriorDraws:
        self._warn(training)
        rows = proposal.draw(num_samples)
        return PosteriorDraws(
            {n: rows[n] for n in proposal.form.latent} | {ROW: rows[ROW]},
            num_samples,
            f"SVI({self.guide})" if isinstance(self.guide, str) else "SVI(guide)",
            "draws of the guide, trained on minibatches; not weighed, which would need all of the data",
            notes=(_note(training),),
            history=tuple(-v for v in training.loss),
        )


def _note(training: History) -> str:
    """First and last values, means over a tenth of the steps each, in words."""
    elbo = [-value for value in training.loss]
    tenth = max(1, len(elbo) // 10)
    parts = [elbo[i : i + tenth] for i in range(0, len(elbo), tenth)]
    shown = ", ".join(f"{sum(part) / len(part):.4g}" for part in parts)
    return f"ELBO in nats, averaged over each tenth of {len(elbo)} steps: {shown}" + (
        "" if training.stopped == "settled" else "; it had not settled"
    )


class _Evidence(Messenger):
    """The program with its evidence observed, and its parameters held where they are and hidden from training."""

    def __init__(self, form: StructuralForm, fixed: bool) -> None:
        super().__init__()
        self.form, self.fixed = form, fixed

    def _pyro_param(self, msg: Message) -> None:
        if msg["name"] in self.form.params:
            msg["value"], msg["done"], msg["stop"] = self.form.params[msg["name"]], True, True

    def _pyro_sample(self, msg: Message) -> None:
        form, name = self.form, msg["name"]
        if name in form.conditioned and site_kind(msg) == "sample":
            msg["value"], msg["is_observed"] = form.conditioned[name], True


def _program(form: StructuralForm, fixed: bool) -> Program:
    """What Pyro trains a guide for.

    Raises:
        MethodError: evidence that only methods of this library understand.
    """
    for name, site in form.sites.items():
        odd = (
            "a range is known"
            if site.interval is not None
            else "a part of which is missing"
            if site.missing is not None
            else "which is a function of others"
            if site.kind == "deterministic" and name in form.conditioned
            else None
        )
        if odd:
            raise MethodError(
                f"SVI: a Pyro guide cannot serve evidence on site {name!r}, of which {odd}"
                if odd == "a range is known"
                else f"SVI: a Pyro guide cannot serve evidence on site {name!r}, {odd}"
                + "; use a guide by name, 'auto_normal', or cp.NUTS()"
            )
    if not fixed and form.evidence:
        raise MethodError(
            f"SVI: evidence on {site_list(form.evidence)} is that of one minibatch; write it into the program, obs=data[indices]"
        )
    for name, site in form.latent.items():
        if site.discrete:
            raise MethodError(
                f"SVI: the latent site {name!r} is discrete; use a guide by name, which sums it out, or cp.ImportanceSampling(guide) "
                "with a guide that was trained on it"
            )

    def program(*args: Any, **kwargs: Any) -> Any:
        with _Evidence(form, fixed):
            return form.model(*args, **kwargs)

    return program


@contextmanager
def _own_store(guide: Any) -> Any:
    """A param store of one's own: empty for a guide by name, with copies of the present values for one of the user's."""
    store = pyro.get_param_store()
    state: Any = {"params": {}, "constraints": {}}
    if not isinstance(guide, str):
        now = store.get_state()
        copies = {n: p.detach().clone().requires_grad_(True) for n, p in now["params"].items()}
        state = {"params": copies, "constraints": dict(now["constraints"])}
    with store.scope(state):
        yield


def _train(
    model: Program,
    guide: Program,
    form: StructuralForm,
    steps: int,
    learning_rate: float,
    progress: Progress,
) -> History:
    """The guide's parameters, which show themselves as it runs."""
    from pyro.infer import Trace_ELBO

    loss_of: Callable[..., Tensor] = Trace_ELBO().differentiable_loss
    known: dict[str, Tensor] = {}

    def loss(step: int) -> Tensor:
        with pyro.poutine.trace(param_only=True) as capture:
            found = loss_of(model, guide, *form.args, **form.kwargs)
        nodes: Any = capture.trace.nodes
        known.update({name: site["value"].unconstrained() for name, site in nodes.items()})
        return found

    with torch.inference_mode(False), torch.no_grad():
        loss(0)
    if not known:
        raise MethodError(
            "SVI: the guide has no parameters to train; use cp.ImportanceSampling(guide)"
        )
    return settled(loss, known, form, steps, learning_rate, progress, "SVI")
