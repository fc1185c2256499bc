"""Builds the application from the settings and passes every part its values."""

import logging
import os
import time
from collections.abc import Callable
from functools import partial

import structlog
from fastapi import FastAPI

from distilgpt2_api.batch.lines import LINE_FRAME_BYTES
from distilgpt2_api.batch.store.objects import StoreLimits
from distilgpt2_api.batch.store.ports import OpenBatchService
from distilgpt2_api.core.config import EngineConfig
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.engine.admission import Admission
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.engine_preload import claim_preload
from distilgpt2_api.model.kernels.library import INTERFACE, choose_target
from distilgpt2_api.observability.traces import Traces
from distilgpt2_api.server.app import VERSION, create_app
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.auth.api_keys import KeyRing, KeyTable
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.lifecycle.lifespan import exit_on_failure
from distilgpt2_api.server.service import ServedModel
from distilgpt2_api.settings import Settings
from distilgpt2_api.text.chat_templates.files import load_chat_template
from distilgpt2_api.usage.key_usage import KeyUsage
from distilgpt2_api.usage.ledger import UsageLedger

logger = logging.getLogger(__name__)


def build_app(settings: Settings, *, on_failure: Callable[[Exception], None] | None = None) -> FastAPI:
    """The application for these settings. The model loads later. Raises ModelError, SettingsError.

    If the engine can't load or stops, `on_failure` is called on the event loop with the reason. Without `on_failure`
    the process ends.
    """
    preload = claim_preload(settings)
    location, engine_config = preload.location, preload.config
    chat_template = load_chat_template(location.folder, settings.chat_template)
    model = served_model(location.name, engine_config, settings)
    access = build_access(settings)
    traces = open_traces(model.shown_name) if settings.traces else None

    def say_serving() -> None:
        structlog.stdlib.get_logger("distilgpt2_api").info(
            "serving",
            model=location.name,
            origin=location.origin.value,
            precision=engine_config.precision.value,
            threads=engine_config.num_threads,
        )

    engine = AsyncEngine(
        preload.result,
        admission=Admission(
            max_waiting_requests=settings.max_waiting_requests, max_waiting_tokens=settings.max_waiting_tokens
        ),
        on_ready=say_serving,
        # After a failure threads and streams may never end, so the process exits without waiting for them.
        on_failure=on_failure or exit_on_failure(os._exit),
        step_timeout_s=settings.step_timeout_s,
    )
    open_batch_service = None if settings.batch_store is None else batch_service_opener(settings, settings.batch_store)
    return create_app(
        engine=engine,
        model=model,
        limits=request_limits(settings),
        registry=preload.registry,
        engine_metrics=preload.metrics,
        access_log=structlog.stdlib.get_logger("distilgpt2_api.access"),
        drain_s=settings.drain_s,
        metrics_labels={"pid": str(os.getpid())} if settings.num_workers > 1 else None,
        traces=traces,
        access=access,
        usage=None if access.keys is None else build_key_usage(settings, access.keys),
        root_path=settings.root_path,
        chat_template=chat_template,
        sampling_defaults=settings.sampling_defaults(location.folder),
        open_batch_service=open_batch_service,
    )


def served_model(name: str, config: EngineConfig, settings: Settings) -> ServedModel:
    """The model as responses describe it, created now, with the installed kernels."""
    return ServedModel(
        name=name,
        precision=config.precision.value,
        created=int(time.time()),
        kernels=f"{choose_target(config.kernels)} {INTERFACE}",
        served_names=settings.served_model_names,
    )


def request_limits(settings: Settings) -> RequestLimits:
    """Limits of one request."""
    return RequestLimits(
        max_body_bytes=settings.max_body_bytes,
        max_uploads_bytes=settings.max_uploads_bytes,
        body_timeout_s=settings.body_timeout_s,
        max_prompts=settings.max_waiting_requests,
        max_n=settings.max_n,
        max_logprobs=settings.max_logprobs,
        max_stop_sequences=settings.max_stop_sequences,
        timeout_s=settings.timeout_s,
    )


def batch_service_opener(settings: Settings, location: str) -> OpenBatchService:
    """A function that opens the store. Raises SettingsError if the packages are not installed or it can't be opened."""
    try:
        # An optional extra, which takes 200 ms to import.
        import python_multipart  # noqa: F401, PLC0415 - uploads need it: fail now, not at the first upload

        from distilgpt2_api.batch.store.factory import WorkLimits, build_batch_service  # noqa: PLC0415 - the reason stands above
        from distilgpt2_api.batch.store.store import open_store  # noqa: PLC0415 - the same
    except ImportError:
        raise SettingsError.missing_extra("batch_store", "batch") from None
    return partial(
        build_batch_service,
        open_store(location),
        store_limits=StoreLimits(
            max_files=settings.max_stored_files,
            max_bytes=settings.max_stored_bytes,
            max_open_batches=settings.max_open_batches,
            expiry_s=settings.file_expiry_s,
        ),
        work_limits=WorkLimits(
            max_file_bytes=settings.max_file_bytes,
            max_lines=settings.max_batch_lines,
            max_line_bytes=settings.max_body_bytes + LINE_FRAME_BYTES,
            max_lines_at_once=settings.max_batch_requests or settings.max_num_sequences,
        ),
    )


def open_traces(model: str) -> Traces:
    """Raises SettingsError if the packages are not installed."""
    try:
        # An optional extra, which takes 40 ms and 5 MB.
        from distilgpt2_api.observability.otlp import collector_traces  # noqa: PLC0415 - the reason stands above
    except ImportError:
        raise SettingsError.missing_extra("traces", "otel") from None
    return collector_traces(version=VERSION, model=model)


def build_key_usage(settings: Settings, keys: KeyRing) -> KeyUsage:
    """Reads the usage of this month. Raises SettingsError if a store that a setting names can't be used.

    The default folder may be read-only, as in a container. The log then says that usage ends with the process.
    """
    from distilgpt2_api.usage.databases import usage_store_at  # noqa: PLC0415 - SQLite takes a megabyte of memory

    location = settings.usage_location()
    try:
        store = usage_store_at(location)
        journal_folder = settings.home if store.file is None else store.file.parent
        usage = KeyUsage(keys, UsageLedger(), store, journal_folder=journal_folder)
        usage.load()
    except SettingsError as error:
        if settings.usage_store is not None or settings.batch_store is not None:
            raise
        logger.warning("usage of API keys is counted in memory only: %s; the setting usage_store names a store", error)
        return KeyUsage(keys, UsageLedger(), store=None)
    return usage


def build_access(settings: Settings) -> Access:
    """Raises SettingsError if the key file can't be read."""
    limits = settings.caller_limits()
    keys = None
    if settings.api_keys or settings.api_keys_file is not None:
        keys = KeyRing(settings.api_keys, file=settings.api_keys_file, default_limits=limits)
    known = [] if keys is None else keys.names
    if unknown := [name for name in settings.operator_keys if name not in known]:
        logger.warning("operator_keys names keys that don't exist now: %s", ", ".join(unknown))
    return Access(
        keys=keys,
        metrics_key=None if settings.metrics_api_key is None else KeyTable([settings.metrics_api_key]),
        has_public_metrics=settings.public_metrics,
        has_public_docs=settings.public_docs,
        cors_origins=settings.cors_origins,
        operators=frozenset(settings.operator_keys),
        address_limits=limits,
    )
