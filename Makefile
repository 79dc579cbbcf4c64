# The two commands of the README are `make demo` and `make test`; both install what is missing first.
SHELL := bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTEST := $(BIN)/pytest -q --durations=10
TESTCLUSTER := PYTHONPATH=tests/cluster $(BIN)/python -m testcluster

.PHONY: help setup demo test test-all check generated lock clean cluster cluster-down cluster-build

help: ## Show this help.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: ## Make .venv with everything (a few minutes the first time, seconds after).
	@.ci/setup

demo: setup ## Generate a batch with the small model on 2 ranks, exactly, and leave a gallery.
	@$(BIN)/frazil run examples/shapes/job.yaml --store frazil-results

test: setup check cluster-build ## The checks and the quick tests, also those on a real Kubernetes where it can run here.
	@$(PYTEST) -n 2 -m 'not slow and not cluster' $(ARGS) || test $$? -eq 5
	$(PYTEST) -m 'not slow and cluster' $(ARGS) || test $$? -eq 5

test-all: setup check cluster-build ## Every test, the slow ones too; a part that fails does not keep the next from running.
	@failed=0
	$(PYTEST) -n 2 -m 'not slow and not cluster' $(ARGS) || test $$? -eq 5 || failed=1
	$(PYTEST) -m 'slow and not cluster' $(ARGS) || test $$? -eq 5 || failed=1
	$(PYTEST) -m cluster $(ARGS) || test $$? -eq 5 || failed=1
	exit $$failed

cluster: setup ## A real Kubernetes on this machine with Frazil installed, to try things on (needs root; Go the first time).
	@$(TESTCLUSTER) install

cluster-down: setup ## End it, and leave nothing.
	@$(TESTCLUSTER) down

cluster-build: setup ## Build its programs (about 17 minutes the first time, then kept).
	@$(TESTCLUSTER) build

check: setup ## Style, types, layers, and that generated files are fresh.
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy jobs/frazil_jobs operator/frazil_operator cli/frazil_cli
	$(BIN)/lint-imports
	$(BIN)/python -m frazil_jobs.api.crd --check
	$(BIN)/python -m frazil_jobs.api.docs --check
	$(BIN)/python -m frazil_operator.chart.schema --check

generated: setup ## Make the generated files again: CRDs, the API reference, the schema of the chart's values.
	@$(BIN)/python -m frazil_jobs.api.crd
	$(BIN)/python -m frazil_jobs.api.docs
	$(BIN)/python -m frazil_operator.chart.schema

lock: setup ## Choose the newest versions that pyproject.toml allows, into requirements.lock and the images' parts of it.
	@pins() { $(BIN)/uv pip compile --no-emit-index-url --generate-hashes -q --python-version 3.11 --no-header "$$@"; }
	{ echo '# Pins of every package of every extra. Made by `make lock`; installed by .ci/setup.'
	pins pyproject.toml --all-extras --upgrade; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	for part in operator worker jobs; do
	  { echo "# Pins of what images/$$part holds, a part of requirements.lock. Made by \`make lock\`."
	  pins pyproject.toml --extra $$part -c requirements.lock; } > requirements.lock.new
	  mv requirements.lock.new images/$$part/requirements.lock
	done
	{ echo '# Pins of what builds the wheel in each image, a part of requirements.lock. Made by `make lock`.'
	echo hatchling | pins - -c requirements.lock; } > requirements.lock.new
	mv requirements.lock.new images/build.lock

clean: ## Remove what the commands above made in this checkout.
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis frazil-results .frazil
