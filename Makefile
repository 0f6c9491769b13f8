# The repository's commands. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The order of a target's prerequisites is the order of the report: tests close it.
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?=
# One per core; a file stays with one worker, so that its servers start once.
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 5 --timeout 60 \
	--require-hashes
ARGS ?=
SEEDS ?= 1000
FIRST ?= 1
SOURCES := server tests protos native helm image clients/__init__.py clients/builds clients/conformance \
	clients/python clients/readme $(wildcard bench)
# What the tests' servers run on: grpcio or native.
TRANSPORT ?= grpcio
export TEST_TRANSPORT := $(TRANSPORT)
# Some images forbid to keep what Python compiled: then every process compiles everything anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test checks test-fast test-faults soak million emptied nightly sim month \
	lint format typecheck imports native gen gen-check proto-lint proto-breaking lock guard bench \
	test-kubernetes image-check clients test-clients \
	bench-peers bench-plot bench-limits bench-journal bench-rebuild bench-verify bench-lag \
	bench-scripts bench-curves bench-sizing bench-clients envoy-api watch-check rehearse game-day \
	clean

help: ## List these commands
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) \
		| awk -F ':.*## ' '{ printf "  \033[1m%-15s\033[0m %s\n", $$1, $$2 }'

setup: $(STAMP) ## Make .venv and install what requirements.lock names, hashes checked
	@$(if $(filter setup,$(MAKECMDGOALS)),echo "$(VENV) is up to date.",:)

$(STAMP): requirements.lock pyproject.toml clients/python/pyproject.toml
	@python="$(PYTHON)"; \
	for candidate in python3.11 python3.12 python3.13 python3; do \
		[ -n "$$python" ] && break; \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python="$$candidate"; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Tallygate needs Python 3.11 or newer; name one with: make setup PYTHON=/path" >&2; \
		exit 1; \
	fi; \
	if ! $(BIN)/python -c '' 2>/dev/null; then \
		echo "Making $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv --clear $(VENV); \
	fi
	@echo "Installing the packages of requirements.lock (half a minute or so, the first time)"
	@awk '/^uv==/ { found = 1 } found { print; if (!/\\$$/) exit }' requirements.lock >$(VENV)/uv.lock
	@$(PIP) --requirement $(VENV)/uv.lock
	@# Three times as fast as pip, which for its part knows more ways to an index.
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes \
		--requirement requirements.lock || $(PIP) --requirement requirements.lock
	@echo "Installing tallygate itself and its Python client, editable"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-index --no-build-isolation --editable . --editable clients/python
	@touch $(STAMP)
	@echo "Ready: $(BIN)/tallygate"

demo: setup ## Run everything here, send a sample of real traffic, show the figures
	@$(BIN)/tallygate demo $(ARGS)

test: setup ## Run every check, then every test; TRANSPORT=native
	@$(BIN)/python -m tests.watch.obtain
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target checks
	@$(PYTEST) $(ARGS)

checks: lint typecheck imports gen-check proto-lint proto-breaking ## Run every check, no test

test-fast: setup ## Run the tests that are not marked slow
	@$(PYTEST) -m 'not slow and not faults_long' $(ARGS)

test-faults: setup ## Run every fault test, long ones too; write docs/guarantees.md; SEED repeats
	@$(BIN)/python -m tests.chaos.guarantees $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: setup ## Mixed load while fault follows fault, DURATION seconds (600); write docs/soak.md
	@$(BIN)/python -m tests.chaos.soak --seconds $(or $(DURATION),600) \
		$(if $(SEED),--seed $(SEED)) --report docs/soak.md $(ARGS)

million: setup ## Send 1,000,000 made-up events while everything is killed; compare to the unit
	@$(BIN)/python -m tests.chaos.million --keep $(if $(SEED),--seed $(SEED)) $(ARGS)

emptied: setup ## Empty Redis under 2,000 calls a second; compare to the unit
	@$(BIN)/python -m tests.chaos.emptied --keep $(if $(SEED),--seed $(SEED)) $(ARGS)

rehearse: setup ## Have each disaster befall real servers, cure it, compare; ARGS='--only redis'
	@$(BIN)/python -m tests.operating.rehearse $(ARGS)

game-day: setup ## Fault after fault until each is seen and over; ARGS='--at HOST:PORT' on yours
	@$(BIN)/python -m tests.operating.game_day $(ARGS)

nightly: setup ## Hold the script to its specification: 20 seeds on every Redis, 10,000 steps each
	@$(BIN)/python -m tests.property.nightly $(ARGS)

test-clients: setup ## Build, test, pack and install the clients of every language; play all cases
	@$(BIN)/python -m clients.builds --all $(ARGS)

clients: setup ## Build what the clients' cases need: ARGS='--lang go'
	@$(BIN)/python -m clients.builds --build-only $(ARGS)

lint: setup ## Check style and formatting
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)

format: setup ## Format, and fix what can be fixed
	@$(BIN)/ruff check --fix --exit-zero --quiet $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

typecheck: setup ## Check types, strictly
	@$(BIN)/mypy

imports: setup ## Check that imports point one way
	@$(BIN)/lint-imports --no-cache

