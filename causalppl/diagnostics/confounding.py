"""How strong a hidden confounder would have to be to change the conclusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..effects import average_treatment_effect, dose_response
from ..effects.problem import number
from ..errors import MethodError
from ..inference import Method
from ..query.estimate import Estimate
from ..structural.form import StructuralForm
from ..structural.noise import fresh_seed
from ..structural.units import unit_plates
from ..typing import Program, Values
from .altered import unit_normal, with_cause

__all__ = ["ConfoundingSensitivity", "confounding_sensitivity", "e_value", "robustness_value"]

CONFOUNDER = "hidden confounder"


def e_value(risk_ratio: float) -> float:
    r"""The least risk ratio that a confounder would need with treatment and with outcome to explain a risk ratio away.

    .. math:: E = RR + \sqrt{RR (RR - 1)}, \quad RR \ge 1 \text{ (its inverse otherwise)}

    Raises:
        MethodError: no positive number.

    References:
        T. J. VanderWeele, P. Ding (2017), Sensitivity Analysis in Observational Research: Introducing the E-Value.

    Example:
        >>> round(e_value(3.9), 2)  # their example: maternal breastfeeding
        7.26
    """
    if not risk_ratio > 0:
        raise MethodError(f"e_value: {risk_ratio!r} is no risk ratio; give a positive number")
    ratio = max(risk_ratio, 1 / risk_ratio)
    return math.inf if math.isinf(ratio) else ratio + math.sqrt(ratio * (ratio - 1))


def robustness_value(t: float, freedom: float, q: float = 1.0) -> float:
    r"""The partial R2 that a confounder would need with both treatment and outcome to take a share q off an effect.

    .. math:: RV_q = \tfrac12 \left(\sqrt{f_q^4 + 4 f_q^2} - f_q^2\right), \quad f_q = q |t| / \sqrt{df}

    Args:
        t: the effect over its standard error.
        freedom: residual degrees of freedom.
        q: 1 for all of it.

    References:
        C. Cinelli, C. Hazlett (2020), Making sense of sensitivity: extending omitted variable bias.

    Example:
        >>> round(robustness_value(4.18, 783), 3)  # their example: violence in Darfur
        0.139
    """
    f2 = q**2 * t**2 / freedom
    return 0.5 * (math.sqrt(f2**2 + 4 * f2) - f2)


@dataclass(frozen=True)
class ConfoundingSensitivity:
    """How an effect stands up to hidden confounding.

    Attributes:
        effect: the average effect as the program has it.
        risk_ratio: of the outcome, or what a standardised difference of means amounts to, exp(.91 d), for one that is not binary.
        e_value: of that ratio, and
        e_value_limit: of the end of its 95% interval that is nearer to 1; 1 where the interval has 1 inside.
        partial_r2: share of the outcome's residual variance that the treatment explains.
        robustness_value: the partial R2 that a confounder would need with both to explain the effect away.
        by_strength: strength to the effect that the program finds when a hidden confounder of that strength is added to it.
        tipping_point: the least strength tried at which the 95% interval of the effect has 0 inside; infinite where none does.
    """

    effect: Estimate
    risk_ratio: float
    e_value: float
    e_value_limit: float
    partial_r2: float
    robustness_value: float
    by_strength: Mapping[float, Estimate]
    tipping_point: float


def confounding_sensitivity(
    model: Program,
    data: Values,
    *,
    treatment: str,
    outcome: str,
    treated: float = 1.0,
    control: float = 0.0,
    strengths: Sequence[float] = (0.5, 1.0, 2.0),
    method: Method | None = None,
    num_samples: int = 1_000,
    seed: int | None = None,
) -> Callable[..., ConfoundingSensitivity]:
    r"""What a hidden confounder would have to be like to change the conclusion: E-value, partial R2 and tipping point.

    For each strength s a latent :math:`U_i \sim N(0, 1)` is added to the program and everything is learnt anew. One standard deviation of U
    moves the treatment by s (log odds of a binary one, standard deviations of the data otherwise) and the outcome by s (likewise), in the
    direction that works against the effect.

    Args:
        model: a Pyro program whose units stand in a plate and whose parameters learn from data.
        data: site to values, as evidence.
        treatment, outcome: names of sites.
        treated, control: the two values of the treatment.
        strengths: of the confounders that are tried.
        method: an inference method.
        num_samples: posterior draws.
        seed: an integer; ``None`` takes one from torch's generator.

    Returns:
        a callable that takes the program's own arguments and returns a :class:`ConfoundingSensitivity`.

    Raises:
        MethodError: the effect does not depend on the data, or a site cannot be moved.

    References:
        T. J. VanderWeele, P. Ding (2017), Sensitivity Analysis in Observational Research: Introducing the E-Value.
        C. Cinelli, C. Hazlett (2020), Making sense of sensitivity: extending omitted variable bias.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model(n):
        ...     b = pyro.sample("b", dist.Normal(0.0, 5.0))
        ...     with pyro.plate("units", n):
        ...         t = pyro.sample("t", dist.Bernoulli(0.5))
        ...         pyro.sample("y", dist.Normal(b * t, 1.0))
        >>> t = torch.arange(40) % 2.0
        >>> data = {"t": t, "y": 2.0 * t + torch.randn(40, generator=torch.Generator().manual_seed(0))}
        >>> ask = cp.diagnostics.confounding_sensitivity(model, data, treatment="t", outcome="y", strengths=[], seed=0)
        >>> ask(40).e_value > 3
        True
    """
    verb = "confounding_sensitivity"
    one, zero = number(verb, "treated", treated), number(verb, "control", control)
    tried = sorted(number(verb, "strengths", s) for s in strengths)

    def run(*args: Any, **kwargs: Any) -> ConfoundingSensitivity:
        own_seed = fresh_seed(seed)
        form = StructuralForm(model, args, kwargs, data, own_seed)
        sites: dict[str, Any] = {"treatment": treatment, "outcome": outcome}
        given: dict[str, Any] = {
            **sites,
            "evidence": data,
            "method": method,
            "num_samples": num_samples,
            "seed": own_seed,
            "over": "population",
        }

        def effect_of(program: Program) -> Estimate:
            ask = average_treatment_effect(program, treated=one, control=zero, **given)
            return ask(*args, **kwargs)

        effect = effect_of(model)
        if effect.draws is None:
            raise MethodError(
                f"{verb}: the effect depends on no parameter that learns from the data, so there is no conclusion to doubt"
            )
        curve = dose_response(model, doses=[zero, one], **given)(*args, **kwargs)
        ratios = _risk_ratios(form, outcome, curve)
        low, high = np.quantile(ratios, [0.025, 0.975])
        middle = float(np.mean(ratios))
        limit = 1.0 if low <= 1 <= high else float(low if low > 1 else high)
        t = float(effect) / float(np.std(effect.draws))
        units = form.sites[outcome].value.numel()
        freedom = max(1.0, units - len(form.dependencies.parents[outcome]) - 1.0)
        by_strength = {
            s: effect_of(_confounded(form, treatment, outcome, s, float(effect))) for s in tried
        }
        tipping = next((s for s, e in by_strength.items() if _has_zero(e)), math.inf)
        return ConfoundingSensitivity(
            effect,
            middle,
            e_value(middle),
            e_value(limit),
            t**2 / (t**2 + freedom),
            robustness_value(t, freedom),
            by_strength,
            0.0 if _has_zero(effect) else tipping,
        )

    return run


def _has_zero(estimate: Estimate) -> bool:
    low, high = estimate.interval
    return bool(low <= 0 <= high)


def _risk_ratios(form: StructuralForm, outcome: str, curve: Estimate) -> Any:
    """Draws of the risk ratio, or of what a standardised mean difference amounts to."""
    assert curve.draws is not None
    before, after = curve.draws[:, 0], curve.draws[:, 1]
    site = form.sites[outcome]
    binary = getattr(site.fn, "support", None) is torch.distributions.constraints.boolean
    if binary:
        return after / np.maximum(before, 1e-12)
    return np.exp(0.91 * (after - before) / float(site.value.double().std()))


def _confounded(
    form: StructuralForm, treatment: str, outcome: str, strength: float, effect: float
) -> Program:
    """The program with a hidden cause of treatment and outcome that accounts for a part of the effect."""
    plates = unit_plates(form)
    plate = next((f for f in form.sites[treatment].frames if f.name in plates), None)
    if plate is None:
        raise MethodError(
            f"confounding_sensitivity: {treatment!r} stands in no plate of units, so there is nobody to confound"
        )

    def unit(name: str) -> float:
        site = form.sites[name]
        if getattr(site.fn, "support", None) is torch.distributions.constraints.boolean:
            return 1.0
        return float(site.value.double().std()) or 1.0

    factors = {
        treatment: strength * unit(treatment),
        outcome: math.copysign(strength * unit(outcome), effect),
    }
    return with_cause(form.model, unit_normal(CONFOUNDER, plate), lambda: factors)
