"""A small hub on loopback with the part of the protocol that `pull` uses."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import pytest
from safetensors.numpy import save

NAME = "distilbert/distilgpt2"
COMMIT = "a" * 40
OLD_COMMIT = "b" * 40
CONFIG = {"model_type": "gpt2", "vocab_size": 8, "n_positions": 8, "n_layer": 1, "n_head": 1, "n_embd": 4}
SHAPES = {
    "wte.weight": (8, 4),
    "wpe.weight": (8, 4),
    "h.0.attn.c_attn.weight": (4, 12),
    "h.0.attn.c_attn.bias": (12,),
    "h.0.attn.c_proj.weight": (4, 4),
    "h.0.attn.c_proj.bias": (4,),
    "h.0.mlp.c_fc.weight": (4, 16),
    "h.0.mlp.c_fc.bias": (16,),
    "h.0.mlp.c_proj.weight": (16, 4),
    "h.0.mlp.c_proj.bias": (4,),
    **{f"{name}.{kind}": (4,) for name in ("h.0.ln_1", "h.0.ln_2", "ln_f") for kind in ("weight", "bias")},
}
WEIGHTS = save({name: np.ones(shape, np.float32) for name, shape in SHAPES.items()})


def as_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class FakeHub:
    """Repositories are files by commit; the test sets what fails."""

    commits: dict[str, dict[str, bytes]]
    url: str = ""
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, "v1": OLD_COMMIT})
    cut_once_after: int | None = None
    """The next large file's response ends after this number of bytes, although its header promised more."""
    is_down_after_cut: bool = False
    tampered: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    is_gated: bool = False
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Path, and Range header, of each GET."""

    commit = COMMIT
    weights = WEIGHTS
    old_weights = WEIGHTS[::-1]

    @property
    def main_files(self) -> dict[str, bytes]:
        return self.commits[COMMIT]

    def describe(self, commit: str) -> dict[str, object]:
        siblings: list[dict[str, object]] = []
        for name, content in self.commits[commit].items():
            sibling: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": as_blob(content)}
            if name.endswith((".safetensors", ".bin")):
                sha256 = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 134}
            siblings.append(sibling)
        return {"id": NAME, "modelId": NAME, "sha": commit, "siblings": siblings, "tags": [], "private": False}

    def content(self, commit: str, name: str) -> bytes | None:
        content = self.commits[commit].get(name)
        if content is None or name in self.missing:
            return None
        return bytes([content[0] ^ 1]) + content[1:] if name in self.tampered else content


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *args: object) -> None:
        """Tests are silent."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append((path, self.headers.get("Range", "")))
        match path.strip("/").split("/"):
            case ["api", "models", *_] if self.hub.is_gated:
                self.refuse(403, "GatedRepo")
            case ["api", "models", "distilgpt2", *rest]:
                self.redirect("/".join([f"/api/models/{NAME}", *rest]) + "?blobs=True")
            case ["api", "models", "distilbert", "distilgpt2", "revision", revision]:
                self.tell(self.hub.branches.get(revision, revision))
            case ["distilbert", "distilgpt2", "resolve", commit, name] if name.endswith(".safetensors"):
                self.redirect(f"/cdn/{commit}/{name}")
            case ["distilbert", "distilgpt2", "resolve", commit, name] | ["cdn", commit, name]:
                self.send_content(self.hub.content(commit, name), is_large="cdn" in path)
            case _:
                self.refuse(404, "RepoNotFound")

    def tell(self, commit: str) -> None:
        if commit not in self.hub.commits:
            self.refuse(404, "RevisionNotFound")
            return
        body = json.dumps(self.hub.describe(commit)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_content(self, content: bytes | None, *, is_large: bool) -> None:
        if content is None:
            self.refuse(404, "EntryNotFound")
            return
        if is_large and self.hub.is_down_after_cut and self.hub.cut_once_after is None:
            self.refuse(503, "")
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        part = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if is_large and self.hub.cut_once_after is not None:
            part, self.hub.cut_once_after = part[: self.hub.cut_once_after], None
            self.close_connection = True
        self.wfile.write(part)

    def redirect(self, location: str) -> None:
        self.send_empty(307, "Location", location)

    def refuse(self, status: int, code: str) -> None:
        self.send_empty(status, "X-Error-Code", code)

    def send_empty(self, status: int, header: str, value: str) -> None:
        self.send_response(status)
        self.send_header(header, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 100)  # a cut loses at most one chunk
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": WEIGHTS,
        "tokenizer.json": b"{}",
        "vocab.json": b"{}",
        "merges.txt": b"#version",
        "README.md": b"# readme",
        "pytorch_model.bin": b"pickle",
        "onnx/model.onnx": b"onnx",
    }
    old_files = files | {"model.safetensors": WEIGHTS[::-1]}
    hub = FakeHub(commits={COMMIT: files, OLD_COMMIT: old_files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
