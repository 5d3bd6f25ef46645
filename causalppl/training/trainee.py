"""What a training changes: modules and single tensors, their optimiser, and the best weights so far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import MethodError, ProgramError, site_list

__all__ = ["Modules", "Trainee"]

#: Modules, or single tensors that require gradients, by name.
Modules: TypeAlias = Mapping[str, "nn.Module | Tensor"]


class Trainee:
    """Parameters under Adam.

    Raises:
        MethodError: there are none.
    """

    def __init__(self, modules: Modules, learning_rate: float, clip_norm: float | None) -> None:
        self.modules = modules
        self.clip_norm = math.inf if clip_norm is None else clip_norm
        self.best: dict[str, dict[str, Tensor]] | None = None
        self.parameters: dict[str, Tensor] = {}
        self._taken: set[str] = set()
        new = self._take()
        if not new:
            raise MethodError(
                f"nothing to train: {site_list(modules)} have no parameters that require gradients"
            )
        # one kernel for all parameters: on a CPU a quarter of the time of one after another
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in new)
        self.optimiser = torch.optim.Adam(new, lr=learning_rate, fused=fused)

    def _take(self) -> list[Tensor]:
        """The parameters of what is new in the mapping."""
        known = {id(p) for p in self.parameters.values()}
        new: dict[str, Tensor] = {}
        for name in [n for n in self.modules if n not in self._taken]:
            part = self.modules[name]
            self._taken.add(name)
            if isinstance(part, nn.Module):
                named: dict[str, Tensor] = {f"{name}.{n}": p for n, p in part.named_parameters()}
            elif isinstance(part, Tensor) and part.is_leaf:
                named = {name: part}
            else:
                raise MethodError(
                    f"{name!r} is {type(part).__name__} and can not be trained; give an nn.Module, or a leaf tensor that requires "
                    "gradients"
                )
            for own, parameter in named.items():
                if parameter.requires_grad and id(parameter) not in known:
                    new[own] = parameter
                    known.add(id(parameter))
        self.parameters |= new
        return list(new.values())

    def step(self, loss: Tensor, rate: float) -> str | None:
        """One step down, or the name of a parameter whose gradient is not finite."""
        if len(self.modules) > len(self._taken):
            new = self._take()
            if new:
                self.optimiser.add_param_group({"params": new})
        if not loss.requires_grad:
            raise MethodError(
                f"the loss does not depend on what is trained: {site_list(self.parameters)}"
            )
        own = list(self.parameters.values())
        # not backward(): it would leave gradients in tensors that are not trained
        gradients = torch.autograd.grad(loss, own, allow_unused=True)
        found = {n: g for n, g in zip(self.parameters, gradients, strict=True) if g is not None}
        norm = torch.nn.utils.get_total_norm(found.values())
        if not math.isfinite(float(norm)):
            bad = [n for n, g in found.items() if not g.isfinite().all()]
            return bad[0] if bad else next(iter(found))
        shrink = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        before = [p.grad for p in own]
        try:
            for name, parameter in self.parameters.items():
                # not in place: one gradient may stand for several parameters
                parameter.grad = found[name] * shrink.to(found[name]) if name in found else None
            self.optimiser.step()
        finally:
            for parameter, kept in zip(own, before, strict=True):
                parameter.grad = kept
        return None

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Without gradients, modules in eval mode; afterwards each is in its own mode again."""
        parts = [p for p in self.modules.values() if isinstance(p, nn.Module)]
        modes = [(m, m.training) for part in parts for m in part.modules()]
        try:
            for module, _ in modes:
                module.training = False
            with torch.no_grad():
                yield
        finally:
            for module, mode in modes:
                module.training = mode

    def mark_best(self) -> None:
        """Remember the present weights."""
        self.best = self._copies()

    def keep_best(self) -> None:
        """Put the remembered weights in place, if there are any."""
        if self.best is not None:
            self._put(self.best)

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "weights": self._copies(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take a checkpoint's weights.

        Raises:
            ProgramError: they are of other modules.
        """
        mine, theirs = (
            {
                f"{part}.{n}" if n else part: tuple(t.shape)
                for part, s in w.items()
                for n, t in s.items()
            }
            for w in (self._copies(), saved["weights"])
        )
        if mine != theirs:
            differ = [n for n in {**theirs, **mine} if mine.get(n) != theirs.get(n)]
            shown = "; ".join(
                f"{n!r} is {mine.get(n, 'absent')}, was {theirs.get(n, 'absent')}"
                for n in differ[:5]
            )
            raise ProgramError(
                f"checkpoint: it is of other modules; shapes that differ: {shown}; give the ones that it was made with, or another path"
            )
        self._put(saved["weights"])
        self.best = saved["best"]
        self.optimiser.load_state_dict(saved["optimiser"])

    def _copies(self) -> dict[str, dict[str, Tensor]]:
        return {
            name: {n: t.detach().clone() for n, t in part.state_dict().items()}
            if isinstance(part, nn.Module)
            else {"": part.detach().clone()}
            for name, part in self.modules.items()
        }

    def _put(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, part in self.modules.items():
            if isinstance(part, nn.Module):
                part.load_state_dict(states[name])
            else:
                with torch.no_grad():
                    part.copy_(states[name][""])
