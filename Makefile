# Everything runs from a .venv of its own: a machine needs make and python3 (3.10 or newer), no more.

PYTHON ?= python3
JOBS ?= 2
STREAM ?= S
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check

EXTRAS_demo := examples
EXTRAS_reproduce := examples,plot
EXTRAS_dev := accelerate,cli,detection,dev,docs,examples,lightning,plot

# Workers and the matrix library would fight for the same cores: one thread each.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check zoo mutations bench robust reproduce docs clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/  make \1\t\2/p' Makefile

demo: $(VENV)/.demo ## Learn a few tasks in a row and show that nothing was forgotten
	@$(BIN)/python examples/demo.py

test: $(VENV)/.dev ## Run the tests (JOBS=2 workers; ARGS="-k name" goes to pytest)
	@$(PYTEST) -q -n $(JOBS) -m "not zoo" $(ARGS)

check: $(VENV)/.dev ## Run every static check: ruff, mypy, import rules, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory docs

zoo: $(VENV)/.dev ## Run the tests over published architectures, then all of the zoo into docs/zoo.md (hours; goes on where it was)
	@$(PYTEST) -q -n $(JOBS) -m zoo tests/zoo $(ARGS)
	@$(BIN)/python -m tests.zoo.sweep --jobs $(JOBS)

mutations: $(VENV)/.dev ## Break one rule of the library at a time and see that the zoo's sample notices (minutes; ARGS="--only WORD")
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m tests.zoo.mutations $(ARGS)

bench: $(VENV)/.dev ## Measure what a training step costs
	@set -e; for f in benchmarks/bench_*.py; do echo "== $$f"; $(BIN)/python -m "benchmarks.$$(basename $$f .py)"; done

robust: $(VENV)/.dev ## Learn five tasks in a row and alone, on many models (an hour; goes on where it was)
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m benchmarks.robust --jobs $(JOBS) $(ARGS)

reproduce: $(VENV)/.reproduce ## Compare the methods on real data (STREAM=S, A, B, C, D or all; ARGS="--data DIR")
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m examples.reproduce --stream $(STREAM) --jobs $(JOBS) $(ARGS)

docs: $(VENV)/.dev ## Build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean: ## Remove the .venv and everything that was built
	rm -rf $(VENV) build dist site htmlcov .coverage* *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is as new as the pyproject.toml it was installed from, so the second run starts at once.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	@echo "Installing the package and [$(EXTRAS_$*)] into $(VENV) (torch is large: a minute or more the first time) ..."
	@$(PIP) --editable ".[$(EXTRAS_$*)]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python 3.10 or newer is needed. Name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) could not create $(VENV). On Debian and Ubuntu, install the package python3-venv." >&2; exit 1; }
