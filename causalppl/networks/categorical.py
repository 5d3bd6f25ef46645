"""Laws of discrete values given a context, one entry after another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .residual import ResidualNetwork

__all__ = ["CategoricalHead"]


class CategoricalHead(nn.Module):
    r"""A law of several categories, autoregressive over the entries of a value.

    .. math:: q(v \mid c) = \prod_j q(v_j \mid v_1, \ldots, v_{j-1}, c)

    Args:
        entries: number of entries of one value.
        categories: number of values of an entry; of an open-ended count, the values before the tail.
        context: size of the context.
        tail: whether an entry may be any whole number: what reaches ``categories`` has a geometric excess.
        width: of the network.

    Example:
        >>> import torch
        >>> head = CategoricalHead(entries=2, categories=3, context=4)
        >>> value, log_q = head.draw(torch.zeros(5, 4))
        >>> value.shape, bool(torch.allclose(head.log_prob(value, torch.zeros(5, 4)), log_q, atol=1e-5))
        (torch.Size([5, 2]), True)
    """

    def __init__(
        self, entries: int, categories: int, context: int, tail: bool = False, width: int = 64
    ) -> None:
        super().__init__()
        self.entries, self.categories, self.tail = entries, categories, tail
        #: of an entry, as others see it
        self.kinds = categories + tail
        position = entries if entries > 1 else 0
        inputs = context + position + (self.kinds * (entries - 1))
        self.network = ResidualNetwork(inputs, self.kinds + tail, width)
        nn.init.zeros_(self.network.leave.weight)
        nn.init.zeros_(self.network.around.weight)

    def log_prob(self, value: Tensor, context: Tensor) -> Tensor:
        """Log probability in nats; whole numbers ``batch + (entries,)`` and ``batch + (context,)`` to ``batch``."""
        value = value.long()
        before = self._seen(value)
        total = torch.zeros(value.shape[:-1], dtype=context.dtype, device=context.device)
        for j in range(self.entries):
            total = total + self._of_entry(value[..., j], self._output(context, before, j))
        return total

    def draw(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """One draw for each context, ``batch + (entries,)``, and its log probability, ``batch``."""
        shape = context.shape[:-1]
        value = torch.zeros((*shape, self.entries), dtype=torch.long, device=context.device)
        total = torch.zeros(shape, dtype=context.dtype, device=context.device)
        for j in range(self.entries):
            output = self._output(context, self._seen(value), j)
            logits = output[..., : self.kinds]
            law = torch.distributions.Categorical(logits=logits, validate_args=False)
            drawn = law.sample()
            if self.tail:
                stop = torch.distributions.Geometric(logits=output[..., -1], validate_args=False)
                drawn = torch.where(drawn == self.categories, drawn + stop.sample().long(), drawn)
            value = value.clone()
            value[..., j] = drawn
            total = total + self._of_entry(drawn, output)
        return value, total

    def _of_entry(self, value: Tensor, output: Tensor) -> Tensor:
        kind = value.clamp(max=self.kinds - 1)
        log_prob = F.log_softmax(output[..., : self.kinds], -1)
        found = log_prob.gather(-1, kind.unsqueeze(-1)).squeeze(-1)
        if self.tail:
            excess = (value - self.categories).clamp(min=0)
            stop = output[..., -1]
            length = F.logsigmoid(stop) + excess * F.logsigmoid(-stop)
            found = torch.where(value >= self.categories, found + length, found)
        return found

    def _seen(self, value: Tensor) -> Tensor:
        """Entries but the last as the network sees them, ``batch + (entries - 1, kinds)``."""
        kept = value[..., : self.entries - 1].clamp(max=self.kinds - 1)
        return F.one_hot(kept, self.kinds)

    def _output(self, context: Tensor, seen: Tensor, j: int) -> Tensor:
        if self.entries == 1:
            return self.network(context)  # type: ignore[no-any-return]
        shown = seen * (torch.arange(self.entries - 1, device=seen.device) < j).unsqueeze(-1)
        place = F.one_hot(torch.tensor(j, device=seen.device), self.entries)
        parts = (
            context,
            shown.flatten(-2).to(context),
            place.to(context).expand(*context.shape[:-1], -1),
        )
        return self.network(torch.cat(parts, -1))  # type: ignore[no-any-return]
