# Ray Serve and Ray Data, in a separate environment, because nothing else needs Ray. Included by the Makefile.
RAY_PYTHON := .tools/ray/bin/python

.tools/ray/installed: pyproject.toml poetry.lock tests/ray/ray.mk | $(POETRY)
	$(PYTHON) -m venv .tools/ray
	$(POETRY) check --lock --quiet || { $(POETRY) check --lock; exit 1; }
	$(POETRY) export --quiet --no-interaction --with test --extras ray --extras batch --output $@.requirements.txt
	$(RAY_PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement $@.requirements.txt
	$(RAY_PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.PHONY: test-ray
test-ray: .tools/ray/installed ## Test the service and batches on a Ray cluster of several nodes on this machine (installs Ray outside .venv)
	$(RAY_PYTHON) -m pytest tests/ray -p no:warnings $(ARGS) # Ray emits hundreds
