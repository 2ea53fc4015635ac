# headrace: everything that is run by hand or by CI. `make` alone lists the targets.

PYTHON ?= python3

BIN := .venv/bin
STAMP := .venv/.set-up
STAGES := schemas producers processors projections
# One more than there are processors: a good part of the tests waits for other processes. In any order: by default the
# files of few and long tests, which wait most, would come last and run beside one another.
PYTEST := $(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder
UV_INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python
UV_COMPILE = $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-header --no-annotate --python-version 3.11 --python-platform linux $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help setup demo demo-kafka test test-on-kafka lint lock chaos bench bench-kafka bench-producers stack \
	stack-down

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Build .venv from the hash-checked locks (PYTHON=python3.12 picks the interpreter)
	@$(if $(filter setup,$(MAKECMDGOALS)),echo "==> ready: $(BIN)/headrace",:)

demo: $(STAMP)  ## Watch stale agent output being refused, on real parts
	@$(BIN)/headrace demo

demo-kafka: $(STAMP)  ## The same on a real Kafka and PostgreSQL, started here for it (about a minute the first time)
	@$(BIN)/python -m infra.stack fetch --install jvm
	@stack=$$(mktemp -d); trap '$(BIN)/python -m infra.stack down --directory '$$stack' --remove 2>/dev/null' EXIT; \
	found=$$($(BIN)/python -m infra.stack up --directory $$stack) && set -a && eval "$$found" && set +a && \
	$(BIN)/headrace demo --on kafka

test: lint  ## Lint, then the tests, on a real Kafka, PostgreSQL and schema registry that are fetched for it
	@$(BIN)/python -m infra.stack fetch --install
	@echo "==> pytest"
	@$(PYTEST) --ignore tests/chaos/long
	@echo "==> not run here, for they take long: make test-on-kafka (the tests of behaviour again, on Kafka), make chaos"

test-on-kafka: $(STAMP)  ## The tests of behaviour again, on Kafka and PostgreSQL (about 5 minutes)
	@$(BIN)/python -m infra.stack fetch --install jvm
	@echo "==> pytest"
	@$(PYTEST) --on kafka tests/integration

lint: $(STAMP)  ## Style, types and import contracts
	@echo "==> ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; exit 1; }
	@echo "==> mypy and basedpyright"
	@$(BIN)/mypy & mypy=$$!; $(BIN)/basedpyright; right=$$?; wait $$mypy && exit $$right
	@echo "==> import contracts"
	@$(BIN)/lint-imports --no-logo

lock: $(BIN)/uv  ## Write the locks anew from pyproject.toml (UPGRADE=1 takes newer versions)
	@echo "==> infra/lock"
	@$(UV_COMPILE) --group pyproject.toml:bootstrap --output-file infra/lock/bootstrap.txt
	@$(UV_COMPILE) --extra demo pyproject.toml --output-file infra/lock/runtime.txt
	@$(UV_COMPILE) --extra demo --group pyproject.toml:dev pyproject.toml --constraints infra/lock/runtime.txt \
		--output-file infra/lock/dev.txt
	@$(UV_COMPILE) --group pyproject.toml:peers --output-file infra/lock/peers.txt

chaos: $(STAMP)  ## Kill, stop, starve and cut off everything, for minutes, and check (MINUTES=2 SEED=…)
	@$(BIN)/python -m infra.stack fetch --install jvm
	@export HEADRACE_CHAOS_MINUTES=$(or $(MINUTES),2) HEADRACE_CHAOS_SEED=$(or $(SEED),$$(date +%s)); \
	echo "==> pytest, storms of $$HEADRACE_CHAOS_MINUTES minutes, SEED=$$HEADRACE_CHAOS_SEED"; \
	$(BIN)/python -m pytest -s tests/chaos/long

bench: $(STAMP)  ## Measure: appends, folds, verdicts, queries
	@$(BIN)/python -m tests.benchmarks

bench-kafka: $(STAMP)  ## Measure on Kafka and PostgreSQL, beside its peers (an hour; QUICK=1 takes two minutes)
	@$(BIN)/python -m infra.stack fetch --install jvm
	@$(BIN)/python -m tests.benchmarks.kafka $(if $(QUICK),--quick) $(PARTS)

bench-producers: $(STAMP)  ## Measure what comes in from providers: notifications, bursts, resyncs (QUICK=1: half a minute)
	@$(BIN)/python -m tests.benchmarks.producers $(if $(QUICK),--quick) $(PARTS)

stack: $(STAMP)  ## Start a real Kafka and PostgreSQL here, without Docker (PARTS=kafka,postgres,registry BROKERS=1)
	@$(BIN)/python -m infra.stack up $(if $(PARTS),--parts $(PARTS)) $(if $(BROKERS),--brokers $(BROKERS))

stack-down: $(STAMP)  ## Stop them (REMOVE=1 deletes what they kept)
	@$(BIN)/python -m infra.stack down $(if $(REMOVE),--remove)

$(STAMP): $(BIN)/uv pyproject.toml infra/lock/dev.txt
	@for stage in $(STAGES); do test -e headrace/$$stage || ln -s ../$$stage headrace/$$stage; done
	@echo "==> $$(grep -c == infra/lock/dev.txt) locked packages into .venv"
	@$(UV_INSTALL) --require-hashes -r infra/lock/dev.txt
	@echo "==> headrace itself, editable"
	@$(UV_INSTALL) --no-deps --no-build-isolation -e .
	@test -x $(BIN)/headrace || { echo "make: $(BIN)/headrace is missing: is [project.scripts] intact?" >&2; exit 1; }
	@touch $@

$(BIN)/uv: infra/lock/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: headrace needs Python 3.11 or newer; name one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "==> .venv with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear .venv; }
	@echo "==> uv, from infra/lock/bootstrap.txt"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@
