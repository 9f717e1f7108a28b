# make demo: try it.  make test: check it.  Everything they need is set up in .venv on the first call.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000

.DEFAULT_GOAL := help
.PHONY: help demo test unit services e2e lint types translations lock bench clean

help: ## Show this list
	@grep -hE '^[a-z0-9_-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(BIN)/activate:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Qingting needs Python 3.11 or newer; set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.site: $(BIN)/activate requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev: $(VENV)/.site requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/.chromium: $(VENV)/.dev tests/e2e/install_chromium.sh
	bash tests/e2e/install_chromium.sh $(BIN)
	touch $@

demo: $(VENV)/.site ## Start the demonstration on http://127.0.0.1:8000 (PORT=…; DEMO=full also trains a toy)
	$(BIN)/python -m config.demo --port $(PORT) $(if $(filter full,$(DEMO)),--full)

test: lint types $(VENV)/.chromium ## Everything: lint, types, unit, database, broker and browser tests
	bash tests/run.sh $(BIN)

unit: $(VENV)/.dev ## Tests that need neither server nor browser
	$(BIN)/python -m pytest -q -m "not e2e and not services"

e2e: $(VENV)/.chromium ## Browser tests only
	$(BIN)/python -m pytest -q -m e2e

lint: $(VENV)/.dev ## Ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy
	$(BIN)/mypy .

translations: $(VENV)/.dev ## Compile locale/*/LC_MESSAGES/django.po
	$(BIN)/pybabel compile --domain django --directory locale --statistics

lock: $(BIN)/activate ## Write requirements.txt and requirements-dev.txt from the .in files
	bash requirements-lock.sh $(BIN)

bench: $(VENV)/.dev ## Measure speed; writes benchmarks/results/
	$(BIN)/python -m benchmarks

clean: ## Remove what make made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
