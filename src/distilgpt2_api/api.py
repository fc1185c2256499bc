"""The ASGI application `distilgpt2_api.api:app`, for Gunicorn and Uvicorn. Importing this module builds it."""

import gc
import sys

from fastapi import FastAPI

from distilgpt2_api.application import build_app
from distilgpt2_api.core.errors import Distilgpt2ApiError, ModelError
from distilgpt2_api.engine_preload import read_settings
from distilgpt2_api.server.lifecycle.lifespan import EXIT_MODEL
from distilgpt2_api.settings import EXIT_SETTINGS


def _build_or_exit() -> FastAPI:
    try:
        return build_app(read_settings())
    except Distilgpt2ApiError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(EXIT_MODEL if isinstance(error, ModelError) else EXIT_SETTINGS)


app = _build_or_exit()
# Modules, routes and schemas live for good: garbage collections that scan them would delay every stream.
gc.freeze()
