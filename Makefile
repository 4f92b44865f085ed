# make demo  installs what is needed and compresses a photograph
# make test  installs what is needed and runs every check
# Each works alone on a machine with Python 3.11 or 3.12, make and git.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
CONSTRAINTS := constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint format clean

help:
	@sed -n 's/^# \(make .*\)/  \1/p' Makefile

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml setup.py $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || { \
		echo "latentpress needs Python 3.11 or 3.12, but $(PYTHON) is not one of them: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment: install its venv and ensurepip (Debian: python3-venv)" >&2; \
		rm -rf $(VENV); exit 1; }
	$(PIP) install -q -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@

demo: venv
	$(BIN)/latentpress demo

test: lint
	$(BIN)/python -m pytest

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
