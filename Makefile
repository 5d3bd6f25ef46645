# Every target makes its own environment: .venv is created when it is missing, and brought up to date
# when pyproject.toml or constraints.txt is newer than the last successful installation.

PYTHON ?= python3
RUN := .venv/bin/python
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint format bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# An environment whose interpreter no longer runs is emptied first. The stamp is written last, so an interrupted
# installation is taken up again.
$(INSTALLED): pyproject.toml constraints.txt
	@echo 'bringing .venv up to date; the first time takes a minute or two'
	@$(RUN) -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[examples,dev]'
	@touch $@

demo: $(INSTALLED)  ## what would have happened to the people who kept smoking, had they quit?
	@$(RUN) -m tutorials.demo

# One process for each core, and one thread in each.
TESTS := OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto

test: $(INSTALLED)  ## the default tests
	$(TESTS)

slow: $(INSTALLED)  ## the tests that take more than about ten seconds each
	$(TESTS) -m slow

lint: $(INSTALLED)  ## style, types and layers
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

format: $(INSTALLED)  ## rewrite the code in the house's format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(INSTALLED)  ## speed against hand-written torch, Pyro and, where installed, ChiRho and DoWhy; about twenty minutes
	$(RUN) -m tests.benchmarks

clean:  ## remove the environment, caches and build products
	rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
