"""Who may use what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from starlette.types import Scope

from distilgpt2_api.core.caller import NO_LIMITS, Caller, CallerLimits
from distilgpt2_api.server.auth.api_keys import KeyRing, KeyTable
from distilgpt2_api.server.http.accept import wants_page
from distilgpt2_api.server.http.paths import (
    DOCS_ASSETS_PATH,
    DOCS_PATHS,
    METRICS_PATH,
    PLAYGROUND_ASSETS_PATH,
    PLAYGROUND_PATH,
    PROBE_PATHS,
    path_below_root,
)


class Area(Enum):
    """Routes that are opened alike."""

    PROBES = auto()
    METRICS = auto()
    DOCS = auto()
    PLAYGROUND = auto()
    """A page and its assets, the same for everybody: nothing of the service is in them."""
    REST = auto()


def area_of(path: str) -> Area:
    """`path`: as routes are matched against it, so that no request is taken for another than it will be."""
    path = path.removesuffix("\n")  # as the router's patterns do, which end in `$`
    if path in PROBE_PATHS:
        return Area.PROBES
    if path == METRICS_PATH:
        return Area.METRICS
    if path in DOCS_PATHS or path.startswith(f"{DOCS_ASSETS_PATH}/"):
        return Area.DOCS
    if path == PLAYGROUND_PATH or path.startswith(f"{PLAYGROUND_ASSETS_PATH}/"):
        return Area.PLAYGROUND
    return Area.REST


def area_of_request(scope: Scope) -> Area:
    """The root is two things: to a browser that opens it the playground, to everybody else an answer in JSON."""
    path = path_below_root(scope)
    return Area.PLAYGROUND if path == "/" and wants_page(scope) else area_of(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The service's rules. Without keys it is open, and a caller is an address."""

    keys: KeyRing | None = None
    metrics_key: KeyTable | None = None
    """Opens the metrics and nothing else; then no other key opens them."""
    has_public_metrics: bool = False
    has_public_docs: bool = False
    cors_origins: tuple[str, ...] = ()
    address_limits: CallerLimits = NO_LIMITS
    """Of each address, where there are no keys."""

    @property
    def is_open(self) -> bool:
        """Whether whoever reaches the service may use it."""
        return self.keys is None

    def needs_key(self, area: Area) -> bool:
        match area:
            case Area.PROBES | Area.PLAYGROUND:
                return False
            case Area.METRICS:
                return not self.has_public_metrics and (self.keys or self.metrics_key) is not None
            case Area.DOCS:
                return not self.has_public_docs and self.keys is not None
            case Area.REST:
                return self.keys is not None

    def find(self, key: bytes, area: Area) -> Caller | None:
        """Whose key it is, if it opens the area."""
        table = self.metrics_key if area is Area.METRICS and self.metrics_key is not None else self.keys
        return None if table is None else table.find(key)


OPEN = Access()
