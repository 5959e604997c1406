# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test test-long test-backends test-conformance lint format bench clean

help:           ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/'

$(STAMP): pyproject.toml collector/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --editable collector --group dev --group examples --group bench
	@touch $(STAMP)

install: $(STAMP) ## .venv with the distribution and the tools

demo: install  ## the main job on real data, with its live view
	$(BIN)/otelprogress demo

test: install  ## every test that needs nothing but this machine
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not backend and not conformance and not long" $(ARGS)

test-long: install ## the runs that take minutes
	$(BIN)/python -m pytest -m long $(ARGS)

test-backends: install ## real backends, pipelines and SDKs of others
	$(PYTHON) -m venv .venv-phoenix
	.venv-phoenix/bin/python -m pip install --quiet 'arize-phoenix>=20,<21'
	$(PYTHON) tests/foreign/install.py
	$(BIN)/python -m pytest -m backend $(ARGS)

test-conformance: install ## the MCP project's conformance suite and Inspector
	$(PYTHON) -m tests.conformance.install
	$(BIN)/python -m pytest tests/conformance -m conformance $(ARGS)

lint: install  ## ruff, mypy strict, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## let ruff write
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## the speed table, peers in the same run
	$(BIN)/python -m bench loop calls processor latency import ingest fanout memory restart verdict endtoend --json bench/results/latest.json

clean:         ## forget everything that was built
	rm -rf $(VENV) .venv-phoenix .venv-foreign .venv-foreign-partial .venv-conformance dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
