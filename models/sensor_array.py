r"""Vibration of machines, heard by a row of microphones: 64 numbers for each machine, and a confounder that nobody measured.

Worn machines are loud, and worn machines get a damper, which makes them quieter::

    wear --> damper --> amplitude --> signal
      '------------------^              ^
    angle ------------------------------'

For each machine wear ~ N(0, 1) is hidden, P(damper = 1 | wear) = Phi(wear), and

.. math:: \log \text{amplitude} = 0.5 + 0.6\, \text{wear} - 0.8\, \text{damper} + 0.25\, \varepsilon .

Eight microphones in a row, d = 0.1 m apart, hear a tone of f = 800 Hz from a direction ``angle``, uniform between -60 and 60 degrees.
Sound travels at c = 343 m/s, so that microphone m hears it m d sin(angle) / c later. Each takes eight samples, 0.2 ms apart:

.. math:: \text{signal}_{mt} = \text{amplitude} \cos\big(2 \pi f (t - m\, d \sin(\text{angle}) / c)\big) + 0.5\, \varepsilon_{mt} .

What is known. A damper lowers log amplitude by 0.8, for every machine. Seeing says less: E[wear | damper = 1] - E[wear | damper = 0] =
2 / sqrt(pi), so that damped machines differ by -0.8 + 1.2 / sqrt(pi) = -0.123 only. And had a machine heard to be damped not been
damped, its signal would have had the noise that it had, and exp(0.8) = 2.2255 times its amplitude.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "data", "model", "tone"]

EFFECT, WEAR, LEVEL, SPREAD, NOISE = -0.8, 0.6, 0.5, 0.25, 0.5
WIDEST = math.pi / 3
KNOWN = {
    "effect": EFFECT,
    "association": EFFECT + 2 * WEAR / math.sqrt(math.pi),
    "undamped_ratio": math.exp(-EFFECT),
}


def tone(angle: torch.Tensor) -> torch.Tensor:
    """The tone at amplitude one from directions in radians, ``batch`` to ``batch + (64,)``; sample t of microphone m at 8 m + t."""
    spacing, speed, frequency, interval = 0.1, 343.0, 800.0, 2e-4
    microphone = torch.arange(8, dtype=angle.dtype, device=angle.device).repeat_interleave(8)
    time = interval * torch.arange(8, dtype=angle.dtype, device=angle.device).repeat(8)
    late = microphone * spacing / speed * torch.sin(angle).unsqueeze(-1)
    return torch.cos(2 * math.pi * frequency * (time - late))


def model(count: int = 1) -> torch.Tensor:
    """``count`` machines: ``wear``, ``damper`` (0 or 1), ``amplitude``, ``angle`` in radians, ``signal``."""
    with pyro.plate("machines", count):
        wear = pyro.sample("wear", dist.Normal(0.0, 1.0))
        damper = pyro.sample("damper", dist.Bernoulli(torch.special.ndtr(wear)))
        amplitude = pyro.sample(
            "amplitude", dist.LogNormal(LEVEL + WEAR * wear + EFFECT * damper, SPREAD)
        )
        angle = pyro.sample("angle", dist.Uniform(-WIDEST, WIDEST))
        heard = amplitude.unsqueeze(-1) * tone(angle)
        return pyro.sample("signal", dist.Normal(heard, NOISE).to_event(1))


def data() -> tuple[tuple[int], dict[str, torch.Tensor]]:
    """Twenty machines: ``((20,), {"damper": (20,), "signal": (20, 64)})``, from a seed of their own."""
    generator = torch.Generator().manual_seed(20)
    wear, noise = (torch.randn(20, generator=generator) for _ in range(2))
    uniform, place = (torch.rand(20, generator=generator) for _ in range(2))
    damper = (uniform < torch.special.ndtr(wear)).float()
    amplitude = (LEVEL + WEAR * wear + EFFECT * damper + SPREAD * noise).exp()
    clean = amplitude.unsqueeze(-1) * tone(WIDEST * (2 * place - 1))
    signal = clean + NOISE * torch.randn(20, 64, generator=generator)
    return (20,), {"damper": damper, "signal": signal}
