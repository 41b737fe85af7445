# Each target makes the environment first. PYTHON: the interpreter .venv is made with (3.11 or newer).
PYTHON ?= python3

.PHONY: demo test test-fast quality style docs-check bench clean .venv

demo: .venv
	.venv/bin/nanohf run recipes/demo

# The files are shared between two processes of one thread each: faster on 2 cores than one process of two threads.
pytest = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile

# Everything that needs no GPU.
test: quality
	$(pytest) -m "not gpu"

# Under 90 seconds on 2 cores.
test-fast: .venv
	$(pytest) -m "not gpu and not slow"

# Looks, and changes nothing; style changes what can be changed by itself.
quality: .venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

style: .venv
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs-check: demo
	.venv/bin/python -m pytest tests/test_docs.py

bench: .venv
	.venv/bin/python benchmarks/model.py

.venv: .venv/.installed

# uv takes a third of pip's time but reads none of pip's settings, so where packages lie is passed on to it. Where uv
# cannot install, pip does. The stamp comes last, so that an install that failed is done again.
pip_setting = "$${PIP_$(1):-$$(.venv/bin/python -m pip config get global.$(2) 2>/dev/null)}"

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nanohf needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet -c constraints.txt uv
	UV_DEFAULT_INDEX=$(call pip_setting,INDEX_URL,index-url) \
	UV_INDEX=$(call pip_setting,EXTRA_INDEX_URL,extra-index-url) \
	UV_FIND_LINKS=$(call pip_setting,FIND_LINKS,find-links) \
	.venv/bin/uv pip install --quiet --python .venv --index-strategy unsafe-best-match -c constraints.txt -e '.[dev]' || \
	.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
