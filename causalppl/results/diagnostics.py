"""What a method says of its own answer: how it was computed, and how far it should be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, Union, overload

import torch
from torch import Tensor

from ..errors import ShapeError
from .labels import as_array
from .later import Later

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Diagnostics"]

#: A diagnostic as a method gives it, and as a user reads it.
Given: TypeAlias = Union[Tensor, "xr.DataArray", float, None]
Read: TypeAlias = Union["xr.DataArray", float, None]


class _PerUnit:
    """A field that stores a number or a tensor over the units, and is read as a float or a DataArray.

    The DataArray is built on access, because building it imports xarray.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> None: ...
    @overload
    def __get__(self, instance: Diagnostics, owner: type) -> Read: ...
    def __get__(self, instance: Diagnostics | None, owner: type) -> Read:
        if instance is None:
            return None  # what dataclass takes for the default
        value = instance.__dict__[self._name]
        if not isinstance(value, Tensor):
            found: Read = value
            return found
        import numpy as np
        import xarray as xr

        names = instance.unit_names
        coords = {name: np.arange(size) for name, size in zip(names, value.shape, strict=True)}
        return xr.DataArray(as_array(value).copy(), dims=names, coords=coords, name=self._name)

    def __set__(self, instance: Diagnostics, value: Given) -> None:
        if isinstance(value, Tensor):
            value = value.detach()
            instance.__dict__[self._name] = value if value.dim() else float(value)
        elif value is None or isinstance(value, (int, float)):
            instance.__dict__[self._name] = None if value is None else float(value)
        else:  # a DataArray read from another Diagnostics, by dataclasses.replace
            instance.__dict__[self._name] = torch.as_tensor(value.values.copy())


