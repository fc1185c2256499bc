"""Paths that several modules use, and a request's path without a proxy's prefix."""

from urllib.parse import quote

from starlette.types import Scope

LIVENESS_PATH = "/livez"
READINESS_PATHS = ("/readyz", "/healthz", "/health", "/ping")
PROBE_PATHS = frozenset({LIVENESS_PATH, *READINESS_PATHS})
METRICS_PATH = "/metrics"
OPENAPI_PATH = "/openapi.json"
DOCS_ASSETS_PATH = "/docs/assets"
PLAYGROUND_PATH = "/ui"
PAGE_PATHS = frozenset({"/docs", "/redoc", PLAYGROUND_PATH})
PLAYGROUND_ASSETS_PATH = "/ui/assets"


def strip_trailing_slash(scope: Scope) -> None:
    """Removes a trailing slash from the scope's path, so that routes and key checks ignore it.

    Prompts are read from `raw_path`, which keeps the slash. Pages keep it too: their links are relative.
    """
    path = scope["path"]
    below = path_below_root(scope)
    page = below.strip("/").partition("/")[0]
    # A slash that was sent as %2F belongs to a prompt.
    if raw_path_of(scope).endswith(b"/") and below.endswith("/") and page and f"/{page}" not in PAGE_PATHS:
        scope["path"] = path.rstrip("/")


def raw_path_of(scope: Scope) -> bytes:
    """The path as it was sent: percent-encoded, with all slashes."""
    raw_path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw_path


def path_below_root(scope: Scope) -> str:
    """The path that routes are matched against."""
    return without_root(scope["path"], scope.get("root_path", ""))


def without_root(path: str, root_path: str) -> str:
    """The path without the proxy's prefix, if it has it."""
    rest = path.removeprefix(root_path)
    return rest if rest.startswith("/") else path
