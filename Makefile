# An environment is made from a lock, in which every package that it takes stands with its hashes. Nothing is ever resolved:
# what a registry has released since changes nothing. VENV, LOCK and PYTHON name others than the usual ones (a LOCK wants a
# VENV of its own); PIP is what pip installs of itself first (make setup PIP=pip==23.0).
VENV := .venv
LOCK := requirements-dev.txt
PIP :=
PYTHON ?= $(shell for one in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$one -c $(SUITABLE) 2> /dev/null && echo $$one && break; done)

# Below 3.11 the language is not ours, from 3.15 on there are no wheels of what is locked. Debian's may come without venv.
SUITABLE := 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))'
override VENV := $(VENV:/=)
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Isolated (-I): what PYTHONPATH shows is not what the environment has.
PIPS := $(BIN)/python -I -m pip --disable-pip-version-check
INSTALL := $(PIPS) install --quiet --no-deps
# Three, since most tests wait for processes: on two cores a quarter of the time less than with two.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Settings that somebody has made for pip in other environments.
export PIP_USER := 0
export PIP_REQUIRE_HASHES := 0
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_DRY_RUN

.PHONY: help setup demo test soak coverage floors lowest pythons lint format bench fuzz model chaos attack lock clean

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

setup: $(READY)  ## .venv with the locked dependencies

# An environment whose Python is gone, or that was made for another checkout than this one, is none.
ifneq ($(shell $(BIN)/python -I -c 'import os, watcher; print(os.path.samefile(watcher.__path__[0], "watcher"))' 2> /dev/null),True)
.PHONY: $(READY)
endif

ifndef ALONE
# One at a time: who waited looks again, and finds it made. The lock is held for as long as anything of it runs.
$(READY): $(LOCK) pyproject.toml
	@$(or $(PYTHON),false) -c $(SUITABLE) || { echo "Python 3.11 to 3.14, with venv, is needed: install it (Debian: python3-venv), or name it with PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import fcntl, os, subprocess, sys; lock = open(sys.argv[1], "a"); fcntl.flock(lock, fcntl.LOCK_EX); \
		os.set_inheritable(lock.fileno(), True); sys.exit(subprocess.call(sys.argv[2:], close_fds=False))' \
		$(VENV).lock $(MAKE) --no-print-directory ALONE=yes $(READY)
else
# From nothing, every time: what an earlier call left half done is not built upon, and what is no environment is not touched.
# It is ready once it is whole, and is as old as its beginning: what was edited meanwhile is newer.
$(READY): $(LOCK) pyproject.toml
	@test -e $(VENV)/pyvenv.cfg || test -z "$$(find $(VENV) -type f 2> /dev/null | head -n 1)" || \
		{ echo "$(VENV) is there and is no environment: remove it, or name another with VENV=" >&2; exit 1; }
	@rm -rf $(VENV)-old && if test -e $(VENV); then mv $(VENV) $(VENV)-old && rm -rf $(VENV)-old; fi
	$(PYTHON) -m venv $(VENV)
	@touch $(VENV)/.begun
	$(if $(PIP),$(PIPS) install --quiet $(PIP))
	$(INSTALL) --only-binary :all: --require-hashes -r $(LOCK)
	$(INSTALL) --no-build-isolation -e .
	$(PIPS) check
	@mv $(VENV)/.begun $@
endif

demo: $(READY)  ## the whole system on this machine; ARGS="--seconds 20" ends by itself
	@$(BIN)/watcher demo $(ARGS)

test: $(READY) lint  ## linters, types and all tests; ARGS="-k name" narrows
	$(PYTEST) -m "not soak" $(ARGS)

soak: $(READY)  ## the tests that take minutes: chaos of a fleet, every planted fault and attack
	$(BIN)/python -m pytest -m soak $(ARGS)

coverage: $(READY)  ## which lines no test runs: all tests once more, at half the speed
	$(PYTEST) -m "not soak" --cov --cov-report=term $(ARGS)

# They try versions, not laws: a few examples of each property do.
floors: $(READY)
	WATCHER_TEST_EXAMPLES=10 $(PYTEST) -m "$(FLOORS)" $(ARGS)

lowest:  ## the pure and edge floors, on the lowest versions that pyproject.toml allows
	$(MAKE) floors VENV=$(VENV)-lowest LOCK=requirements-lowest.txt FLOORS="pure or edge"

pythons: $(READY)  ## the pure floor, on each other Python that we promise and that is here
	for python in $$($(BIN)/python -m tests.pythons); do \
		$(MAKE) floors VENV=$(VENV)-$${python##*/} PYTHON=$$python FLOORS=pure || exit 1; done

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/sample/*.py

format: $(READY)  ## what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## every benchmark, each a ratio measured in one run
	$(BIN)/python -m tests.bench $(ARGS)

fuzz: $(READY)  ## a million mutated answers against our five providers; ARGS="--examples 20000 --seed 7"
	$(BIN)/watcher-fuzz tests.providers.cases:cases $(ARGS)

model: $(READY)  ## all orders of steps of a hand-over between members; ARGS="--late 1 --window 2 --without 'no lease'"
	$(BIN)/python -m tests.fleet_model $(ARGS)

chaos: $(READY)  ## seeded faults against the daemon; ARGS="--journal kafka --seconds 300 --seed 7"
	$(BIN)/python -m tests.chaos $(ARGS)

attack: $(READY)  ## hostile providers and clients against the daemon, and how its neighbours fare; ARGS="pings --seconds 30"
	$(BIN)/python -m tests.attack $(ARGS)

# What a lock has stays, if it still can: ARGS=--upgrade takes the newest of everything.
RESOLVE = $(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $(ARGS)
lock:  ## resolve the dependencies anew, and prove that the locks are complete
	$(PYTHON) -m venv --clear $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check uv packaging
	$(RESOLVE) --extra dev pyproject.toml -o requirements-dev.txt
	echo hatchling | $(RESOLVE) -c requirements-dev.txt pyproject.toml - -o requirements.txt
	$(RESOLVE) --extra dev --resolution lowest-direct pyproject.toml -o requirements-lowest.txt
	$(VENV)-lock/bin/python -m tests.lock
	rm -rf $(VENV)-lock

clean:  ## forget the environments and the caches
	rm -rf $(VENV) $(VENV)-* $(VENV).lock .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
