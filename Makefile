# `make demo` and `make test` do all the set-up themselves, into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXAMPLE ?= models/demo/examples/seven.png

.PHONY: setup demo test test-slow lint typecheck format clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[cpu,export,test,dev]"
	touch $@

# Export the demo checkpoint, complete the top half of a held-out digit; the last line printed is the picture's path.
demo: setup
	$(BIN)/igpt-export --variant demo --output build/demo-fp32 --force
	$(BIN)/igpt-run complete $(EXAMPLE) --model build/demo-fp32 --output build/demo.png --force

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist $(VENV)
