"""A Hugging Face hub on loopback: every repository in it has the files of the demo model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.docs.blocks import ROOT

MODEL = ROOT / "src" / "distilgpt2_api" / "models" / "storyteller"
COMMIT = "a" * 40
FULL_NAMES = {"distilgpt2": "distilbert/distilgpt2"}


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Tests are silent."""

    def do_GET(self) -> None:
        match self.path.partition("?")[0].strip("/").split("/"):
            case ["api", "models", *name, "revision", _]:
                self.send(json.dumps(_describe("/".join(name))).encode(), "application/json")
            case [*_, "resolve", _, file] if (MODEL / file).is_file():
                self.send((MODEL / file).read_bytes(), "application/octet-stream")
            case _:
                self.send_error(404)

    def send(self, content: bytes, media_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _describe(name: str) -> dict[str, object]:
    name = FULL_NAMES.get(name, name)
    return {"id": name, "modelId": name, "sha": COMMIT, "siblings": [_describe_file(path.name) for path in _files()]}


def _describe_file(name: str) -> dict[str, object]:
    content = (MODEL / name).read_bytes()
    file: dict[str, object] = {"rfilename": name, "size": len(content)}
    if name.endswith(".safetensors"):
        return file | {"lfs": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134}}
    return file | {"blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}


def _files() -> list[Path]:
    return [path for path in sorted(MODEL.iterdir()) if path.is_file()]


@contextmanager
def run_hub() -> Iterator[str]:
    """Yields its address, for HF_ENDPOINT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
