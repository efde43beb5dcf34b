# Each target does its own set-up; all of it is quick when there is nothing to do.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build guests site demo test check bench

# The build of the demo and of the tests is one: the same profile, features and targets.
CARGO ?= cargo
BUILD := $(CARGO) build --workspace --locked

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 16

setup: ## install what a build needs and the machine lacks
	@scripts/setup.sh base

guests: setup ## build the example handlers
	@scripts/guests.sh

site: setup
	@scripts/setup.sh site

build: setup
	$(BUILD)

demo: build guests ## show it at work: make demo, or make demo ONCE=1 to show it and exit
	@python3 scripts/demo.py --bin target/debug $(if $(filter-out 0,$(ONCE)),--once)

test: setup guests site ## all tests; says at the end how many ran
	@scripts/test.sh

check: setup ## format, lints, licences and advisories, structure
	@scripts/check.sh

bench: setup guests ## compare with nginx, Varnish, HAProxy, Traffic Server, wasmtime, side by side
	@scripts/setup.sh bench
	$(CARGO) build --locked --release -p verge-edge -p verge-control -p verge-bench-sandbox --bins
	@python3 bench/run.py --bin target/release $(ARGS)
