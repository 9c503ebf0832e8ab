# Every target has a line of help: `make help`. Python 3.11 or later and make are enough to start.
PYTHON ?= python3
UV := $(shell command -v uv || echo .uv/bin/uv)
PACKAGES := robustvision-core fdiv-noisy rml-meta pseudolabel-da flowaug diffpnp-pose
RUN := .venv/bin/python
TEST_JOBS ?= 2
MANIFESTS := pyproject.toml $(wildcard packages/*/pyproject.toml)
# a terminal shows uv's progress; elsewhere a line before and one after say enough
SYNC := $(UV) sync $(if $(MAKE_TERMOUT),,--quiet) --all-packages --all-extras

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint type format bench wheels floors release-check docs pictures report browser browser-test pins clean

help: ## show this help
	@grep -hE '^[a-z%<>-]+:.*## ' $(MAKEFILE_LIST) | sed 's/%/<package>/' | awk -F':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

.uv/bin/uv:
	@echo "fetching uv into .uv"
	@$(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

.venv/.synced: $(MANIFESTS) | $(filter .uv/%,$(UV))
	@echo "installing the packages and their tools into .venv: some minutes the first time, for PyTorch is large"
	@$(SYNC) --group docs
	@touch $@
	@echo "installed"

.venv-integrations/.synced: $(MANIFESTS) | $(filter .uv/%,$(UV))
	@echo "installing the packages beside Lightning, timm, cleanlab and others into .venv-integrations"
	@UV_PROJECT_ENVIRONMENT=.venv-integrations $(SYNC) --group integrations
	@touch $@

setup: .venv/.synced ## install every package and tool into .venv (the other targets do it themselves)

demo: setup ## each package's main job on built-in data, with and without its method, in a few minutes
	$(RUN) scripts/demo.py

test: setup ## run every test but those of wheels, of several nodes and of the site in a browser, on TEST_JOBS=2 cores
	$(RUN) -m pytest -m "not wheels and not nodes and not browser" -n $(TEST_JOBS) --dist worksteal

test-%: setup ## run the tests of one package, as in `make test-fdiv-noisy`
	$(RUN) -m pytest packages/$*

test-integrations: .venv-integrations/.synced ## the packages with Trainer, Lightning, cleanlab, datasets, timm, ONNX, TensorBoard and COCO files, in an environment of their own
	.venv-integrations/bin/python -m pytest tests/integrations

test-nodes: setup ## two machines, played by two launchers on the loopback, against one
	$(RUN) -m pytest -m nodes tests/test_nodes.py

lint: setup ## check style, and the imports between packages and rooms
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports --no-cache

format: setup ## format the code and repair what can be repaired
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

type: setup ## check types
	.venv/bin/pyright

bench: $(addprefix bench-,$(notdir $(wildcard benchmarks/*_*))) ## run every package's benchmarks

.venv/.rivals: .venv/.synced
	@echo "installing the rivals that benchmarks measure beside ours"
	@$(SYNC) --group docs --group bench
	@touch $@

bench-%: .venv/.rivals ## run one package's benchmarks, as in `make bench-fdiv-noisy`; tables go to benchmarks/<package>/results
	$(RUN) -m benchmarks $(subst -,_,$*)

bench-check: setup ## after a run of the benchmarks: what became slower than the committed figures, by more than the noise
	$(RUN) -m benchmarks check

wheels: setup ## build every wheel into dist and try each alone in a fresh environment
	rm -rf dist
	$(UV) build --quiet --all-packages --wheel --out-dir dist
	UV=$(UV) $(RUN) -m pytest -m wheels tests/test_wheels.py

floors: setup ## try every package with the lowest versions that it declares, on each Python at hand
	rm -rf dist
	$(UV) build --quiet --all-packages --wheel --out-dir dist
	UV=$(abspath $(UV)) $(RUN) scripts/floors.py

release-check: setup ## build every archive; check versions, licences, metadata, and the tests of the source archives
	rm -rf dist
	$(UV) build --quiet --all-packages --out-dir dist
	UV=$(abspath $(UV)) $(RUN) scripts/release_check.py

docs: setup ## build the documentation site into site/
	rm -rf site
	.venv/bin/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env --jobs 2 -d docs/_build docs site
	$(RUN) scripts/docs_coverage.py
	$(RUN) scripts/clicks.py

pictures: setup ## draw the pictures of the front page anew, from built-in data and the benchmarks' results
	$(RUN) -m scripts.pictures

report: setup ## write the reproduction report anew from the benchmarks' results
	$(RUN) -m benchmarks report

browser: docs browser-test ## build the site and look at every page in headless Chromium

browser-test: setup ## look at every page of the site that was built last
	$(RUN) -m pytest -m browser tests/test_docs_browser.py

pins: setup ## resolve anew and rewrite the pins in pyproject.toml
	UV=$(UV) $(RUN) scripts/pins.py

clean: ## remove environments, builds and caches
	rm -rf .venv .venv-integrations .uv .wheels dist site .pytest_cache .ruff_cache
