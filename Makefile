# Everything a developer or CI runs. `make help` lists it.
# The distribution's interpreter if it is complete: it is built with profile-guided optimisation, those of version
# managers often are not, and then everything takes half as long again.
FIT := import ensurepip, os, sys, sysconfig; \
	sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))
PYTHON ?= $(shell /usr/bin/python3 -c '$(FIT)' 2>/dev/null && echo /usr/bin/python3 || echo python3)
BIN := .venv/bin
STAMP := .venv/.installed
SEED ?= 1
N ?= 200
SECONDS_MAX ?= 600

.DEFAULT_GOAL := help
.PHONY: help install run test check format lint types layers house sim mutants fuzz bench proto proto-check \
	golden integration examples image compose helm clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(STAMP) ## make .venv with Warren, its compiled parts and the developers' tools

$(STAMP): pyproject.toml $(wildcard node/wire/*.pyx)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ echo "cannot make .venv: on Debian, apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

run: install ## start a cluster of three nodes on this machine
	@$(BIN)/warren dev

test: install ## run the tests
	$(BIN)/python -m pytest -q

check: install format lint types layers house proto-check ## format, lint, types, layers and house rules; changes nothing

format:
	$(BIN)/ruff format --check .

lint:
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

layers:
	$(BIN)/lint-imports

house:
	$(BIN)/python -m pytest -q tests/house

sim: install ## run N simulated clusters (N=200) from SEED (SEED=1)
	$(BIN)/python -m tests.sim --seed $(SEED) --count $(N) --mode both --jobs $$(nproc)

mutants: install ## plant bugs in Raft and the queue machine; the simulator must find each
	$(BIN)/python -m tests.sim.hunt

fuzz: install ## feed the codec and the connection core coverage-guided garbage for SECONDS_MAX
	$(BIN)/python -m pip install --quiet '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS_MAX)

bench: install ## the benchmark of record; ARGS="--quick --against rabbitmq" and more, see docs/performance.md
	$(BIN)/python -m bench $(ARGS)

proto: install ## generate cluster/wire from proto/
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=. --pyi_out=. --grpc_python_out=. proto/cluster/wire/*.proto

proto-check: install
	@rm -rf build/proto && mkdir -p build/proto
	@$(BIN)/python -m grpc_tools.protoc -I proto --python_out=build/proto --pyi_out=build/proto \
		--grpc_python_out=build/proto proto/cluster/wire/*.proto
	@diff -r -x __init__.py -x __pycache__ build/proto/cluster/wire cluster/wire \
		|| { echo "cluster/wire is not what proto/ says: make proto" >&2; exit 1; }

golden: install ## rewrite the golden files; read the diff line by line
	$(BIN)/python -m pytest -q --rewrite tests

integration: install ## real clients against real processes (minutes)
	$(BIN)/python -m pytest -q integration

examples: install ## run the examples against a cluster
	$(BIN)/python -m pytest -q integration/examples

image: ## build the image warren:dev
	docker build -f deploy/docker/Dockerfile -t warren:dev $(BUILD_ARGS) .

compose: image ## start three containers
	docker compose -f deploy/compose/docker-compose.yml up -d || docker-compose -f deploy/compose/docker-compose.yml up -d

helm: install ## lint the chart and compare what it renders with tests/golden/helm
	$(BIN)/python -m pytest -q tests/helm

clean: ## remove what was built, not the data
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
