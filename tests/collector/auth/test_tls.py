from __future__ import annotations

import asyncio
import concurrent.futures
import ssl

import grpc
import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.tls import (
    TlsConfig,
    check_exposure,
    grpc_credentials,
    ingest_needs_token,
    is_loopback,
    server_context,
)
from tests.collector.auth.certificates import Authority


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "other")


@pytest.fixture
def files(ours) -> TlsConfig:
    cert_file, key_file = ours.issue("localhost")
    return TlsConfig(cert_file=cert_file, key_file=key_file)


@pytest.fixture
def mutual(ours, files) -> TlsConfig:
    return TlsConfig(cert_file=files.cert_file, key_file=files.key_file, client_ca_file=ours.path)


def client_context(authority: Authority, certificate=None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.path)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


async def greeting(config: TlsConfig, client: ssl.SSLContext) -> bytes:
    """What a client hears from a server with that context."""

    async def serve(reader, writer):
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(config))
    async with server:
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client, server_hostname="localhost"
        )
        try:
            return await reader.read()
        finally:
            writer.close()


async def test_a_client_that_trusts_the_authority_is_served(ours, files):
    assert await greeting(files, client_context(ours)) == b"hello"


async def test_one_that_trusts_another_is_not(other, files):
    with pytest.raises(ssl.SSLCertVerificationError):
        await greeting(files, client_context(other))


async def test_old_protocols_are_not_spoken(ours, files):
    context = client_context(ours)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    assert server_context(files).minimum_version == ssl.TLSVersion.TLSv1_2


async def test_where_clients_need_certificates_theirs_are_verified(ours, other, mutual):
    assert await greeting(mutual, client_context(ours, ours.issue("client"))) == b"hello"
    for certificate in (None, other.issue("client")):
        try:
            heard = await greeting(mutual, client_context(ours, certificate))
        except (ssl.SSLError, ConnectionError):
            heard = b""  # with TLS 1.3 the client may only see that the server hung up
        assert heard == b""


def grpc_answer(config: TlsConfig, authority: Authority, certificate=None) -> bytes:
    handler = grpc.unary_unary_rpc_method_handler(lambda *_: b"hello")
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", {"Greet": handler})])
    port = server.add_secure_port("127.0.0.1:0", grpc_credentials(config))
    server.start()
    cert, key = (None, None) if certificate is None else (one.read_bytes() for one in certificate)
    credentials = grpc.ssl_channel_credentials(authority.path.read_bytes(), key, cert)
    try:
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            return channel.unary_unary("/test/Greet")(b"", timeout=10)
    finally:
        server.stop(None).wait()


def test_grpc_is_served_by_the_same_files(ours, files):
    assert grpc_answer(files, ours) == b"hello"


def test_grpc_verifies_clients_too(ours, other, mutual):
    assert grpc_answer(mutual, ours, ours.issue("client")) == b"hello"
    for certificate in (None, other.issue("client")):
        with pytest.raises(grpc.RpcError):
            grpc_answer(mutual, ours, certificate)


# --- files that cannot be used ------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [server_context, grpc_credentials])
@pytest.mark.parametrize("field", ["cert_file", "key_file", "client_ca_file"])
@pytest.mark.parametrize("how", ["missing", "empty", "other bytes", "cut short"])
def test_a_file_that_cannot_be_used_is_named(mutual, tmp_path, use, field, how):
    from otelprogress_collector.auth.private_file import write_private

    broken = tmp_path / "broken.pem"
    if how != "missing":
        good = getattr(mutual, field).read_bytes()
        content = {"empty": b"", "other bytes": b"\x00\xff" * 50, "cut short": good[: len(good) // 2]}
        write_private(broken, content[how])
    fields = {name: getattr(mutual, name) for name in ("cert_file", "key_file", "client_ca_file")}
    with pytest.raises(InvalidValue, match=str(broken)):
        use(TlsConfig(**fields | {field: broken}))


def test_a_key_of_another_certificate_is_named(ours, files):
    _, key_file = ours.issue("another")
    with pytest.raises(
        InvalidValue, match=r"another\.key is not that of the certificate in .*localhost\.pem"
    ):
        server_context(TlsConfig(cert_file=files.cert_file, key_file=key_file))


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(ours):
    cert_file, key_file = ours.issue("locked", passphrase=b"hunter2")
    with pytest.raises(InvalidValue, match=r"locked\.key has a passphrase"):
        server_context(TlsConfig(cert_file=cert_file, key_file=key_file))


def test_a_key_that_everybody_can_read_is_refused(files):
    files.key_file.chmod(0o644)
    with pytest.raises(InvalidValue, match=r"localhost\.key has mode 0644"):
        server_context(files)
    files.key_file.chmod(0o640)
    assert server_context(files)


def test_no_error_shows_the_key(files, tmp_path):
    import traceback

    from otelprogress_collector.auth.private_file import write_private

    content = files.key_file.read_bytes()
    write_private(tmp_path / "key", content[:100] + content[110:])
    with pytest.raises(InvalidValue) as caught:
        server_context(TlsConfig(cert_file=files.cert_file, key_file=tmp_path / "key"))
    assert content[40:60].decode() not in "".join(traceback.format_exception(caught.value))


# --- what may be listened on --------------------------------------------------------------------------------

EVERYWHERE = [
    "",
    "0.0.0.0",
    "::",
    "[::]",
    "192.0.2.7",
    "2001:db8::1",
    "otel.example",
    "localhost.evil.example",
]
HERE = ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LOCALHOST"]


@pytest.mark.parametrize("host", HERE)
def test_on_loopback_everything_may_be_left_out(host):
    assert is_loopback(host)
    check_exposure(host, tls=False, auth=False, insecure=False)


@pytest.mark.parametrize("host", EVERYWHERE)
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("auth", [False, True])
def test_elsewhere_tls_and_tokens_are_needed_unless_it_is_said(host, tls, auth):
    assert not is_loopback(host)
    check_exposure(host, tls=tls, auth=auth, insecure=True)
    if tls and auth:
        check_exposure(host, tls=tls, auth=auth, insecure=False)
        return
    with pytest.raises(InvalidValue, match="--insecure") as caught:
        check_exposure(host, tls=tls, auth=auth, insecure=False)
    assert ("a certificate" in str(caught.value)) == (not tls)
    assert ("needs tokens" in str(caught.value) or "and tokens" in str(caught.value)) == (not auth)
    assert (host or "every address") in str(caught.value)


def test_otlp_needs_a_token_beyond_loopback_and_there_when_asked_for():
    assert not ingest_needs_token("127.0.0.1", ingest_token=False, no_auth=False)
    assert ingest_needs_token("127.0.0.1", ingest_token=True, no_auth=False)
    assert ingest_needs_token("192.0.2.7", ingest_token=False, no_auth=False)
    assert not ingest_needs_token("127.0.0.1", ingest_token=True, no_auth=True)
