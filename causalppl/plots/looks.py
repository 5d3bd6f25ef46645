"""How lines and bars are told apart: by colour, line, marker and hatching together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LOOKS", "Look", "new_axes"]


class Look(NamedTuple):
    """How one world, or one quantity, is drawn."""

    colour: str
    line: str
    marker: str
    hatch: str


#: The colours of M. Okabe and K. Ito (2008), "Color Universal Design", ordered so that their lightness differs too.
LOOKS = (
    Look("#000000", "-", "o", ""),
    Look("#D55E00", "--", "s", "///"),
    Look("#56B4E9", "-.", "D", "..."),
    Look("#009E73", ":", "^", "xxx"),
    Look("#CC79A7", "-", "v", "\\\\\\"),
    Look("#E69F00", "--", "P", "+++"),
    Look("#0072B2", "-.", "X", "ooo"),
)


def new_axes() -> Axes:
    """The axes of a new figure."""
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]
