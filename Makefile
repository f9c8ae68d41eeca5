# Needs make and Python 3.11 or later with venv; everything else goes into .venv. `make help` lists the targets.

VENV   ?= .venv
EXTRAS ?= cpu,weights,serve,tfds,dev
ARGS   ?=
# The first that runs: a name on PATH may be a shim of a version manager for a Python that is not there.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c '$(USABLE)' >/dev/null 2>&1 && echo $$python && break; done)
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

BIN   := $(VENV)/bin
# Touched when an installation is complete, so that an interrupted one starts again; one for each choice of extras.
STAMP := $(VENV)/.installed-$(EXTRAS)
LOCK  := .venv-constraints

.DEFAULT_GOAL := help
.PHONY: help env run test faults lint types format constraints clean

help:  ## Show this list
	@echo 'make TARGET [ARGS="options"] [EXTRAS=$(EXTRAS)] [PYTHON=python3]'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

env: $(STAMP)  ## Create .venv and install the package and the tested versions of what it needs

run: env  ## From photos to a deployable model; by default the embedded demo, into runs/demo
	$(BIN)/catdog run $(if $(findstring --data,$(ARGS)),,--data demo) $(if $(findstring --out,$(ARGS)),,--out runs/demo) $(ARGS)

test: lint types  ## Check style and types, then run all tests; ARGS go to pytest
	$(BIN)/python -m pytest $(ARGS)

faults: env  ## Kill and starve the stages at every step, fuzz the readers; figures go to artifacts/faults.json
	$(BIN)/python -m pytest tests/faults --long -s $(ARGS)

lint: env  ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env  ## Check the package's types
	$(BIN)/mypy

format: env  ## Repair what can be repaired of style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints:  ## Write constraints.txt anew, from the latest releases that go together
	rm -rf $(LOCK)
	$(PYTHON) -m venv $(LOCK)
	$(LOCK)/bin/python -m pip install --quiet --disable-pip-version-check '.[cpu,weights,serve,tfds,dev]'
	$(LOCK)/bin/python -m pip freeze --exclude catdog-jax --exclude pip --exclude setuptools >$(LOCK)/frozen
	{ grep '^#' constraints.txt; cat $(LOCK)/frozen; } >$(LOCK)/constraints.txt
	mv $(LOCK)/constraints.txt constraints.txt
	rm -rf $(LOCK)

clean:  ## Remove .venv, caches and build files; runs/ stays
	rm -rf $(VENV) $(LOCK) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find catdog_jax scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@'$(PYTHON)' -c '$(USABLE)' >/dev/null 2>&1 || { echo 'make: expected Python 3.11 or later with venv, found' \
		'$(or $(PYTHON),none). Install one (Debian, Ubuntu: python3-venv too) or name it: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
		{ echo 'Creating $(VENV) with $(PYTHON)'; rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo 'Installing catdog-jax[$(EXTRAS)] into $(VENV); the first time takes some minutes'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@
