"""Keys over real sockets: clients without a key are refused, and a key is revoked while the service runs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx

from distilgpt2_api.core.caller import CallerLimits
from distilgpt2_api.settings.key_file_edits import add_to_key_file, describe_key, make_key, remove_from_key_file


def test_only_valid_keys_are_accepted_until_revoked(launch: Any, wait_until: Any, tmp_path: Path) -> None:
    alice, bob = make_key(), make_key()
    file = tmp_path / "keys.toml"
    for name, key in (("alice", alice), ("bob", bob)):
        add_to_key_file(file, describe_key(name, key, CallerLimits()))
    server = launch(api_keys_file=file)
    server.wait_listening()
    server.wait_ready()
    with httpx.Client(base_url=server.url) as client:
        for _ in range(2):  # The connection stays open after a refusal, even with an unread body.
            assert client.post("/v1/completions", json={"prompt": "my secret", "max_tokens": 2}).status_code == 401
            for key in (alice, bob):
                answer = client.get("/my%20secret?max_new_tokens=2", headers={"authorization": f"Bearer {key}"})
                assert answer.status_code == 200
        assert client.get("/v1/nothing").status_code == 401
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as stranger:
        stranger.sendall(b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n")
        answered = b"".join(iter(lambda: stranger.recv(65536), b""))
    assert answered.startswith(b"HTTP/1.1 401 ")

    remove_from_key_file(file, "alice")
    wait_until(lambda: status(server, alice) == 401, "alice's key is revoked")
    assert status(server, bob) == 200
    wait_until(lambda: '"key": "alice"' in server.log, "the line of alice's request")
    assert not any(secret in server.log for secret in (alice, bob, "my secret", "my%20secret"))


def status(server: Any, key: str) -> int:
    answer: httpx.Response = server.get("/v1/models", headers={"x-api-key": key})
    return answer.status_code
