# A newcomer needs two of these: `make demo` and `make test`. Everything is done by `cargo xtask`.
.PHONY: demo test check build bench sim clean
build:
	cargo build --workspace
