# Each target does its own set-up: it needs Rust, Python 3.10 or newer with pip, and (as root) apt for what tests talk to.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := .make
RUST := $(shell find rust -name '*.rs' -not -path '*/target/*' -o -name Cargo.toml -not -path '*/target/*') Cargo.toml Cargo.lock
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo nextest run || echo test --lib --bins --tests)

.PHONY: build demo test lint docs pythons portable bench fuzz soak wheels cluster clean
.DEFAULT_GOAL := build

build: $(STAMPS)/built

demo: $(STAMPS)/built
	$(BIN)/proxyproto-rs demo

test: lint $(STAMPS)/peers $(STAMPS)/fuzzer
	cargo test --workspace --doc --quiet
	rust/fuzz/run 12
	cargo $(NEXTEST) --workspace
	$(BIN)/python -X dev -m pytest

lint: $(STAMPS)/built $(STAMPS)/test-venv
	cargo fmt --all --check
	cargo fmt --manifest-path rust/fuzz/Cargo.toml --check
	cargo fmt --manifest-path rust/no_std/Cargo.toml --check
	cargo build --manifest-path rust/no_std/Cargo.toml --target-dir target/no_std --locked --quiet
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --package proxyproto-codec --package proxyproto-mqtt --package proxyproto-acceptor --package proxyproto-gateway --package proxyproto-broker --all-features --no-deps --quiet
	cargo clippy --package proxyproto-acceptor --quiet -- -D warnings # without its features, which its tests ask for
	cargo clippy --package proxyproto-python --no-default-features --quiet -- -D warnings # as where there is no acceptor
	$(BIN)/ruff format --check --quiet python tests benches
	$(BIN)/ruff check --quiet python tests benches
	$(BIN)/python -m pytest --quiet tests/test_imports.py
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest proxyproto_rs._core
	$(BIN)/zensical build --strict

# The documentation as a site, in target/site/.
docs: $(STAMPS)/test-venv
	$(BIN)/zensical build --strict

# The core's tests on every other Python of the machine.
pythons: $(STAMPS)/built
	.ci/pythons

# The codec alone, as on macOS and Windows.
portable: $(STAMPS)/test-venv $(STAMPS)/peers
	.ci/portable

# Needs an idle machine with two cores; see docs/benchmarks.md.
bench:
	PYTHON=$(PYTHON) benches/run

# Half an hour for each of the nine targets; `make test` gives each 12 seconds.
fuzz: $(STAMPS)/fuzzer
	rust/fuzz/run 1800

# The embedded broker's clusters, which the wheels do not have. It needs protoc, and leaves a build with clusters behind.
cluster: $(STAMPS)/test-venv $(STAMPS)/peers
	cargo clippy --package proxyproto-broker --package proxyproto-python --features proxyproto-python/cluster --all-targets --quiet \
	    -- -D warnings
	$(BIN)/maturin develop --release --quiet --extras amqtt,postgres,completion --features cluster
	$(BIN)/python -X dev -m pytest -q tests/mqtt/backend/embedded/test_cluster.py tests/mqtt/deployment/test_compose.py \
	    tests/mqtt/deployment/test_topology.py
	@rm -f $(STAMPS)/built

# Ten minutes of mixed traffic for a Listener, and ten for the embedded broker, on an idle machine.
soak: $(STAMPS)/test-venv $(STAMPS)/built
	$(BIN)/python benches/soak.py
	$(BIN)/python benches/mqtt_soak.py

wheels:
	.ci/wheels

$(STAMPS)/venv: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1' 'maturin>=1.9,<2'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/built: $(STAMPS)/venv $(RUST)
	$(BIN)/maturin develop --release --quiet --extras amqtt,postgres,completion
	@touch $@

$(STAMPS)/test-venv: $(STAMPS)/venv
	$(BIN)/pip install --quiet --group test --group lint
	@touch $@

# The programs that tests talk to.
$(STAMPS)/peers: .ci/peers
	.ci/peers
	@touch $@

# Fuzzing takes a nightly compiler, which no package manager here brings; without one, rust/fuzz/run says so.
$(STAMPS)/fuzzer:
	! cargo +nightly --version >/dev/null 2>&1 || cargo fuzz --version >/dev/null 2>&1 || \
	    cargo install --quiet --locked cargo-fuzz
	@mkdir -p $(STAMPS) && touch $@

clean:
	rm -rf $(VENV) $(STAMPS) dist target
