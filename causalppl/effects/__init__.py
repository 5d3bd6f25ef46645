"""Effects: one line each, exact on finite programs, with the uncertainty of the estimand on the rest."""

from .average import average_treatment_effect, effect_on_treated, total_effect
from .conditional import conditional_effect
from .dose_response import dose_response
from .individual import individual_effect
from .mediation import (
    controlled_direct_effect,
    natural_direct_effect,
    natural_indirect_effect,
)
from .path_specific import path_specific_effect
from .profile import Profile

__all__ = [
    "Profile",
    "average_treatment_effect",
    "conditional_effect",
    "controlled_direct_effect",
    "dose_response",
    "effect_on_treated",
    "individual_effect",
    "natural_direct_effect",
    "natural_indirect_effect",
    "path_specific_effect",
    "total_effect",
]
