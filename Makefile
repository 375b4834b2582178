# Three environments: .venv-demo holds the core alone (no torch), .venv every extra and the tools, .venv-peers what
# benchmarks compare with.
# A stamp file in each says which pyproject.toml and constraints.txt it was made from, so a second call is quick.

PYTHON ?= python3
SERVE  ?= 1
LEVEL  ?= cpu
FULL   := .venv
DEMO   := .venv-demo
PEERS  := .venv-peers
RUN    := $(FULL)/bin
PIP    := -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(RUN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test check static bench reproduce docs model constraints format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(DEMO)/stamp ## Index Python's standard library, answer five questions, serve the page (SERVE=0: do not serve)
	$(DEMO)/bin/embedlab demo $(if $(filter 0,$(SERVE)),--no-serve,--serve)

test: static ## Everything: linters, types, import rules, all tests
	$(PYTEST) -n 2 --dist worksteal

check: static ## What a change must pass before a commit, in under two minutes
	$(PYTEST) -n 2 --dist worksteal -m "not slow and not browser" tests/contract/test_methods.py tests/contract/test_kinds.py tests/core tests/repository

static: $(FULL)/stamp
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

bench: $(FULL)/stamp $(PEERS)/stamp ## Run every benchmark beside its peers; results go to benchmarks/results/
	$(RUN)/python benchmarks/ann.py
	$(RUN)/python benchmarks/aspects.py
	$(RUN)/python benchmarks/codecs.py
	$(RUN)/python benchmarks/compress.py
	$(RUN)/python benchmarks/dupmae.py
	$(RUN)/python benchmarks/encode.py
	$(RUN)/python benchmarks/evaluate.py
	$(RUN)/python benchmarks/geometry.py --peers $(PEERS)/bin/python
	$(RUN)/python benchmarks/gist.py
	$(RUN)/python benchmarks/merge.py
	$(RUN)/python benchmarks/mmteb.py
	$(RUN)/python benchmarks/nv_embed.py
	$(RUN)/python benchmarks/observatory.py
	$(RUN)/python benchmarks/prompting.py
	$(RUN)/python benchmarks/relative.py
	$(RUN)/python benchmarks/serve.py
	$(RUN)/python benchmarks/train.py
	$(RUN)/python benchmarks/tune.py
	$(RUN)/python benchmarks/tte_depth.py --peers $(PEERS)/bin/python
	$(PEERS)/bin/python benchmarks/pipeline.py

reproduce: $(FULL)/stamp ## Measure the claims of every method (LEVEL=smoke, cpu or gpu)
	$(RUN)/embedlab reproduce --all --level $(LEVEL)
	$(RUN)/python docs/generate.py

docs: $(FULL)/stamp ## Write the generated pages: command line, methods, kinds, reproduction matrix
	$(RUN)/python docs/generate.py

model: $(FULL)/stamp ## Make the embedded default model anew into build/default (needs EMBEDLAB_DATA; two hours on two cores)
	$(RUN)/python -m embedlab.models.default_recipe --out build/default

constraints: ## Resolve all extras anew, together, and write constraints.txt
	rm -rf .venv-resolve && $(PYTHON) -m venv .venv-resolve
	.venv-resolve/bin/python -m pip install --disable-pip-version-check --quiet ".[all,dev]"
	.venv-resolve/bin/python -m pip freeze --exclude embedlab | sed 's/+cpu$$//' > constraints.txt
	rm -rf .venv-resolve

format: $(FULL)/stamp ## Format the code and mend what the linter can mend
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

clean: ## Remove the environments and every cache
	rm -rf $(FULL) $(DEMO) $(PEERS) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(FULL)/stamp: pyproject.toml constraints.txt
	test -x $(RUN)/python || $(PYTHON) -m venv $(FULL)
	$(RUN)/python $(PIP) --editable ".[all,dev]"
	touch $@

$(DEMO)/stamp: pyproject.toml constraints.txt
	test -x $(DEMO)/bin/python || $(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(PIP) --editable .
	touch $@

$(PEERS)/stamp: pyproject.toml benchmarks/peers.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --disable-pip-version-check --quiet --requirement benchmarks/peers.txt --editable .
	touch $@
