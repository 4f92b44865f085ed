# make demo       install what is needed and compress a photograph
# make test       install what is needed and run every check
# make core       decode in an environment with only the core dependencies and numpy 2
# make benchmark  install the peers too and print speeds as ratios to them
# make docs       build the documentation as a site, every link checked, in build/site
# make format     put the code into the form that the checks ask for
# make clean      remove everything that these targets made
#
# Each works alone on a machine with Python 3.11 or 3.12, make and git. PYTHON names another interpreter.

PYTHON ?= python3
VENV ?= .venv
CORE_VENV ?= .venv-core
CORE_NUMPY ?= 2.4.6
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check --no-input install -q

.DEFAULT_GOAL := help
.PHONY: help venv peers demo test lint format core benchmark docs clean build/typed

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# make-venv FOLDER
define make-venv
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || { \
		echo "latentpress needs Python 3.11 or 3.12 and '$(PYTHON)' is neither: try make PYTHON=python3.11" >&2; \
		exit 1; }
	@test -x $(1)/bin/pip || { rm -rf $(1); $(PYTHON) -m venv $(1); } || { rm -rf $(1); \
		echo "'$(PYTHON)' cannot make a virtual environment: install its venv module (Debian: python3-venv)" >&2; \
		exit 1; }
endef

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	$(call make-venv,$(VENV))
	$(BIN)/python $(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

# CompressAI is only measured against, so nothing but `make benchmark` needs it. It asks for torchvision, whose
# published builds do not import beside a CPU-only torch; but all it uses of it (1.2.8) is a list of the names
# in torchvision.transforms, made on import. So it is installed without its dependencies, with those that it
# really imports, and runs when an empty module stands in for torchvision.transforms.
peers: $(VENV)/.peers

$(VENV)/.peers: $(VENV)/.installed
	$(BIN)/python $(PIP) -c constraints.txt einops numpy pandas requests torch-geometric
	$(BIN)/python $(PIP) -c constraints.txt --no-deps compressai
	@touch $@

demo: venv
	$(BIN)/latentpress demo

benchmark: peers
	$(BIN)/python -m latentpress.scripts.benchmark

docs: venv
	$(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

test: lint
	$(BIN)/python -m pytest

lint: venv build/typed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MYPYPATH=build/typed $(BIN)/mypy -p latentpress

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The folders under the names they are imported by, for tools that do not see how they are installed.
build/typed:
	@mkdir -p $@/latentpress
	@for name in __init__.py py.typed; do ln -sfn ../../../latentpress/$$name $@/latentpress/$$name; done
	@for name in assets codecs configs models scripts train; do ln -sfn ../../../$$name $@/latentpress/$$name; done

# A wheel, the core dependencies and numpy 2 in an environment of their own: what somebody has who only decodes.
# The bitstream layer and the golden streams are tested there too. Pins are those of constraints.txt, except for
# numpy's, which is numpy 1.
core: $(VENV)/.installed
	$(call make-venv,$(CORE_VENV))
	@rm -rf build/core && mkdir -p build/core
	@grep -v '^numpy==' constraints.txt > build/core/constraints.txt
	$(BIN)/python -m build --no-isolation --outdir build/core . > build/core/log 2>&1 || { cat build/core/log; exit 1; }
	$(CORE_VENV)/bin/python $(PIP) -c build/core/constraints.txt --force-reinstall --no-deps build/core/*.whl
	$(CORE_VENV)/bin/python $(PIP) -c build/core/constraints.txt latentpress numpy==$(CORE_NUMPY) hypothesis pytest
	$(CORE_VENV)/bin/python -I -m pytest tests/core_only/check_core_only.py tests/codecs/bitstream \
		$$(find tests -name 'test_golden*.py')

clean:
	rm -rf $(VENV) $(CORE_VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
