# make demo     the miniature: a small dataset in results/mini, ten minutes on two cores
# make test     the test suite, at most 25 minutes, but for
# make test-long      faults, the real table and whatever else takes minutes
# make test-slurm     the tests on a real Slurm that they start themselves; needs its packages (CONTRIBUTING.md)
#                     TESTS=tests/slurm/test_pipeline_on_slurm.py: only those, as .ci/run does
# make resources RUN=results     what the jobs of a run used, as the key set-resources of a profile
# make install  only the environment, .venv
# make why ARGUMENTS="--workflow-profile mini audio"     why jobs would run again, in plain words
# make dag      dry runs of every profile and scenario, and the linter; needs snakemake alone
# make scaling  docs/scaling.md and its figure anew
# make docs    the documentation, results/site/index.html
# make models   train the miniature's models anew, into results/mini/models (two hours)
# make real MUSICCAPS=musiccaps-public.csv     the real table through the miniature's models
# make format | lint | clean

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
MINI := results/mini
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
# Without it Snakemake keeps caches in the home directory, where two checkouts would share them.
export XDG_CACHE_HOME := $(CURDIR)/.snakemake/cache

.PHONY: install demo test test-long test-slurm resources why dag scaling docs models real lint format clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-no-deps.txt envs/cpu_torch_shim.py
	@for python in $(PYTHON) python3.11 python3.12 python3; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then \
	    found=$$python; break; fi; done; \
	if [ -z "$$found" ]; then \
	  echo "error: Python 3.11 or 3.12 is needed, found $$(python3 --version 2>&1). Install one, or say where it is: make demo PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	echo "Installing into $(VENV) with $$($$found --version): 3.3 GB (more with a CUDA torch), some minutes"; $$found -m venv $(VENV)
	$(BIN)/python -m pip install --quiet setuptools==84.2.1 wheel
	$(BIN)/python -m pip install --quiet --no-build-isolation -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -r requirements-no-deps.txt
	cp envs/cpu_torch_shim.py "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	echo 'import cpu_torch_shim' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/cpu_torch_shim.pth"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/snakemake --workflow-profile mini
	@[ -e $(MINI)/report.zip ] && [ -z "$$(find $(MINI) -newer $(MINI)/report.zip -type f -print -quit)" ] || $(BIN)/snakemake --workflow-profile mini --report $(MINI)/report.zip
	@PYTHONPATH=workflow/scripts $(BIN)/python -m conceptcaps.headline $(MINI)
	@echo 'These models are small and know a synthetic world only: the README says which of these figures mean something.'

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not pipeline and not long and not slurm" -n 2
	$(BIN)/python -m pytest -m "pipeline and not long"

test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -m long

test-slurm: $(VENV)/.installed
	$(BIN)/python -m pytest -m slurm $(TESTS)

resources: $(VENV)/.installed
	@PYTHONPATH=workflow/scripts $(BIN)/python -m conceptcaps.benchmarks $(RUN)/benchmarks

why: $(VENV)/.installed
	@$(BIN)/python workflow/reruns.py $(ARGUMENTS)

# CI has no virtual environment: make dag SNAKEMAKE=snakemake
SNAKEMAKE := $(BIN)/snakemake
DRY := $(SNAKEMAKE) -n -q rules
MINIATURE := $(DRY) --workflow-profile mini
dag:
	$(DRY) -- results/conceptcaps.parquet
	$(DRY) --profile slurm -- results/conceptcaps.parquet
	$(MINIATURE)
	$(MINIATURE) --configfile overlays/mini.yaml overlays/retrained.yaml -- all mini_models
	$(MINIATURE) --configfile overlays/mini.yaml overlays/real_musiccaps.yaml --config 'sources={musiccaps: {path: README.md}}'  # another file stands in for the table
	$(DRY) --config 'distill={taxonomy: resources/mini/taxonomy.yaml}' -- results/conceptcaps.parquet
	$(DRY) --config 'arms={compared: [base, zero_shot]}' -- scores tcav figures
	$(DRY) --config 'arms={compared: []}' -- results/conceptcaps.parquet
	$(DRY) -- captions
	$(SNAKEMAKE) --lint

scaling: $(VENV)/.installed
	$(BIN)/python docs/scaling.py

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

models: $(VENV)/.installed
	$(BIN)/snakemake --workflow-profile mini --configfile overlays/mini.yaml overlays/retrained.yaml -- mini_models

real: $(VENV)/.installed
	@[ -f "$(MUSICCAPS)" ] || { echo "error: say where the table is: make real MUSICCAPS=path/to/musiccaps-public.csv" >&2; exit 1; }
	$(BIN)/snakemake --workflow-profile mini --configfile overlays/mini.yaml overlays/real_musiccaps.yaml --config 'sources={musiccaps: {path: $(MUSICCAPS)}}'
	@PYTHONPATH=workflow/scripts $(BIN)/python -m conceptcaps.headline results/real_musiccaps

lint: $(VENV)/.installed
	$(BIN)/python -m pytest tests/test_style.py

format: $(VENV)/.installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/snakefmt Snakefile rules && $(BIN)/python docs/generate.py

clean:
	rm -rf $(MINI)
