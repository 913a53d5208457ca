# The commands of this project. `make demo` shows a real switch; `make test` runs everything that CI runs.
.PHONY: demo test check

demo: ; cargo build --locked --release && ./target/release/cutover demo

check:
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

test:
	bash scripts/setup.sh
	$(MAKE) check
	cargo test --locked --workspace
