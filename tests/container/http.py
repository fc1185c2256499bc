"""An HTTP client on the standard library, for containers on a real socket."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

READY_TIMEOUT_S = 60
PROMPT = "Once upon a time"


def is_ready(port: int, address: str = "127.0.0.1") -> bool:
    try:
        with closing(http.client.HTTPConnection(address, port, timeout=5)) as connection:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def get_text(port: int, path: str) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == http.client.OK, body
        return body


def complete(port: int, **fields: Any) -> Any:
    """Send `POST /v1/completions`; return the answer's JSON."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        return complete_on(connection, **fields)


def complete_on(connection: http.client.HTTPConnection, **fields: Any) -> Any:
    body = json.dumps({"prompt": PROMPT, **fields})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    assert response.status == http.client.OK, answer
    return answer


def stream(port: int, **fields: Any) -> Iterator[Any]:
    """The events of a streamed completion, with `done` for `[DONE]`, until the connection ends."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        body = json.dumps({"prompt": PROMPT, **fields, "stream": True})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == http.client.OK, response.read()
        while line := response.readline():
            if line.startswith(b"data: "):
                data = line.removeprefix(b"data: ").strip()
                yield "done" if data == b"[DONE]" else json.loads(data)


INSIDE_PROGRAM = """
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=60)
connection.request("POST", "/v1/completions", sys.argv[1], {"Content-Type": "application/json"})
response = connection.getresponse()
sys.stdout.write(response.read().decode())
sys.exit(response.status != 200)
"""
"""A program for `python -c` in a container without a network."""
