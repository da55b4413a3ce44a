# Each target builds .venv when it is missing or older than pyproject.toml or constraints.txt; test-pytorch3d
# likewise builds .venv-pytorch3d, because pytorch3d needs another torch.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
# Tests run in two processes, each with one thread; make test PYTEST="-n 0" runs them in one.
PYTEST ?= -n 2 --dist worksteal
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
VENV3D := .venv-pytorch3d
STAMP3D := $(VENV3D)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-browser test-pytorch3d fuzz soak lint viewer clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## refine a photo with the embedded models, offline
	@$(PY) examples/demo.py

test: $(STAMP) ## run the default tests (no slow ones, no GPU)
	@$(PY) -m pytest -q $(PYTEST)

# pytest exits with 5 when it collects no test. That is no failure of the code, but is said aloud.
test-slow: $(STAMP) ## run the slow tests
	@rc=0; $(PY) -m pytest -q $(PYTEST) -m "slow and not gpu and not pytorch3d and not browser" || rc=$$?; \
	if [ $$rc -eq 5 ]; then echo "make test-slow: there are no slow tests, so none were run"; rc=0; fi; \
	exit $$rc

# Chromium is no Python package: without one the tests are skipped, or fail where CHROMIUM=required.
test-browser: $(STAMP) ## run the tests in headless Chromium (Debian, Ubuntu: apt install chromium)
	@REDEPTH_CHROMIUM=$(CHROMIUM) $(PY) -m pytest -q -n 0 -m browser

test-pytorch3d: $(STAMP3D) ## run the tests of the mesh renderer, in an environment with pytorch3d
	@$(VENV3D)/bin/python -m pytest -q -m pytorch3d

fuzz: $(STAMP) ## feed the readers damaged files for longer: REDEPTH_FUZZ_EXAMPLES=20000 of each target
	@REDEPTH_FUZZ_EXAMPLES=$${REDEPTH_FUZZ_EXAMPLES:-20000} $(PY) -m pytest -q $(PYTEST) -m slow tests/fuzz

soak: $(STAMP) ## kill runs at random moments for longer: REDEPTH_SOAK_KILLS=1000
	@REDEPTH_SOAK_KILLS=$${REDEPTH_SOAK_KILLS:-1000} $(PY) -m pytest -q $(PYTEST) -m slow tests/soak

lint: $(STAMP) ## ruff check, ruff format --check, mypy, no large files
	@$(PY) .ci/large_files.py
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

viewer: ## bundle three.js for view.html again (needs Node.js 18 or newer)
	@cd redepth/exports/viewer/bundling && npm ci --no-audit --no-fund && npm run build

clean: ## remove caches, builds, out/, .venv and .venv-pytorch3d
	@echo "Removing caches, build/, dist/, out/, $(VENV) and $(VENV3D) (runs/ and your own files stay)"
	@rm -rf $(VENV) $(VENV3D) out build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . \( -name .git -o -name runs \) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
$(STAMP): EXTRAS := dev
$(STAMP3D): pyproject.toml constraints-pytorch3d.txt
$(STAMP3D): EXTRAS := dev,pytorch3d
$(STAMP) $(STAMP3D):
	@command -v $(PYTHON) >/dev/null 2>&1 || \
	{ echo "redepth needs Python 3.10 or newer; '$(PYTHON)' was not found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo "redepth needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1); use make PYTHON=python3.x" >&2; exit 1; }
	@$(@D)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "$(PYTHON) cannot make virtual environments; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(@D)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(@D)
	@echo "Installing redepth and its development tools into $(@D) (minutes the first time)"
	@$(@D)/bin/python -m pip install -q --disable-pip-version-check -c $(filter %.txt,$^) -e ".[$(EXTRAS)]"
	@# Its network alone is used; what it declares to need (numpy<2, open3d, ...) is not.
	@$(@D)/bin/python -m pip install -q --disable-pip-version-check --no-deps -c $(filter %.txt,$^) depth-anything-3 || \
	echo "depth-anything-3 cannot be installed on this Python: its tests will be skipped"
	@# Likewise: the packages declare a web app, OpenGL and more.
	@$(@D)/bin/python -m pip install -q --disable-pip-version-check --no-deps -c $(filter %.txt,$^) dlr-moge dlr-utils3d || \
	echo "dlr-moge cannot be installed on this Python: its tests will be skipped"
	@touch $@
