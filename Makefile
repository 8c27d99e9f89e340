# Every target makes its own environment in .venv first; a newcomer needs `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test test-kafka test-long check format lock clean

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

install: $(STAMP) ## environment with every dependency, pinned by hash

$(STAMP): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Leadstream needs Python 3.11; name it: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## the whole road in a temporary folder: book, probe, list, audit
	$(BIN)/leadstream demo --json demo/result.json

test: $(STAMP) ## on the embedded broker and without one, ClickHouse engine in process
	$(BIN)/leadstream assets fetch
	$(BIN)/pytest -m "not kafka and not long"

test-kafka: $(STAMP) ## what needs Apache Kafka or is slow without it, and the end-to-end tests on it; needs Java 17, Maven once
	$(BIN)/leadstream assets fetch
	LEADSTREAM_TEST_BROKER=apache $(BIN)/pytest -m "not long and not any_broker" tests/integration tests/end_to_end

test-long: $(STAMP) ## minutes to hours: kills by the hundred, fuzzing, soak; results go under docs/measurements
	$(BIN)/leadstream assets fetch
	LEADSTREAM_TEST_BROKER=apache $(BIN)/pytest -m long --timeout 3600 --log-cli-level INFO
	$(BIN)/pytest --hypothesis-profile "new examples" tests/unit tests/contract tests/component

check: $(STAMP) ## style, types, import rule, generated code up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m infra.codegen --check

format: $(STAMP) ## let ruff format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(STAMP) ## write constraints.txt anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --upgrade --extra build --extra test pyproject.toml --output-file constraints.txt

clean: ## environment and caches of this checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist demo
