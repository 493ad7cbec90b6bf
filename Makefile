# make demo    a finished run on images that ship with scikit-learn, and a report to look at
# make test    the test suite, in minutes; prints its slowest twenty tests
# make test-cluster   the rest: what starts many processes or trains for long, a real Slurm on this machine
# make check   format, lint, types, fast tests
# make clean   removes caches, build products and runs/demo; keeps .venv
#
# Each makes .venv when it is missing or older than pyproject.toml and constraints.txt.
# PYTHON chooses the interpreter (>= 3.11), EXTRAS the optional dependencies:  make .venv PYTHON=python3.12 EXTRAS=gpu,dev

PYTHON ?= python3
EXTRAS ?= cpu,dev
BIN := .venv/bin
INSTALLED := .venv/.installed
# one thread a test process, as many processes as cores: small tensors gain nothing from more threads
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

.PHONY: .venv demo test test-cluster check clean
.DEFAULT_GOAL := demo

.venv: $(INSTALLED)

# torch first, and pinned: an unpinned requirement of another package must not choose its build
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python {sys.version.split()[0]}: expected 3.11 or newer (make PYTHON=...)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/python -m cluster_jobs.submit pipeline=demo cluster=local root=runs/demo
	@echo "The report: $(CURDIR)/runs/demo/report.html"

test: $(INSTALLED)
	$(PYTEST) -m 'not cluster' --durations=20
	@echo "left out: tests of many processes, long training and Slurm (make test-cluster)"

# two files at a time, as each test starts several processes; all that needs the Slurm is in one
test-cluster: $(INSTALLED)
	$(PYTEST) -m cluster -n 2 --dist loadfile

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -m 'not slow and not cluster' -x -q

clean:
	rm -rf runs/demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +
	@echo "kept .venv (rm -r .venv removes it) and every other folder under runs/"
