"""What inference says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["Diagnostics"]


@dataclass(frozen=True)
class Diagnostics:
    """How a result came about, and how far to trust it.

    Attributes:
        method: the inference method.
        why: why it was chosen or how it went.
        ess: effective sample size, in draws; an array with the plate's dims where weights are per unit.
        pareto_k: Pareto k-hat of the importance weights, at most 0.7 is good; likewise per unit.
        rhat: largest rank-normalised split R-hat, at most 1.01 is good; ``None`` without chains.
        mechanisms: site to the name of its structural assignment, the assumption that couples worlds.
        identification: what the answer rests on; ``None`` where it was not analysed.
        executor: ``"sequential"``, ``"vmap"`` or ``"compiled"``.
        notes: further remarks.
    """

    method: str
    why: str
    ess: Any = None
    pareto_k: Any = None
    rhat: float | None = None
    mechanisms: Mapping[str, str] = field(default_factory=dict)
    identification: str | None = None
    executor: str = "vmap"
    notes: tuple[str, ...] = ()
    unit_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("ess", "pareto_k"):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                object.__setattr__(self, name, self._labelled(name, value))

    def _labelled(self, name: str, value: Tensor) -> Any:
        if value.dim() == 0:
            return float(value)
        import xarray

        return xarray.DataArray(value.detach().cpu().numpy(), dims=self.unit_names, name=name)

    def __str__(self) -> str:
        rows = [("method", f"{self.method} ({self.why})"), ("executor", self.executor)]
        if self.ess is not None:
            rows.append(("ess", f"{float(getattr(self.ess, 'min', lambda: self.ess)()):.0f} at least"))
        if self.pareto_k is not None:
            rows.append(
                ("pareto k", f"{float(getattr(self.pareto_k, 'max', lambda: self.pareto_k)()):.2f} at most")
            )
        if self.rhat is not None:
            rows.append(("r-hat", f"{self.rhat:.3f}"))
        rows.append(("mechanisms", ", ".join(f"{k}: {v}" for k, v in self.mechanisms.items())))
        rows += [("note", note) for note in self.notes]
        return "\n".join(f"{k:<11} {v}" for k, v in rows)
