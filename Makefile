# Each target first makes the environment that it needs, from a lock in .ci:
#
#     .venv         the tests (.venv/test) and, for most other targets, all tools (.venv/dev)
#     .venv-demo    the demos; .venv-docs, .venv-release and so on are for one target each
#
# Another Python:       make test PYTHON=python3.13 VENV=.venv-3.13
# uv in place of pip:   make test UV=uv

PYTHON ?= python3
VENV ?= .venv
UV ?=
BIN := $(VENV)/bin
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' namedtasks/_version.py)
ENVIRONMENT = @PYTHON='$(PYTHON)' UV='$(UV)' .ci/environment

.PHONY: help demo demo-threads demo-asyncio test check check-style check-mypy check-pyright check-imports \
	check-wheel format lock build clean coverage matrix oldest bench bench-peers scale states pictures dask gevent \
	interrupts test-alerts test-browser stress conformance docs links api consumer fuzz mutation news changelog wheel release

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | column -t -s '|'

# The environments. The file in each is as old as its last installation.

TEST := $(VENV)/test
DEV := $(VENV)/dev

$(TEST): .ci/requirements-test.txt
	$(ENVIRONMENT) $(VENV) test
	@touch $@

$(DEV): .ci/requirements-dev.txt $(TEST)
	$(ENVIRONMENT) $(VENV) dev
	@touch $@

OTHERS := bench browser dask demo docs gevent mutation release uv
$(OTHERS:%=$(VENV)-%/ready): $(VENV)-%/ready: .ci/requirements-%.txt
	$(ENVIRONMENT) $(VENV)-$* $*
	@touch $@

# The demos run from the checkout: nothing of namedtasks is installed for them.
DEMO = cd docs/examples && PYTHONPATH='$(CURDIR)' $(abspath $(VENV)-demo/bin/python) -m

demo: $(VENV)-demo/ready  ## Run a day of the volume controller: 12 volumes, 3 nodes (BACKEND=loop, fuse or dir; VOLUMES=100)
	$(DEMO) volume_controller $(if $(BACKEND),--backend $(BACKEND)) $(if $(VOLUMES),--volumes $(VOLUMES))

demo-asyncio: $(VENV)-demo/ready  ## Run a shorter controller on asyncio
	$(DEMO) reconcile_asyncio

demo-threads: $(VENV)-demo/ready  ## Run the same controller with threads
	$(DEMO) reconcile_threads

test: $(TEST)  ## Run all tests, some minutes
	$(BIN)/python -m pytest

coverage: $(TEST)  ## Run all tests, and fail if a branch of the package is not reached
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage report

check: check-style check-imports check-mypy check-pyright check-wheel  ## Check format, lint, types, import contracts and the types of the built wheel

check-style: $(DEV)
	$(BIN)/ruff format --check
	$(BIN)/ruff check

check-imports: $(DEV)
	$(BIN)/lint-imports --no-logo

check-mypy: $(DEV)
	$(BIN)/mypy

check-pyright: $(DEV)
	$(BIN)/pyright --pythonpath $(BIN)/python

check-wheel: $(DEV)
	UV='$(UV)' PYTHON=$(BIN)/python .ci/verify-types

format: $(DEV)  ## Format the code, and fix what the linter can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

matrix: $(DEV)  ## Run the tests on the other Pythons, and with the oldest trio and attrs
	$(BIN)/nox --parallel 2

oldest: $(DEV)  ## Run the tests with the oldest trio and attrs only
	$(BIN)/nox --session oldest

consumer: $(DEV)  ## Check the types of a library that uses the built wheel, on all Pythons
	$(BIN)/nox --parallel 2 --session consumer

dask: $(VENV)-dask/ready  ## Run the tests with Dask, on a cluster of two processes
	$(VENV)-dask/bin/python -m pytest -m dask tests/executors

gevent: $(VENV)-gevent/ready  ## Run the tests with gevent
	$(VENV)-gevent/bin/python -m pytest tests/threads/test_gevent.py

test-alerts: $(TEST)  ## Run the alerts with real Prometheus and Alertmanager on 127.0.0.1, three minutes
	$(BIN)/python -m pytest -m alerts tests/alerts

