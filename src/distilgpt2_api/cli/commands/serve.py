"""`distilgpt2-api serve`: runs Gunicorn with our worker in this process; signals and exit status are Gunicorn's."""

import math
import os
import socket
import sys
from pathlib import Path
from typing import Any

import click
import structlog
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]  # Gunicorn has no types
from gunicorn.util import import_app  # type: ignore[import-untyped]  # the same

from distilgpt2_api.cli.listening import check_passed_sockets, listen, shown_address, unix_socket_options
from distilgpt2_api.cli.options import model_option, num_threads_option, overrides_from, precision_option
from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.core.processor import check_processor
from distilgpt2_api.observability.logs import configure_logging
from distilgpt2_api.observability.start_errors import write_start_error
from distilgpt2_api.settings import LogFormat, LogLevel, Settings, export_to_environment, read_log_format
from distilgpt2_api.settings.sampling_defaults import GenerationConfig

APP = "distilgpt2_api.api:app"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - Gunicorn creates its own temporary file there, safely
KEEP_ALIVE_S = 75
"""Longer than load balancers keep idle connections (commonly 60 s), so that the client closes first."""


def absolute(_context: click.Context, _option: click.Parameter, path: str | None) -> str | None:
    """The path that workers see, from the folder in which the user types it."""
    return None if path is None else str(Path(path).absolute())


@click.command("serve")
@model_option
@click.option(
    "--served-model-name",
    "served_model_names",
    metavar="NAME",
    multiple=True,
    callback=lambda _context, _option, names: ",".join(names) or None,
    help="Model name for clients. Repeatable; responses show the first. Default: the model's name.",
)
@precision_option
@click.option(
    "--generation-config",
    type=click.Choice([choice.value for choice in GenerationConfig]),
    help="Whether the model's generation_config.json sets defaults of sampling parameters. Default: off.",
)
@click.option(
    "--override-generation-config",
    metavar="JSON",
    help='Defaults of sampling parameters: {"temperature": 0.8, "max_new_tokens": 128}.',
)
@click.option("--host", metavar="ADDRESS", help="Address to listen on. Default: 0.0.0.0.")
@click.option("--port", metavar="N", help="Port to listen on. Default: 8000.")
@click.option("--uds", metavar="PATH", callback=absolute, help="Unix socket to listen on, instead of host and port.")
@click.option("--ssl-certfile", metavar="FILE", callback=absolute, help="PEM certificate: serve HTTPS.")
@click.option(
    "--ssl-keyfile", metavar="FILE", callback=absolute, help="Its PEM key. Default: in the certificate's file."
)
@num_threads_option
@click.option("--log-level", type=click.Choice([level.value for level in LogLevel]), help="Default: info.")
@click.option("--log-format", type=click.Choice([form.value for form in LogFormat]), help="Default: auto.")
def command(**options: str | None) -> None:
    """Serve a model over HTTP until SIGTERM or Ctrl-C.

    Without --model, it serves DistilGPT-2 if that has been pulled, else the bundled demo model. It never connects to
    the network; it only listens. `distilgpt2-api config` lists all settings.
    """
    overrides = overrides_from(**options)
    is_terminal = sys.stderr.isatty()
    try:
        check_processor()
        settings = Settings(**overrides)
        settings.locate_model()
        settings.check_keys_file()
        settings.tls_context()
        passed = check_passed_sockets(settings)
        listeners = passed or [listen(settings)]
    except Distilgpt2ApiError as error:
        is_json = read_log_format(options["log_format"]).is_json(is_terminal=is_terminal)
        sys.exit(write_start_error(error, is_json=is_json))
    export_to_environment(overrides)
    configure_logging(level=settings.log_level.value, is_json=settings.has_json_logs(is_terminal=is_terminal))
    url = ", ".join(shown_address(each, is_tls=settings.ssl_certfile is not None) for each in listeners)
    structlog.stdlib.get_logger("distilgpt2_api").info("listening", url=url, model=settings.model_label())
    Server([] if passed else listeners, settings).run()


class Server(BaseApplication):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn with workers that serve `APP` on `listeners`; without any, on the sockets that systemd passes."""

    def __init__(self, listeners: list[socket.socket], settings: Settings) -> None:
        self._options = gunicorn_options(settings) | {"bind": [f"fd://{each.detach()}" for each in listeners]}
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            if name in self.cfg.settings:  # Gunicorn before 25 has no control socket
                self.cfg.set(name, value)

    def load(self) -> Any:
        return import_app(APP)


def gunicorn_options(settings: Settings) -> dict[str, object]:
    options: dict[str, object] = {
        "worker_class": "distilgpt2_api.worker.Worker",
        "logger_class": "distilgpt2_api.observability.gunicorn_log.GunicornLog",
        "workers": settings.num_workers,
        "keepalive": KEEP_ALIVE_S,
        "graceful_timeout": math.ceil(settings.drain_s) + 1,  # workers drain by themselves; Gunicorn ends hung ones
        "control_socket_disable": True,  # it would be created under $HOME, which may be read-only
        "accesslog": None,  # the application logs requests
        "loglevel": "debug" if settings.log_level is LogLevel.DEBUG else "warning",
    }
    if os.access(SHARED_MEMORY, os.W_OK):
        options["worker_tmp_dir"] = str(SHARED_MEMORY)  # a heartbeat file on disk can block the worker
    if settings.uds is not None:
        options |= unix_socket_options(settings.uds, settings.uds_permissions)
    return options
