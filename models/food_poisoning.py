"""Food poisoning in a household: what made me sick, and what if we had washed the lettuce?

The lettuce or the chicken may be contaminated, washing makes lettuce safe, and each of us ate what we ate. Whoever ate something bad
falls sick if they are susceptible; a bug from elsewhere makes anybody sick too. For each person::

    lettuce_bad --> lettuce_infects --> poisoned --> sick <-- bug
    washed ---------^    salad ---------^    ^       ^
    chicken_bad -------- chicken -----------/        susceptible

Contamination has probability 1/10 for lettuce and 1/20 for chicken, susceptibility 8/10, the bug 1/50.

Saturday: nobody washed the lettuce. I had salad and chicken and was sick; Ann had salad alone and was sick; Ben had chicken alone and was
well. Given whether the lettuce was bad (L) and the chicken (C), the three are independent, so everything about us is a sum of four
terms, :func:`weights`. Ann points at the lettuce, Ben away from the chicken. I would have been well with washed lettuce if it was
the lettuce alone that made me sick: L = 1, C = 0, and no bug.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["HOUSEHOLD", "KNOWN", "data", "model", "weights"]

#: Who ate salad and who ate chicken.
HOUSEHOLD = {"me": (1.0, 1.0), "ann": (1.0, 0.0), "ben": (0.0, 1.0)}

LETTUCE, CHICKEN, SUSCEPTIBLE, BUG = 0.1, 0.05, 0.8, 0.02


def sick(bad: int) -> float:
    """P(sick) of somebody who ate something bad, or did not."""
    return 1 - (1 - SUSCEPTIBLE * bad) * (1 - BUG)


def weights() -> dict[tuple[int, int], float]:
    """P(L, C | Saturday), lettuce first."""
    found = {
        (lettuce, chicken): (LETTUCE if lettuce else 1 - LETTUCE)
        * (CHICKEN if chicken else 1 - CHICKEN)
        * sick(max(lettuce, chicken))
        * sick(lettuce)
        * (1 - sick(chicken))
        for lettuce in (0, 1)
        for chicken in (0, 1)
    }
    total = sum(found.values())
    return {state: p / total for state, p in found.items()}


KNOWN = {
    "lettuce_bad": weights()[1, 0] + weights()[1, 1],
    "chicken_bad": weights()[0, 1] + weights()[1, 1],
    # susceptible and no bug, of all the ways to be sick from bad lettuce
    "well_had_we_washed": weights()[1, 0] * SUSCEPTIBLE * (1 - BUG) / sick(1),
    # the chicken's part is the mirror image
    "well_without_chicken": weights()[0, 1] * SUSCEPTIBLE * (1 - BUG) / sick(1),
    # P(sick) of somebody new who eats both, with unwashed lettuce and with washed: susceptible, and any of it bad
    "effect_of_washing": -SUSCEPTIBLE * (1 - BUG) * LETTUCE * (1 - CHICKEN),
}


def model(people: tuple[str, ...] = ("me", "ann", "ben")) -> dict[str, torch.Tensor]:
    """One evening: contamination, washing, and for each person what they ate, whether they are susceptible, and whether they fell sick.

    Args:
        people: names; the sites are ``salad_me``, ``sick_me`` and so on, each 0 or 1.
    """
    lettuce_bad = pyro.sample("lettuce_bad", dist.Bernoulli(LETTUCE))
    chicken_bad = pyro.sample("chicken_bad", dist.Bernoulli(CHICKEN))
    washed = pyro.sample("washed", dist.Bernoulli(0.5))
    infects = pyro.deterministic("lettuce_infects", lettuce_bad * (1 - washed))
    found = {}
    for who in people:
        salad = pyro.sample(f"salad_{who}", dist.Bernoulli(0.6))
        chicken = pyro.sample(f"chicken_{who}", dist.Bernoulli(0.7))
        susceptible = pyro.sample(f"susceptible_{who}", dist.Bernoulli(SUSCEPTIBLE))
        bug = pyro.sample(f"bug_{who}", dist.Bernoulli(BUG))
        eaten = torch.maximum(salad * infects, chicken * chicken_bad)
        poisoned = pyro.deterministic(f"poisoned_{who}", eaten * susceptible)
        found[who] = pyro.deterministic(f"sick_{who}", torch.maximum(poisoned, bug))
    return found


def data() -> tuple[tuple[()], dict[str, torch.Tensor]]:
    """Saturday: the lettuce was not washed; who ate what, and who was sick."""
    evidence = {"washed": torch.tensor(0.0)}
    for who, (salad, chicken) in HOUSEHOLD.items():
        evidence[f"salad_{who}"] = torch.tensor(salad)
        evidence[f"chicken_{who}"] = torch.tensor(chicken)
        evidence[f"sick_{who}"] = torch.tensor(float(who != "ben"))
    return (), evidence
