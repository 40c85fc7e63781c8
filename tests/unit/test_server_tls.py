"""A server behind TLS: which certificates are trusted, and leaving it in the middle of a reply."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import FakeServer, Out, chunk
from test_server import KEY, Reply, cancel_when, open_server

from tui_chat.engine.base import LoadError

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl makes the certificate of the server"
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signed by itself, with its key in the same file."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return both


@pytest.fixture
def server(certificate: Path) -> Iterator[FakeServer]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with FakeServer(tls).running() as running:
        yield running


def test_a_certificate_that_nobody_signed_is_one_sentence_and_nothing_is_sent(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with pytest.raises(
        LoadError, match=r"certificate of https://.* is not trusted .*SSL_CERT_FILE"
    ):
        open_server(server.spec(key_env="TEST_KEY"))
    assert server.asked == []


def test_the_authority_that_the_environment_names_is_trusted(
    server: FakeServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("TEST_KEY", KEY)
    engine = open_server(server.spec(key_env="TEST_KEY"))
    assert [Reply(engine).text for _ in range(2)] == ["Hello there", "Hello there"]
    assert server.asked[-1].headers["Authorization"] == f"Bearer {KEY}"
    assert not any("unencrypted" in note for note in engine.notes)


def test_cancel_closes_the_connection_and_keeps_the_text(
    server: FakeServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    def answer(out: Out) -> None:
        out.head()
        out.event(chunk("Because"))
        out.until_left()

    made = cancel_when(server, answer, after=1)
    assert (made.finished.finish_reason, made.text) == ("cancelled", "Because")
    assert server.was_left.wait(5)
