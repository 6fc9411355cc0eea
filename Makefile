# `make train` trains with the default configuration, `make test` runs the tests, `make check` lints.
# ARGS="..." is passed on: make train ARGS="experiment=too_high", make test ARGS="-k resume".
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python .ci/install.py $(VENV)/install.log --constraint constraints.txt --editable

.PHONY: train test check format course sweep launchers evidence bench coverage faults grow screenshots soak reference clean

train: $(VENV)/.train
	@echo "loading, some seconds; $(BIN)/lr-train --help shows what there is to train"
	@$(BIN)/lr-train $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

course: $(VENV)/.dev
	mkdir -p $(VENV)/course
	set -e; for part in examples/0[1-689]*.py; do $(BIN)/python $$part $(VENV)/course; done
	cp $(VENV)/course/02_too_high.png examples
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/07_sweep.sh $(VENV)/course

sweep: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/07_sweep.sh

launchers: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/10_cluster.sh $(VENV)/launchers $(ARGS)

coverage: $(VENV)/.dev
	$(BIN)/python -m coverage run -m pytest $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --skip-covered

soak: $(VENV)/.dev
	$(BIN)/python examples/benchmarks/soak.py --folder $(VENV)/soak --write $(ARGS)

evidence: $(VENV)/.dev
	$(BIN)/python examples/benchmarks/evidence.py $(ARGS)

bench: $(VENV)/.dev
	$(BIN)/python examples/benchmarks/overhead.py --write $(ARGS)

grow: $(VENV)/.dev
	$(BIN)/python examples/benchmarks/growth.py --write $(ARGS)

screenshots: $(VENV)/.dev
	$(BIN)/python examples/benchmarks/screenshots.py $(VENV)/screenshots $(ARGS)
	cp $(VENV)/screenshots/figure.png examples/mlflow.png

reference: $(VENV)/.dev
	$(BIN)/python examples/reference.py

faults: $(VENV)/.dev
	LR_CALLBACKS_LONG=1 $(BIN)/python -m pytest tests/tracking/test_faults.py $(ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@echo "environment: $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade "pip>=25.1"

$(VENV)/.train: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what a training needs, about two minutes; all of it is in $(VENV)/install.log"
	@$(PIP) ".[watch]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what the tests need; all of it is in $(VENV)/install.log"
	@$(PIP) ".[sweep]" --group dev
	@touch $@ $(VENV)/.train

clean:
	rm -rf $(VENV) build dist *.egg-info
