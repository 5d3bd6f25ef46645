"""Quitting smoking and gaining weight: 1,566 people of a follow-up study, 1971 to 1982.

Did those who quit gain weight because of it? The people are the cigarette smokers of the NHANES I
Epidemiologic Follow-up Study (NHEFS). ``quit`` is 1 for those who had stopped smoking by the
follow-up visit; ``weight_gain`` is the change of weight from 1971 to 1982, in kg. What both may
depend on was recorded in 1971 and enters as the program's argument, one row per person and one
column per name in :data:`COLUMNS`::

    covariates --> quit --> weight_gain
        \\-------------------^

    quit_i        ~ Bernoulli(logits = quit_intercept + c_i . quit_slopes)
    weight_gain_i ~ Normal(gain_intercept + c_i . gain_slopes + quit_i (effect + m_i . effect_slopes), gain_scale)

where m_i are the columns in :data:`MODIFIERS`: quitting may do more to a heavy smoker than to a
light one. The covariates are the nine that the book adjusts for, those it squares squared here too.
That these suffice (no unmeasured confounding) is an assumption that no data can check, and so is
that the 63 people of the original 1,629 whose weight of 1982 is missing can be left out.

There is no exact answer; :data:`PUBLISHED` has the book's. Quitters gained 2.54 kg more than
others, but they were older, and older people gain less: adjusted, the average effect is 3.4 to 3.5
kg. The effect among those who kept smoking (what they would have gained) is another estimand, to be
reported apart.

Source: Hernan and Robins (2020), Causal Inference: What If, chapters 12 (IP weighting) and 13
(standardisation). Data: the ``causaldata`` package, ``nhefs_complete``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["COLUMNS", "Estimate", "MODIFIERS", "PUBLISHED", "data", "design", "model", "people"]


class Estimate(NamedTuple):
    """An average effect of quitting on weight gain, in kg, with its 95% interval."""

    value: float
    low: float
    high: float


PUBLISHED = {
    "unadjusted": 2.54,  # kg, the difference of the two means
    "ip_weighting": Estimate(3.4, 2.4, 4.5),
    "standardisation": Estimate(3.5, 2.6, 4.5),
}

#: Quantities enter as z = (value - centre) / spread and, as curves, (z^2 - skew z - 1) / 1.5: near uncorrelated
#: with each other over these people. Round constants, not this sample's moments, so that a new person's row
#: can be written down alone.
QUANTITIES = {  # name: centre, spread, skew
    "age": (44.0, 12.0, 0.25),  # years
    "smokeintensity": (20.0, 12.0, 0.75),  # cigarettes a day
    "smokeyrs": (25.0, 12.0, 0.35),  # years of smoking
    "wt71": (71.0, 15.0, 0.8),  # kg
}

#: Yes or no, as (column of the data, its value for "yes", share of "yes" to centre at).
INDICATORS = {
    "female": ("sex", 1, 0.5),
    "not_white": ("race", 1, 0.15),
    "left_high_school": ("education", 2, 0.2),  # against 8th grade or less
    "high_school": ("education", 3, 0.4),
    "left_college": ("education", 4, 0.1),
    "college": ("education", 5, 0.1),
    "moderate_exercise": ("exercise", 1, 0.4),  # in recreation, against much
    "little_exercise": ("exercise", 2, 0.4),
    "moderately_active": ("active", 1, 0.45),  # on a usual day, against very
    "inactive": ("active", 2, 0.1),
}

COLUMNS = (*INDICATORS, *QUANTITIES, *(f"{name}_squared" for name in QUANTITIES))

#: The columns with which the effect of quitting may vary.
MODIFIERS = ("female", *QUANTITIES)


def model(covariates: torch.Tensor) -> torch.Tensor:
    """Quitting and weight gain of the people whose 1971 records are the rows of ``covariates``.

    Args:
        covariates: ``(people, len(COLUMNS))``, as :func:`design` makes them.

    Returns:
        The site ``weight_gain``, in kg, shape ``(people,)``.
    """
    people, columns = covariates.shape
    modifiers = covariates[:, [COLUMNS.index(name) for name in MODIFIERS]]

    # A column's unit is a spread or a yes: weakly informative on the scale of log-odds and of kg.
    quit_intercept = pyro.sample("quit_intercept", dist.Normal(0.0, 2.0))
    quit_slopes = pyro.sample("quit_slopes", dist.Normal(0.0, 1.0).expand([columns]).to_event(1))
    gain_intercept = pyro.sample("gain_intercept", dist.Normal(0.0, 10.0))
    gain_slopes = pyro.sample("gain_slopes", dist.Normal(0.0, 5.0).expand([columns]).to_event(1))
    effect = pyro.sample("effect", dist.Normal(0.0, 10.0))
    slopes_prior = dist.Normal(0.0, 2.0).expand([len(MODIFIERS)]).to_event(1)
    effect_slopes = pyro.sample("effect_slopes", slopes_prior)
    gain_scale = pyro.sample("gain_scale", dist.HalfNormal(10.0))

    with pyro.plate("people", people):
        quit = pyro.sample("quit", dist.Bernoulli(logits=quit_intercept + covariates @ quit_slopes))
        gain_if_smoking = gain_intercept + covariates @ gain_slopes
        gain = gain_if_smoking + quit * (effect + modifiers @ effect_slopes)
        return pyro.sample("weight_gain", dist.Normal(gain, gain_scale))


def people() -> DataFrame:
    """The 1,566 people with complete records: the data's own columns, all numbers."""
    from causaldata import nhefs_complete

    return nhefs_complete.load_pandas().data.astype(float)


def design(records: DataFrame) -> torch.Tensor:
    """The program's argument for people whose records have the data's own columns.

    Args:
        records: columns ``age`` (years), ``smokeintensity`` (cigarettes a day), ``smokeyrs`` (years),
            ``wt71`` (kg), and the codes ``sex`` (1 female), ``race`` (1 not white), ``education``
            (1 to 5), ``exercise`` and ``active`` (0 to 2).

    Returns:
        Shape ``(len(records), len(COLUMNS))``, in the default dtype.
    """
    columns = [(records[source] == yes) - share for source, yes, share in INDICATORS.values()]
    scores = [(records[name] - centre) / spread for name, (centre, spread, _) in QUANTITIES.items()]
    skews = [skew for _, _, skew in QUANTITIES.values()]
    curves = [(z**2 - skew * z - 1) / 1.5 for z, skew in zip(scores, skews, strict=True)]
    table = np.stack([np.asarray(c, dtype=float) for c in (*columns, *scores, *curves)], axis=-1)
    return torch.as_tensor(table, dtype=torch.get_default_dtype())


def data() -> tuple[tuple[torch.Tensor], dict[str, torch.Tensor]]:
    """The people's records of 1971, and what happened to them by 1982."""
    records = people()
    observed = {"quit": records["qsmk"], "weight_gain": records["wt82_71"]}
    dtype = torch.get_default_dtype()
    evidence = {site: torch.tensor(v.to_numpy(), dtype=dtype) for site, v in observed.items()}
    return (design(records),), evidence
