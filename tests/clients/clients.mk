# Clients that are too large for the lock. Included by the Makefile.

.tools/lm-eval/installed: tests/clients/requirements.txt
	$(PYTHON) -m venv .tools/lm-eval
	.tools/lm-eval/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.tools/frameworks/installed: tests/clients/frameworks.txt
	$(PYTHON) -m venv .tools/frameworks
	.tools/frameworks/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.tools/npm/installed: tests/clients/package.json tests/clients/package-lock.json
	@tests/clients/install-node.sh
	@mkdir -p $(@D)
	cp $^ $(@D)
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --silent
	@touch $@

.PHONY: test-clients
test-clients: .venv/installed-dev .tools/lm-eval/installed .tools/frameworks/installed .tools/npm/installed ## Run lm-evaluation-harness and the clients of docs/clients.md against a live server (installs them outside .venv, Node.js on Debian as root)
	$(BIN)/python -m pytest tests/clients $(ARGS)