@dataclass(frozen=True, eq=False, repr=False)
class Diagnostics:
    """How a result was computed, and the method's own doubt.

    Attributes:
        method: the inference method, such as ``"ImportanceSampling"``.
        why: why this method was chosen.
        ess: effective sample size, in draws: ``None``, a float, or a DataArray with the plates' dims where
            weights are per unit.
        pareto_k: Pareto shape of the importance weights (above 0.7: do not trust), like ``ess``. Vehtari,
            Simpson, Gelman, Yao, Gabry (2024), Pareto smoothed importance sampling.
        rhat: largest rank-normalised split R-hat over the parameters (above 1.01: do not trust), or ``None``.
            Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021), Rank-normalization, folding, and localization:
            an improved R-hat.
        mechanisms: site to the mechanism's name: the assumption about how worlds are coupled.
        identification: what the values of the other worlds rest on, found when it is first read: ``"graph"``, where the
            distribution of what is observed and the graph settle them; ``"graph and couplings"``, where the mechanisms'
            couplings do, of sites whose laws the data show; ``"graph and parametric form"``, where it takes the form of the
            program's distributions; ``"prior"``, where they depend on a parameter, and nothing observed comes from there. ``None``
            where there is no other world.
        executor: ``"sequential"``, ``"vmap"`` or ``"compiled"``.
        notes: what else a reader should know.
        unit_names: the plates that the dims of ``ess`` and ``pareto_k`` belong to; where these are given as
            tensors of shape ``(size of each plate)``.

    Raises:
        ShapeError: a tensor has not one dim for each plate in ``unit_names``.

    Example:
        >>> import torch
        >>> ess = torch.tensor([40.0, 80.0])
        >>> found = Diagnostics("ImportanceSampling", "few latents", ess=ess, unit_names=("people",))
        >>> float(found.ess.min())
        40.0
    """

    method: str
    why: str = ""
    ess: _PerUnit = _PerUnit()
    pareto_k: _PerUnit = _PerUnit()
    rhat: float | None = None
    mechanisms: Mapping[str, str] = field(default_factory=dict)
    identification: Later = Later()  # noqa: RUF009
    executor: str = ""
    notes: tuple[str, ...] = ()
    unit_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("ess", "pareto_k"):
            value = self.__dict__[name]
            if isinstance(value, Tensor) and value.dim() != len(self.unit_names):
                raise ShapeError(
                    f"{name} has shape {tuple(value.shape)} and unit_names are {self.unit_names}; give one name "
                    "for each dim"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "identification": self.identification}

    def __str__(self) -> str:
        rows = {
            "method": self.method,
            "why": self.why,
            "ess": self._in_words("ess"),
            "pareto k": self._in_words("pareto_k"),
            "r-hat": "" if self.rhat is None else f"{self.rhat:.3f}",
            "mechanisms": _grouped(self.mechanisms),
            "identification": self.identification or "",
            "executor": self.executor,
        }
        lines = [f"{name:<16}{text}" for name, text in rows.items() if text]
        lines += [f"{'note' if i == 0 else '':<16}{note}" for i, note in enumerate(self.notes)]
        return "\n".join(lines)

    __repr__ = __str__

    def _in_words(self, name: str) -> str:
        """The number, or its median and its worst over the units."""
        value = self.__dict__[name]
        if not isinstance(value, Tensor):
            return "" if value is None else f"{value:.3g}"
        if not value.numel():
            return "no units"
        worst, word = (value.min(), "lowest") if name == "ess" else (value.max(), "highest")
        units = " x ".join(
            f"{n} ({size})" for n, size in zip(self.unit_names, value.shape, strict=True)
        )
        return f"median {float(value.median()):.3g}, {word} {float(worst):.3g}, over {units}"

    def as_attrs(self) -> dict[str, str | float]:
        """As attributes of a Dataset: text and numbers only, arrays by their worst value."""
        attrs: dict[str, str | float] = {
            "inference_method": self.method,
            "inference_method_why": self.why,
        }
        for key, name, value in (
            ("ess", "ess_min", self.__dict__["ess"]),
            ("pareto_k", "pareto_k_max", self.__dict__["pareto_k"]),
            ("rhat", "rhat", self.rhat),
        ):
            if isinstance(value, Tensor):
                if value.numel():
                    attrs[name] = float(value.min() if key == "ess" else value.max())
            elif value is not None:
                attrs[key] = float(value)
        attrs["mechanisms"] = _grouped(self.mechanisms)
        known = self.__dict__["identification"]
        attrs["identification"] = known if isinstance(known, str) else "not examined"
        attrs["executor"] = self.executor
        attrs["notes"] = "; ".join(self.notes)
        return attrs

    def record(self) -> dict[str, Any]:
        """Everything but arrays, as JSON holds it; :meth:`from_record` reads it."""
        scalars = {
            n: None if isinstance(self.__dict__[n], Tensor) else self.__dict__[n]
            for n in ("ess", "pareto_k")
        }
        return {
            "method": self.method,
            "why": self.why,
            **scalars,
            "rhat": self.rhat,
            "mechanisms": dict(self.mechanisms),
            "identification": self.identification,
            "executor": self.executor,
            "notes": list(self.notes),
            "unit_names": list(self.unit_names),
            "arrays": [n for n in ("ess", "pareto_k") if isinstance(self.__dict__[n], Tensor)],
        }

    def arrays(self) -> dict[str, xr.DataArray]:
        """The diagnostics that are per unit, by name."""
        return {
            n: getattr(self, n) for n in ("ess", "pareto_k") if isinstance(self.__dict__[n], Tensor)
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], arrays: Mapping[str, Any]) -> Diagnostics:
        """The inverse of :meth:`record` and :meth:`arrays`."""
        fields = {name: value for name, value in record.items() if name != "arrays"}
        for name in ("notes", "unit_names"):
            fields[name] = tuple(fields[name])
        return cls(**{**fields, **arrays})


def _grouped(mechanisms: Mapping[str, str]) -> str:
    """``affine: x, y; gumbel_max: z``."""
    by_name: dict[str, list[str]] = {}
    for site, mechanism in mechanisms.items():
        by_name.setdefault(mechanism, []).append(site)
    return "; ".join(f"{mechanism}: {', '.join(sites)}" for mechanism, sites in by_name.items())
