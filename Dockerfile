# syntax=docker/dockerfile:1

# docker build -t distilgpt2-api .                                   with the demo model
# docker build -t distilgpt2-api --build-arg MODEL=distilgpt2 .      with DistilGPT-2, from the Hugging Face hub
# docker build -t distilgpt2-api --build-arg MODEL=./my-model .      with the model in that folder of the checkout
# docker build -t distilgpt2-api --target hardened .                 without shell and package manager
# docker build -t distilgpt2-api --build-arg MODEL=none .            without a model: a container mounts a model image
# docker build -t my-model --target model-image --build-arg MODEL=./my-model .   that model image, without the service
# docker build -t distilgpt2-api --build-arg EXTRAS="batch postgres" .   with the packages for files and batches
#
# docs/container.md explains every line.

ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie

# ---- build: the dependencies that poetry.lock lists

FROM ${PYTHON_IMAGE} AS build

ARG POETRY_VERSION=2.5.1
ARG POETRY_EXPORT_VERSION=1.10.1
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/poetry \
    && /opt/poetry/bin/pip install --disable-pip-version-check \
        "poetry==${POETRY_VERSION}" "poetry-plugin-export==${POETRY_EXPORT_VERSION}"

# Before the code is copied, so that a change of code does not rebuild these layers.
WORKDIR /src
COPY pyproject.toml poetry.lock ./
# pip installs the packages that Poetry locked, and checks every hash. The environment itself has no pip.
ARG EXTRAS=""
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/poetry/bin/poetry export --extras "${EXTRAS}" --output /tmp/requirements.txt \
    && python -m venv --without-pip /opt/venv \
    && /opt/poetry/bin/pip --python /opt/venv/bin/python --disable-pip-version-check install \
        --no-compile --no-deps --require-hashes --requirement /tmp/requirements.txt

# ---- dependencies: only the files that are loaded

FROM build AS dependencies

COPY docker/trim.py docker/freeze.sh docker/
RUN /opt/venv/bin/python docker/trim.py \
    && mkdir -p /rootfs/opt \
    && mv /opt/venv /rootfs/opt/venv \
    && docker/freeze.sh /rootfs \
    && cp -a /rootfs/opt/venv /opt/venv

# ---- kernels: the native library, compiled on the machine that builds for the machine that runs
# A stage of its own: a change of Python code compiles nothing, a change of the kernels installs nothing.

FROM --platform=${BUILDPLATFORM} ${PYTHON_IMAGE} AS kernels

WORKDIR /src
COPY pyproject.toml .
# The version that pyproject.toml has.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/zig \
    && /opt/zig/bin/pip install --disable-pip-version-check --no-compile "$(grep -o 'ziglang==[0-9.]*' pyproject.toml)"
COPY native native
ARG TARGETOS
ARG TARGETARCH
RUN /opt/zig/bin/python native/build.py --platform "${TARGETOS}/${TARGETARCH}" --out /kernels

# ---- source: the folder that MODEL names, if it is a folder
# A separate stage, so that the next one depends only on that folder, not on the code beside it.

FROM ${PYTHON_IMAGE} AS source

ARG MODEL=src/distilgpt2_api/models/storyteller
WORKDIR /context
COPY . .
RUN mkdir /model \
    && if [ -f "./${MODEL}/config.json" ]; then cp -rL "./${MODEL}/." /model; \
        elif [ -d "./${MODEL}" ]; then touch /model/is-no-model; fi

# ---- model: compiled once here, instead of at every start

FROM build AS model

# Only the code that compiles models: a change of any other code does not rebuild this stage and its layer.
COPY src/distilgpt2_api/__init__.py src/distilgpt2_api/
COPY src/distilgpt2_api/core src/distilgpt2_api/core
COPY src/distilgpt2_api/text src/distilgpt2_api/text
COPY src/distilgpt2_api/model src/distilgpt2_api/model
COPY docker/prepare_model.py docker/freeze.sh docker/

ARG MODEL=src/distilgpt2_api/models/storyteller
ARG PRECISION=int8
ARG HF_ENDPOINT=https://huggingface.co
COPY --from=source /model copied
RUN --mount=type=cache,target=/var/cache/distilgpt2-api \
    PYTHONPATH=src /opt/venv/bin/python docker/prepare_model.py --model "${MODEL}" --copied copied \
        --precision "${PRECISION}" --target /rootfs/opt \
    && docker/freeze.sh /rootfs

# ---- model-image: the model alone, with its own labels. A change of code leaves its layer as it is.

FROM scratch AS model-image

COPY --from=model /rootfs/opt/ /
ARG MODEL=src/distilgpt2_api/models/storyteller
ARG PRECISION=int8
ARG MODEL_LICENSE=NOASSERTION
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1980-01-01T00:00:00Z
ARG SOURCE=https://github.com/OWNER/distilgpt2-api
LABEL org.opencontainers.image.title="model for distilgpt2-api" \
    org.opencontainers.image.description="${MODEL} with ${PRECISION} weights, compiled for distilgpt2-api" \
    org.opencontainers.image.licenses="${MODEL_LICENSE}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    distilgpt2-api.model="${MODEL}" \
    distilgpt2-api.precision="${PRECISION}"

# ---- code: our wheel, tested with only the files of the image

