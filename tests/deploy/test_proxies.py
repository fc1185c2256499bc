"""The examples of reverse proxies: the socket of our unit, streams as they arrive, and the caller's address."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.certificates import write_certificate
from tests.deploy.conftest import ReadUnit

from distilgpt2_api.settings import Settings

NGINX, CADDY = "deploy/proxy/nginx.conf", "deploy/proxy/Caddyfile"


@pytest.fixture(scope="module")
def nginx(root: Path) -> str:
    return (root / NGINX).read_text(encoding="utf-8")


def test_both_connect_to_the_socket_of_the_unit(root: Path, nginx: str, read_unit: ReadUnit) -> None:
    (path,) = read_unit("deploy/systemd/distilgpt2-api.socket")["Socket.ListenStream"]
    assert f"server unix:{path};" in nginx
    assert f"reverse_proxy unix/{path} {{" in (root / CADDY).read_text(encoding="utf-8")


def test_both_pass_streams_on_as_they_arrive(root: Path, nginx: str) -> None:
    assert "proxy_buffering off;" in nginx
    assert "flush_interval -1" in (root / CADDY).read_text(encoding="utf-8")


def test_nginx_names_the_caller_and_waits_longer_than_the_service(nginx: str) -> None:
    assert "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;" in nginx
    timeout_s = re.search(r"proxy_read_timeout (\d+)s;", nginx)
    assert timeout_s
    assert int(timeout_s[1]) > Settings.model_fields["timeout_s"].default


@pytest.mark.skipif(shutil.which("nginx") is None, reason="there is no nginx")
def test_nginx_accepts_its_file(nginx: str, tmp_path: Path) -> None:
    """`nginx -t`, with a certificate that exists."""
    certificate, key = write_certificate(tmp_path)
    site = re.sub(r"/etc/letsencrypt/\S*/fullchain.pem", str(certificate), nginx)
    site = re.sub(r"/etc/letsencrypt/\S*/privkey.pem", str(key), site)
    for number, address in enumerate(("[::]:443", "443")):  # the test opens them
        site = site.replace(f"listen {address} ", f"listen unix:{tmp_path}/{number} ")
    temporary = "".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {temporary} {site} }}")
    command = ["nginx", "-t", "-e", str(tmp_path / "log"), "-p", str(tmp_path), "-c", str(configuration)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
