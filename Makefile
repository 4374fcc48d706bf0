# Every target sets up what it needs: a virtual environment in .venv, made once and renewed when pyproject.toml
# or the lock changes. Packages are those of the lock, each checked by its hash.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := .ci/requirements.lock
DEMO_STAMP := $(VENV)/.installed-without-tools
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUTF8 := 1
# For two cores: in many tests a process, a browser or a timer is waited for.
WORKERS ?= 3
# Compiled tests are kept, also where containers forbid it: to compile them takes each worker 13 s of CPU.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
define CHECK_PYTHON
$(PYTHON) -c 'import sys; sys.exit("imgpipe needs Python 3.11 or newer; run: make PYTHON=python3.12 <target>" if sys.version_info < (3, 11) else 0)' && { test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); } && echo "installing packages in $(VENV), which takes a while" >&2
endef

$(STAMP): pyproject.toml $(LOCK)
	@$(CHECK_PYTHON)
	@$(BIN)/python -m pip install --quiet --no-warn-script-location --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --no-warn-script-location --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q pipeline  # containers often forbid Python to keep what it compiled
	@touch $@

# A demo needs no test tools: the packages of a user, from the versions of the lock.
$(DEMO_STAMP): pyproject.toml $(LOCK)
	@$(CHECK_PYTHON)
	@sed -e 's/ *\\$$//' -e '/--hash/d' $(LOCK) > $(VENV)/versions.txt
	@$(BIN)/python -m pip install --quiet --no-warn-script-location -c $(VENV)/versions.txt -e .
	@$(BIN)/python -m compileall -q pipeline  # containers often forbid Python to keep what it compiled
	@touch $@

.PHONY: help demo test check fmt lint type imports e2e bench soak docs audit lock clean setup

help:  ## list the commands
	@awk -F':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv with everything the other commands need

demo: $(DEMO_STAMP)  ## pictures in half a minute: run jobs/demo.yaml against the built-in simulator, then make the report
	@$(BIN)/imgpipe --version > /dev/null || { echo "this folder was moved, or its Python is gone; run: make clean demo" >&2; exit 2; }
	@$(BIN)/imgpipe run jobs/demo.yaml
	@$(BIN)/imgpipe report jobs/demo.yaml

test: $(STAMP)  ## the whole test suite
	$(PYTEST) -n $(WORKERS)

check: fmt lint imports  ## what CI runs: format, lint, import contracts, types beside the tests
	@$(MAKE) --no-print-directory --jobs=2 type test

fmt: $(STAMP)  ## is the code formatted? (to format it: make fmt FIX=1)
	$(BIN)/ruff format $(if $(FIX),,--check) .

lint: $(STAMP)  ## ruff's rules (FIX=1 mends what it can)
	$(BIN)/ruff check $(if $(FIX),--fix,) .

type: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

imports: $(STAMP)  ## the direction of imports
	$(BIN)/lint-imports

e2e: $(STAMP)  ## only the tests that run the installed command
	$(PYTEST) -n $(WORKERS) tests/e2e

bench: $(STAMP)  ## speed and memory, compared within one run (half an hour on an idle machine)
	@$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python -m tests.bench

soak: $(STAMP)  ## the long crash, soak and fuzz runs
	$(PYTEST) -n 0 --timeout 0 tests/soak

docs: $(STAMP)  ## write jobs/README.md and jobs/manifest.schema.json from the models of the manifest
	@$(BIN)/python -m pipeline.manifest.reference > jobs/README.md
	@$(BIN)/imgpipe schema > jobs/manifest.schema.json

audit: $(STAMP)  ## is there an advisory for a package of the lock? (asks pypi.org)
	@test -x $(VENV)/audit/bin/pip-audit || { $(BIN)/python -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install --quiet pip-audit; }
	$(VENV)/audit/bin/pip-audit --strict --disable-pip --require-hashes -r $(LOCK)

lock: $(STAMP)  ## write the lock anew, with today's versions, for every Python from 3.11 on
	@test -x $(VENV)/lock/bin/uv || { $(BIN)/python -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet uv; }
	$(VENV)/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --custom-compile-command 'make lock' --extra dev -o $(LOCK) pyproject.toml

clean:  ## remove .venv and caches (never outputs/)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage build dist
	find pipeline tests -name __pycache__ -type d -prune -exec rm -rf {} +
