# `make run` and `make test` set up everything they need in .venv; `make help` lists the rest.

PYTHON ?= python3
BIN := .venv/bin
GRPC_SOURCES := $(wildcard protos/tidings/v1/*.proto)
GO_MODULE := github.com/tidings-dev/tidings/clients/go
STATICCHECK := v0.8.2

# The target $(1) where there is the toolchain, and one that says that it is skipped where there is none
with_go = $(if $(shell command -v go 2>/dev/null),$(1),without-go)
with_mvn = $(if $(shell command -v mvn 2>/dev/null),$(1),without-mvn)

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

SDKS := exa gomemory mem0 memos telnyx

# A vendor's SDK as its customers have it: in an environment of its own, without ours. All together 0.6 GB, most of it
# what MemoryOS depends on.
.venv-sdks/%/.made: requirements/sdk-%.txt | .venv/.dev
	$(BIN)/python -m uv venv --quiet --clear --python $(BIN)/python .venv-sdks/$*
	$(BIN)/python -m uv pip sync --quiet --require-hashes --python .venv-sdks/$* $<
	@touch $@

.PHONY: sdks
sdks: $(SDKS:%=.venv-sdks/%/.made)  ## Install the SDKs of the five vendors, each for itself

.PHONY: test-sdks
test-sdks: .venv/.dev sdks  ## Run the SDKs and the samples of the five vendors against the service
	TIDINGS_TEST_ALL_SDKS=1 $(BIN)/python -m pytest tests/sdks

.PHONY: test-kills
test-kills: .venv/.dev  ## Kill the store KILLS times (default 20) under writers and watchers
	TIDINGS_TEST_KILLS=$(or $(KILLS),20) $(BIN)/python -m pytest -s tests/test_store_kills.py

BENCHMARKS := fanout latency memory slow_reader calls_beside

.PHONY: bench
bench: .venv/.dev  ## Measure the watches against the raw parts that they are made of
	@for each in $(BENCHMARKS); do echo "\n$$each"; $(BIN)/python bench/$$each.py || exit; done

.PHONY: test-sabotage
test-sabotage: .venv/.dev  ## Break each guarantee of watches on purpose, and see that the checks find it
	TIDINGS_TEST_SABOTAGE=all $(BIN)/python -m pytest tests/guarantees/test_sabotage.py

.PHONY: torture
torture: .venv/.dev  ## Check the guarantees of watches under every kind of fault for MINUTES (default 10)
	TIDINGS_TEST_TORTURE_MINUTES=$(or $(MINUTES),10) $(BIN)/python -m pytest -s tests/guarantees/torture.py

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

# protoc for Go: messages and services, into the module at directory $(1)
define protoc_go
	$(BIN)/python -m grpc_tools.protoc -Iprotos --go_out=$(1) --go_opt=module=$(GO_MODULE) \
		--go-grpc_out=$(1) --go-grpc_opt=module=$(GO_MODULE) \
		--plugin=protoc-gen-go=$$(go -C clients/go tool -n protoc-gen-go) \
		--plugin=protoc-gen-go-grpc=$$(go -C clients/go tool -n protoc-gen-go-grpc) $(GRPC_SOURCES)
endef

.PHONY: generate
generate: .venv/.dev $(call with_go,generate-go)  ## Regenerate the committed stubs
	$(call protoc,clients/python)

.PHONY: generate-go
generate-go: .venv/.dev
	$(call protoc_go,clients/go)

.PHONY: check-generated
check-generated: .venv/.dev $(call with_go,check-generated-go)  ## Fail when the committed stubs are not what `make generate` makes
	rm -rf .generated && mkdir .generated
	$(call protoc,.generated)
	diff -r -x '__pycache__' -x '__init__.py' .generated/tidings/v1 clients/python/tidings/v1
	diff -r -x '__pycache__' -x '__init__.py' .generated/buf clients/python/buf
	rm -rf .generated

.PHONY: check-generated-go
check-generated-go: .venv/.dev
	rm -rf .generated && mkdir -p .generated/go
	$(call protoc_go,.generated/go)
	diff -r .generated/go/tidings/v1 clients/go/tidings/v1
	rm -rf .generated

.PHONY: test-go
test-go: $(call with_go,test-go-client)  ## Check and test the Go client

.PHONY: test-go-client
test-go-client:
	test -z "$$(gofmt -l clients/go | tee /dev/stderr)"
	cd clients/go && go vet ./... && go run honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK) ./...
	cd clients/go && go test -race ./...
	@test -n "$$TIDINGS_TEST_TARGET" || echo "Skipped for Go: what needs a running service, for TIDINGS_TEST_TARGET names none."

.PHONY: without-go
without-go:
	@echo "Skipped for Go: there is no go on the PATH."
	@test "$$TIDINGS_TEST_ALL_CLIENTS" != 1

.PHONY: test-java
test-java: $(call with_mvn,test-java-client)  ## Build and test the Java client

.PHONY: test-java-client
test-java-client:
	mvn --batch-mode --no-transfer-progress --file clients/java/pom.xml verify
	@test -n "$$TIDINGS_TEST_TARGET" || { \
		echo "Skipped for Java: what needs a running service, for TIDINGS_TEST_TARGET names none."; \
		test "$$TIDINGS_TEST_ALL_CLIENTS" != 1; \
	}

.PHONY: without-mvn
without-mvn:
	@echo "Skipped for Java: there is no mvn on the PATH."
	@test "$$TIDINGS_TEST_ALL_CLIENTS" != 1

.PHONY: lock
lock: .venv/.dev  ## Resolve the dependencies anew
	$(BIN)/python -m uv pip compile pyproject.toml --extra embedded --group build --universal --generate-hashes \
		--no-emit-package tidings --no-header --quiet --output-file requirements/run.txt
	$(BIN)/python -m uv pip compile --group dev --group build --constraint requirements/run.txt --universal \
		--generate-hashes --no-header --quiet --output-file requirements/dev.txt
	for sdk in $(SDKS); do \
		$(BIN)/python -m uv pip compile requirements/sdk-$$sdk.in --universal --python-version 3.11 \
			--generate-hashes --no-header --quiet --output-file requirements/sdk-$$sdk.txt || exit; \
	done
