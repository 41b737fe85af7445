# Each target makes the environment first. PYTHON: the interpreter .venv is made with (3.11 or newer).
PYTHON ?= python3

.PHONY: demo test quality docs-check bench clean .venv

demo: .venv
	.venv/bin/nanohf run recipes/demo

test: .venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python -m pytest -m "not gpu"

docs-check: demo
	.venv/bin/python -m pytest tests/test_docs.py

quality: .venv
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv
	.venv/bin/python benchmarks/model.py

.venv: .venv/.installed

# The stamp comes last, so that an install that failed is done again.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nanohf needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet -c constraints.txt torch==2.13.0
	.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
