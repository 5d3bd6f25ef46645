"""Speed, measured the same way each time: ``python -m tests.benchmarks``.

Each benchmark module defines ``NAME``, ``TITLE`` and ``cases(quick)``, a list of tasks with a ``name`` and a
``build()`` that returns a :class:`~tests.benchmarks.harness.Case`. The contenders of a case compute the same numbers,
which is checked before anything is timed. ``--quick`` takes small sizes; a full run keeps its results in ``results/``.
"""
