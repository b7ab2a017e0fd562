# `make help` lists the targets. Everything happens in .venv, which is made on first use.
PYTHON ?= python3
EVAL ?= default
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install evaluate tables publish test test-slow test-all fuzz check docs docs-serve notebook pictures bench museum site zoo gpu gpu-zoo reframed studies clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## make .venv and install robustframe with everything the targets need

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "robustframe needs Python 3.11 or newer; try make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[all]'
# Without the old requests that it pins and never imports; `robustframe doctor` says so, and pip check names it.
	$(BIN)/python -m pip install --quiet --no-deps torchattacks==3.5.1
	@touch $@

evaluate: $(READY) ## evaluate a folder of evaluations/ (EVAL=default), print its table
	@$(BIN)/robustframe evaluate $(EVAL)

tables: $(READY) ## write tables and pictures of README, docs and evaluations anew from what is published
	$(BIN)/python evaluations/readme.py README.md docs/attacks.md docs/claims.md docs/cli.md docs/reframe.md docs/zoo.md

# Three evaluations are about clean accuracy: their one gradient step is no measure of robustness.
BOARD := $(filter-out evaluations/accuracy/% evaluations/generalisation%,$(wildcard evaluations/*/results/record.json))
site: $(READY) ## build the leaderboard of the published records on robustness in site/
	@$(BIN)/robustframe report $(patsubst %/record.json,%,$(BOARD)) --out site

publish: $(READY) ## copy RUN=runs/... to the results of its folder in evaluations/
	$(BIN)/robustframe publish $(RUN)

# One process a core with one thread each: many small tensors gain nothing from more threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test: $(READY) ## the tests, without those that take long
	$(PYTEST) -m "not slow"

test-slow: $(READY) ## the tests that take long, those of Ray among them
	$(PYTEST) -m slow

test-all: $(READY) ## all tests, as CI runs them
	$(PYTEST)

TIMES ?= 10
fuzz: $(READY) ## TIMES=10 times as many hostile files as `make test` tries, drawn anew
	FUZZ=$(TIMES) $(PYTEST) tests/fuzz

check: $(READY) ## ruff, mypy and the test of the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit/test_layers.py

docs: $(READY) ## build the documentation strictly, into build/docs; open build/docs/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

docs-serve: $(READY) ## show the documentation at http://localhost:8000 while it is being written
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

notebook: $(READY) ## run the notebook, write it with its outputs as docs/notebook.md
	$(BIN)/python docs/notebook.py

pictures: $(READY) ## draw the pictures of docs/ anew; screens of the board and figures at print size go to build/pictures
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/screens.py

bench: $(READY) ## measure the speed figures of benchmarks/, one thread each
	for benchmark in benchmarks/*.py; do OMP_NUM_THREADS=1 $(BIN)/python $$benchmark || exit $$?; done

museum: $(READY) ## evaluate the museum of broken defences, going on where it stopped; writes docs/museum.md and the table of docs/diagnostics.md
	OMP_NUM_THREADS=1 $(BIN)/python tests/museum/tour.py

zoo: $(READY) ## train the pairs of the zoo that have no card yet, at low priority; continues where it stopped
	$(BIN)/robustframe zoo train --out robustframe/zoo/pairs

gpu-zoo: $(READY) ## train these pairs on a CUDA GPU; `make zoo` then measures their cards
	$(BIN)/robustframe zoo train --device cuda --jobs 16 --no-card --out robustframe/zoo/pairs

GPU ?= cuda

gpu: $(READY) ## on a CUDA GPU, ten minutes: the tests of another device, and the short benchmark with peers; GPU=cpu rehearses it
	$(BIN)/python -m pytest -q tests/contract/test_device.py tests/unit/test_training.py
	$(BIN)/python benchmarks/attacks.py --examples 128 --repetitions 1 --device $(GPU) --out benchmarks/results/attacks-gpu.md

reframed: $(READY) ## train the ResNet of evaluations/reframed, then the pair that it becomes
	cd evaluations/reframed && $(abspath $(BIN))/python train_net.py
	$(BIN)/robustframe train evaluations/reframed/settle.toml --out evaluations/reframed

studies: $(READY) ## train and measure the many small nets of evaluations/regularised and evaluations/doses, continuing where it stopped; half an hour
	$(BIN)/python evaluations/study.py $(patsubst %/grid.toml,%,$(wildcard evaluations/*/grid.toml))

clean: ## remove environments and caches; runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
