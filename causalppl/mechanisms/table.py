"""The table of all distributions of Pyro and their mechanisms: ``python -m causalppl.mechanisms.table > docs/distributions.md``.

Default and alternatives are read from the registry, what they do from the first line of each mechanism's docstring.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pyro.distributions as dist
import torch
from torch.distributions import Distribution

from ..errors import NoMechanismError
from .refused import REASONS
from .registry import mechanism_for, registered

__all__ = ["table"]

_PASSED_ON = ("inverse_cdf", "antitone", "independent")
_ABSTRACT = ("Distribution", "ExponentialFamily", "TorchDistribution")

#: Classes whose mechanism depends on their parts, and instances of parts that show it.
_EXAMPLES: dict[str, Callable[[], Any]] = {
    "AffineBeta": lambda: dist.AffineBeta(_one(), _one(), 0.0, 1.0),
    "Empirical": lambda: dist.Empirical(torch.zeros(2), torch.zeros(2)),
    "GaussianScaleMixture": lambda: dist.GaussianScaleMixture(_one(2), torch.zeros(2), _one(2)),
    "InverseGamma": lambda: dist.InverseGamma(_one(), _one()),
    "LKJ": lambda: dist.LKJ(2, _one()),
    "LogNormal": lambda: dist.LogNormal(0.0, 1.0),
    "LogNormalNegativeBinomial": lambda: dist.LogNormalNegativeBinomial(_one(), _one(), _one()),
    "LogisticNormal": lambda: dist.LogisticNormal(torch.zeros(2), _one(2)),
    "MixtureOfDiagNormals": lambda: dist.MixtureOfDiagNormals(_one(2, 2), _one(2, 2), _one(2)),
    "MixtureOfDiagNormalsSharedCovariance": lambda: dist.MixtureOfDiagNormalsSharedCovariance(
        _one(2, 2), _one(2), _one(2)
    ),
    "RelaxedBernoulli": lambda: dist.RelaxedBernoulli(_one(), probs=0.5 * _one()),
    "RelaxedOneHotCategorical": lambda: dist.RelaxedOneHotCategorical(_one(), probs=_one(2)),
    "ZeroInflatedNegativeBinomial": lambda: dist.ZeroInflatedNegativeBinomial(
        _one(), probs=0.5 * _one(), gate=0.5 * _one()
    ),
    "ZeroInflatedPoisson": lambda: dist.ZeroInflatedPoisson(_one(), gate=0.5 * _one()),
}

#: Classes that wrap any distribution: the mechanism in words.
_WRAPPERS: dict[str, str] = {
    "ExpandedDistribution": "that of the base, with noise of its own for every element",
    "FoldedDistribution": "that of the base, and its absolute value. Not injective: abduction draws the sign from its posterior",
    "Independent": "that of the base",
    "MaskedDistribution": "that of the base; the mask weighs densities only",
    "MaskedMixture": "those of both components; the mask, a parent, chooses",
    "MixtureSameFamily": "the component by the choice's mechanism, then the component's own; "
    "abduction draws the component from its posterior",
    "SineSkewed": "that of the base, then a reflection about its location by a gate",
    "TransformedDistribution": "that of the base, then the transforms, which have to be bijective: all of Pyro's are, other "
    "than Sylvester and those without an inverse (softmax, absolute value, normalisation)",
    "ZeroInflatedDistribution": "a monotone gate, then the base's mechanism",
}


def _one(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


def _classes() -> Iterator[tuple[str, type]]:
    for name in sorted(dir(dist), key=str.lower):
        found = getattr(dist, name)
        if inspect.isclass(found) and issubclass(found, Distribution) and name not in _ABSTRACT:
            yield name, found


def _reason(family: type) -> str | None:
    return next((REASONS[cls] for cls in family.__mro__ if cls in REASONS), None)


def _own(family: type) -> list[Any]:
    return next((list(found) for cls in family.__mro__ if (found := registered(cls).values())), [])


def _says(mechanism: Any) -> str:
    """The first sentence of the mechanism's docstring."""
    text = inspect.getdoc(type(mechanism)) or ""
    return text.splitlines()[0].replace("``", "`").rstrip(".:").replace("|", "\\|")


def _example_row(name: str) -> str:
    fn = _EXAMPLES[name]()
    kind = next(
        cls.__name__ for cls in type(fn).__mro__[1:] if cls.__name__ in _WRAPPERS or cls is object
    )
    how = f"as {kind}" if kind != "object" else "as the MixtureSameFamily that it is in other words"
    default = mechanism_for(fn).name
    others = [f"`{name}`" for name in _PASSED_ON if name not in default and _offers(fn, name)]
    return f"`{default}` | {', '.join(others)} | {how}"


def _offers(fn: Any, name: str) -> bool:
    try:
        mechanism_for(fn, name)
    except NoMechanismError:
        return False
    return True


def _row(name: str, family: type) -> str:
    reason = _reason(family)
    if reason is not None:
        return f"| {name} | none | | it {reason} |"
    if name in _EXAMPLES:
        return f"| {name} | {_example_row(name)} |"
    if name in _WRAPPERS:
        return f"| {name} | composed | | {_WRAPPERS[name]} |"
    first, *rest = _own(family)
    others = ", ".join(f"`{mechanism.name}`" for mechanism in rest)
    return f"| {name} | `{first.name}` | {others} | {_says(first)} |"


def table() -> str:
    """The page, in Markdown."""
    classes = list(_classes())
    missing = sum(_reason(family) is not None for _, family in classes)
    rows = "\n".join(_row(name, family) for name, family in classes)
    return f"""# Distributions and their mechanisms

{len(classes) - missing} of {len(classes)} distributions of `pyro.distributions` have a mechanism, the structural assignment
`v = f(parents, noise)` that carries a value from one world to another. This page is written by
`python -m causalppl.mechanisms.table`; {", ".join(_ABSTRACT[:-1])} and {_ABSTRACT[-1]}, which are abstract, are left out.

Another mechanism is chosen by `infer={{"mechanism": "inverse_cdf"}}` at the site or by `cp.set_mechanism`, and one of your own
is registered by `cp.register_mechanism`. In wrapped, transformed and mixed families a name is passed on to the parts. A conditional
flow, `ConditionalTransformedDistribution`, has a mechanism once it is conditioned: `.condition(context)`, the context a
parent. A site without a mechanism keeps its value in all worlds where its parents are the same; where they differ, the error says
what to do.

The default is a choice, not a fact: data of one world at a time do not tell how worlds are coupled. `antitone` reverses the ranks
between worlds, `independent` draws them anew, and `cp.mechanism_sensitivity` and `cp.bounds` say how much depends on it.

| distribution | default | others | what it does, or why there is none |
|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    print(table(), end="")
