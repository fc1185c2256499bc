# The service on arm64, emulated: the wheel with its locked dependencies, in a root folder of Debian's packages for arm64.
# Included by the Makefile.
ARM64 := .tools/arm64
ARM64_PACKAGES := $(ARM64)/root/opt/packages
# pip installs for another machine: the tags that its glibc accepts, and only finished wheels.
PIP_FOR_ARM64 = $(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target $(ARM64_PACKAGES) \
	--implementation cp --python-version 3.13 --only-binary=:all: \
	$(foreach glibc,2_31 2_28 2_27 2_17,--platform manylinux_$(glibc)_aarch64) --platform manylinux2014_aarch64

$(ARM64)/root-made: tests/arm64/root.sh
	@tests/native/install.sh mmdebstrap mmdebstrap
	tests/arm64/root.sh $(ARM64)/root
	@touch $@

# With what the engine's tests import.
$(ARM64)/installed: $(ARM64)/root-made poetry.lock tests/arm64/arm64.mk | $(POETRY) .venv/installed-dev
	$(POETRY) export --quiet --no-interaction --without-hashes --with test --output $@.constraints.txt
	$(POETRY) export --quiet --no-interaction --output $@.requirements.txt
	$(PIP_FOR_ARM64) --no-deps --require-hashes --requirement $@.requirements.txt
	$(PIP_FOR_ARM64) --constraint $@.constraints.txt pytest pytest-timeout jsonschema safetensors httpx
	@touch $@

.PHONY: arm64-root
arm64-root: $(ARM64)/installed .tools/wheels/installed .tools/native/installed
	$(WHEELS_PYTHON) wheels/build.py --compiler $(NATIVE_PYTHON) --platform linux/arm64 --out $(ARM64)/dist
	rm -rf $(ARM64_PACKAGES)/distilgpt2_api*
	$(PIP_FOR_ARM64) --no-deps --no-index $(ARM64)/dist/*.whl
