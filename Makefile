# Each target sets up .venv by itself; `make PYTHON=python3.13 report` picks another interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: report test test-all lab bench clean

report: .venv/runtime  ## run every notebook on the bundled data and write report/
	$(BIN)/python main.py

test: .venv/develop  ## what takes minutes of the test suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not slow" --durations=10

test-all: test  ## the rest, too: whole runs, kills, README commands, a browser
	$(BIN)/python -m pytest -m slow --durations=10

lab: .venv/runtime  ## open the notebooks
	$(BIN)/jupyter lab --config=tools/lab_config.py --LabApp.default_url=/lab/tree/notebooks/01_data_exploration.ipynb

bench: .venv/runtime  ## time, memory and growth against decoding and the bare network
	$(BIN)/python tools/benchmark.py

clean:  ## remove the environment and the stage cache
	rm -rf .venv .cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv

.venv/runtime: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

.venv/develop: requirements-dev.txt .venv/runtime
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@
