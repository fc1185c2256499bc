"""The ASGI application `distilgpt2_api.api:app`, for Gunicorn and Uvicorn. Importing this module builds it."""

import gc
import sys

from fastapi import FastAPI

from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.core.processor import check_processor
from distilgpt2_api.observability.start_errors import write_start_error
from distilgpt2_api.settings import read_log_format


def _build_or_exit() -> FastAPI:
    try:
        check_processor()
        # They import NumPy, which would end the process on a processor that the check refuses.
        from distilgpt2_api.application import build_app  # noqa: PLC0415 - the reason stands above
        from distilgpt2_api.engine_preload import read_settings  # noqa: PLC0415 - the same

        return build_app(read_settings())
    except Distilgpt2ApiError as error:
        is_json = read_log_format().is_json(is_terminal=sys.stderr.isatty())
        sys.exit(write_start_error(error, is_json=is_json))


app = _build_or_exit()
# Modules, routes and schemas live for good: garbage collections that scan them would delay every stream.
gc.freeze()
