# The playground in a real browser: included by the Makefile.

.tools/browser/installed: tests/browser/requirements.txt | $(BIN)/python
	rm -rf $(@D)
	$(PIP_INSTALL) --target $(@D) --requirement $<
	@touch $@

.PHONY: browser-needs
browser-needs:
	@tests/browser/install-chromium.sh

.PHONY: test-browser
test-browser: browser-needs .venv/installed-dev .tools/browser/installed ## The playground in Chromium (on Debian, as root, installs it; Selenium apart from .venv)
	PYTHONPATH=.tools/browser $(BIN)/python -m pytest tests/browser $(ARGS)
