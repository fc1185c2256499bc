"""Gunicorn's log in the format of ours, for a master whose logging is configured."""

from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]  # Gunicorn has no types


class GunicornLog(Logger):  # type: ignore[misc]  # an untyped base
    """Passes Gunicorn's lines to the root logger, which writes them as it writes ours."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