FROM dependencies AS code

COPY pyproject.toml poetry.lock README.md LICENSE ./
COPY docker/gunicorn.conf.py docker/
COPY native native
COPY src src
COPY --from=kernels /kernels/libkernels.so src/distilgpt2_api/model/kernels/
# Installed into an empty root, so that this layer holds only our code. The image's model has its own layer.
RUN KERNELS_PREBUILT=1 /opt/poetry/bin/pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/poetry/bin/pip --python /opt/venv/bin/python --disable-pip-version-check install \
        --quiet --no-compile --no-deps --no-index --no-warn-script-location --root /rootfs-code dist/*.whl \
    && rm -rf /rootfs-code/opt/venv/lib/python3.*/site-packages/distilgpt2_api/models/*/ \
    && install -D docker/gunicorn.conf.py /rootfs-code/etc/distilgpt2-api/gunicorn.conf.py \
    && docker/freeze.sh /rootfs-code
# Now this stage has the files of the image: if they can't generate a text, the build fails. Without a model, they generate
# with the demo model of the checkout.
COPY --from=model /rootfs/ /
COPY docker/smoke.py docker/
RUN cp -a /rootfs-code/. / \
    && if [ -e /opt/model ]; then model=/opt/model; else model=src/distilgpt2_api/models/storyteller; fi \
    && HOME=/nonexistent DISTILGPT2_MODEL="${model}" /opt/venv/bin/python docker/smoke.py

# ---- base: Debian and Python, without files that no service needs
# It removes pip, because the environment is complete, and the setuid bits, which let programs run as their owner; glibc's
# and Python's conversions between character sets other than Unicode; Python's own tests, help texts and windows; and what
# only builds of Debian packages read. It compiles the standard library, which the image has as source.

FROM ${PYTHON_IMAGE} AS base

RUN touch --date='1 second ago' /tmp/begin \
    && rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/*-packages/pip* /usr/local/lib/python3.*/ensurepip \
        /usr/lib/python3.*/ensurepip /usr/share/python-wheels /root/.cache /usr/lib/*-linux-gnu/gconv \
        /var/cache/debconf/* /var/lib/dpkg/info/*.symbols \
    && for name in config-3 curses doctest idlelib lib2to3 pydoc test tkinter turtle unittest xmlrpc \
        lib-dynload/_codecs_ lib-dynload/_ctypes_test lib-dynload/_curses lib-dynload/_multibytecodec \
        lib-dynload/_test lib-dynload/_xxtest lib-dynload/xx; do \
        rm -rf /usr/local/lib/python3.*/"${name}"* /usr/lib/python3.*/"${name}"*; done \
    && PYTHONHASHSEED=0 python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && find / -xdev -perm /6000 -exec chmod a-s {} + \
    && find /root /usr /var -newer /tmp/begin -exec touch --no-dereference --date=@315532800 {} + \
    && rm /tmp/begin \
    && touch --date=@315532800 /tmp

# ---- minimal: of the base, only Python and what it loads

FROM base AS minimal

WORKDIR /src
COPY docker/minimal_root.py docker/freeze.sh docker/
RUN --mount=type=bind,from=dependencies,source=/rootfs/opt/venv,target=/opt/venv \
    python docker/minimal_root.py /opt/venv /rootfs \
    && docker/freeze.sh /rootfs \
    && chmod 1777 /rootfs/tmp /rootfs/var/tmp

# ---- config: how both images start

FROM scratch AS config

# The values have no quotes and no $(), which Apptainer would evaluate. HOME: the user below has none in /etc/passwd.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    PYTHONSAFEPATH=1 \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HOME=/tmp \
    PORT=8000 \
    DISTILGPT2_MODEL=/opt/model

# A number, because Kubernetes' runAsNonRoot can't look up a name. Group 0 reads everything, so any other number works too.
USER 10001:0
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["distilgpt2-api", "healthcheck"]

# The configuration file binds to $PORT on every address, and explains its other options.
CMD [ \
    "gunicorn", \
    "distilgpt2_api.api:app", \
    "--worker-class", "distilgpt2_api.worker.Worker", \
    "--config", "/etc/distilgpt2-api/gunicorn.conf.py" \
]

# They change with every commit, and add no layer.
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1980-01-01T00:00:00Z
ARG SOURCE=https://github.com/OWNER/distilgpt2-api
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="distilgpt2-api" \
    org.opencontainers.image.description="DistilGPT-2, and any GPT-2 checkpoint, as a REST API" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}"

# ---- hardened: without shell and package manager
# docker build --target hardened; the same layers but for the first

FROM config AS hardened

COPY --from=minimal /rootfs/ /
COPY --from=dependencies /rootfs/ /
COPY --from=model /rootfs/ /
COPY --from=code /rootfs-code/ /

# ---- runtime
# The stage `base` becomes one layer, with the shell and the libraries of its Debian. On top of PYTHON_IMAGE itself the
# deletions would save no byte, and would leave marks with the time of the build.

FROM config AS runtime

# One layer each, from the one that changes least to the one that changes most.
# hadolint ignore=DL3067
COPY --from=base / /
COPY --from=dependencies /rootfs/ /
COPY --from=model /rootfs/ /
COPY --from=code /rootfs-code/ /
