# Halftone: `make serve` and `make test` do all the set-up themselves; `make` lists what there is.

PYTHON ?= python3
MODEL  ?= efficientnet_lite0
HOST   ?= 127.0.0.1
PORT   ?= 3000
ARTIFACTS := $(or $(HALFTONE_ARTIFACTS),artifacts)
SAMPLE := training/sample/val/Trouser/00192.png

VENV := .venv
BIN  := $(VENV)/bin
READY := $(VENV)/.ready
# Two files at once, in the order of tests/order.py, each on one core.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

export BENTOML_DO_NOT_TRACK := True
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup bundle serve demo picture docs test test-fast check

help:
	@echo "make serve      build and prove the default model if need be, then answer on http://$(HOST):$(PORT)"
	@echo "make demo       train on the sample pictures, export, prove, serve, and classify one picture: 3 minutes"
	@echo "make test       run the whole test suite: 12 to 20 minutes"
	@echo "make test-fast  run the files that take a few seconds each: 1 to 2 minutes"
	@echo "make check      lint, formatting and types"
	@echo "make bundle     build and prove artifacts/$(MODEL) only"
	@echo "make picture    take the picture of the README: the page with a heat map"
	@echo "make docs       build the documentation as a site in build/site: 10 seconds"
	@echo "make setup      make the environment $(VENV) only"

setup: $(READY)

# The mark is written last: an interrupted set-up is taken up again by the next make.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Halftone needs Python 3.11 or newer: name one with make PYTHON=python3.12 …" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@

bundle: setup
	@$(BIN)/python -m export --model $(MODEL) $(EXPORT_FLAGS)

serve: bundle
	@HALFTONE_MODEL=$(MODEL) exec $(BIN)/halftone serve --host $(HOST) --port $(PORT)

# What is done already is kept: an interrupted demonstration goes on, a finished one only asks again.
demo: setup
	@test -e $(ARTIFACTS)/demo/manifest.json || $(BIN)/python -m training --data training/sample --model efficientnet_lite0 \
		--recipe quick --output $(ARTIFACTS)/demo
	@$(BIN)/python -m export --model demo --data training/sample
	@HALFTONE_MODEL=demo $(BIN)/halftone ask --image $(SAMPLE)
	@echo "training report: $(ARTIFACTS)/demo/report/index.html (rm -r $(ARTIFACTS)/demo starts again)"

picture: bundle
	@$(BIN)/python -m tests.picture docs/page.png

docs: setup
	@$(BIN)/python -m tests.docs.pages
	@$(BIN)/python -m tests.docs.prose
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open build/site/index.html; its search works over HTTP: python -m http.server --directory build/site"

test: setup
	$(PYTEST) $(PYTEST_FLAGS)

test-fast: setup
	$(PYTEST) --fast $(PYTEST_FLAGS)

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
