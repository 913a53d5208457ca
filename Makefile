# The commands of this project. `make demo` shows a real switch; `make test` runs everything that CI runs.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench campaign tidy clean
ROUNDS ?= 100
# Each command wants the whole machine.
.NOTPARALLEL:

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name what; do printf '%-14s %s\n' "$$name" "$$what"; done

setup: ## install what this machine lacks (PostgreSQL, PgBouncer, a C compiler, further servers in .servers/)
	@bash scripts/setup.sh

demo: setup ## a real switch between two throwaway PostgreSQL servers under load, and the way back
	cargo build --locked --release --bin cutover
	./target/release/cutover demo

test: setup check ## everything that CI runs; the last line says how many tests passed and failed
	cargo xtask test

check: ## formatting and lints
	cargo fmt --all --check
	cargo fmt --manifest-path bench/rig/Cargo.toml --check
	cargo fmt --manifest-path crates/cli/tests/process/providers/rust/Cargo.toml --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

tidy: ## the rules of the house that no compiler knows; `make test` checks them too
	cargo xtask tidy

campaign: setup ## faults at random moments, ROUNDS=100 of them; `make test` plays a few
	CUTOVER_ROUNDS=$(ROUNDS) cargo test --locked --package cutover-cli --test switch -- campaign --nocapture

bench: setup ## measure copy, verification and the write pause against peers
	bash bench/run.sh

clean: ## remove what was built; the servers in .servers/ stay
	cargo clean
