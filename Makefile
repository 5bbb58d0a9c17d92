# `make demo` and `make test` are all that a fresh machine needs: each installs what it uses into .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-slow lint types docs package clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,lint,docs,package]'
	touch $@

demo: install
	$(BIN)/sightline demo

test: install
	$(BIN)/pytest -m 'not slow'

test-slow: install
	$(BIN)/pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

docs: install
	$(BIN)/mkdocs build --strict --quiet

package: install
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf .venv dist build site runs
