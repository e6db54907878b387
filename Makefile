# `make run` and `make test` set up everything they need in .venv; `make help` lists the rest.

PYTHON ?= python3
BIN := .venv/bin
GRPC_SOURCES := $(wildcard protos/tidings/v1/*.proto)

.DEFAULT_GOAL := help

.PHONY: help
help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

.venv/.run: requirements/run.txt pyproject.toml clients/python/pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e clients/python -e .
	@touch $@

.venv/.dev: .venv/.run requirements/dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: run
run: .venv/.run  ## Start the service on the embedded store with sample data and a demo worker
	@exec $(BIN)/python -m tidings_server.demo

.PHONY: test
test: .venv/.dev  ## Run all tests
	$(BIN)/python -m pytest

.PHONY: test-kills
test-kills: .venv/.dev  ## Kill the store KILLS times (default 20) under writers and watchers
	TIDINGS_TEST_KILLS=$(or $(KILLS),20) $(BIN)/python -m pytest -s tests/test_store_kills.py

.PHONY: check
check: lint types protos check-generated  ## Everything that needs no running service

.PHONY: lint
lint: .venv/.dev  ## Lint and check the format of the Python code
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: types
types: .venv/.dev  ## Type-check the hand-written Python code
	$(BIN)/mypy

.PHONY: protos
protos: .venv/.dev  ## Lint the protos, check their format and that they break no client
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code --path protos/tidings
	$(BIN)/buf breaking --against protos/released.binpb

.PHONY: release-protos
release-protos: .venv/.dev  ## Make the protos as they are the ones that later ones must not break
	$(BIN)/buf build --exclude-source-info --output protos/released.binpb

# protoc for Python: messages, services and their types, into directory $(1)
define protoc
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=$(1) --mypy_out=quiet:$(1) \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy protos/buf/validate/validate.proto $(GRPC_SOURCES)
	$(BIN)/python -m grpc_tools.protoc -Iprotos --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc $(filter %_service.proto,$(GRPC_SOURCES))
endef

.PHONY: generate
generate: .venv/.dev  ## Regenerate the committed stubs
	$(call protoc,clients/python)

.PHONY: check-generated
check-generated: .venv/.dev  ## Fail when the committed stubs are not what `make generate` makes
	rm -rf .generated && mkdir .generated
	$(call protoc,.generated)
	diff -r -x '__pycache__' -x '__init__.py' .generated/tidings/v1 clients/python/tidings/v1
	diff -r -x '__pycache__' -x '__init__.py' .generated/buf clients/python/buf
	rm -rf .generated

.PHONY: lock
lock: .venv/.dev  ## Resolve the dependencies anew
	$(BIN)/python -m uv pip compile pyproject.toml --extra embedded --group build --universal --generate-hashes \
		--no-emit-package tidings --no-header --quiet --output-file requirements/run.txt
	$(BIN)/python -m uv pip compile --group dev --group build --constraint requirements/run.txt --universal \
		--generate-hashes --no-header --quiet --output-file requirements/dev.txt