gen: setup ## Generate the stubs from protos/
	@$(BIN)/python protos/generate.py
	@$(BIN)/python protos/generate_go.py
	@if [ -d clients/typescript/node_modules ]; then node clients/typescript/scripts/generate.mjs; \
	else echo "Node's stubs stay as they are: run npm ci in clients/typescript first."; fi

gen-check: setup ## Check that the stubs are what protos/ would give
	@$(BIN)/python protos/generate.py --check

proto-lint: setup ## Lint the protos
	@$(BIN)/buf lint && echo "The protos are clean."

proto-breaking: setup ## Check that the protos break no caller of the last commit of main
	@$(BIN)/python protos/breaking.py

envoy-api: setup ## Compare our protos of Envoy's messages with Envoy's own, which it downloads
	@$(BIN)/python -m tests.envoy.envoy_api

native: setup ## Build the native transport's front with our bounds, and install it; needs cargo
	@$(BIN)/python native/build.py

lock: setup ## Resolve requirements.lock again, keeping pins that still fit
	@$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
		--extra archive --extra embedded --extra native --extra otel --extra stripe --group dev \
		--generate-hashes --no-header --no-emit-index-url \
		--no-emit-find-links --output-file requirements.lock $(ARGS)
	@$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
		--extra native --extra otel --extra stripe --constraints requirements.lock \
		--generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
		--output-file image/requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --group bench \
		--constraints requirements.lock --generate-hashes --no-header --no-emit-index-url \
		--no-emit-find-links --output-file bench/requirements.lock $(ARGS)

watch-check: setup $(VENV)/.bench ## Have a real Prometheus ask every panel of a real run; draw docs/dashboards
	@$(BIN)/python -m tests.watch.check $(ARGS)
test-kubernetes: setup ## Hold the injector against a real API server, built once; needs go and etcd
	@$(BIN)/python -m tests.kubernetes.servers
	@$(BIN)/python -m pytest -n 0 --timeout 600 tests/kubernetes/check_injection.py \
		tests/kubernetes/check_chart.py

image-check: setup ## Lint the Dockerfile, build its layers into a folder, run commands from them
	@$(BIN)/python -m tests.image.layers $(ARGS)

sim: setup ## Simulate the whole chain under faults, seed by seed: SEEDS=1000 FIRST=1
	@$(BIN)/python -m tests.sim --first $(FIRST) --seeds $(SEEDS) $(ARGS)

month: setup ## Live through a month of fifty tenants, from usage to money, in virtual time; SEED
	@$(if $(SEED),TALLYGATE_MONTH_SEEDS=$(SEED)) $(BIN)/python -m pytest -n 0 tests/month $(ARGS)

guard: setup ## Count what each kind of call costs, beside its baseline; ARGS=--record, '--where X'
	@$(BIN)/python -m tests.guard $(ARGS)

bench: setup ## Hold speed and memory to their budgets in one run, five minutes; needs h2load
	@COLUMNS=$${COLUMNS:-160} $(BIN)/python -m bench $(ARGS)

bench-peers: setup $(VENV)/.bench ## The same beside the Go peers, which are built first; kept in docs
	@$(BIN)/python -m bench.peers.installed
	@COLUMNS=$${COLUMNS:-160} $(BIN)/python -m bench --keep $(ARGS)
	@$(BIN)/python -m bench.plot

bench-plot: setup $(VENV)/.bench ## Draw docs/performance.png from the newest results
	@$(BIN)/python -m bench.plot $(ARGS)

$(VENV)/.bench: bench/requirements.lock $(STAMP)
	@echo "Installing what draws the plot"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 5 --timeout 60 \
		--require-hashes --requirement bench/requirements.lock
	@touch $@

bench-lag: setup ## Measure what an event costs on its way to the ledger, and how long it takes
	@$(BIN)/python -m bench.lag $(ARGS)

bench-rebuild: setup ## Measure how long counters that were lost take to be made anew
	@$(BIN)/python -m bench.rebuild $(ARGS)

bench-verify: setup ## Measure how long it takes to hold everything against the ledger
	@$(BIN)/python -m bench.verify $(ARGS)

bench-limits: setup ## Measure what each kind of limit costs Redis beside a plain window
	@$(BIN)/python -m bench.limits

bench-clients: setup ## Measure what each client costs per call beside its bare stub; after make clients
	@$(BIN)/python -m bench.clients $(ARGS)

bench-scripts: setup ## Measure what an operation costs Redis by its shape, and what is stored of it
	@$(BIN)/python -m bench.scripts

bench-curves: setup ## Measure what an operation costs as tenants, limits, sidecars, shards, processes grow
	@$(BIN)/python -m bench.curves

bench-sizing: setup ## Measure what an event takes at each place; ARGS='--per-s 2000' for needs
	@$(BIN)/python -m bench.sizing $(ARGS)

bench-journal: setup ## Measure what the journal costs a call, and how long a sync takes
	@$(BIN)/python -m bench.journal $(ARGS)

clean: ## Remove the environment, caches and build results; data in .tallygate/ stays
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
