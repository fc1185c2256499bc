"""Callers without keys: whoever shares an address."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from starlette.types import Scope

from distilgpt2_api.core.caller import Caller, CallerLimits

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
