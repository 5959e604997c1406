"""What the collector's real ports let in, what they say, and what must stand nowhere."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from otelprogress.feed.client import AsyncClient
from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress_collector.auth.tls import TlsConfig
from tests.collector.auth.certificates import Authority
from tests.collector.collecting import CollectorProcess, collecting, free_port
from tests.collector.e2e.reading import Reader
from tests.collector.e2e.writing import Writer, ask, send
from tests.waiting import aeventually, eventually

EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"


async def beside(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


# --- Host and Origin -------------------------------------------------------------------------------------------------


async def test_pages_and_names_of_others_get_in_nowhere(tmp_path: Path):
    async with collecting(
        tmp_path / "data",
        allowed_hosts=["progress.example"],
        allowed_origins=["https://page.example"],
        no_auth=True,
    ) as collector:
        port = collector.http_port
        own = f"127.0.0.1:{port}"
        # (Host, Origin, whether it is let in)
        matrix = [
            (own, None, True),
            (f"localhost:{port}", None, True),
            ("progress.example", None, True),
            (own, f"http://{own}", True),
            (own, f"http://localhost:{port}", True),
            (own, "https://page.example", True),
            (own, "https://evil.example", False),
            (own, "null", False),
            (own, "", False),
            (own, "https://page.example.evil.example", False),
            (own, "https://evil-page.example", False),
            (own, "https://page.example:8443", False),
            (own, "http://page.example", False),
            (own, f"http://127.0.0.1:{port + 1}", False),
            (own, f"https://{own}", False),
            (own, f"http://{own}.evil.example", False),
            (own, f"http://{own}/", False),
            ("evil.example", None, False),
            (f"evil.example:{port}", None, False),
            (f"evil.example:{port}", f"http://evil.example:{port}", False),
            ("127.0.0.1", None, False),
            (f"127.0.0.1:{port + 1}", None, False),
            (f"127.0.0.1.evil.example:{port}", None, False),
            (f"localhost.evil.example:{port}", None, False),
            (f"{own}@evil.example", None, False),
            ("", None, False),
        ]

        def look() -> None:
            for host, origin, let_in in matrix:
                said = {"host": host} | ({} if origin is None else {"origin": origin})
                expected = 200 if let_in else 403
                for path in ("/v1/operations", "/metrics", "/openapi.json"):
                    assert ask(port, path, **said).status == expected, (path, host, origin)
                assert _upgrade(port, "/v1/feed", said) == (101 if let_in else 403), (host, origin)
                if origin is None:
                    # OTLP has no answer that a page could read; its Host is looked at all the same.
                    assert send(port, b"", **said).status == expected, (host, origin)

        await beside(look)


def _upgrade(port: int, path: str, said: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "otelprogress.v1.json",
    }
    try:
        connection.request("GET", path, headers=headers | said)
        return connection.getresponse().status
    finally:
        connection.close()


async def test_the_worker_link_is_not_for_pages_either(tmp_path: Path):
    async with collecting(tmp_path / "data", no_auth=True) as collector:
        port = collector.http_port
        for said in (
            {"Host": f"127.0.0.1:{port}", "Origin": "https://evil.example"},
            {"Host": f"127.0.0.1:{port}", "Origin": "null"},
            {"Host": f"evil.example:{port}"},
        ):
            assert await beside(_upgrade, port, "/v1/worker", said) == 403, said
        assert await beside(_upgrade, port, "/v1/worker", {"Host": f"127.0.0.1:{port}"}) == 101


async def test_a_page_can_send_no_otlp(tmp_path: Path):
    """Without a token on loopback: its JSON needs a preflight, and what needs none is no OTLP."""
    async with collecting(tmp_path / "data") as collector:
        port = collector.http_port

        def look() -> None:
            body = Writer().started()
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
                answer = ask(port, "/v1/logs", body, content_type=kind, origin="https://evil.example")
                assert answer.status == 415, kind
                assert "access-control-allow-origin" not in answer.headers
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request(
                "OPTIONS",
                "/v1/logs",
                headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
            )
            answer = connection.getresponse()
            assert answer.status == 405
            assert answer.getheader("access-control-allow-origin") is None
            connection.close()

        await beside(look)
        assert len(collector.host.hub.tree) == 0


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ours")


@pytest.fixture(scope="module")
def files(ours: Authority) -> TlsConfig:
    cert_file, key_file = ours.issue("collector.example")
    return TlsConfig(cert_file=cert_file, key_file=key_file)


def client_context(ours: Authority, shows: str | None = None, of: Authority | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ours.path))
    if shows is not None:
        context.load_cert_chain(*(of or ours).issue(shows))
    return context


def over_tls(collector: Any, context: ssl.SSLContext, shown: str) -> tuple[int, dict[str, Any]]:
    """The status of a request, and the welcome of a feed."""
    connection = http.client.HTTPSConnection("127.0.0.1", collector.http_port, timeout=10, context=context)
    try:
        connection.request(
            "POST",
            "/v1/logs",
            body=Writer("over TLS").started(),
            headers={"Content-Type": "application/x-protobuf", "Authorization": f"Bearer {shown}"},
        )
        status = connection.getresponse().status
    finally:
        connection.close()
    with Reader(collector.http_port, shown, scheme="wss", ssl=context) as reader:
        return status, reader.hello()


def grpc_over_tls(collector: Any, credentials: Any, shown: str) -> grpc.StatusCode:
    with grpc.secure_channel(f"127.0.0.1:{collector.grpc_port}", credentials) as channel:
        try:
            channel.unary_unary(EXPORT)(
                Writer("over gRPC").started(),
                metadata=(("authorization", f"Bearer {shown}"),),
                timeout=10,
            )
        except grpc.RpcError as refused:
            return refused.code()
    return grpc.StatusCode.OK


async def test_with_a_certificate_all_of_it_is_tls(tmp_path: Path, ours: Authority, files: TlsConfig):
    async with collecting(
        tmp_path / "data", tls_cert_file=str(files.cert_file), tls_key_file=str(files.key_file)
    ) as collector:
        shown = collector.own_token
        status, welcome = await beside(over_tls, collector, client_context(ours), shown)
        assert (status, welcome["type"]) == (200, "welcome")
        trusting = grpc.ssl_channel_credentials(ours.path.read_bytes())
        assert await beside(grpc_over_tls, collector, trusting, shown) is grpc.StatusCode.OK
        # Who does not know the authority does not talk to it, and nobody talks in the clear.
        with pytest.raises(ssl.SSLCertVerificationError):
            await beside(over_tls, collector, ssl.create_default_context(), shown)
        with pytest.raises((OSError, http.client.HTTPException)):
            await beside(ask, collector.http_port, "/healthz")
        assert {one.name for one in _views(collector)} == {"over TLS", "over gRPC"}


async def test_where_clients_must_show_a_certificate_nobody_else_gets_as_far_as_a_token(
    tmp_path: Path, ours: Authority, files: TlsConfig
):
    theirs = Authority(tmp_path / "theirs")
    async with collecting(
        tmp_path / "data",
        tls_cert_file=str(files.cert_file),
        tls_key_file=str(files.key_file),
        tls_client_ca_file=str(ours.path),
    ) as collector:
        shown = collector.own_token
        status, _ = await beside(over_tls, collector, client_context(ours, "app.example"), shown)
        assert status == 200
        for context in (client_context(ours), client_context(ours, "app.example", theirs)):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                await beside(over_tls, collector, context, shown)
        cert_file, key_file = ours.issue("sender.example")
        with_one = grpc.ssl_channel_credentials(
            ours.path.read_bytes(), key_file.read_bytes(), cert_file.read_bytes()
        )
        assert await beside(grpc_over_tls, collector, with_one, shown) is grpc.StatusCode.OK
        without = grpc.ssl_channel_credentials(ours.path.read_bytes())
        assert await beside(grpc_over_tls, collector, without, shown) is grpc.StatusCode.UNAVAILABLE


def _views(collector: Any) -> list[Any]:
    tree = collector.host.hub.tree
    return [tree.view(run_id, 0) for run_id in tree.run_ids()]


# --- open by accident ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--host", "0.0.0.0"], "needs a certificate"),
        (["--host", "::"], "needs a certificate"),
        (["--host", ""], "needs a certificate"),
        (["--host", "0.0.0.0", "--no-auth"], "no_auth is refused"),
        (["--host", "0.0.0.0", "--no-auth", "--insecure"], "no_auth is refused"),
        (["--host", "0.0.0.0", "--insecure"], "nobody could get in"),
    ],
)
def test_a_wide_bind_without_tls_or_tokens_is_refused_and_nothing_listens(
    tmp_path: Path, arguments: list[str], named: str
):
    ports = free_port(), free_port()
    command = [
        *(sys.executable, "-m", "otelprogress_collector", "serve", *arguments),
        *("--data-dir", str(tmp_path / "data")),
        *("--http-port", str(ports[0]), "--grpc-port", str(ports[1])),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert named in said
    assert len(said.strip().splitlines()) == 1
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)


def test_it_listens_where_it_was_told_to_and_nowhere_else(tmp_path: Path):
    with CollectorProcess(tmp_path / "data") as collector:
        listening = {
            (one.laddr.ip.removeprefix("::ffff:"), one.laddr.port)
            for one in psutil.Process(collector.pid).net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        }
        assert listening == {("127.0.0.1", collector.http_port), ("127.0.0.1", collector.grpc_port)}
        stored = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
        assert stored
        assert [path for path in stored if path.stat().st_mode & 0o077] == []


# --- secrets ---------------------------------------------------------------------------------------------------------

CANARY = "c4n4ry" + "Q7x9" * 6
SECRETS = (
    f"Authorization: Bearer {CANARY}",
    f"password={CANARY}",
    f"postgresql://etl:{CANARY}@db/flights",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx{CANARY}.{CANARY}",
    f"ghp_{CANARY}",
)
SHOWN = f"otpc_{CANARY}_{CANARY}"


def say_secrets(port: int, writer: Writer, secret: str) -> None:
    attributes = {"note": secret, "db.password": CANARY, "x-api-key": CANARY, "cookie": CANARY}
    text = f"connected with {secret} at last"
    for body in (
        writer.started(attributes=attributes, label=text, steps=("extract", text)),
        writer.noted(text),
        writer.noted(text, level="warning", step_name=text, step_index=0),
        writer.encoded(
            writer.event(semconv.INPUT_REQUESTED, input_id="in1", input_prompt=text, input_default=text)
        ),
        writer.ended(
            State.FAILED,
            error_type="OperationalError",
            error_message=text,
            error_stacktrace=f'Traceback\n  File "a.py", line 1\nOperationalError: {secret}',
            result=json.dumps({"url": secret}),
        ),
    ):
        assert send(port, body).status == 200


def test_secrets_stand_in_no_log_no_store_no_feed_and_no_page(tmp_path: Path):
    folder = tmp_path / "data"
    heard = ""
    with CollectorProcess(folder, OTELPROGRESS_COLLECTOR_LOG_LEVEL="debug") as collector:
        port = collector.http_port
        with Reader(port, collector.token) as reader:
            heard += json.dumps(reader.subscribe(level="ticks"))
            for number, secret in enumerate(SECRETS):
                say_secrets(port, Writer(f"job {number} {secret}"), secret)
            send(port, Writer("the end").started())
            heard += json.dumps(reader.hear_of("the end"))
            heard += json.dumps(reader.subscribe("again", filter={"ended_within_s": 1e9}))
        # Tokens that are refused, and broken requests that carry some: in headers, protocols, paths and bodies.
        for path in (
            "/v1/operations",
            f"/v1/operations/{SHOWN}",
            f"/v1/operations?token={SHOWN}",
            "/v1/nothing",
        ):
            heard += _without_what_was_asked(ask(port, path, token=SHOWN), path)
        heard += str(send(port, b"\xff" + CANARY.encode(), token=SHOWN))
        heard += str(ask(port, "/v1/logs", b"{" + CANARY.encode(), content_type="application/json"))
        heard += str(ask(port, "/v1/logs", gzip.compress(CANARY.encode())[:-9], content_encoding="gzip"))
        heard += str(ask(port, "/v1/logs", b"", cookie=CANARY, authorization=f"Basic {CANARY}"))
        with (
            pytest.raises(InvalidStatus),
            Reader(port, None, headers={"Sec-WebSocket-Protocol": f"otelprogress.bearer.{CANARY}"}),
        ):
            pass
        with Reader(port, None) as reader:
            reader.say("hello", version=1, client=CANARY, token=SHOWN)
            heard += str(_last_word(reader))
        with Reader(port, None, path="/v1/worker") as reader:
            reader.say("register", version=1, writer="w", token=SHOWN)
            heard += str(_last_word(reader))
        for path in (
            "/v1/operations?ended_within_s=1e9&roots=false",
            "/metrics",
            "/openapi.json",
            "/readyz",
        ):
            heard += collector.get(path).decode()
        listed = json.loads(collector.get("/v1/operations"))["operations"]
        assert len(listed) == len(SECRETS) + 1
        assert "[redacted]" in heard
        collector.kill()  # what a crash leaves behind counts too
        _nothing_stored(folder)
        collector.start()
        heard += collector.get("/v1/operations").decode()
        own = collector.token
        assert collector.stop() == 0
    assert CANARY not in heard
    _nothing_stored(folder)
    log = collector.log.read_text()
    assert CANARY not in log
    assert own not in log
    assert own not in heard
    kept = [path for path in folder.rglob("*") if path.is_file() and own.encode() in path.read_bytes()]
    assert kept == [folder / "token"]


def _nothing_stored(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


def _without_what_was_asked(answer: Any, path: str) -> str:
    return str(answer).replace(path.rpartition("/")[2], "")


def _last_word(reader: Reader) -> Any:
    with pytest.raises(ConnectionClosed) as closed:
        reader.hear()
    return closed.value.rcvd


# --- the end and the way back ----------------------------------------------------------------------------------------


async def test_a_restart_says_goodbye_and_clients_come_back_and_miss_nothing(tmp_path: Path):
    writer = Writer()
    with CollectorProcess(tmp_path / "data") as collector:
        url, port = collector.url.replace("http", "ws", 1), collector.http_port
        send(port, writer.started())
        heard: list[Any] = []
        async with (
            AsyncClient(url, collector.token, backoff_s=(0.05, 0.5)) as client,
            client.watch() as watch,
        ):

            async def follow() -> None:
                while True:
                    heard.append(await anext(watch))

            following = asyncio.create_task(follow())
            await aeventually(lambda: heard)
            for restart in range(3):
                for number in range(5):
                    await beside(send, port, writer.noted(f"{restart}.{number}"))
                last_word = await beside(_goodbye, collector)
                assert [message["type"] for message in last_word[0]] == ["drain"]
                low, high = last_word[0][0]["reconnect_after_s"]
                assert 0 <= low <= high
                assert last_word[1] == 1012
                await beside(collector.start)
            await beside(send, port, writer.ended())
            await aeventually(lambda: heard[-1].kind == "operation.ended", 30)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            assert watch.gaps == 0
    notes = [each.message for each in heard if each.kind == "operation.noted"]
    assert notes == [f"{restart}.{number}" for restart in range(3) for number in range(5)]


def _goodbye(collector: CollectorProcess) -> tuple[list[Any], int]:
    """End it under a connected reader: what that heard last, and the code of the close."""
    with Reader(collector.http_port, collector.token) as reader:
        reader.subscribe()
        collector.process.terminate()
        heard: list[Any] = []
        try:
            while True:
                message = reader.hear(20)
                if message["type"] != "bookmark":
                    heard.append(message)
        except ConnectionClosed as closed:
            code = closed.rcvd.code
    assert collector.process.wait(20) == 0
    return heard, code


def test_while_it_ends_nobody_new_is_let_in_and_nothing_is_taken_and_lost(tmp_path: Path):
    """One client that does not go keeps the end waiting; meanwhile: 503, or an answer that holds."""
    writer = Writer()
    with CollectorProcess(tmp_path / "data") as collector:
        port, token = collector.http_port, collector.token
        assert send(port, writer.started()).status == 200
        with socket.create_connection(("127.0.0.1", port), 10) as stays:
            # It has greeted, and answers no close frame.
            stays.sendall(
                (
                    f"GET /v1/feed HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: otelprogress.v1.json\r\n"
                    f"Authorization: Bearer {token}\r\n\r\n"
                ).encode()
            )
            assert stays.recv(12) == b"HTTP/1.1 101"
            hello = b'{"type":"hello","version":1,"client":"stays"}'
            stays.sendall(b"\x81" + bytes([0x80 | len(hello)]) + bytes(4) + hello)
            eventually(lambda: b"welcome" in stays.recv(65_536))
            collector.process.terminate()
            statuses: dict[str, list[int]] = {"ready": [], "otlp": [], "feed": []}
            accepted = 0
            while collector.process.poll() is None:
                try:
                    statuses["ready"].append(ask(port, "/readyz", timeout_s=5).status)
                    answer = send(port, writer.noted(str(accepted + 1)), timeout_s=5)
                    statuses["otlp"].append(answer.status)
                    if answer.status == 200:
                        accepted += 1
                    else:
                        assert 1 <= int(answer.headers["Retry-After"]) <= 5
                        writer.sequence -= 1
                    said = {"Authorization": f"Bearer {token}", "Host": f"127.0.0.1:{port}"}
                    statuses["feed"].append(_upgrade(port, "/v1/feed", said))
                except (OSError, http.client.HTTPException):
                    break  # it listens no more
            assert collector.process.wait(20) == 0
        print({name: len(found) for name, found in statuses.items()}, accepted)
        assert set(statuses["feed"][1:]) == {503}
        assert set(statuses["ready"][1:]) == {503}
        assert set(statuses["otlp"]) <= {200, 503}
        collector.start()
        [seen] = json.loads(collector.get("/v1/operations"))["operations"]
        assert seen.get("message") == (str(accepted) if accepted else None)
    assert "Traceback" not in collector.log.read_text()


# --- descriptors -----------------------------------------------------------------------------------------------------

LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))
sys.argv[0] = "otelprogress-collector"
runpy.run_module("otelprogress_collector", run_name="__main__")
"""


@pytest.fixture
def short_of_descriptors(tmp_path: Path) -> Iterator[CollectorProcess]:
    collector = CollectorProcess(tmp_path / "data")
    module = tmp_path / "limited_collector.py"
    module.write_text(LIMITED)
    collector.module = "limited_collector"
    before = os.environ.get("PYTHONPATH")
    collector._environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), str(Path.cwd()), before)))
    }
    with collector:
        yield collector


def test_without_descriptors_it_survives_and_recovers(short_of_descriptors: CollectorProcess):
    collector, writer = short_of_descriptors, Writer()
    port = collector.http_port
    assert send(port, writer.started()).status == 200
    process = psutil.Process(collector.pid)
    held = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(200)]
    try:
        eventually(lambda: process.num_fds() >= 90, 10)
    finally:
        for connection in held:
            connection.close()
    eventually(lambda: process.num_fds() < 60, 30)
    assert send(port, writer.noted("after it")).status == 200
    [seen] = json.loads(collector.get("/v1/operations"))["operations"]
    assert seen["message"] == "after it"
    assert collector.stop() == 0
    log = collector.log.read_text()
    assert len(log.splitlines()) < 200, "it filled its log meanwhile"
