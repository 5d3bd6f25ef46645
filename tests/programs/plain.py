"""What plain Pyro says of a program: its forward draws and their labels. No causalppl here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import reference
import torch
from pyro.poutine.messenger import Messenger
from zoo import Entry

#: Seeds of the factual rows of every program.
SEEDS = (11, 12, 13, 14)


def is_site(node: Mapping[str, Any]) -> bool:
    """Whether a trace's node is a sample or deterministic site: no subsampling, no factor, no parameter."""
    return node["type"] == "sample" and type(node["fn"]).__name__ not in ("_Subsample", "Unit")


def is_deterministic(node: Mapping[str, Any]) -> bool:
    """Whether it was made by ``pyro.deterministic``."""
    return bool(node["infer"].get("_deterministic", False))


class Unobserved(Messenger):
    """Draws the sites that the program observes; factors and deterministic sites stay as they are."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and is_site(msg) and not is_deterministic(msg):
            msg["is_observed"], msg["value"], msg["done"] = False, None, False


def unobserved(program: Callable[..., Any]) -> Callable[..., Any]:
    """The program without its data: the prior over everything."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with Unobserved():
            return program(*args, **kwargs)

    return run


def nodes(entry: Entry, seed: int) -> dict[str, Any]:
    """The sites of one forward run from the prior over everything."""
    with torch.random.fork_rng(), torch.no_grad(), pyro.get_param_store().scope():
        torch.manual_seed(seed)
        trace = pyro.poutine.trace(unobserved(entry.program)).get_trace(*entry.args, **entry.kwargs)
    return {name: node for name, node in trace.nodes.items() if is_site(node)}


def record(found: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The values of a run's sample sites: a whole factual trace, to be given as evidence.

    Pyro writes a site with ``obs_mask`` as two halves and their sum; to causalppl it is one site.
    """
    values = {}
    for name, node in found.items():
        whole = name.removesuffix("_observed")
        if is_deterministic(node) or (name.endswith("_unobserved") and name[:-11] in found):
            continue
        values[name] = found[whole if whole in found else name]["value"].detach()
    return values


def axes(name: str, node: Mapping[str, Any]) -> tuple[str, ...]:
    """What each axis of a site is to be called: plates by name, the others numbered from the left.

    An axis of size 1 that belongs to no plate is padding, unless it belongs to the event.
    """
    shape, event_dim = node["value"].shape, node["fn"].event_dim
    if event_dim == len(shape) and is_deterministic(node):
        event_dim = 0  # Pyro's default, which says nothing of the plates
    batch = shape[: len(shape) - event_dim]
    named = {
        len(batch) + f.dim: f.name
        for f in node["cond_indep_stack"]
        if f.vectorized and len(batch) >= -f.dim and batch[f.dim] == f.size
    }
    found: list[str] = []
    for position, size in enumerate(shape):
        if position in named:
            found.append(named[position])
        elif size != 1 or position >= len(batch):
            number = sum(axis.startswith(f"{name}_dim_") for axis in found)
            found.append(f"{name}_dim_{number}")
    return tuple(found)


def check_row(
    entry: Entry, here: Mapping[str, torch.Tensor], there: Mapping[str, torch.Tensor]
) -> None:
    """Assert that one row of the other world follows from the factual one, site by site.

    Families that reference.py knows are held to their coupling; deterministic sites to the code; any other value has
    to be possible where it stands: inside the support, with a density above zero.
    """
    with torch.no_grad(), pyro.get_param_store().scope():
        model = _called_with(entry)
        first, second = reference.run_at(model, (), here), reference.run_at(model, (), there)
    for name, fn in second.fns.items():
        if name in entry.do or name not in there or name not in first.fns:
            continue
        if isinstance(reference.unwrap(fn), dist.Delta):
            natural = second.natural[name]
            natural = reference.unwrap(fn).v if natural is None else natural
            np.testing.assert_allclose(
                there[name].numpy(), natural.detach().numpy(), rtol=2e-4, atol=2e-4, err_msg=name
            )
            continue
        value = there[name].to(first.fns[name].sample().dtype)
        assert bool((fn.log_prob(value) > -torch.inf).all()), f"{name} cannot be {value}"
        try:
            holds = reference.coupling_holds(first.fns[name], fn, here[name], value, 2e-4)
        except NotImplementedError:
            continue
        assert holds.all(), f"{name}: {here[name]} became {value}, which its coupling excludes"


def _called_with(entry: Entry) -> Callable[[], Any]:
    return lambda: unobserved(entry.program)(*entry.args, **entry.kwargs)
