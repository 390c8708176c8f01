# Two commands start everything, on a machine that has only python3 (3.11 or newer), git and make:
#   make quickstart   installs, fine-tunes the built-in video model by reward backpropagation, prints the before/after table
#   make test         installs what is missing and runs the test suite
#
# TORCH_ARGS chooses another torch build, for example
#   make quickstart TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
TORCH_ARGS ?=
PYTEST_ARGS ?=
# Idle OpenMP threads sleep: beside other load, spinning ones make torch several times slower.
export OMP_WAIT_POLICY ?= PASSIVE

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest
# A process for each core, at most four: each runs on one thread (tests/conftest.py) and takes up to 2 GB.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist worksteal
# accelerate starts a process on one thread unless it is told otherwise.
CPU_THREADS ?= 2
LAUNCH := $(BIN)/accelerate launch --quiet --config_file configs/accelerate/single.yaml --num_cpu_threads_per_process $(CPU_THREADS)
export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help install install-dev quickstart test slow journeys journeys-short lint format types layers check pretrain-sprites clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

install: $(VENV)/.installed ## Make the virtual environment and install the package

install-dev: $(VENV)/.installed-dev ## The same with the tools for tests, lint, types and layers

# torch goes first and alone, so that no other package chooses its build.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old: install Python 3.11 or newer, or name one: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: python3 cannot make a virtual environment: apt install python3-venv"; exit 2; }
	@echo "Installing into $(VENV) (about a minute) ..."
	$(PIP) $(TORCH_ARGS) torch
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable ".[dev,deepspeed,trl,datasets,arena,arena-pg]"
	@touch $@

quickstart: install ## Train the built-in model by reward backpropagation, or go on where it stopped; prints the table and where the video grid lies
	$(LAUNCH) rlhf_video/train_reward_bp.py --resume

test: install-dev ## Unit, property and CPU parity tests (minutes)
	$(PYTEST) -m "not slow and not journey" $(PARALLEL) $(PYTEST_ARGS)

slow: install-dev ## Tests that start processes or take longer
	$(PYTEST) -m "slow and not journey" --timeout 900 $(PARALLEL) $(PYTEST_ARGS)

journeys: install-dev ## Every shipped recipe in full, its promised numbers asserted
	$(PYTEST) -m journey --timeout 7200 $(PYTEST_ARGS)

journeys-short: install-dev ## The recipes cut short: same path, weaker numbers
	$(PYTEST) -m "journey and short" --timeout 1800 $(PYTEST_ARGS)

pretrain-sprites: install ## Pre-train the built-in models of assets/ from nothing (hours on a CPU; resumes after a kill)
	$(BIN)/python -m rlhf_video.sprites.pretrain

lint: install-dev ## ruff (lint and format) and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: install-dev ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install-dev ## mypy on the four packages
	$(BIN)/mypy

layers: install-dev ## Who may import whom (import-linter)
	$(BIN)/lint-imports

check: lint types layers test ## What a commit should pass

clean: ## Remove caches and build folders, never runs/
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov
