"""Whether an answer may be trusted: calibration on simulated worlds, coverage, predictive checks, convergence."""

from .calibration import Calibration, simulation_based_calibration

__all__ = ["Calibration", "simulation_based_calibration"]
