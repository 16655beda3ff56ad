# The two commands that matter: `make run` and `make test`. Everything they need is installed
# into .venv first. Nothing is written outside this folder, but for the embedded server's cluster
# where its account cannot reach it (as root: /var/lib/postgres-autopilot).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NPROC := $(shell nproc 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help install install-dev run demo test test-slow test-browser test-least-privilege servers lint types contracts audit check bench faults wheel clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-installed: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev-installed: requirements.txt requirements-dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/.run-installed

install: $(VENV)/.run-installed ## virtual environment with all that the product needs
install-dev: $(VENV)/.dev-installed ## the same, with the tools of the tests and checks

run: install ## embedded PostgreSQL, demo store, workload, tuner, watchdog and the pages on port 8050
	$(BIN)/python run.py

demo: install ## one simulated day in about 15 minutes, ends with data/final_report.*
	$(BIN)/python run.py demo --duration 1 --workload mixed --fast-mode

test: install-dev ## the quick tests
	$(BIN)/python -m pytest -n $(NPROC) --dist loadfile -m "not slow and not browser and not faults"

test-slow: install-dev ## learning, faults and the longer tests on real servers
	$(BIN)/python -m pytest -m "(slow or faults) and not browser"

test-browser: install-dev ## the pages in Chromium
	$(BIN)/python -m pytest -m browser

test-least-privilege: install-dev ## what CI runs on Debian's 15 under the printed grants, by itself
	$(BIN)/python -m pytest tests/integration -m least_privilege

servers: install-dev ## PostgreSQL 14, 16 and 18 for the tests (55 MB, into the temporary folder)
	$(BIN)/python -m tests.server_programs

lint: install-dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev ## mypy, strict on backend
	$(BIN)/mypy

contracts: install-dev ## import-linter
	$(BIN)/lint-imports

audit: install-dev ## bandit on the code, pip-audit on what is installed
	$(BIN)/bandit -q -c pyproject.toml -r backend dashboard run.py
	$(BIN)/python -m tests.dependency_audit

check: lint types contracts test ## all that a commit should pass

bench: install ## the tuner's own cost (about 12 minutes)
	$(BIN)/python -m benchmarks.overhead

faults: install-dev ## the catalogue of faults, done to real processes (hours; goes on where it ended)
	EVOLUTION_KILLS=20 $(BIN)/python -m pytest tests/faults/test_killed_evolution.py
	$(BIN)/python -m tests.faults.catalogue

wheel: install-dev ## build a wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## remove what was built (not data/)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
