"""The command line: ``causalppl counterfactual MODEL.py --do x=1 --outcome y``."""

from .app import app, main

__all__ = ["app", "main"]
