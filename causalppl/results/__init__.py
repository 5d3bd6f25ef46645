"""Results: worlds as labelled draws, and what inference says of itself."""

from .diagnostics import Diagnostics
from .labels import SiteLabels
from .worlds import Worlds

__all__ = ["Diagnostics", "SiteLabels", "Worlds"]
