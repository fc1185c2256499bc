"""The paths that more than a route speaks of, and a request's path without the prefix of a proxy."""

from __future__ import annotations

from starlette.types import Scope

LIVENESS_PATH = "/livez"
READINESS_PATHS = ("/readyz", "/healthz", "/health", "/ping")
PROBE_PATHS = frozenset({LIVENESS_PATH, *READINESS_PATHS})
METRICS_PATH = "/metrics"
DOCS_PATHS = frozenset({"/docs", "/redoc", "/openapi.json"})
DOCS_ASSETS_PATH = "/docs/assets"
PLAYGROUND_PATH = "/ui"
PLAYGROUND_ASSETS_PATH = "/ui/assets"


def path_below_root(scope: Scope) -> str:
    """What routes are matched against."""
    return without_root(scope["path"], scope.get("root_path", ""))


def without_root(path: str, root_path: str) -> str:
    """The path below the prefix that a proxy left on it, if it did."""
    rest = path.removeprefix(root_path)
    return rest if rest.startswith("/") else path
