"""CORS: requests from pages of other origins."""

import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import ALL_METHODS, CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.server.http.errors import OriginError, describe_error
from distilgpt2_api.server.http.routing.protocol import Protocols

MAX_REQUESTED_HEADERS_LENGTH = 4096
"""Limit of `Access-Control-Request-Headers`, which the response repeats. SDKs send about 300 characters."""
MAX_AGE_S = 3600
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")
"""RFC 9110, section 5.6.2; list elements may be empty (section 5.6.1.2)."""


class CrossOrigin(CORSMiddleware):
    """Starlette's middleware for trusted origins: their pages may use any method and send any header.

    A list of header names would break with the next version of an SDK. `*` may expose every response header because
    browsers add no credentials by themselves: a key is a header, and there are no cookies.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str], protocols: Protocols) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("*",),
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=("*",),
            max_age=MAX_AGE_S,
        )
        self._protocols = protocols

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_preflight(scope):
            try:
                self._check(Headers(scope=scope))
            except InvalidRequestError as error:
                await self._protocols.error_response(describe_error(error), scope)(scope, receive, send)
                return
        elif not self.allow_origins:
            await self.app(scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        """Raises InvalidRequestError for a preflight that Starlette would refuse in plain text or echo unchecked."""
        origin, method = headers["origin"], headers["access-control-request-method"]
        if not self.is_allowed_origin(origin):
            reason = "does not list this origin" if self.allow_origins else "is not set"
            raise OriginError(
                f"pages of {origin[:100]!r} may not use this service: the setting cors_origins {reason}", param="origin"
            )
        if method not in ALL_METHODS:
            raise InvalidRequestError(
                f"the method {method[:100]!r} is not one of {', '.join(ALL_METHODS)}",
                param="access-control-request-method",
            )
        names = headers.get("access-control-request-headers", "")
        if len(names) > MAX_REQUESTED_HEADERS_LENGTH or not all(
            HEADER_NAME.fullmatch(name.strip(" \t")) for name in names.split(",")
        ):
            raise InvalidRequestError(
                "access-control-request-headers: must be header names separated by commas, in at most "
                f"{MAX_REQUESTED_HEADERS_LENGTH} characters",
                param="access-control-request-headers",
            )


def _is_preflight(scope: Scope) -> bool:
    names = {name for name, _ in scope["headers"]}
    return scope["method"] == "OPTIONS" and {b"origin", b"access-control-request-method"} <= names
