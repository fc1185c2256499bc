"""A bad certificate or key is one line that names the setting and the file."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from tests.certificates import encrypt_key, run, write_certificate

from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings import Settings
from distilgpt2_api.settings.certificates import load_tls_context


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[Path, Path]:
    return write_certificate(folder)


def block(name: str) -> str:
    """A PEM block of three zero bytes."""
    return f"-----BEGIN {name}-----\nAAAA\n-----END {name}-----\n"


def refusal(certificate: Path, key: Path | None) -> str:
    with pytest.raises(SettingsError) as refused:
        load_tls_context(certificate, key)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_a_good_pair_gives_a_context_of_tls_1_2_or_newer(pair: tuple[Path, Path]) -> None:
    context = load_tls_context(*pair)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_certificate_and_key_may_share_a_file(pair: tuple[Path, Path], tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(pair[1].read_text() + pair[0].read_text())
    load_tls_context(both, None)


def test_the_certificates_of_authorities_may_follow(pair: tuple[Path, Path], folder: Path, tmp_path: Path) -> None:
    """The first certificate is the service's; the key must match that one."""
    other, _ = write_certificate(folder, name="authority")
    chain = tmp_path / "chain.pem"
    chain.write_text(f"a comment\n{pair[0].read_text()}{other.read_text()}")
    load_tls_context(chain, pair[1])
    chain.write_text(other.read_text() + pair[0].read_text())
    assert "is not that of" in refusal(chain, pair[1])


def test_a_key_of_another_certificate(pair: tuple[Path, Path], folder: Path) -> None:
    _, other = write_certificate(folder, name="other")
    assert refusal(pair[0], other) == f"the key in ssl_keyfile {other} is not that of ssl_certfile {pair[0]}"


def test_an_expired_certificate(folder: Path) -> None:
    certificate, key = write_certificate(folder, name="old", days=-1)
    assert f"the certificate in ssl_certfile {certificate} expired on 20" in refusal(certificate, key)


def test_a_certificate_of_tomorrow(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_000_000_000.0)
    assert "is valid only from 20" in refusal(*pair)


def test_an_encrypted_key_is_refused_without_a_question(pair: tuple[Path, Path]) -> None:
    encrypted = encrypt_key(pair[1])
    assert refusal(pair[0], encrypted) == (
        f"the key in ssl_keyfile {encrypted} is encrypted, and a service can't ask for its passphrase: decrypt it with "
        "`openssl pkey`"
    )


def test_a_certificate_for_clients_only(pair: tuple[Path, Path], folder: Path) -> None:
    extensions, certificate = folder / "client.cnf", folder / "client.crt"
    extensions.write_text("extendedKeyUsage=clientAuth\n")
    run("x509", "-req", "-in", folder / "localhost.csr", "-signkey", pair[1], "-extfile", extensions,
        "-out", certificate)  # fmt: skip
    assert "purpose" in refusal(certificate, pair[1])


@pytest.mark.parametrize(
    "content", [None, "", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_certificate_that_is_missing_or_none(pair: tuple[Path, Path], tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_text(content)
    assert f"ssl_certfile {path}" in refusal(path, pair[1])


@pytest.mark.parametrize(
    "content", [None, "", "no PEM", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_key_that_is_missing_or_none(pair: tuple[Path, Path], tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_text(content)
    assert f"ssl_keyfile {path}" in refusal(pair[0], path)


def test_a_folder_is_no_certificate(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert refusal(tmp_path, pair[1]) == f"can't read ssl_certfile {tmp_path}: Is a directory"


def test_a_key_needs_a_certificate(pair: tuple[Path, Path]) -> None:
    with pytest.raises(SettingsError, match="ssl_keyfile is set, and ssl_certfile is not"):
        Settings(ssl_keyfile=pair[1])


def test_a_relative_socket_path_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"uds must be an absolute path, and 'my\.sock' is not"):
        Settings(uds="my.sock")


@pytest.mark.parametrize("mode", ["999", "rw-rw----", "66", "0o660", "1777"])
def test_a_mode_is_octal_digits(mode: str) -> None:
    with pytest.raises(SettingsError, match="uds_mode"):
        Settings(uds_mode=mode)
