# make run: the dashboard.  make test: the tests, three at a time on two cores.  make check: lint, format, types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1

.PHONY: help run test test-long faults fuzz audit lock check laws browser postgres clean
.DEFAULT_GOAL := help

help:
	@echo "make run    install what is needed and open the dashboard at http://127.0.0.1:8501"
	@echo "make test   install what tests need, a browser and PostgreSQL included, and run the tests"
	@echo "make test-long  their longer forms: more kills, more stacks, more nodes"
	@echo "make faults  kill, lock, fill and restart, at length: the figures of docs/reliability.md"
	@echo "make fuzz   try inputs that coverage leads to, 5 minutes of each kind"
	@echo "make audit  ask whether the pinned packages have known weaknesses; needs the network"
	@echo "make lock   write requirements.lock, the hashes of the pinned packages, anew; needs the network"
	@echo "make check  lint, format and types"
	@echo "make laws   test the paper's laws on runs of your own and write docs/laws.md"
	@echo "make clean  remove the virtual environment; the archive in runs/ is kept"

run: $(VENV)/.run
	@exec $(BIN)/python -m advisor.serve

# Every test process imports the same modules: they are compiled once, whatever the shell says.
test test-long faults: export PYTHONDONTWRITEBYTECODE :=

# Three at a time keep two cores busy: many tests wait for another process.
test: $(VENV)/.dev browser postgres
	$(BIN)/python -m pytest -n 3 --dist worksteal

test-long: $(VENV)/.dev browser postgres
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long

# About 40 minutes on two cores; prints the figures of docs/reliability.md.
faults: $(VENV)/.dev postgres
	$(BIN)/python -m pytest tests/faults -m "long or not long"
	$(BIN)/python -m benchmarks.kills

fuzz: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-fuzz.txt
	$(BIN)/python tools/fuzz.py

audit: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip_audit --disable-pip --no-deps --strict -r constraints.txt

# What torch needs beside its device is named, for torch itself is left out: its wheels differ by device.
lock: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	(grep -v "^torch" requirements.txt; printf "%s\n" filelock fsspec jinja2 networkx setuptools sympy typing-extensions) | \
	  $(BIN)/uv pip compile - --quiet --output-file requirements.lock --constraints constraints.txt \
	  --generate-hashes --universal --python-version 3.11 --no-annotate --no-header

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# About 40 minutes on two cores; interrupted, it goes on where it was.
laws: $(VENV)/.dev browser
	$(BIN)/python -m advisor laws --study bias
	$(BIN)/python -m advisor laws --study horizon
	$(BIN)/python -m advisor laws --study boundary
	$(BIN)/python tools/laws_document.py

browser: $(VENV)/.dev
	@tools/browser.sh $(BIN)/playwright

postgres:
	@tools/postgres.sh

# A stamp is written last, so an interrupted installation does not count as done.
$(VENV)/.run: requirements.txt constraints.txt
	@tools/venv.sh $(PYTHON) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt requirements-postgres.txt requirements-ray.txt requirements-auth.txt requirements-tensorboard.txt requirements-trl.txt requirements-wandb.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV)
