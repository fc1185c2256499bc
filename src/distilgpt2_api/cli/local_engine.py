"""An engine for one command, run on the command's own thread."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from distilgpt2_api.core.events import SilentObserver
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.factory import load_engine
from distilgpt2_api.settings import Settings


@contextmanager
def open_engine(settings: Settings) -> Iterator[Engine]:
    """Load the engine of the settings. Notes about loading go to standard error."""
    engine = load_engine(
        settings.locate_model().folder,
        settings.engine_config(),
        cache_folder=settings.cache_home,
        observer=SilentObserver(),
        report=lambda line: click.echo(line, err=True),
    )
    try:
        yield engine
    finally:
        engine.close()
