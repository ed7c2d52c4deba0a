# Every target sets itself up: it makes .venv and installs what requirements.lock pins.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
export UV_HTTP_TIMEOUT ?= 600
# uv trusts its own list of certificates; where the system has one (and perhaps a company's proxy in it), take that.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= true
endif
export PYTHONUNBUFFERED = 1
# Where a machine has this set, every process would compile all of PyTorch's source anew, for longer than most of them work.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test coverage services browser lint bench pictures screenshots inspect lock audit clean
.DEFAULT_GOAL := help

help:  ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 16

$(INSTALLED): requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Tally needs Python 3.11 or newer: make PYTHON=python3.11 …"; exit 2; }
	@$(PYTHON) -m venv .venv || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

setup: $(INSTALLED)  ## everything a developer needs: the environment, and checks before each commit
	@git rev-parse --git-dir >/dev/null 2>&1 && $(BIN)/pre-commit install || echo "no git checkout here: commits are not checked"

demo: $(INSTALLED)  ## the whole method on the sample data, about 15 minutes on two cores
	$(BIN)/tally run --dataset sample --preset demo --name demo

test: $(INSTALLED)  ## the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

coverage: $(INSTALLED)  ## the tests, and which lines of storage, tasks and flows they reach (90 % at least)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

services: $(INSTALLED)  ## tests against real servers: PostgreSQL (apt-get install postgresql), Prefect, workers
	$(BIN)/python -m pytest -m services tests/services

browser:  ## Chromium and axe-core for the browser tests (Debian, as root)
	@command -v chromium >/dev/null && command -v npm >/dev/null || { \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core \
	  $$(command -v npm >/dev/null || echo npm); }
	npm ci --silent --prefix tests/inspector/browser

lint: $(INSTALLED)  ## ruff, mypy and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## the benchmarks in their short form, on the sample
	$(BIN)/python -m benchmarks

pictures: $(INSTALLED)  ## a picture of every stage for docs/, of the runs and the store that are here
	$(BIN)/python -m benchmarks.pictures

screenshots: $(INSTALLED)  ## pictures of the inspector's pages, of the runs and the store that are here
	$(BIN)/python -m benchmarks.screenshots

inspect: $(INSTALLED)  ## web pages over the runs and the store
	$(BIN)/tally inspect

lock: $(INSTALLED)  ## pin what pyproject.toml asks for, with hashes (UPGRADE=--upgrade: the newest versions)
	$(BIN)/uv pip compile $(UPGRADE) --quiet --generate-hashes --no-header --no-annotate --python-version 3.11 --extra dev pyproject.toml -o requirements.lock

audit: $(INSTALLED)  ## ask the package index for known weaknesses of what is pinned
	$(BIN)/uv tool run pip-audit --requirement requirements.lock --require-hashes --disable-pip

clean:  ## remove what can be made again: environment, store and runs
	rm -rf .venv store runs tests/inspector/browser/node_modules
