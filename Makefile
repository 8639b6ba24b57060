# Every target works from a fresh checkout: it makes .venv first, from the lock.
# Another interpreter: make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
LOCK := .ci/requirements.txt
PIP_QUIET := --quiet --disable-pip-version-check
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' namedtasks/_version.py)

.PHONY: help demo demo-threads demo-asyncio test check format lock build clean coverage matrix \
	bench bench-peers scale states pictures dask gevent interrupts stress conformance docs links api consumer fuzz mutation news changelog wheel release

help:  ## Show what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | column -t -s '|'

$(READY): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "namedtasks needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install $(PIP_QUIET) -r $(LOCK)
	$(BIN)/python -m pip install $(PIP_QUIET) --no-build-isolation --no-deps --editable .
	@touch $@

# An environment of its own for what an extra brings: .venv-docs for namedtasks[docs], and so on.
EXTRAS := bench dask docs gevent mutation release
.PRECIOUS: $(EXTRAS:%=.venv-%/extra)
$(EXTRAS:%=.venv-%/extra): .venv-%/extra: $(LOCK) .ci/requirements-%.txt pyproject.toml
	@$(MAKE) --no-print-directory VENV=.venv-$* .venv-$*/ready
	.venv-$*/bin/python -m pip install $(PIP_QUIET) -r .ci/requirements-$*.txt
	@touch $@

demo: $(READY)  ## Run a day of the volume controller: 12 volumes, 3 nodes (BACKEND=loop, fuse or dir; VOLUMES=100)
	cd docs/examples && $(abspath $(BIN))/python -m volume_controller \
		$(if $(BACKEND),--backend $(BACKEND)) $(if $(VOLUMES),--volumes $(VOLUMES))

demo-threads: $(READY)  ## Run a shorter controller, a plain synchronous program with threads
	cd docs/examples && $(abspath $(BIN))/python -m reconcile_threads

demo-asyncio: $(READY)  ## Run the same on asyncio
	cd docs/examples && $(abspath $(BIN))/python -m reconcile_asyncio

test: $(READY)  ## Run all tests
	$(BIN)/python -m pytest

dask: .venv-dask/extra  ## Run the tests of Dask, on a cluster of two processes, in an environment of its own
	.venv-dask/bin/python -m pytest -m dask

interrupts: $(READY)  ## Send Ctrl-C at bytecodes of a thread map, not only at lines; takes 10 minutes
	NAMEDTASKS_BYTECODES=yes $(BIN)/python -m pytest tests/threads/test_keyboard_interrupt.py -k opcode

gevent: .venv-gevent/extra  ## Run the tests of gevent, in an environment of its own
	.venv-gevent/bin/python -m pytest tests/threads/test_gevent.py

coverage: $(READY)  ## Run all tests, and demand that they reach every branch
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage report

matrix:  ## Run all tests on the other Pythons, and on the oldest trio and attrs
	.ci/matrix

check: $(READY)  ## Format, lint, types, import contracts, completeness of the public types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	PYTHON=$(BIN)/python .ci/verify-types

states: $(READY)  ## Draw the tables and the picture of the states again, from the code
	$(BIN)/python -m docs.tools.draw_states
	$(BIN)/python docs/tools/busy_tables.py

pictures: $(READY)  ## Draw names over time, and the demos as they were when they were kept (RECORD=yes: runs them first)
	$(BIN)/python -m docs.tools.glance
	$(BIN)/python -m docs.tools.demo $(if $(RECORD),--record)

api: $(READY)  ## Write down the public API again, in tests/public_api.txt
	$(BIN)/python -m tests.public_api

consumer: $(READY)  ## Check the types of a library on top of the built wheel: all Pythons, oldest and pinned trio
	PYTHON=$(BIN)/python .ci/consumer

bench: $(READY)  ## Measure what things cost, each beside its floor, some minutes (ONLY='refuse*', BENCH='--no-workers --check')
	$(BIN)/python -m benchmarks $(if $(ONLY),--only '$(ONLY)') $(BENCH)

bench-peers: .venv-bench/extra  ## The same beside what users would pick instead, in an environment of its own
	.venv-bench/bin/python -m benchmarks --only '$(or $(ONLY),instead*)' $(BENCH)

docs: .venv-docs/extra  ## Make the site, in docs/_build/html, in an environment of its own; a warning is an error
	.venv-docs/bin/python -m sphinx --fresh-env --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build/html

links: .venv-docs/extra  ## Ask for every address outside that the site has a link to; needs the internet
	.venv-docs/bin/python -m sphinx --builder linkcheck --keep-going --quiet docs docs/_build/links

scale: $(READY)  ## Run a controller of a million names for ten minutes of virtual time (SCALE='--shell threads')
	$(BIN)/python -m benchmarks.scale $(SCALE)

STRESS = -m tests.stress $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))
stress: $(READY)  ## Stress each shell for a minute, and again on a free-threaded Python, and look for overlaps and late waiters (SECONDS=60, SEED=..., PYTHON_FREE_THREADED=python3.14t)
	$(BIN)/python $(STRESS)
	@python=$${PYTHON_FREE_THREADED:-$$(bash -c '. .ci/find-python; find_python 3.14t')}; \
	if [ -z "$$python" ]; then \
		echo "not run without the GIL: no free-threaded Python was found; install one, for example with"; \
		echo "'pyenv install 3.14t', or name one: make stress PYTHON_FREE_THREADED=python3.14t"; \
		exit; \
	fi; \
	$(MAKE) --no-print-directory PYTHON="$$python" VENV=.venv-free-threaded .venv-free-threaded/ready && \
	.venv-free-threaded/bin/python $(STRESS)

fuzz: $(READY)  ## Run the state machines for five minutes, and keep what they find (MINUTES=60, SEED=...)
	$(BIN)/python -m tests.fuzz $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

mutation: .venv-mutation/extra  ## Show which faults in the core no test finds, some hours (ONLY=names: one module, some minutes)
	.venv-mutation/bin/mutmut run $(if $(ONLY),'namedtasks._$(ONLY).*')
	@.venv-mutation/bin/mutmut results | grep -v 'not checked' || echo 'no mutant survived'

conformance: $(READY)  ## Show which shell has which behaviour of the ancestor's list
	$(BIN)/python -m tests.conformance.table

format: $(READY)  ## Format the code, and mend what the linter can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

build: $(READY)  ## Build sdist and wheel, and install the wheel in a clean environment
	PYTHON=$(BIN)/python .ci/build

news: .venv-release/extra  ## Show what the next entry of the changelog will say
	.venv-release/bin/towncrier build --draft --version $(VERSION)

changelog: .venv-release/extra  ## Move the news fragments into CHANGELOG.md, under the version of namedtasks/_version.py
	.venv-release/bin/towncrier build --yes --version $(VERSION)

wheel: .venv-release/extra  ## Build sdist and wheel into dist, and check what is in them
	.ci/release wheel

release: .venv-release/extra  ## Build what is to be published, and run the tests against the installed wheel
	.ci/release

COMPILE := pip-compile --quiet --upgrade --strip-extras --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options --allow-unsafe
lock: $(READY)  ## Renew the pinned versions of the development tools, and of what the extras bring
	$(BIN)/$(COMPILE) --extra dev --output-file $(LOCK) pyproject.toml
	for extra in $(EXTRAS); do \
		$(BIN)/$(COMPILE) --constraint $(LOCK) --extra $$extra \
			--output-file .ci/requirements-$$extra.txt pyproject.toml || exit 1; \
	done

clean:  ## Remove what the targets made
	rm -rf .venv* build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage mutants
