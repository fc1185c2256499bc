"""Gunicorn's options for the image's CMD, from the settings: address, drain, log level. A wrong setting is a one-line
error before anything starts.

`distilgpt2-api serve` starts the same server with the same options. The image spells out the command, so that
`docker inspect` shows it and `docker run IMAGE gunicorn …` can change it.
"""

import sys
import tempfile
import time
from typing import Any, NoReturn

from gunicorn.errors import HaltServer  # type: ignore[import-untyped]  # Gunicorn has no types

from distilgpt2_api.cli.commands.serve import gunicorn_options
from distilgpt2_api.cli.listening import check_passed_sockets, listen
from distilgpt2_api.core.errors import Distilgpt2ApiError, SettingsError
from distilgpt2_api.model.weights.weight_files import find_compiled_file
from distilgpt2_api.observability.logs import configure_logging
from distilgpt2_api.observability.start_errors import write_start_error
from distilgpt2_api.settings import Settings, read_log_format
from distilgpt2_api.settings.host_resources import read_memory_limit_bytes

LEAST_BYTES = 96 << 20
"""Memory of Python, NumPy and FastAPI without a model: the lowest possible limit. Measured: 100 MB resident."""
BOOT_S = 20.0
"""If a worker is killed earlier than this, its start was the cause, and the next worker would be killed as well."""
KILLED = 3


def check(settings: Settings) -> None:
    """Raise a worker's later errors now, and SettingsError if the memory limit would kill a worker."""
    model = settings.locate_model()
    settings.check_keys_file()
    settings.tls_context()
    compiled = find_compiled_file(model.folder, settings.precision)
    weights_bytes = compiled.stat().st_size if compiled else 0
    limit_bytes = read_memory_limit_bytes()
    if limit_bytes < LEAST_BYTES + weights_bytes:
        raise SettingsError(
            f"the memory limit of {limit_bytes >> 20} MiB is too small: model {model.name} takes "
            f"{(LEAST_BYTES + weights_bytes >> 20) + 1} MiB or more"
        )


def check_heartbeat_folder() -> None:
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise SettingsError(
            "neither /dev/shm nor /tmp can be written: Gunicorn's heartbeat needs one of them"
        ) from None


def end_start(error: Distilgpt2ApiError) -> NoReturn:
    is_json = read_log_format().is_json(is_terminal=sys.stderr.isatty())
    raise SystemExit(write_start_error(error, is_json=is_json))


try:
    settings = Settings()
    check(settings)
    options = gunicorn_options(settings)
    if "worker_tmp_dir" not in options:
        check_heartbeat_folder()
except Distilgpt2ApiError as error:
    end_start(error)

configure_logging(level=settings.log_level.value, is_json=settings.has_json_logs(is_terminal=sys.stderr.isatty()))
globals().update(options)
# Gunicorn adds this folder to the import path: a read-only one, whatever the caller's working directory was.
chdir = "/"
# Azure, Cloud Run and others set $PORT; DISTILGPT2_PORT overrides it.
if settings.uds is not None:
    bind = f"unix:{settings.uds}"
else:
    bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"


def on_starting(server: Any) -> None:  # noqa: ARG001 - Gunicorn's signature
    """Exit with a one-line error if the port is in use. Gunicorn would retry for five seconds and print six lines.

    It would also take a Unix socket away from a program that listens on it.
    """
    try:
        if not check_passed_sockets(settings):
            listen(settings).close()
    except Distilgpt2ApiError as error:
        end_start(error)


def pre_fork(server: Any, worker: Any) -> None:  # noqa: ARG001 - Gunicorn's signature
    worker.started_s = time.monotonic()


def child_exit(server: Any, worker: Any) -> None:
    """Stop the master if a worker is killed while it starts: Gunicorn would start one worker after the other.

    The container's operator, or its restart policy, decides when to retry.
    """
    seconds = time.monotonic() - worker.started_s
    # After a HUP the old worker ends normally, beside the new one.
    if server.LISTENERS and not server.WORKERS and seconds < BOOT_S:
        limit = f"{read_memory_limit_bytes() >> 20} MiB"
        raise HaltServer(f"the worker was killed {seconds:.1f} s after its start; the memory limit is {limit}", KILLED)
