# Every target does its own set-up. `make demo` and `make test` are all a newcomer needs.
PYTHON ?= python3
# Test processes side by side; much of a test's time is waiting for a process it started.
WORKERS ?= 4
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-all lint bench bench-gpu gym live zoo setup setup-test sandbox clean

help:
	@echo "make demo      open a goal on the practice forge and watch the real bot pursue it"
	@echo "make test      lint, types and the quick tests (at most 12 minutes)"
	@echo "make test-all  the same and the slow tests (at most 80 minutes)"
	@echo "make gym       pursue goals on tiny models, by the playbook and by what it is compared with (hours)"
	@echo "make live      three goals with a real language model, BRAIN=provider:model (needs a key, costs money)"
	@echo "make bench     speed and memory, as ratios, with this machine's name"
	@echo "make zoo       make the runs with injected faults anew, and score the diagnosis on them (hours)"
	@echo "make bench-gpu training beside TRL's own example scripts, where there is a CUDA device"

setup: $(VENV)/.train

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Postdoc needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 demo") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/.train: pyproject.toml | $(VENV)/bin/python
	@echo "Setting up $(VENV) (once; about a minute and 2 GB)..."
	@$(BIN)/python -m pip install --quiet --editable ".[train]" 2>&1 | { grep -v '^WARNING: ' || true; }
	@$(BIN)/python -c 'import torch, trl, bot' && touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.train
	@$(BIN)/python -m pip install --quiet --editable ".[train,test]" 2>&1 | { grep -v '^WARNING: ' || true; }
	@$(BIN)/python -c 'import pytest, mypy, ruff' && touch $@

# GitHub's own API descriptions, the independent judges of the practice forge. Without Node their tests are skipped
# and listed; with CI=true they fail.
tests/node/node_modules/.installed: tests/node/package-lock.json
	@if command -v npm >/dev/null; then npm ci --prefix tests/node --loglevel=error --no-audit --no-fund --ignore-scripts >/dev/null && touch $@; \
	elif [ "$$CI" = true ]; then echo "npm is missing: CI needs Node 20 or newer"; exit 1; \
	else echo "npm is missing: the tests against GitHub's published API descriptions will be skipped"; fi

# A CI machine whose owner we are gets the sandbox; nobody's own machine has packages installed behind their back.
sandbox:
	@if [ "$$CI" = true ] && ! command -v bwrap >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  (apt-get update -qq && apt-get install -y -qq bubblewrap) >/dev/null 2>&1 || echo "bubblewrap could not be installed"; fi

setup-test: $(VENV)/.test tests/node/node_modules/.installed sandbox

demo: setup
	@$(BIN)/python -m bot demo $(ARGS)

lint: setup-test
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/mypy bot runners actions tests

test: lint
	@$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist worksteal $(ARGS)

test-all: lint
	@$(BIN)/python -m pytest --timeout=1800 --cov=bot --cov=runners --cov=actions --cov-branch --cov-report=term:skip-covered $(ARGS)

bench: setup-test
	@$(BIN)/python -m tests.bench $(ARGS)

# Goes on where it was stopped; ZOO is the folder, ARGS a part of the plan: make zoo ARGS="--workers 2".
ZOO ?= .zoo
zoo: setup
	@$(BIN)/python -m bot zoo --make $(ZOO) --repairs --json $(ZOO).json $(ARGS)

# Every policy on every task, five seeds; a report that is there is gone on with, so that it can be stopped at any time.
GYM ?= .gym
SEEDS ?= 5
gym: setup
	@mkdir -p $(GYM)
	@for policy in none random tpe playbook; do \
	  report=$(GYM)/$$policy.json; \
	  $(BIN)/python -m bot gym --policy $$policy --seeds $(SEEDS) --json $$report \
	    $$([ -f $$report ] && echo --resume $$report) \
	    $$([ $$policy = playbook ] && echo --against $(GYM)/random.json) $(ARGS) || exit $$?; \
	done

# Three goals with a real language model beside the playbook alone. Needs POSTDOC_BRAIN_KEY, costs money, at most LIVE_USD.
live: setup
	@BRAIN="$(BRAIN)" $(BIN)/python -m tests.bench.live $(ARGS)

bench-gpu: setup-test
	@$(BIN)/python -m tests.bench.gpu $(ARGS)

clean:
	rm -rf $(VENV) tests/node/node_modules .mypy_cache .ruff_cache .pytest_cache
