# Every target installs what it needs: Poetry into .tools/, the locked dependencies into .venv/. Outside the checkout there
# are only the caches of pip and Poetry, what `make help` says is installed as root, and the folders of the settings `home`
# and `cache_home`, which every service of a user shares (docs/install.md#remove-it). `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
POETRY := .tools/poetry/bin/poetry
POETRY_VERSION := 2.5.1
TORCH_VERSION := 2.13.0
TRANSFORMERS_VERSION := 5.23.0
PEFT_VERSION := 0.21.2
PRE_COMMIT_VERSION := 4.7.0
CLANG_FORMAT_VERSION := 23.1.5
CLANG_TIDY_VERSION := 23.1.4
CORPUS ?= ../shared/corpus
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
export HOST ?= 0.0.0.0
export PORT ?= 8000
# An image may set this variable. In a checkout, each of a test run's hundred processes would compile every module.
unexport PYTHONDONTWRITEBYTECODE

# ---- environments

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is not Python 3.11 or newer; choose one: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo 'Making an environment in .venv and installing into it: this takes about a minute.'
	$(PYTHON) -m venv .venv

$(POETRY):
	$(PYTHON) -m venv .tools/poetry
	.tools/poetry/bin/python -m pip install --quiet --disable-pip-version-check "poetry==$(POETRY_VERSION)" poetry-plugin-export

# pip installs what Poetry locked: pip checks every hash and uses the configured mirror and certificates.
define install_locked
	$(POETRY) check --lock --quiet || { $(POETRY) check --lock; exit 1; }
	$(POETRY) export --quiet --no-interaction $(1) --output $@.requirements.txt
	$(PIP_INSTALL) --no-deps --require-hashes --requirement $@.requirements.txt
	@touch $@
endef

