# The package as wheels and as a source distribution. Included by the Makefile.
WHEELS_PYTHON := .tools/wheels/bin/python

.tools/wheels/installed: wheels/requirements.txt
	$(PYTHON) -m venv .tools/wheels
	$(WHEELS_PYTHON) -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.PHONY: wheels
wheels: .tools/wheels/installed .tools/native/installed ## Build the package into dist/: the source distribution, and a wheel for each platform
	$(WHEELS_PYTHON) wheels/build.py --compiler $(NATIVE_PYTHON) --out dist

.PHONY: test-wheels
test-wheels: .venv/installed-dev wheels ## Test the files in dist/: install and run them with pip, uv and pipx, upload them to a package index on this machine
	$(BIN)/python -m pytest tests/wheels $(ARGS)
