# Verbs of the project. `make help` lists them.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
CARGO_PROFILE ?= release
KERNEL_SO = src/sluiceway/_kernels.abi3.so
RUST_SOURCES = $(shell find kernels/src -name '*.rs') kernels/Cargo.toml

.DEFAULT_GOAL := help
.PHONY: help build kernels test check format clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.stamp: pyproject.toml
	@command -v cargo >/dev/null || { echo "cargo not found: install Rust 1.90 or newer (rustup, or your distribution's rust package) and run make again"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "maturin==1.16.0"
	touch $@

$(VENV)/.installed: $(VENV)/.stamp $(RUST_SOURCES)
	$(BIN)/maturin develop --release --quiet --extras test
	touch $@

build: $(VENV)/.installed ## make .venv with the sluiceway command

kernels: ## rebuild only the Rust module, dev profile (needs a .venv)
	cargo build --manifest-path kernels/Cargo.toml $(CARGO_FLAGS)
	cp -f $${CARGO_TARGET_DIR:-kernels/target}/debug/lib_kernels.so $(KERNEL_SO)

test: build ## set everything up and run the tests
	$(BIN)/python -m pytest

clean: ## remove what was built
	rm -rf $(VENV) kernels/target $(KERNEL_SO)
