"""Content negotiation: a page for a browser, or JSON for a program."""

from starlette.types import Scope

PAGE = "text/html"
DATA = "application/json"


def wants_page(scope: Scope) -> bool:
    """Whether the client prefers HTML, as a browser does. A client that accepts anything gets JSON."""
    if scope["method"] not in {"GET", "HEAD"}:
        return False
    accept = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")
    qualities = {}
    for entry in accept.split(","):
        media_type, _, parameters = entry.partition(";")
        qualities[media_type.strip().lower()] = _quality(parameters)
    return qualities.get(PAGE, 0.0) > qualities.get(DATA, 0.0)


def _quality(parameters: str) -> float:
    """RFC 9110, section 12.4.2. An invalid number counts as 0."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
