# Needs make and Python 3.11 or later with venv; everything else goes into .venv. `make help` lists the targets.

VENV   ?= .venv
EXTRAS ?= cpu,weights,serve,tfds,dev
ARGS   ?=
# The first that runs: a name on PATH may be a shim of a version manager for a Python that is not there.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c '$(USABLE)' >/dev/null 2>&1 && echo $$python && break; done)
# The newest that pyproject.toml admits, by its name on PATH or where pyenv keeps it.
PYTHON_NEWEST ?= $(shell for python in python3.13 $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.13*/bin/python); do \
	$$python -c '$(USABLE)' >/dev/null 2>&1 && echo $$python && break; done)
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

# The tested versions of everything else: with the oldest JAX that pyproject.toml admits for $(PYTHON), or with the newest.
CONSTRAINTS ?= constraints.txt
NEWEST := VENV=.venv-newest CONSTRAINTS=constraints-newest.txt PYTHON='$(PYTHON_NEWEST)'

# Tests run side by side: one process a core, and no more than memory has room for.
PYTEST := python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

BIN   := $(VENV)/bin
# Touched when an installation is complete, so that an interrupted one starts again; one for each choice of extras.
STAMP := $(VENV)/.installed-$(EXTRAS)
LOCK  := .venv-constraints

.DEFAULT_GOAL := help
.PHONY: help env run test test-newest has-newest faults engines docs wheel release lint types format constraints constraints-newest clean

help:  ## Show this list
	@echo 'make TARGET [ARGS="options"] [EXTRAS=$(EXTRAS)] [PYTHON=python3]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

env: $(STAMP)  ## Create .venv and install the package and the tested versions of what it needs

run: env  ## From photos to a deployable model; by default the embedded demo, into runs/demo
	$(BIN)/catdog run $(if $(findstring --data,$(ARGS)),,--data demo) $(if $(findstring --out,$(ARGS)),,--out runs/demo) $(ARGS)

test: lint types  ## Check style and types, then run all tests; ARGS go to pytest
	$(BIN)/$(PYTEST) $(ARGS)

test-newest:  ## Run all tests with the newest Python and JAX, in .venv-newest; ARGS go to pytest
	@$(MAKE) --no-print-directory env $(NEWEST)
	.venv-newest/bin/$(PYTEST) $(ARGS)

has-newest:  # Whether there is a Python for it, for .ci/run
	@test -n '$(PYTHON_NEWEST)'

faults: env  ## Kill and starve the stages at every step, fuzz the readers; figures go to artifacts/faults.json
	$(BIN)/python -m pytest tests/faults --long -s $(ARGS)

engines: env  ## The published model in other engines of PyPI and npm; figures go to artifacts/engines.json
	$(BIN)/python -m pytest tests/release/test_engines.py --long -n 0 $(ARGS)

docs: env  ## Build the pages of README and docs/ into build/site; a broken link is an error
	$(BIN)/python -m mkdocs build

wheel: env  ## Build the wheel, with the published model in it, and the sdist into dist/
	@rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist

release: env  ## Build, check and install what is to be published; nothing is published (docs/release.md)
	@$(MAKE) --no-print-directory wheel
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m pytest tests/release --long $(ARGS)
	@echo 'dist/ may be published. Nothing was: docs/release.md has the commands.'

lint: env  ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env  ## Check the package's types
	$(BIN)/mypy

format: env  ## Repair what can be repaired of style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints:  ## Write constraints.txt again, from the latest releases that go together
	rm -rf $(LOCK)
	$(PYTHON) -m venv $(LOCK)
	$(LOCK)/bin/python -m pip install --quiet --disable-pip-version-check '.[cpu,weights,serve,tfds,dev]'
	$(LOCK)/bin/python -m pip freeze --exclude catdog-jax --exclude pip --exclude setuptools >$(LOCK)/frozen
	{ grep '^#' $(CONSTRAINTS); cat $(LOCK)/frozen; } >$(LOCK)/constraints.txt
	mv $(LOCK)/constraints.txt $(CONSTRAINTS)
	rm -rf $(LOCK)

constraints-newest:  ## The same for constraints-newest.txt
	@$(MAKE) --no-print-directory constraints $(NEWEST)

clean:  ## Remove .venv, caches and build files; runs/ stays
	rm -rf $(VENV) .venv-newest $(LOCK) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find catdog_jax scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@'$(PYTHON)' -c '$(USABLE)' >/dev/null 2>&1 || { echo 'make: expected Python 3.11 or later with venv, found' \
		'$(or $(PYTHON),none). Install one (Debian, Ubuntu: python3-venv too) or name it: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
		{ echo 'Creating $(VENV) with $(PYTHON)'; rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo 'Installing catdog-jax[$(EXTRAS)] into $(VENV); the first time takes some minutes'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	@touch $@
