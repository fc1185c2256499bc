# The playground in a real browser: included by the Makefile. axe-core, which knows the rules of accessible pages, comes
# as a file in a package whose own needs, another browser driver, are left out.
AXE := axe-playwright-python==0.1.8

.tools/browser/installed: tests/browser/requirements.txt tests/browser/browser.mk | $(BIN)/python
	rm -rf $(@D)
	$(PIP_INSTALL) --target $(@D) --requirement $<
	$(PIP_INSTALL) --target $(@D) --no-deps $(AXE)
	@touch $@

.PHONY: browser-needs
browser-needs:
	@tests/browser/install-chromium.sh

.PHONY: test-browser
test-browser: browser-needs .venv/installed-dev .tools/browser/installed ## The playground in Chromium (on Debian, as root, installs it; Selenium apart from .venv)
	PYTHONPATH=.tools/browser $(BIN)/python -m pytest tests/browser $(ARGS)

.PHONY: screenshots
screenshots: browser-needs .venv/installed-dev .tools/browser/installed ## Take the pictures of docs/images anew
	PYTHONPATH=.tools/browser $(BIN)/python -m pytest tests/browser/make_screenshots.py
