# `make run` diagnoses, `make test` proves; both prepare what they need on a fresh machine.
SHELL := /bin/bash
TARGET ?= 127.0.0.1:62893
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q
MACHINES := fixtures/machines

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test check browser lab fuzz vm record docs bench clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*##/\1\t/p' $(MAKEFILE_LIST) | column -t -s $$'\t'

run: $(VENV)/.installed  ## diagnose TARGET (default 127.0.0.1:62893)
	@$(BIN)/netdiag run '$(TARGET)'; code=$$?; case $$code in 0|1|3) ;; *) exit $$code ;; esac

test: system check browser lab  ## everything: style, types, layers, unit, replay, properties, and real faults

check: $(VENV)/.tested  ## all that needs neither root nor real faults
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -n auto -m 'not lab and not fuzz and not browser'

browser: $(VENV)/.schemas  ## the HTML report in a real browser (Chromium), the other formats against their published schemas
	$(PYTEST) -m browser

lab: $(VENV)/.tested  ## real faults on this machine, in namespaces of their own (root), on all of its processors
	$(PYTEST) -m lab -n auto --dist worksteal

fuzz: $(VENV)/.tested  ## 2,000 random rule sets (NETDIAG_FUZZ=N) and 200,000 damaged recordings (NETDIAG_MUTANTS=N), all new (root)
	NETDIAG_FUZZ=$${NETDIAG_FUZZ:-2000} $(PYTEST) -m fuzz --ignore tests/mutation
	NETDIAG_MUTANTS=$${NETDIAG_MUTANTS:-200000} NETDIAG_SEED=$${NETDIAG_SEED:-$$(date +%s)} $(PYTEST) -m fuzz -n auto tests/mutation

vm: $(VENV)/.tested  ## real faults in virtual machines with other kernels; KERNEL=6.1 FAULTS="words of a name" RECORD=folder
	$(BIN)/python -m tests.vm $(KERNEL:%=--kernel %) $(if $(FAULTS),--faults '$(FAULTS)') $(RECORD:%=--record %) $(VM)

record: $(VENV)/.tested  ## run the lab and keep what it saw as machines to replay
	$(PYTEST) -m lab --record-machines $(MACHINES)

docs: $(VENV)/.tested  ## the manual page, from the commands; the README's picture, from a real fault (root)
	$(BIN)/python scripts/manual.py
	./scripts/picture

bench: $(VENV)/.tested  ## the speed budgets, as ratios measured side by side (root)
	$(BIN)/python -m bench.budgets

clean:  ## remove what the other targets made
	rm -rf $(VENV) .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: system
system:
	@./scripts/system-packages

$(VENV)/.installed: pyproject.toml
	@./scripts/environment $(VENV) .
	@touch $@

$(VENV)/.schemas: scripts/published-schemas $(VENV)/.tested
	./scripts/published-schemas $(VENV)
	@touch $@

$(VENV)/.tested: pyproject.toml $(VENV)/.installed
	@./scripts/environment $(VENV) '.[test]'
	@touch $@
