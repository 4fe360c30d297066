# Every command of the project. CI and people call the same ones.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The RabbitMQ that `make test-rabbitmq` tests on: its user may make virtual hosts, its management plugin is on.
RABBITMQ_URI ?= amqp://guest:guest@127.0.0.1:5672

# Builds show their progress on a terminal, and are quiet in a log.
QUIET := $(shell test -t 2 || echo --quiet)

RUST_SOURCES := $(shell find crates -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock

.PHONY: help run built test test-rust test-python test-community test-compat test-rabbitmq check check-rust check-python
.PHONY: format bench docs wheel clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.installed ## Run the hello services, Rust and Python, and call them in a shell
	@echo "Building the Rust example"
	@cargo build $(QUIET) --package nameko-examples --bin hello
	@scripts/demo

test: test-rust test-python test-community test-compat ## Run every test, on the embedded broker

# All of it at once: for a part of it cargo chooses other features of the dependencies, and builds them once more.
built:
	@cargo build $(QUIET) --workspace --all-targets

test-rust: built
	scripts/with_redis cargo test --workspace --quiet

test-python: built $(VENV)/.installed $(VENV)/.peer
	$(BIN)/python -m pytest -q

# Services with the community's extensions, and drivers, on servers of their own.
test-community: $(VENV)/.community
	scripts/with_redis scripts/with_postgresql $(VENV)/community/bin/python -m pytest -q python/tests/community

test-compat: $(VENV)/.compat ## Run upstream Nameko's own tests on this package
	@$(VENV)/compat/venv/bin/python python/tests/compat/run.py $(VENV)/compat

test-rabbitmq: $(VENV)/.installed ## Run the same tests on RabbitMQ; fails when there is none at RABBITMQ_URI
	@$(BIN)/python scripts/require_rabbitmq.py "$(RABBITMQ_URI)"
	NAMEKO_TEST_AMQP_URI="$(RABBITMQ_URI)" $(MAKE) test

check: check-rust check-python ## Formatting, lints, types and docs, with no warning left

# The benchmarks in the target directory of the project: most of what they depend on is there already.
check-rust:
	cargo fmt --all --check
	cargo fmt --manifest-path benchmarks/Cargo.toml --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo clippy --manifest-path benchmarks/Cargo.toml --target-dir target --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

check-python: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/stubtest nameko._nameko

format: $(VENV)/.installed ## Format everything
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed $(VENV)/.peer ## Measure against upstream and bare crates; writes benchmarks/results.md
	$(BIN)/python benchmarks/run.py

docs: ## Build the Rust documentation into target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

wheel: $(VENV)/.tools ## Build the Python package's wheel into dist/
	$(BIN)/maturin build --release --out dist

clean: ## Remove what was built
	rm -rf target benchmarks/target dist $(VENV)

# The tools of the Python half.
$(VENV)/.tools: scripts/requirements-dev.txt
	@echo "Making a Python environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r scripts/requirements-dev.txt
	@touch $@

# The package itself, as an editable install of the sources with the compiled module beside them.
$(VENV)/.installed: $(VENV)/.tools pyproject.toml $(RUST_SOURCES)
	@echo "Building the Python package (some minutes the first time)"
	@PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/maturin develop $(QUIET)
	@touch $@

# Upstream Nameko, which the tests and the benchmarks talk to. It gets an environment of its own.
$(VENV)/.peer: scripts/requirements-peer.txt $(VENV)/.tools
	@$(PYTHON) -m venv $(VENV)/peer
	@$(VENV)/peer/bin/pip install --quiet --disable-pip-version-check -r scripts/requirements-peer.txt
	@touch $@

# The community's extensions, in an environment that has this package as pip leaves it, and nothing that brings another.
$(VENV)/.community: scripts/requirements-community.txt pyproject.toml | $(VENV)/.installed
	@echo "Installing extensions of the community in $(VENV)/community"
	@$(PYTHON) -m venv --clear $(VENV)/community
	@cp -r $(VENV)/lib/python3*/site-packages/nameko* $(VENV)/community/lib/python3*/site-packages/
	@$(VENV)/community/bin/pip install --quiet --disable-pip-version-check -r scripts/requirements-community.txt
	@touch $@

# Upstream's tests, and what they need on top of our own environment.
$(VENV)/.compat: $(addprefix python/tests/compat/,prepare.py requirements.txt upstream.txt) | $(VENV)/.installed
	@echo "Fetching upstream's tests into $(VENV)/compat"
	@$(BIN)/python python/tests/compat/prepare.py $(VENV)/compat
	@touch $@
