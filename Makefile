# Everything runs in .venv, which is made from requirements.txt on first use.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Processes that share the tests
WORKERS ?= 2

.PHONY: coded-ber test test-slow notebooks clean

coded-ber: $(VENV)/.installed
	$(BIN)/python simulations/coded_ber.py $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-slow: $(VENV)/.notebooks
	$(BIN)/python -m pytest -m slow $(ARGS)

notebooks: $(VENV)/.notebooks
	$(BIN)/python simulations/notebooks/run.py $(ARGS)

$(VENV)/.installed: requirements.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else "linksim needs Python 3.10 to 3.13, this is %d.%d: make PYTHON=python3.11 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# What runs notebooks, beside the exact versions of everything else
$(VENV)/.notebooks: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e ".[notebooks]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
