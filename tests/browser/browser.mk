# The playground in a real browser. Included by the Makefile. axe-core checks accessibility; it is a file in a package
# whose dependency, another browser driver, is not installed.
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
test-browser: browser-needs .venv/installed-dev .tools/browser/installed ## Test the playground in Chromium (installs it on Debian as root, Selenium outside .venv)
	PYTHONPATH=.tools/browser $(BIN)/python -m pytest tests/browser $(ARGS)

.PHONY: screenshots
screenshots: browser-needs .venv/installed-dev .tools/browser/installed ## Take the screenshots in docs/images
	PYTHONPATH=.tools/browser $(BIN)/python -m pytest tests/browser/make_screenshots.py
