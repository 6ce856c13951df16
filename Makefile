# `make serve` and `make test` are the two commands; `make help` lists the rest.

PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help serve demo test lint bench-path bench-model bench-verdict bench-guard bench-guardrails bench-gate bench-console lock clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: .venv/.installed ## Install what is missing and serve on 127.0.0.1:8000
	@exec $(BIN)/phasegate serve

demo: .venv/.installed ## Tell the whole story on a server of its own, in under two minutes
	@exec $(BIN)/phasegate demo

test: .venv/.installed-for-tests ## Run lint, types, import rules and all tests
	@scripts/test.sh

bench-path: .venv/.installed-for-tests ## Decisions a second over a bare echo, and what observing costs
	@$(BIN)/python -m tests.bench.path

bench-model: .venv/.installed-for-tests ## Decisions a second over the plain recipe on the same model
	@$(BIN)/python -m tests.bench.model

bench-verdict: .venv/.installed-for-tests ## Milliseconds from a wrong-allow verdict to the legacy engine's next answer
	@$(BIN)/python -m tests.bench.verdict

bench-gate: .venv/.installed-for-tests ## Milliseconds to see what a promotion still needs, after ten million decisions
	@$(BIN)/python -m tests.bench.gate

bench-console: .venv/.installed-for-tests ## Milliseconds of the console's pages with 200 rollouts and a million decisions
	@$(BIN)/python -m tests.bench.console

bench-guardrails: .venv/.installed-for-tests ## False rollbacks and delays of our rule and of others; writes docs/guardrails.md
	@$(BIN)/python -m tests.bench.guardrails

bench-guard: .venv/.installed-for-tests ## Seconds of a guardrail pass over many rollouts and many decisions
	@$(BIN)/python -m tests.bench.guard_pass

lock: ## Write requirements*.lock from what .venv holds
	@$(BIN)/python scripts/lock.py

clean: ## Remove .venv and caches; data/ stays
	@rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find app tests migrations -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: requirements.lock pyproject.toml
	@scripts/install.sh "$(PYTHON)"
	@touch $@

.venv/.installed-for-tests: requirements-test.lock .venv/.installed
	@scripts/install.sh "$(PYTHON)" tests
	@touch $@
