# `make demo` and `make test` are all that a newcomer needs; what they need themselves, they get.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
CARGO  ?= cargo
VENV   := python/.venv
# Tests mostly wait, for processes and for the database.
TEST_THREADS ?= 6
NPM_CI := npm ci --no-audit --no-fund --loglevel=error
PEERS  := benches/peers
PEERS_RUST := --manifest-path $(PEERS)/rust/Cargo.toml
PEERS_BUILD := $(PEERS_RUST) --target-dir target/peers --release --locked

.PHONY: demo dev test test-rust test-python test-versions lint lint-rust lint-python lint-console generate check-generated \
        lint-peers python python-dev console build chaos bench bench-short peers peers-rust coverage clean \
        tools-cargo tools-python tools-npm

demo: build python ## Run an example from start to results.
	target/debug/runlane demo

dev: build python ## Serve on this machine, with a private PostgreSQL and a token.
	target/debug/runlane dev

test: lint test-rust test-python test-versions check-generated bench-short ## Everything.

build: tools-cargo console
	$(CARGO) build --locked

test-rust: tools-cargo console python-dev tests/graphql-http/node_modules/.ok tests/browser/node_modules/.ok
	$(CARGO) test --locked --all-features --lib --bins
	$(CARGO) test --locked --all-features --test integration -- --test-threads $(TEST_THREADS)
	$(CARGO) test --locked --doc
	$(CARGO) test --locked --all-features --test chaos

# The queue's heart on every supported PostgreSQL; the newest and the oldest differ most.
VERSIONS ?= 15 18
test-versions: tools-cargo tools-npm python-dev
	VERSIONS="$(VERSIONS)" tests/postgres-versions/run.sh $(CARGO) test --quiet --locked --all-features --test integration -- \
	  --test-threads $(TEST_THREADS) queue::order queue::retries queue::completion control::guard embedded::crash

test-python: python-dev
	cd python && .venv/bin/python -m pytest -q

lint: lint-rust lint-python lint-console

lint-rust: tools-cargo console
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --all-features --document-private-items

lint-python: python-dev
	cd python && .venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

lint-console: console/node_modules/.ok
	cd console && npm run --silent lint

# The other queues of the benches; not part of `lint`, for their dependencies are many.
lint-peers: tools-cargo python-dev console/node_modules/.ok
	$(CARGO) fmt $(PEERS_RUST) --check
	$(CARGO) clippy $(PEERS_BUILD) --all-targets -- -D warnings
	$(VENV)/bin/ruff check --config python/pyproject.toml $(PEERS)/python
	$(VENV)/bin/ruff format --config python/pyproject.toml --check $(PEERS)/python
	cd $(PEERS)/node && ../../../console/node_modules/.bin/biome ci .

generate: build ## Regenerate what is committed: the SDL, .env.example, the data of checked queries.
	target/debug/runlane schema graphql > schema/schema.graphql
	target/debug/runlane schema env > .env.example
	tests/sqlx-data.sh write

# The files that cargo's tests compare are theirs; the data of checked queries is compared with a migrated database.
check-generated: build python
	tests/sqlx-data.sh check

# TESTS chooses some: make chaos TESTS="R1 R4". CHAOS_SEED repeats a schedule of faults.
chaos: tools-cargo console python ## Break everything on purpose, long (hours); prints one line a test.
	CHAOS_SCALE=long $(CARGO) test --locked --all-features --test chaos -- $(TESTS)

bench: tools-cargo console python peers ## Measure (about 25 minutes on an idle machine); prints one line a goal.
	$(CARGO) bench --locked --bench queue
	$(VENV)/bin/python python/benches/analysis.py

# With the tests' features, so that nothing is compiled twice.
bench-short: tools-cargo console python ## See that the benches still run; the figures mean nothing.
	BENCH_SCALE=short $(CARGO) bench --profile dev --locked --all-features --bench queue
	$(VENV)/bin/python python/benches/analysis.py 200 3

coverage: tools-cargo console python-dev tests/graphql-http/node_modules/.ok tests/browser/node_modules/.ok
	tests/coverage.sh

# --- what the targets need ----------------------------------------------------------------------------------------

peers: peers-rust $(PEERS)/node/node_modules/.ok $(PEERS)/python/.venv/.ok ## Build the other queues that the benches measure.

peers-rust: tools-cargo
	$(CARGO) build $(PEERS_BUILD)

$(PEERS)/python/.venv/.ok: $(PEERS)/python/requirements.lock | tools-python
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

python: $(VENV)/.run
python-dev: $(VENV)/.dev
console: console/dist/index.html

$(VENV)/.run: python/requirements.lock python/pyproject.toml | tools-python
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python's venv module is missing: install it (Debian and Ubuntu: the package python3-venv)" >&2; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r python/requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e python
	touch $@

$(VENV)/.dev: python/requirements-dev.lock $(VENV)/.run
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r python/requirements-dev.lock
	touch $@

%/node_modules/.ok: %/package-lock.json | tools-npm
	cd $* && $(NPM_CI) --ignore-scripts
	touch $@

console/dist/index.html: console/node_modules/.ok $(shell find console/src console/index.html console/vite.config.ts -type f)
	cd console && npm run --silent build
	touch $@

tools-cargo:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust, 1.95 or newer" >&2; exit 1; }
tools-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is missing or older than 3.11: install Python, or name one with PYTHON=…" >&2; exit 1; }
tools-npm:
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js, 20 or newer" >&2; exit 1; }

clean:
	rm -rf target .runlane $(VENV) console/dist console/node_modules tests/*/node_modules \
	  $(PEERS)/node/node_modules $(PEERS)/python/.venv
