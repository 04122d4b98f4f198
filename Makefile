# Every target sets up .venv if needed. "make" without a target lists the targets.

MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.PHONY: help setup browser demo run test proof simulate mutants coverage lint format bench docs constraints clean

export PYTHON
bin := .venv/bin
ready := .venv/.installed
# Number of processes that run tests; each starts its own broker.
WORKERS ?= 2

help:
	@echo 'HedgeLock Ingest: Bybit'"'"'s data into Kafka, exactly once and in order.'
	@echo
	@echo 'Try it'
	@echo '  make demo                 the complete system on this machine: no account, key or Kafka needed'
	@echo '  make run                  the stream; settings from the environment (docs/settings.md)'
	@echo
	@echo 'Work on it'
	@echo '  make test                 the gate, about 9 minutes; ARGS go to pytest: make test ARGS="-k journal -x"'
	@echo '  make proof                all tests, with new random seeds: half an hour, with a table at the end'
	@echo '  make simulate             thousands of faults in virtual time; ARGS="--seed 7" shows one schedule step by step'
	@echo '  make mutants              insert faults into the program, and check that the simulation finds each'
	@echo '  make coverage             run the gate and report the lines and branches that it reached'
	@echo '  make browser              check for a Chromium, which a test of Dagster needs; install it on Debian as root'
	@echo '  make lint                 ruff, mypy, import rules, Dagster'"'"'s definitions; changes nothing'
	@echo '  make format               fix what ruff can fix, and format'
	@echo '  make bench                run the benchmarks; ARGS go to them'
	@echo '  make docs                 write docs/topics.md from the models'
	@echo
	@echo 'The environment'
	@echo '  make setup                only create .venv; PYTHON=... names the interpreter, 3.12 or later'
	@echo '  make constraints          write the versions in .venv to constraints.txt'
	@echo '  make clean                remove .venv and files of tools; journals stay'
	@echo
	@echo 'The command: $(bin)/hedgelock-ingest --help'

setup: $(ready)

$(ready): pyproject.toml constraints.txt tools/make-venv
	@tools/make-venv

# The stamp contains the folder it was made in: after a move the scripts in .venv/bin do not run.
ifneq "$(shell cat $(ready) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(ready)
endif

demo: $(ready)
	@$(bin)/hedgelock-ingest demo $(ARGS)

run: $(ready)
	@$(bin)/hedgelock-ingest run $(ARGS)

browser:
	@tools/get-chromium

# Without a browser one test fails and reports the action; all others run. Tests start hundreds of processes, each of
# which takes half a second more if the modules are not compiled. A worker queues one test beside the running one, not a
# share of all: some take a minute, most take milliseconds.
pytest := -n $(WORKERS) --dist load --maxschedchunk 1
before_tests = tools/get-chromium || true; $(bin)/python -m compileall -q hedgelock_ingest || true

test: $(ready)
	@$(before_tests)
	@$(bin)/python -m hedgelock_ingest_tests.gate $(pytest) $(ARGS)

proof: $(ready)
	@$(before_tests)
	@$(bin)/python -m pytest --proof $(pytest) $(ARGS)

# A fixed order of sets, so that a seed always takes the same steps.
simulate: $(ready)
	@PYTHONHASHSEED=0 $(bin)/python -m hedgelock_ingest_tests.simulation $(ARGS)

mutants: $(ready)
	@PYTHONHASHSEED=0 $(bin)/python -m hedgelock_ingest_tests.simulation.mutants $(ARGS)

coverage: $(ready)
	@$(before_tests)
	@mkdir -p .coverage && $(bin)/coverage erase
	@status=0; $(bin)/coverage run -m pytest $(pytest) $(ARGS) || status=$$?; \
		$(bin)/coverage combine --quiet; $(bin)/coverage report --skip-covered --sort=cover | tail -n 40; exit $$status

lint: $(ready)
	@status=0; for check in 'ruff check .' 'ruff format --check .' mypy 'lint-imports --no-logo' \
		'dagster definitions validate'; do \
		echo "-- $$check"; $(bin)/$$check || status=1; done; exit $$status

format: $(ready)
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

bench: $(ready)
	@$(bin)/python -m benchmarks $(ARGS)

docs: $(ready)
	@$(bin)/python docs/generate.py

constraints: $(ready)
	@$(bin)/python -m pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools \
		| LC_ALL=C sort -f >.venv/constraints.txt
	@if cmp -s .venv/constraints.txt constraints.txt; then echo 'constraints.txt is up to date'; \
		else cp .venv/constraints.txt constraints.txt && touch $(ready) && echo 'constraints.txt written'; fi

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
