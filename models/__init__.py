"""Ordinary Pyro programs, each with the data it needs and what is known to be true of it.

None of them imports causalppl: they are written as their authors would have written them for Pyro
alone, and the toolkit is asked about them as they stand.

A model file defines

- ``model``, the Pyro program;
- ``data()``, where there is anything to condition on: it returns ``(args, evidence)``, the tuple of
  positional arguments of the program and a dict of site name to value, so that ``abduct(model,
  evidence=evidence)(*args)`` is all there is to type;
- ``KNOWN``, exact answers about the model, name to number, derived or quoted with their source in
  the module docstring;
- ``PUBLISHED``, where the data are real and no exact answer exists: the estimates of others.

Each file stands alone, so that it can be run, copied or loaded by its path. Its docstring says what
is modelled, draws the graph, and states the known answers in words. ``data()`` never touches the
global random number generators, and packages that only ship data are imported inside it.
"""
