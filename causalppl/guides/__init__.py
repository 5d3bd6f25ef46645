"""Amortized guides: a posterior for any evidence on a program from one forward pass of networks that were trained once."""

from .amortized import AmortizedGuide, Guide

__all__ = ["AmortizedGuide", "Guide"]
