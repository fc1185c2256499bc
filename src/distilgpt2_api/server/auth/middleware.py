"""No key, no entry: before a route is looked for and before a body is read."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from distilgpt2_api.core.caller import Caller, CallerLimits
from distilgpt2_api.server.auth.access import Access, area_of_request
from distilgpt2_api.server.http.errors import AuthenticationError, describe_error
from distilgpt2_api.server.http.ignored_body import is_long_body
from distilgpt2_api.server.http.protocol import Protocols
from distilgpt2_api.server.http.request_record import record_of
from distilgpt2_api.settings.key_list import MAX_KEY_LENGTH

REFUSED = "no valid API key: send one as `Authorization: Bearer KEY`"
"""One text, whether a key is missing, wrong or twice there."""


class Authentication:
    """Plain ASGI, inside `RequestMiddleware`. Notes in the record on whose behalf a request comes."""

    def __init__(self, app: ASGIApp, *, access: Access, protocols: Protocols, on_failure: Callable[[], None]) -> None:
        self._app = app
        self._access = access
        self._protocols = protocols
        self._callers = Callers(access.address_limits)
        self._on_failure = on_failure
        self._refusal = describe_error(AuthenticationError(REFUSED))
        self._last_refusal = describe_error(AuthenticationError(REFUSED))
        self._last_refusal.headers["connection"] = "close"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or record_of(scope).caller.is_batch:  # whose key was asked for when it came
            await self._app(scope, receive, send)
            return
        area = area_of_request(scope)
        if not self._access.needs_key(area):
            record_of(scope).caller = self._callers.of(scope)
        elif caller := self._access.find(_sent_key(scope), area):
            record_of(scope).caller = caller
        else:
            self._on_failure()
            refusal = self._last_refusal if is_long_body(scope["headers"]) else self._refusal
            await self._protocols.error_response(refusal, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _sent_key(scope: Scope) -> bytes:
    """The key in `Authorization: Bearer` or in `x-api-key`; empty unless there is exactly one.

    Two could mean that a proxy checks one and we the other.
    """
    sent = [(name, value) for name, value in scope["headers"] if name in {b"authorization", b"x-api-key"}]
    if len(sent) != 1:
        return b""
    name, value = sent[0]
    if name == b"authorization":
        scheme, _, value = value.partition(b" ")
        if scheme.lower() != b"bearer":
            return b""
    key: bytes = value.strip(b" \t")
    return key if len(key) <= MAX_KEY_LENGTH else b""


UNKNOWN = "unknown"
"""Of a Unix socket, or of a proxy that does not tell: they share one share."""
SITE_BITS = 64
"""What a provider gives to one customer at least: whoever has an IPv6 address has 2**64 of them."""
MAX_ADDRESS_LENGTH = 64


class Callers:
    """Makes a `Caller` of each address, with the same limits."""

    def __init__(self, limits: CallerLimits) -> None:
        self._limits = limits

    def of(self, scope: Scope) -> Caller:
        client = scope.get("client")
        host = client[0] if client else ""
        # It may be what a stranger wrote into a header: nothing long is kept.
        name = _address_name(host) if len(host) <= MAX_ADDRESS_LENGTH else UNKNOWN
        return Caller(name=name, limits=self._limits)


@lru_cache(maxsize=4096)
def _address_name(host: str) -> str:
    """One name for all addresses that one client may have."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((int(address), SITE_BITS), strict=False))
        address = address.ipv4_mapped
    return str(address)
