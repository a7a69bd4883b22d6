# A newcomer needs two of these: `make demo` and `make test`. Everything is done by `cargo xtask`;
# bootstrap.sh only sees to it that there is a cargo. `make TARGET ARGS="…"` passes ARGS on.
.PHONY: demo demo-cloud test test-cloud check build bench sim fuzz clean install
demo demo-cloud test test-cloud check build bench sim fuzz clean install:
	@xtask/bootstrap.sh $@ $(ARGS)
.DEFAULT_GOAL := build
