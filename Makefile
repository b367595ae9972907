# The two commands: `make book` and `make test`. Both set up what they need.
PYTHON ?= python3
PROFILE ?= default
VENV := .venv
SHELL := bash
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# The last line of `activate`, which would fall back to the system's Python in silence.
define CHECK
[ -x "$$VIRTUAL_ENV/bin/python" ] && [ "$${BASH_SOURCE:-$$VIRTUAL_ENV/bin/activate}" -ef "$$VIRTUAL_ENV/bin/activate" ] || { \
  echo "This environment was made for $$VIRTUAL_ENV and is not active: run make setup here, then activate again." >&2; deactivate; false; }
endef

.DEFAULT_GOAL := help
.PHONY: help book writable test torture check setup chromium lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

book: writable setup ## run the notebooks and build the book: _build/html/index.html (PROFILE=default)
	snakemake book --cores all --rerun-incomplete --quiet rules host --config profile=$(PROFILE)
	@echo "The book is ready: open _build/html/index.html"

writable:
	@test -w . || { echo "Nothing can be written in $(CURDIR): copy the repository to a folder of your own."; exit 1; }

test: check chromium ## check style and types, run all tests
	pytest

torture: setup ## disturb runs 200 times, try 10,000 faulty inputs: an hour or two
	SAE_RNA_FUZZ=10000 SAE_RNA_FUZZ_RESULTS=benchmarks/results/fuzz.md pytest tests/faults/test_fuzz.py
	python tests/faults/disturbed.py --times 200 --each 40 --book --results benchmarks/results/faults.md

check: setup ## style (ruff) and types (mypy)
	ruff format --check -q . && ruff check -q . && mypy

setup: $(VENV)/.ready ## create the environment in .venv from requirements.lock

# An environment knows its place: that of a clone that was moved or copied, or whose Python is gone, is made again.
ifneq ($(shell test -x $(VENV)/bin/python && grep -sF ' $(CURDIR)/$(VENV)' $(VENV)/pyvenv.cfg > /dev/null || echo elsewhere),)
.PHONY: $(VENV)/.ready
endif

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	  { echo "Python 3.11 or 3.12 is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another one: make setup PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@printf '%s\n' '$(CHECK)' >> $(VENV)/bin/activate
	$(VENV)/bin/python -m pip install --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

chromium:
	@command -v chromium > /dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y chromium; } || \
	  { echo "The browser test needs chromium: install it (Debian: apt-get install chromium) and run 'make test' again."; exit 1; }

lock: ## write requirements.lock anew from pyproject.toml
	$(PYTHON) -m venv --clear _build/lock
	_build/lock/bin/python -m pip install --disable-pip-version-check -e '.[test]'
	sed -n '/^#/p' requirements.lock > _build/requirements.lock
	_build/lock/bin/python -m pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+cpu$$//' >> _build/requirements.lock
	mv _build/requirements.lock requirements.lock

clean: ## remove the book and the environment; results in runs/ stay
	rm -rf $(VENV) _build book/executed book/public book/assets/vendor/vega-bundle.js .snakemake *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
