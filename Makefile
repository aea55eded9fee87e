# `make run` and `make test` are the two commands of the README; both build the environment first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-fast lint lock bench clean

run: .venv/.stamp
	$(BIN)/headrace run configs/demo.yaml

test: lint test-fast
	$(BIN)/pytest -m slow

# Two processes: most tests have work for one thread. Slow ones start Ray, which takes all cores.
test-fast: .venv/.dev-stamp
	$(BIN)/pytest -n 2 --dist loadscope -m "not slow"

lint: .venv/.dev-stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.dev-stamp
	for name in $$(ls benchmarks/*.py | xargs -n1 basename -s .py | grep -v __init__); do $(BIN)/python -m benchmarks.$$name --quick || exit 1; done

.venv/.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Headrace needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get update && apt-get install python3-venv"; exit 2; }
	@echo "Installing into .venv: 2.6 GB, a few minutes"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --upgrade "pip>=25.1" -c constraints.txt
	@$(BIN)/python -m pip install -qq -c constraints.txt -e .
	@touch $@

# What only tests and benchmarks need: spaCy, transformers, ONNX, an S3 server, checkers; 0.8 GB.
.venv/.dev-stamp: .venv/.stamp
	@echo "Installing what tests need into .venv"
	@$(BIN)/python -m pip install -qq -c constraints.txt -e . --group dev
	@touch $@

# Resolve the dependencies again, without local build tags (+cpu), which exist on one machine only. torch stays at the
# lower bound in pyproject.toml, so that CI runs it.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-lock/bin/python -m pip install --quiet -e . --group dev "$$(grep '^torch==' constraints.txt)"
	{ echo "# Made by 'make lock'; the versions that the tests passed with."; .venv-lock/bin/python -m pip list --format=freeze --exclude headrace | sed 's/+[a-z0-9.]*$$//' | sort -f; } > constraints.txt
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock .headrace .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
