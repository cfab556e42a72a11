# `make demo` and `make test` do all the set-up themselves, into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXAMPLE ?= models/demo/examples/seven.png

RUNTIME_JS := runtime/js

.PHONY: setup demo embed test test-slow fuzz lint typecheck format docs bundles bench gpu-kit peers sizes reproduce js native clean

setup: $(VENV)/.all

# What the demo needs: ONNX Runtime, and torch to export.
$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[cpu,export]"
	touch $@

# What the tests and the development need besides.
$(VENV)/.all: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[cpu,export,test,dev,docs]"
	touch $(VENV)/.demo $@

# Export the demo checkpoint, complete the top half of a held-out digit; the last line printed is the picture's path.
demo: $(VENV)/.demo
	$(BIN)/igpt-export --variant demo --output build/demo-fp32 --force
	$(BIN)/igpt-run complete $(EXAMPLE) --model build/demo-fp32 --output build/demo.png --force

# Export the trained checkpoints into the runtime package; igpt-run uses the demo without --model.
embed: setup
	$(BIN)/igpt-export --variant demo --output runtime/python/igpt_runtime/demo --force
	$(BIN)/igpt-export --variant digits --precision int8 --kv-cache fp32 \
	  --output runtime/python/igpt_runtime/digits --force

# On so many cores; what a file's tests share is made once.
WORKERS ?= 2

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow

# Damaged and hostile files, kills and pairs of commands; mishandled cases are kept below build/fuzz, and fail it.
# make fuzz HARNESS=bundles COUNT=10000 SEED=1; CASE=4711 runs one again; RECORD=1 notes the figures in docs.
fuzz: setup
	PYTHONPATH=$(CURDIR)/tests$(if $(PYTHONPATH),:$(PYTHONPATH)) $(BIN)/python -m hostile.fuzz $(HARNESS) $(if $(COUNT),--count $(COUNT)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(CASE),--case $(CASE)) $(if $(RECORD),--record)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

# The documentation, into build/docs; a broken link fails it.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

typecheck: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The small shape with random weights, at every precision.
bundles: setup
	for precision in fp32 int8 int4; do \
	  $(BIN)/igpt-export --variant small --random-weights --precision $$precision \
	    --output build/small-$$precision --force || exit 1; \
	done

# What they do on this machine; verifies every token it times.
bench: bundles
	for precision in fp32 int8 int4; do $(BIN)/igpt-run bench --model build/small-$$precision || exit 1; done

# What a check on a GPU needs, for a machine without network: tests/cuda/device/README.md.
gpu-kit: setup
	$(BIN)/python tests/cuda/device/prepare.py

# The same work in other runtimes, each in an environment of its own below build/peers: about half an hour at first (one
# of them is compiled), then half an hour for two rounds. Ends with the README's table and plot.
peers: bundles
	$(BIN)/python tests/bench/peers/setup.py build/peers
	$(BIN)/python tests/bench/compare.py --bundle fp32=build/small-fp32 --bundle int8=build/small-int8 \
	  --bundle int4=build/small-int4
	build/peers/plot/bin/python tests/bench/report.py --plot tests/bench/results/peers.png

# Every size of the family at every precision: almost two hours, 24 GB of memory and 50 GB of disk, most of them
# for XL. Writes the README's table.
sizes: setup
	$(BIN)/python tests/bench/sizes.py build/sizes

# The paper's claims about features, at the demo's scale: trains three small models where build/reproduce has none (about
# half an hour on two cores), then measures for a quarter of an hour. Writes models/demo/claims.
reproduce: setup
	$(BIN)/python models/demo/reproduce.py --work build/reproduce

# The JavaScript runtime: its dependencies for tests, its types, and its tests.
js:
	cd $(RUNTIME_JS) && npm ci --no-audit --no-fund && npm test

# The clients in other languages: builds and tests those whose toolchains are there, and says which are left out.
native: setup
	$(BIN)/python -m pytest -m slow -rs tests/native

clean:
	rm -rf build dist $(VENV)
