"""What `gunicorn` in the image's CMD takes from our settings: address, drain, log level, and how mistakes are told.

`distilgpt2-api serve` starts the same server with the same options; the image spells the command out, so that
`docker inspect` shows it and `docker run IMAGE gunicorn …` changes it.
"""

from typing import Any

from distilgpt2_api.cli.serve import gunicorn_options, listen
from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.settings import Settings

try:
    settings = Settings()
    model = settings.locate_model()
except Distilgpt2ApiError as error:
    raise SystemExit(f"error: {error}") from None

globals().update(gunicorn_options(settings))
# Gunicorn puts its folder on the path of imports: one that nobody writes to, whichever the caller's was.
chdir = "/"
# $PORT is what Azure, Cloud Run and the like set; DISTILGPT2_PORT wins over it.
bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"


def on_starting(server: Any) -> None:  # noqa: ARG001 - Gunicorn's signature
    """Gunicorn would try a taken port for five seconds, and tell of it in six lines."""
    try:
        listen(settings.host, settings.port).close()
    except Distilgpt2ApiError as error:
        raise SystemExit(f"error: {error}") from None
