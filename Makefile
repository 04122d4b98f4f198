# Every target sets up .venv by itself. "make" alone says what there is.

MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.PHONY: help setup browser demo run test proof simulate mutants coverage lint format bench docs constraints clean

export PYTHON
bin := .venv/bin
ready := .venv/.installed
# Tests run by this many processes; each starts a broker of its own.
WORKERS ?= 2

help:
	@echo 'HedgeLock Ingest: what Bybit sends, into Kafka, exactly once and in order.'
	@echo
	@echo 'Try it'
	@echo '  make demo                 everything on this machine: no account, no key, no Kafka'
	@echo '  make run                  the stream itself; settings from the environment (docs/settings.md)'
	@echo
	@echo 'Work on it'
	@echo '  make test                 the gate, below 10 minutes; ARGS go to pytest: make test ARGS="-k journal -x"'
	@echo '  make proof                every test there is, with new random seeds: half an hour, and a table at its end'
	@echo '  make simulate             thousands of faults in virtual time; ARGS="--seed 7" tells one of them step by step'
	@echo '  make mutants              break the program in many ways, and see the simulation find each'
	@echo '  make coverage             the gate once more, and which lines and branches it reached'
	@echo '  make browser              see that there is a Chromium, which the tests of Dagster need'
	@echo '  make lint                 ruff, mypy, import rules, Dagster'"'"'s definitions; changes nothing'
	@echo '  make format               let ruff mend what it can'
	@echo '  make bench                measure; ARGS go to the benchmarks'
	@echo '  make docs                 write docs/topics.md again from the models'
	@echo
	@echo 'The environment'
	@echo '  make setup                only make .venv; PYTHON=... names the interpreter, 3.12 or later'
	@echo '  make constraints          write the versions that .venv holds now to constraints.txt'
	@echo '  make clean                remove .venv and what tools left behind; journals stay'
	@echo
	@echo 'The command itself: $(bin)/hedgelock-ingest --help'

setup: $(ready)

$(ready): pyproject.toml constraints.txt tools/make-venv
	@tools/make-venv

# The stamp names the folder it was made in: after a move the scripts in .venv/bin would not run.
ifneq "$(shell cat $(ready) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(ready)
endif

demo: $(ready)
	@$(bin)/hedgelock-ingest demo $(ARGS)

run: $(ready)
	@$(bin)/hedgelock-ingest run $(ARGS)

browser:
	@tools/get-chromium

# Without a browser one test fails, and says what to do; the others are worth running. Tests start hundreds of
# processes: where Python may not keep what it compiled, each would take half a second more. A worker holds one test
# beside the one that it runs, not a share of all: some take a minute and most take milliseconds.
pytest := -n $(WORKERS) --dist load --maxschedchunk 1
before_tests = tools/get-chromium || true; $(bin)/python -m compileall -q hedgelock_ingest || true

test: $(ready)
	@$(before_tests)
	@$(bin)/python -m hedgelock_ingest_tests.gate $(pytest) $(ARGS)

proof: $(ready)
	@$(before_tests)
	@$(bin)/python -m pytest --proof $(pytest) $(ARGS)

# Sets of texts have one order, so that a seed takes the same steps again.
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