# The package itself, apart from what it depends on: installing it compiles the kernels.
NATIVE := $(wildcard native/*)
.venv/package: pyproject.toml $(NATIVE) | $(BIN)/python
	$(PIP_INSTALL) --no-deps --editable .
	@touch $@

# EXTRAS adds optional dependencies of pyproject.toml: make install EXTRAS="batch otel". The file has all extras so far.
EXTRAS ?=
KNOWN_EXTRAS := $(shell sed -n '/^\[project.optional-dependencies\]/,/^$$/s/^\([a-z]*\) = .*/\1/p' pyproject.toml)
$(foreach extra,$(filter-out $(KNOWN_EXTRAS),$(EXTRAS)),$(error there is no extra '$(extra)': EXTRAS can be $(KNOWN_EXTRAS), separated by spaces))
OPTIONS_OF = $(foreach extra,$(sort $(1)),--extras $(extra))
INSTALLED_EXTRAS := $(shell cat .venv/installed 2>/dev/null)
more-extras: # never exists, so what depends on it is made

.venv/installed: pyproject.toml poetry.lock $(if $(filter-out $(INSTALLED_EXTRAS),$(EXTRAS)),more-extras) \
		| $(BIN)/python $(POETRY) .venv/package
	$(call install_locked,$(call OPTIONS_OF,hub $(INSTALLED_EXTRAS) $(EXTRAS)))
	@echo $(sort hub $(INSTALLED_EXTRAS) $(EXTRAS)) > $@

DEV_EXTRAS := hub otel batch postgres
.venv/installed-dev: pyproject.toml poetry.lock | $(BIN)/python $(POETRY) .venv/package
	$(call install_locked,--with test --with lint $(call OPTIONS_OF,$(DEV_EXTRAS) $(INSTALLED_EXTRAS)))
	@echo $(sort $(DEV_EXTRAS) $(INSTALLED_EXTRAS)) > .venv/installed

# The environment of users. Libraries import development packages that they find, which costs time and memory.
SERVICE_PYTHON := .tools/service/bin/python
.tools/service/installed: BIN := .tools/service/bin
.tools/service/installed: pyproject.toml poetry.lock $(NATIVE) | $(POETRY)
	$(PYTHON) -m venv .tools/service
	$(PIP_INSTALL) --no-deps --editable .
	$(call install_locked,)

# PyTorch is not locked, because the package index's build contains gigabytes of CUDA. It has its own environment, because
# transformers would change the locked versions. Tests compare tokenizers, and our tokenizer's reader needs orjson.
TORCH_PYTHON := .tools/torch/bin/python
.tools/torch/installed: Makefile
	$(PYTHON) -m venv .tools/torch
	$(TORCH_PYTHON) -m pip install --quiet --disable-pip-version-check \
		torch==$(TORCH_VERSION) transformers==$(TRANSFORMERS_VERSION) peft==$(PEFT_VERSION) pytest pytest-timeout orjson
	@touch $@

# Separate from .venv: it only runs installed tools.
PRE_COMMIT := .tools/pre-commit/bin/pre-commit
.tools/pre-commit/installed: Makefile
	$(PYTHON) -m venv .tools/pre-commit
	.tools/pre-commit/bin/python -m pip install --quiet --disable-pip-version-check pre-commit==$(PRE_COMMIT_VERSION)
	@touch $@

CLANG := .tools/clang/bin
.tools/clang/installed: Makefile
	$(PYTHON) -m venv .tools/clang
	$(CLANG)/python -m pip install --quiet --disable-pip-version-check \
		clang-format==$(CLANG_FORMAT_VERSION) clang-tidy==$(CLANG_TIDY_VERSION)
	@touch $@

# ---- for users

.PHONY: run
run: .venv/installed ## Serve on http://localhost:8000 (MODEL=distilgpt2, another hub id or a folder: pulled if missing; reads HOST, PORT, DISTILGPT2_*)
	$(if $(MODEL),$(BIN)/distilgpt2-api pull --if-missing "$(MODEL)")
	exec $(BIN)/distilgpt2-api serve $(if $(MODEL),--model "$(MODEL)")

.PHONY: install
install: .venv/installed ## Install the service into .venv (EXTRAS="batch otel": with optional dependencies)
	@echo 'Installed. Use it in this terminal: source .venv/bin/activate'

# ---- for developers

.PHONY: test
test: .venv/installed-dev ## Run the default test suite (pytest options: make test ARGS="-k scheduler")
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

.PHONY: coverage
coverage: .venv/installed-dev ## Run the default suite and every way to start a server; measure branch coverage of src; fails below the bound
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist worksteal -m "" $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/coverage json --quiet -o - | $(BIN)/python -c 'import json, sys; \
		share = json.load(sys.stdin)["totals"]["percent_branches_covered"]; \
		print(f"branches alone: {share:.1f} %"); sys.exit(share < 95)'

.PHONY: test-parity
test-parity: .tools/torch/installed ## Compare with transformers on PyTorch (installs both outside .venv)
	PYTHONPATH=src $(TORCH_PYTHON) -m pytest tests/parity $(ARGS)

NATIVE_PYTHON := .tools/native/bin/python
.tools/native/installed: pyproject.toml
	$(PYTHON) -m venv .tools/native
	$(NATIVE_PYTHON) -m pip install --quiet --disable-pip-version-check "$$(grep -o 'ziglang==[0-9.]*' pyproject.toml)"
	@touch $@

# The driver is built before pytest starts, because pytest limits the time of a test.
TEST_KERNELS = $(BIN)/python -m pytest tests/native --ignore tests/native/test_macos_library.py $(ARGS)

.PHONY: test-native
test-native: .venv/installed-dev .tools/native/installed ## Test the kernels on every instruction set of this machine, and those for AMX with emulated tiles; run the program that measures roofs
	$(NATIVE_PYTHON) native/build.py --driver --out build/native/driver
	KERNELS_DRIVER=build/native/driver/driver $(TEST_KERNELS)
	$(NATIVE_PYTHON) native/build.py --driver --emulate-tiles --out build/native/emulated-tiles
	KERNELS_DRIVER=build/native/emulated-tiles/driver KERNELS_EMULATED=amx $(TEST_KERNELS) -k "amx or processor"
	for target in $$(build/native/driver/driver targets); do \
		$(NATIVE_PYTHON) native/build.py --roofs $$target --out build/native/roofs && build/native/roofs/roofs 2 1000000 || exit 1; \
	done

# Emulated processors, each with the instruction sets that the library must find there, the best first.
ARM64_PROCESSORS := "max i8mm dotprod neon" "max,sve=off i8mm dotprod neon" "neoverse-n1 dotprod neon" "cortex-a72 neon"

.PHONY: test-arm64
test-arm64: .venv/installed-dev .tools/native/installed arm64-root ## Test the kernels of arm64 on four emulated processors, the library for macOS as a file, and the service from its wheel (installs qemu-user-static and mmdebstrap on Debian as root)
	@tests/native/install.sh qemu-aarch64-static qemu-user-static
	$(NATIVE_PYTHON) native/build.py --out build/native/macos --platform darwin/arm64
	KERNELS_MACOS=build/native/macos/libkernels.dylib $(BIN)/python -m pytest tests/native/test_macos_library.py
	$(NATIVE_PYTHON) native/build.py --driver --out build/native/arm64 --platform linux/arm64
	for processor in $(ARM64_PROCESSORS); do \
		KERNELS_DRIVER="qemu-aarch64-static -cpu $${processor%% *} build/native/arm64/driver" \
			KERNELS_TARGETS="$${processor#* }" $(TEST_KERNELS) || exit 1; \
	done
	$(BIN)/python -m pytest tests/arm64 --durations=5 $(ARGS)

.PHONY: test-sanitized
test-sanitized: .venv/installed-dev ## Test the kernels with the sanitizers for addresses, undefined behaviour and threads (installs g++ on Debian as root)
	@tests/native/install.sh g++ g++
	for sanitizers in address,undefined thread; do \
		CXX=g++ $(BIN)/python native/build.py --driver --out build/native/$$sanitizers --sanitize $$sanitizers; \
		KERNELS_DRIVER=build/native/$$sanitizers/driver KERNELS_EMULATED=amx $(TEST_KERNELS) || exit 1; \
	done

.PHONY: test-postgres
test-postgres: .venv/installed-dev ## Test the stores of files and batches, and of usage, on a temporary PostgreSQL (installs it on Debian as root)
	@tests/postgres/install-postgres.sh
	$(BIN)/python -m pytest tests/postgres $(ARGS)

.PHONY: test-conformance
test-conformance: .venv/installed-dev ## Send requests generated from the OpenAPI document: every boundary of every parameter (a minute or two)
	$(BIN)/python -m pytest tests/conformance $(ARGS)

.PHONY: test-fuzz
test-fuzz: .venv/installed-dev ## Send 100 000 requests generated from the OpenAPI document, and malformed ones on raw sockets (FUZZ_REQUESTS, FUZZ_CONNECTIONS)
	$(BIN)/python -m pytest tests/fuzz -o log_cli=true -o log_cli_level=INFO $(ARGS)

.PHONY: check
check: lint types imports ## Check lint, types and import contracts

.PHONY: lint
lint: .venv/installed-dev .tools/clang/installed ## Check rules and format with ruff, and of C++ with clang-tidy and clang-format
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(CLANG)/clang-format --dry-run -Werror native/*.cpp native/*.h
	$(CLANG)/clang-tidy --quiet native/{step,threads,targets,tiles}.cpp -- -std=c++17

.PHONY: format
format: .venv/installed-dev .tools/clang/installed ## Fix and format with ruff, C++ with clang-format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(CLANG)/clang-format -i native/*.cpp native/*.h

.PHONY: types
types: .venv/installed-dev ## Check types with mypy, strict
	$(BIN)/mypy

.PHONY: imports
imports: .venv/installed-dev ## Check import contracts with import-linter
	$(BIN)/lint-imports

.PHONY: pages
pages: .venv/installed-dev ## Generate docs/{api,cli,configuration}.md
	$(BIN)/python -m distilgpt2_api config --markdown > docs/configuration.md
	$(BIN)/python -m distilgpt2_api api > docs/api.md
	$(BIN)/python -m distilgpt2_api reference > docs/cli.md

.PHONY: changelog
changelog: .venv/installed-dev ## Show the next release's entry in CHANGELOG.md
	$(BIN)/towncrier build --draft

.PHONY: hooks
hooks: .venv/installed-dev .tools/pre-commit/installed ## Install git hooks: quick checks before each commit, types before each push
	$(PRE_COMMIT) validate-config
	$(PRE_COMMIT) install

.PHONY: train
train: .tools/torch/installed ## Train the bundled demo model from CORPUS (hours on two cores)
	$(TORCH_PYTHON) training/train_storyteller.py --corpus $(CORPUS) --output training/output --log training/train.jsonl

include wheels/wheels.mk tests/arm64/arm64.mk docker/container.mk tests/ray/ray.mk benchmarks/bench.mk tests/clients/clients.mk tests/browser/browser.mk website/website.mk

.PHONY: clean
clean: ## Remove the environments and build outputs
	rm -rf .venv .tools build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache htmlcov .coverage .coverage.*
	rm -f src/distilgpt2_api/model/kernels/libkernels.*
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{ printf "  make %-14s %s\n", $$1, $$2 }'
