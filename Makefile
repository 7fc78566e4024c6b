# Everything a newcomer needs: `make demo` and `make test`. Each sets up its own environment first.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo table protocols docs test check constraints clean

setup: $(STAMP)

# The package and its development tools, at the versions the tests ran with.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cfnsr needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/cfnsr demo --out demo

# Both tables of the paper, all fifteen models under both protocols, on the synthetic corpus at a CPU's size.
table: setup
	$(BIN)/cfnsr synthesize table/corpus
	$(BIN)/cfnsr prepare table/corpus table/prepared --modalities video,audio,log_mel --size 64
	$(BIN)/cfnsr crossval --table 1 --table 2 --data table/prepared --out table/runs --preset small --workers $(WORKERS) --resume

# docs/protocols.md: what each habit of the field adds, on real sound. RAVDESS is a folder of its recordings.
protocols: setup
	@test -n "$(RAVDESS)" || { echo "make protocols RAVDESS=folder, with RAVDESS's speech recordings"; exit 2; }
	$(BIN)/cfnsr prepare $(RAVDESS) protocols/prepared --modalities audio
	$(BIN)/cfnsr crossval audio --data protocols/prepared --out protocols/runs --workers $(WORKERS) --resume \
		--protocol nested,best_epoch_on_test,paper,shared_actors,repeated_takes
	$(BIN)/python docs/write_protocols.py protocols/runs docs/protocols.md

docs: setup
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build
	@echo "docs/_build/index.html"

test: setup check
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --doctest-modules --durations 10 tests src

check: setup
	$(BIN)/ruff check src tests docs
	$(BIN)/ruff format --check src tests docs
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# After an upgrade of the environment: pin what it has now.
constraints: setup
	$(BIN)/python -m pip freeze --exclude-editable | sed "s/+cpu$$//" > constraints.txt

clean:
	rm -rf $(VENV) demo table protocols docs/_build .mypy_cache .ruff_cache .pytest_cache
