# Each of these works on a fresh clone: what is missing gets installed first, and what is there already is left alone.
.DEFAULT_GOAL := help
.PHONY: help run test bench check packages servers grpc-tools

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The cache keeps the sources without their types: from the second start on Node need not strip them, nor load what does.
run: packages ## Serve on 127.0.0.1:7420 (gRPC) and :7421 (HTTP); needs no other server
	@HOLDFAST_BANNER=$${HOLDFAST_BANNER:-true} NODE_COMPILE_CACHE=$${NODE_COMPILE_CACHE:-.cache/compiled} \
		PATH="$$PWD/node_modules/.bin:$$PATH" exec node src/main.ts

test: packages servers grpc-tools ## Run every test, against real servers; ARGS="..." goes to vitest
	npm test --silent -- $(ARGS)

bench: packages servers ## Measure against what a user would do without us
	npm run bench --silent -- $(ARGS)

check: packages ## Types, lint, format, contract, import rule: seconds
	npm run check --silent

packages:
	@bash scripts/ensure-packages.sh

servers:
	@bash scripts/ensure-servers.sh

grpc-tools:
	@bash scripts/ensure-grpc-tools.sh
