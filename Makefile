# `make demo` and `make test` are all that a fresh machine needs: each installs what it uses into .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-slow test-gpu lint types docs release-check clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'  # the first that reads dependency groups
	$(BIN)/pip install --quiet --no-compile -e '.[all]' --group dev
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # pip would do this on one core, and accept what cannot be compiled too
	touch $@

demo: install
	$(BIN)/sightline demo

# One process on each core, with one thread each; a file's tests share its fixtures, and so its process.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

test: install
	$(PYTEST) -m 'not slow'

test-slow: install
	$(PYTEST) -m slow

# In one process: tests that share a GPU would wait for each other's memory.
test-gpu: install
	$(BIN)/pytest -m gpu

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python tools/check_language.py

types: install
	$(BIN)/mypy

docs: install
	PYTHONPATH=tools $(BIN)/python -m reference docs/reference
	$(BIN)/python tools/notebooks.py
	$(BIN)/zensical build --strict

# Builds the sdist and the wheel, checks both, and installs the wheel beside the dependencies of .venv.
release-check: install
	rm -rf dist build/release
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	.ci/layer .venv build/release
	build/release/bin/pip install --quiet --no-deps --force-reinstall dist/*.whl
	cd build/release && bin/sightline --version
	cd build/release && bin/python -c 'import sightline as sl; assert "release" in sl.__file__; sl.SegmentOverlap()'

clean:
	rm -rf .venv .cache dist build site runs
