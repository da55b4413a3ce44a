# Each target builds .venv when it is missing or older than pyproject.toml or constraints.txt.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## refine a photo with the embedded models, offline
	@$(PY) examples/demo.py

test: $(STAMP) ## run the default tests (no slow ones, no GPU)
	@$(PY) -m pytest -q

# pytest exits with 5 when it collects no test. That is no failure of the code, but is said aloud.
test-slow: $(STAMP) ## run the slow tests
	@rc=0; $(PY) -m pytest -q -m slow || rc=$$?; \
	if [ $$rc -eq 5 ]; then echo "make test-slow: there are no slow tests, so none were run"; rc=0; fi; \
	exit $$rc

lint: $(STAMP) ## ruff check, ruff format --check, mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

clean: ## remove caches, builds, out/ and .venv
	@echo "Removing caches, build/, dist/, out/ and $(VENV) (runs/ and your own files stay)"
	@rm -rf $(VENV) out build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . \( -name .git -o -name runs \) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null 2>&1 || \
	{ echo "redepth needs Python 3.10 or newer; '$(PYTHON)' was not found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo "redepth needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1); use make PYTHON=python3.x" >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "$(PYTHON) cannot make virtual environments; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "Installing redepth and its development tools into $(VENV) (minutes the first time)"
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
