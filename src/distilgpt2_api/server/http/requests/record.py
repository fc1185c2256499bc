"""The request's record in its ASGI scope."""

from starlette.types import Scope

from distilgpt2_api.observability.request_record import RequestRecord


def note_error(scope: Scope, code: str) -> None:
    """Record the code of the error that answers the request. Without the middleware there is no record."""
    record = scope.get("state", {}).get("request_record")
    if isinstance(record, RequestRecord):
        record.error_code = code


def has_record(scope: Scope) -> bool:
    """Whether the scope already has a record: a call from within the process brings its own."""
    return "request_record" in scope.get("state", {})


def request_record(scope: Scope) -> RequestRecord:
    """The record that the middleware put into the scope."""
    record = scope["state"]["request_record"]
    assert isinstance(record, RequestRecord)
    return record
