# Clients too heavy for the lock: included by the Makefile.

.tools/lm-eval/installed: tests/clients/requirements.txt
	$(PYTHON) -m venv .tools/lm-eval
	.tools/lm-eval/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.tools/frameworks/installed: tests/clients/frameworks.txt
	$(PYTHON) -m venv .tools/frameworks
	.tools/frameworks/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.PHONY: test-clients
test-clients: .venv/installed-dev .tools/lm-eval/installed .tools/frameworks/installed ## Run lm-evaluation-harness, LangChain and LlamaIndex against a live server (installs them, apart from .venv)
	$(BIN)/python -m pytest tests/clients $(ARGS)
