"""What a training did, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["History"]


@dataclass
class History:
    """How a loss fell.

    Attributes:
        name: what was trained.
        loss: the loss of every step, before that step's update; in nats where the loss is a negative log density.
        learning_rate: that of every step.
        checks: the numbers of steps done at which the held-out loss and the monitors were looked at; 0 is before the first.
        held_out: the held-out loss at each of ``checks``; empty without one.
        monitors: name to its value at each of ``checks``.
        best_step: steps done at the weights that were kept, those of the lowest held-out loss; ``None`` without one.
        stopped: ``"steps"``, all steps were done; ``"held_out"``, the held-out loss had ceased to fall; ``"settled"``, the loss
            itself had, by the rule of ``schedule="settle"``; ``"running"`` in a training that is not at its end.
        seconds: wall-clock time, of all parts where it was resumed.
    """

    name: str = "training"
    loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    checks: list[int] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    monitors: dict[str, list[float]] = field(default_factory=dict)
    best_step: int | None = None
    stopped: str = "running"
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.loss)

    def reason(self) -> str:
        """Why it ended, in words."""
        kept = "" if self.best_step is None else f"; the weights after {self.best_step} are kept"
        return {
            "steps": f"all {self.steps} steps were done",
            "held_out": f"the held-out loss had ceased to fall after {self.steps} steps",
            "settled": f"the loss had settled after {self.steps} steps",
        }.get(self.stopped, f"it broke off after {self.steps} steps") + kept

    def __repr__(self) -> str:
        tenth = max(1, self.steps // 10)
        ends = [sum(part) / tenth for part in (self.loss[:tenth], self.loss[-tenth:])]
        fell = f"loss {ends[0]:.4g} to {ends[1]:.4g}, " if self.loss else ""
        return f"History({self.name}: {fell}{self.reason()}, {self.seconds:.3g} s)"
