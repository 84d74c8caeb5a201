# shaken-plugin. Two commands do everything on a fresh Debian 12 or 13:
#
#   make demo    play calls through two real Kamailios and show what happens to each
#   make test    check and test everything

# The switches embed Debian's own libpython: the virtual environment must be made with it.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin

# Without the cache of bytecode every process of the tests compiles again what it imports.
unexport PYTHONDONTWRITEBYTECODE

# Where there is room, files of the tests lie in memory: half of what they wait for is the disk.
ROOM := $(shell df --output=avail /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 > 4000000 { print "/dev/shm" }')

.PHONY: help demo test test-large bench bench-quick check lint bytecode wheel packages install fuzz test-debian12 \
	test-debian13 clean load

help:
	@sed -n 's/^#   //p' Makefile
	@echo "make check           lint and types alone"
	@echo "make test-debian13   the same tests in a fresh Debian 13 tree (needs root); likewise test-debian12"
	@echo "make test-large      the policy store with 10 million numbers, and properties tenfold: minutes, and 1 GB of disk"
	@echo "make bench           what calls cost, beside others that do the same: see docs/benchmarks.md"
	@echo "make bench-quick     the ratios of it, in three minutes; SECTIONS=\"core scale\" runs some parts alone"
	@echo "make load            calls for ten minutes while policy, keys and agents change, each judged: docs/load.md"
	@echo "make fuzz            each parser of what comes from the wire for ten minutes"
	@echo "make clean           remove what these commands made in this folder"

demo: install
	@$(BIN)/shaken lab demo

test: install
# Side by side, since each has one core.
	@$(MAKE) --no-print-directory --jobs=2 lint bytecode
# What measures time or load runs alone; all else, much of it waiting, on every core and two processes more.
	@$(if $(ROOM),TMPDIR=$(ROOM)) $(BIN)/python -m pytest --cov --cov-report= -m "not alone" -n auto --dist loadfile --no-loadscope-reorder
# The calls of these leave two thirds of two cores idle, three at a time.
	@$(BIN)/python -m pytest -m alone -n 3 --dist loadfile --no-loadscope-reorder tests/e2e/outage
	@$(BIN)/python -m pytest -m alone $$(grep -rl --include='test_*.py' mark.alone tests | grep -v '^tests/e2e/outage/')
	@echo "Coverage of the core, which must be whole:"
	@$(BIN)/coverage report --fail-under=100

# Takes minutes; not part of test.
test-large: install
	@$(BIN)/python -m pytest -m large tests/large
	@$(BIN)/python -m pytest --hypothesis-profile=thorough tests/property

# Its results go to results/; SECTIONS="core scale" runs these alone.
bench bench-quick: install
	@tools/packages bench
	@$(BIN)/python tools/requirements.py bench | xargs -d '\n' $(BIN)/python -m pip install --quiet
	@$(BIN)/python -m bench $(SECTIONS) $(if $(filter bench-quick,$@),--quick)

# Its report goes to results/; STORE=embedded without Redis, SCRIPT=kemi with routing in Python.
MINUTES ?= 10
RATE ?= 50
load: install
	@$(BIN)/python tools/requirements.py bench | xargs -d '\n' $(BIN)/python -m pip install --quiet
	@$(BIN)/python -m bench.load --minutes $(MINUTES) --rate $(RATE) $(if $(filter embedded,$(STORE)),--embedded) $(if $(filter kemi,$(SCRIPT)),--kemi)

check: install
	@$(MAKE) --no-print-directory lint

lint:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy src tests bench

# Of the tests, for all processes that run them. What is wrong with one is said when it runs.
bytecode:
	@$(BIN)/python -m pytest --collect-only -qqq >/dev/null 2>&1 || true

# Debian packages. Without root it says what is missing and how to get it; what can run, runs.
packages:
	@tools/packages

# Built anew each time, so that demo and tests run what a user would install.
install: packages $(VENV)/.made
	@rm -rf dist
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@$(BIN)/python -m pip install --quiet --force-reinstall --no-deps dist/*.whl

wheel: install

$(VENV)/.made: pyproject.toml
	@echo "Making $(VENV) with $(PYTHON) …"
	@$(PYTHON) -m venv $(VENV) || { echo "No virtual environment: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet hatchling
	@$(BIN)/python tools/requirements.py | xargs -d '\n' $(BIN)/python -m pip install --quiet
	@touch $@

# Each parser of what comes from the wire for ten minutes; not part of test.
fuzz: install
	@$(BIN)/python -m pip install --quiet atheris
	@$(BIN)/python fuzz/run.py $(FUZZ)

test-debian12 test-debian13: test-debian%:
	@tools/test-debian $*

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .scratch .fuzz results
