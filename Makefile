# Everything a person needs: `make demo` and `make test` set themselves up and are quick the second time.
#   PYTHON       the Python to build the virtual environment with (3.11 or newer)
#   TORCH_INDEX  an index URL to take torch from, such as PyTorch's CPU index (no CUDA packages)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_INDEX ?=
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test lint bench docs install services clean
help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.installed  ## the whole path on this machine, in minutes
	$(BIN)/stemma demo $(ARGS)

test: $(VENV)/.installed lint  ## lint, types, layers, tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed  ## ruff, pyright, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python
	$(BIN)/lint-imports

bench: $(VENV)/.installed  ## the measurements behind the README's numbers
	for file in benchmarks/*.py; do $(BIN)/python $$file; done

docs: $(VENV)/.installed  ## regenerate what in docs/ is made from code
	$(BIN)/python -m lineage.catalogue > docs/tables.md
	$(BIN)/python -m pipelines.formats_catalogue > docs/formats.md

install: $(VENV)/.installed  ## the virtual environment with all extras

services:  ## PostgreSQL, for the tests that skip without it (as root, with apt)
	.ci/services

# torch comes first and pinned: whoever asks for it later finds it there.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) --constraint constraints.txt --editable '.[demo,dev]'
	touch $@

clean:  ## remove the virtual environment and the demo's lake
	rm -rf $(VENV) .stemma
