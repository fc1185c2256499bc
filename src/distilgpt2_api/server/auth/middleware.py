"""Checks API keys before a route is found and before a body is read, and identifies the caller."""

import ipaddress
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from distilgpt2_api.core.caller import Caller, CallerLimits
from distilgpt2_api.server.auth.access import Access, Area, area_of_request
from distilgpt2_api.server.http.connections.closing import is_long_body
from distilgpt2_api.server.http.errors import AuthenticationError, describe_error
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.server.http.routing.protocol import Protocols
from distilgpt2_api.settings.key_list import MAX_KEY_LENGTH
from distilgpt2_api.usage.key_usage import KeyUsage

REFUSAL = describe_error(AuthenticationError("no valid API key: send one as `Authorization: Bearer KEY`"))
"""The same for a missing, an invalid and a duplicate key."""
LAST_REFUSAL = replace(REFUSAL, headers=REFUSAL.headers | {"connection": "close"})


@dataclass(frozen=True, slots=True)
class Authentication:
    """Plain ASGI, inside `RequestMiddleware`. Puts the caller into the request's record."""

    app: ASGIApp
    _: KW_ONLY
    access: Access
    protocols: Protocols
    on_failure: Callable[[], None]
    usage: KeyUsage | None = None
    """None: usage is not counted."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or request_record(scope).caller.is_batch:  # checked when the batch was created
            await self.app(scope, receive, send)
            return
        area = area_of_request(scope)
        if not self.access.needs_key(area):
            request_record(scope).caller = _caller_at_address(scope, self.access.address_limits)
        elif caller := self.access.find(_sent_key(scope), area):
            record = request_record(scope)
            record.caller = caller
            if self.usage is not None and area is Area.REST:
                record.account = self.usage.open_account(caller.name)
        else:
            self.on_failure()
            refusal = LAST_REFUSAL if is_long_body(scope["headers"]) else REFUSAL
            await self.protocols.error_response(refusal, scope)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _sent_key(scope: Scope) -> bytes:
    """The key in `Authorization: Bearer` or `x-api-key`; empty unless there is exactly one.

    With two, a proxy could check one key and we the other.
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
"""The caller behind a Unix socket or a proxy that hides addresses: all of them share one set of limits."""
IPV6_PREFIX_BITS = 64
"""The smallest IPv6 network of one customer, who has 2**64 addresses."""
MAX_ADDRESS_LENGTH = 64


def _caller_at_address(scope: Scope, limits: CallerLimits) -> Caller:
    client = scope.get("client")
    host = client[0] if client else ""
    # A client may have written it into a header, so long values are not kept.
    name = _address_name(host) if len(host) <= MAX_ADDRESS_LENGTH else UNKNOWN
    return Caller(name=name, limits=limits)


@lru_cache(maxsize=4096)
def _address_name(host: str) -> str:
    """One name for all addresses of one client's network."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((int(address), IPV6_PREFIX_BITS), strict=False))
        address = address.ipv4_mapped
    return str(address)