test-browser: $(VENV)-browser/ready  ## Run the status page in Chromium, and send its API the requests of schemathesis
	$(VENV)-browser/bin/python -m pytest -m browser tests/status

interrupts: $(TEST)  ## Send Ctrl-C at the bytecodes of a thread map, not only at its lines; 10 minutes
	NAMEDTASKS_BYTECODES=yes $(BIN)/python -m pytest tests/threads/test_keyboard_interrupt.py -k opcode

STRESS = $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))
stress: $(DEV)  ## Stress each dialect for a minute, then again on the free-threaded 3.14 if there is one (SECONDS=60, SEED=...)
	$(BIN)/python -m tests.stress $(STRESS)
	$(BIN)/nox --session stress -- $(STRESS)

fuzz: $(TEST)  ## Run the state machines for five minutes, and keep the failures that they find (MINUTES=60, SEED=...)
	$(BIN)/python -m tests.fuzz $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

mutation: $(VENV)-mutation/ready  ## Show mistakes in the scheduler that no test notices, some hours (ONLY=names: one module, some minutes)
	$(VENV)-mutation/bin/mutmut run $(if $(ONLY),'namedtasks._$(ONLY).*')
	@$(VENV)-mutation/bin/mutmut results | grep -v 'not checked' || echo 'no mutant survived'

bench: $(TEST)  ## Measure the costs, each beside its floor, some minutes (ONLY='refuse*', BENCH='--no-workers --check')
	$(BIN)/python -m benchmarks $(if $(ONLY),--only '$(ONLY)') $(BENCH)

bench-peers: $(VENV)-bench/ready  ## Measure other packages for the same jobs
	$(VENV)-bench/bin/python -m benchmarks --only '$(or $(ONLY),instead*)' $(BENCH)

scale: $(TEST)  ## Run a controller of a million names for ten minutes of virtual time (SCALE='--shell threads')
	$(BIN)/python -m benchmarks.scale $(SCALE)

docs: $(VENV)-docs/ready  ## Build the site in docs/_build/html; a warning is an error
	$(VENV)-docs/bin/python -m sphinx --fresh-env --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build/html

links: $(VENV)-docs/ready  ## Request each external address that the site links to; needs the internet
	$(VENV)-docs/bin/python -m sphinx --builder linkcheck --keep-going --quiet docs docs/_build/links

states: $(TEST)  ## Write the tables and the picture of the states again, from the code
	$(BIN)/python -m docs.tools.draw_states
	$(BIN)/python docs/tools/busy_tables.py

pictures: $(TEST)  ## Draw the pictures again, those of the demos from their last recording (RECORD=yes: record them first)
	$(BIN)/python -m docs.tools.glance
	$(BIN)/python -m docs.tools.demo $(if $(RECORD),--record)

api: $(TEST)  ## Write the public API to tests/public_api.txt
	$(BIN)/python -m tests.public_api

conformance: $(TEST)  ## Show which dialect has which behaviour of the conformance list
	$(BIN)/python -m tests.conformance.table

build: $(DEV)  ## Build sdist and wheel, and try each in a clean environment
	UV='$(UV)' PYTHON=$(BIN)/python .ci/build

news: $(VENV)-release/ready  ## Show the next entry of the changelog
	$(VENV)-release/bin/towncrier build --draft --version $(VERSION)

changelog: $(VENV)-release/ready  ## Move the news fragments into CHANGELOG.md, under the version of namedtasks/_version.py
	$(VENV)-release/bin/towncrier build --yes --version $(VERSION)

wheel: $(VENV)-release/ready  ## Build sdist and wheel in dist, and check their contents
	PYTHON=$(VENV)-release/bin/python .ci/release wheel

release: $(VENV)-release/ready  ## Build the files to publish, and run the tests against the installed wheel
	UV='$(UV)' PYTHON=$(VENV)-release/bin/python .ci/release

LOCKS := dev test $(OTHERS)
lock: $(DEV)  ## Write the locks of all dependency groups again, with the newest versions
	set -e; for group in $(LOCKS); do \
		$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
			--no-header --no-annotate --group $$group $$(test $$group = dev || echo --constraint .ci/requirements-dev.txt) \
			--output-file .ci/requirements-$$group.txt pyproject.toml; \
	done

clean:  ## Remove the environments, and all that the targets made
	rm -rf .venv* .nox build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage mutants
