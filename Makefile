# Everything runs in .venv. `make coded-ber` fills it with what running needs, of exact
# versions; tests, lint, docs and notebooks add the rest.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Both lists are complete: pip need not look for more
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
# The second environment: PyTorch and Sionna 2.x, without TensorFlow
TORCH_VENV ?= .venv-torch
# Processes that share the tests
WORKERS ?= 2

# What needs neither the simulator nor TensorFlow
TORCH_TESTS = $(addprefix tests/test_, vectors.py torch.py torch_onnx.py sionna2.py start.py)

.PHONY: coded-ber test test-slow test-torch lint docs notebooks requirements clean

coded-ber: $(VENV)/.installed
	$(BIN)/python simulations/coded_ber.py $(ARGS)

test: $(VENV)/.tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-slow: $(VENV)/.tests
	$(BIN)/python -m pytest -m slow $(ARGS)

# The layers on PyTorch, with Sionna 2.x and without TensorFlow
test-torch: $(TORCH_VENV)/.tests
	KERAS_BACKEND=torch OMP_NUM_THREADS=1 $(TORCH_VENV)/bin/python -m pytest -n $(WORKERS) \
		--dist worksteal $(if $(ARGS),$(ARGS),$(TORCH_TESTS))

lint: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# API pages in build/docs/linksim.html; what is public must have a docstring
docs: $(VENV)/.tests
	$(BIN)/python -m pytest tests/test_docs.py
	$(BIN)/python .ci/docs.py

notebooks: $(VENV)/.tests
	$(BIN)/python simulations/notebooks/run.py $(ARGS)

$(VENV)/.installed: requirements.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else "linksim needs Python 3.10 to 3.13, this is %d.%d: make PYTHON=python3.11 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements.txt
	$(INSTALL) -e .
	touch $@

$(VENV)/.tests: $(VENV)/.installed requirements-test.txt
	$(INSTALL) -r requirements-test.txt
	touch $@

$(TORCH_VENV)/.tests: requirements-torch.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_EXTRA) \
		-r requirements-torch.txt
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# Writes both lists anew after a change of setup.cfg; keeps the versions that still fit
COMPILE = UV_PYTHON_DOWNLOADS=never UV_CUSTOM_COMPILE_COMMAND="make requirements" \
	build/uv/bin/uv pip compile --quiet --universal --python-version 3.10 \
	--no-annotate --group light setup.cfg
requirements:
	$(PYTHON) -m venv build/uv
	build/uv/bin/pip install --quiet uv
	$(COMPILE) -o requirements.txt
	$(COMPILE) -o requirements-test.txt \
		-c requirements.txt --extra dev --extra onnx --extra notebooks

clean:
	rm -rf $(VENV) $(TORCH_VENV) build *.egg-info
