# The documentation site; the root Makefile includes this.
DOCS_PORT ?= 8001
PROPERDOCS := NO_MKDOCS_2_WARNING=1 .tools/docs/bin/properdocs

.tools/docs/installed: website/requirements.txt
	$(PYTHON) -m venv .tools/docs
	.tools/docs/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.PHONY: docs
docs: .tools/docs/installed ## Build the documentation site into site/; a broken link or anchor fails
	$(PROPERDOCS) build --strict --config-file mkdocs.yml

.PHONY: docs-serve
docs-serve: .tools/docs/installed ## Serve the documentation on http://127.0.0.1:8001 (DOCS_PORT), and rebuild changed pages
	$(PROPERDOCS) serve --strict --config-file mkdocs.yml --dev-addr 127.0.0.1:$(DOCS_PORT)

.PHONY: test-docs
test-docs: .venv/installed-dev ## Type the documentation's commands, page by page, in a fresh copy of the checkout (installs it there)
	$(BIN)/python -m pytest tests/commands $(ARGS)
