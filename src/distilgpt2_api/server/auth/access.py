"""Access rules: the routes that need an API key."""

from dataclasses import dataclass
from enum import Enum, auto

from starlette.types import Scope

from distilgpt2_api.core.caller import NO_LIMITS, Caller, CallerLimits
from distilgpt2_api.server.auth.api_keys import KeyRing, KeyTable
from distilgpt2_api.server.http.requests.accept import wants_page
from distilgpt2_api.server.http.routing.paths import (
    DOCS_ASSETS_PATH,
    METRICS_PATH,
    OPENAPI_PATH,
    PAGE_PATHS,
    PLAYGROUND_ASSETS_PATH,
    PROBE_PATHS,
    path_below_root,
)


class Area(Enum):
    """Groups of routes with one rule."""

    PROBES = auto()
    METRICS = auto()
    OPENAPI = auto()
    """The OpenAPI document, which `/docs` and `/redoc` show."""
    PAGES = auto()
    """Pages and their assets: static files without data of the service, which a browser opens without a key."""
    REST = auto()


def area_of(path: str) -> Area:
    """`path`: as routes are matched against it, so that check and router agree."""
    path = path.removesuffix("\n")  # as the router's patterns do, which end in `$`
    if path in PROBE_PATHS:
        return Area.PROBES
    if path == METRICS_PATH:
        return Area.METRICS
    if path == OPENAPI_PATH:
        return Area.OPENAPI
    if path in PAGE_PATHS or path.startswith((f"{DOCS_ASSETS_PATH}/", f"{PLAYGROUND_ASSETS_PATH}/")):
        return Area.PAGES
    return Area.REST


def area_of_request(scope: Scope) -> Area:
    """The root is the playground for a browser, and JSON for any other client."""
    path = path_below_root(scope)
    return Area.PAGES if path == "/" and wants_page(scope) else area_of(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The access rules. Without keys the service is open, and a caller is an address."""

    keys: KeyRing | None = None
    metrics_key: KeyTable | None = None
    """Keys for the metrics alone. If set, no other key opens the metrics."""
    has_public_metrics: bool = False
    has_public_docs: bool = False
    cors_origins: tuple[str, ...] = ()
    operators: frozenset[str] = frozenset()
    """Names of the keys that may read the usage of every key."""
    address_limits: CallerLimits = NO_LIMITS
    """Limits of each address if there are no keys."""

    @property
    def is_open(self) -> bool:
        """Whether any client that reaches the service may use it."""
        return self.keys is None

    def needs_key(self, area: Area) -> bool:
        match area:
            case Area.PROBES | Area.PAGES:
                return False
            case Area.METRICS:
                return not self.has_public_metrics and (self.keys or self.metrics_key) is not None
            case Area.OPENAPI:
                return not self.has_public_docs and self.keys is not None
            case Area.REST:
                return self.keys is not None

    def find(self, key: bytes, area: Area) -> Caller | None:
        """The key's caller, if the key opens the area."""
        table = self.metrics_key if area is Area.METRICS and self.metrics_key is not None else self.keys
        return None if table is None else table.find(key)


OPEN = Access()
