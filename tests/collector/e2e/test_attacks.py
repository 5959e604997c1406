"""All attacks at once on one collector: it stays up, within its memory, and answers who is honest."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import grpc
import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from otelprogress.protocol.messages import SUBPROTOCOL
from tests.collector.collecting import CollectorProcess
from tests.collector.e2e.reading import Reader
from tests.collector.e2e.writing import PROTOBUF, Writer, ask, send
from tests.waiting import eventually

MIB = 1024 * 1024
LARGEST = 8 * MIB
"""Of one request, by its settings here."""
SIGNALS = ("traces", "logs", "metrics")
UPGRADE = (
    "GET /v1/feed HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
)
JSON = "application/json"


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[CollectorProcess]:
    started = CollectorProcess(tmp_path / "data", OTELPROGRESS_COLLECTOR_MAX_REQUEST_BYTES=str(LARGEST))
    with started:
        yield started
        assert started.process.poll() is None
        assert started.stop() == 0
    assert "Traceback" not in started.log.read_text()


class Memory:
    """The most that a process held at a time, since this was made."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        self._before = self._peak()

    def _peak(self) -> int:
        [line] = [one for one in self._status.read_text().splitlines() if one.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    @property
    def grown_bytes(self) -> int:
        return self._peak() - self._before


def bomb(inflated_bytes: int, piece: bytes) -> bytes:
    """A gzip file of the same piece again and again."""
    return gzip.compress(piece * (inflated_bytes // len(piece)), 9)


def wire(port: int, sent: bytes = b"") -> socket.socket:
    connected = socket.create_connection(("127.0.0.1", port), 20)
    connected.sendall(sent)
    return connected


def has_ended(connection: socket.socket) -> bool:
    """Whether the other side ended it; what it said is read away."""
    connection.setblocking(False)
    try:
        while connection.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


# --- attacks: each leaves what it was answered --------------------------------------------------------------------


def gzip_bombs(collector: CollectorProcess) -> Counter[int]:
    """A thousand times larger inside, on each path, in each encoding, many at once."""
    zeros = bomb(32 * MIB, bytes(MIB))
    blanks = bomb(32 * MIB, b" " * MIB)
    joined = gzip.compress(b" " * 1024) * 10_000

    def post(case: tuple[str, bytes, str]) -> int:
        signal, body, kind = case
        answer = ask(
            collector.http_port,
            f"/v1/{signal}",
            body,
            content_encoding="gzip",
            content_type=kind,
        )
        return answer.status

    cases = [
        (signal, body, kind)
        for signal in SIGNALS
        for body in (zeros, blanks, joined)
        for kind in (PROTOBUF, JSON)
    ] * 3
    with ThreadPoolExecutor(12) as threads:
        return Counter(threads.map(post, cases))


def grpc_bombs(collector: CollectorProcess) -> Counter[grpc.StatusCode]:
    codes: Counter[grpc.StatusCode] = Counter()
    with grpc.insecure_channel(
        f"127.0.0.1:{collector.grpc_port}", compression=grpc.Compression.Gzip
    ) as channel:
        for package, service in (("trace", "Trace"), ("logs", "Logs"), ("metrics", "Metrics")):
            call = channel.unary_unary(f"/opentelemetry.proto.collector.{package}.v1.{service}Service/Export")
            for _ in range(4):
                with pytest.raises(grpc.RpcError) as refused:
                    call(bytes(4 * LARGEST), timeout=60)
                codes[refused.value.code()] += 1
    return codes


def deep_and_wide(collector: CollectorProcess) -> Counter[int]:
    """Small requests that would become large or deep objects."""
    deep = 100_000
    value = '{"arrayValue":{"values":[' * deep + "]}}" * deep
    nested = b""
    for _ in range(2_000):  # AnyValue{array_value{values[…]}}
        nested = _field(5, _field(1, nested))
    attribute = _field(1, b"k") + _field(2, nested)
    bodies = [
        (JSON, b"[" * deep),
        (JSON, b'{"resourceLogs":' + b"[" * deep + b"]" * deep + b"}"),
        (JSON, b'{"a":' * deep + b"1" + b"}" * deep),
        (
            JSON,
            f'{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"k","value":{value}}}]}}}}]}}'.encode(),
        ),
        (JSON, b'{"resourceLogs":[' + b"{}," * 2_000_000 + b"{}]}"),
        (JSON, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + b"{}," * 2_000_000 + b"{}]}]}]}"),
        (PROTOBUF, _field(1, _field(1, attribute))),
        (PROTOBUF, b"\x0a\x00" * (LARGEST // 2 - 1)),
        (PROTOBUF, _field(1, _field(2, b"\x12\x00" * (LARGEST // 2 - 16)))),
        (PROTOBUF, b"\xff" * MIB),
        (PROTOBUF, b"\x0b" * MIB),
    ]
    return Counter(
        ask(collector.http_port, "/v1/logs", body, content_type=kind, timeout_s=60).status
        for _ in range(2)
        for kind, body in bodies
    )


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    length, size = len(content), b""
    while length > 0x7F:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def slow_heads(collector: CollectorProcess) -> int:
    """Requests whose heads never end: how many were cut."""
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(wire(collector.http_port, b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nX-a: "))
            for _ in range(200)
        ]

        def all_cut() -> bool:
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.send(b"a")
            return all(list(map(has_ended, slow)))

        eventually(all_cut, 40, every_s=0.25)
        return len(slow)


def slow_bodies(collector: CollectorProcess) -> int:
    """Bodies that are declared and never come; they hold nothing but their connection."""
    head = (
        f"POST /v1/logs HTTP/1.1\r\nHost: 127.0.0.1:{collector.http_port}\r\nContent-Type: {PROTOBUF}\r\n"
        f"Content-Length: {LARGEST}\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(wire(collector.http_port, head.encode() + b"\x0a")) for _ in range(50)]
        for _ in range(20):
            for connection in slow:
                connection.send(b"\x00")
            time.sleep(0.05)
        return len(slow)


def strangers(collector: CollectorProcess) -> Counter[bytes]:
    """Feed connections that never greet: the first lines of their answers."""
    port = collector.http_port
    lines: Counter[bytes] = Counter()
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            connection = stack.enter_context(wire(port, UPGRADE.format(port=port).encode()))
            lines[connection.recv(12)] += 1
    return lines


def fragments(collector: CollectorProcess) -> list[int | None]:
    """A message in a million fragments of one byte, one in a million of none, and one of deep JSON."""
    key = b"\x00" * 4
    one = (b"\x00\x81" + key + b"x") * 10_000
    none = (b"\x00\x80" + key) * 10_000
    codes: list[int | None] = []
    for first, rest in ((b"\x01\x81" + key + b"{", one), (b"\x01\x80" + key, none)):
        with Reader(collector.http_port, collector.token) as reader:
            assert reader.hello()["type"] == "welcome"
            with contextlib.suppress(OSError):
                reader.wire.socket.sendall(first)
                for _ in range(100):
                    reader.wire.socket.sendall(rest)
                reader.wire.socket.sendall(b"\x80\x80" + key)
            codes.append(close_code(reader))
    with Reader(collector.http_port, collector.token) as reader:
        assert reader.hello()["type"] == "welcome"
        reader.wire.send("[" * 60_000)
        codes.append(close_code(reader))
    with Reader(collector.http_port, None) as reader:
        reader.wire.send('{"type":"hello","version":1,"client":"' + "x" * 100_000 + '"}')
        codes.append(close_code(reader))
    return codes


def close_code(reader: Reader) -> int | None:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            reader.wire.recv(30)
    return closed.value.rcvd.code if closed.value.rcvd else None


class Honest:
    """One who sends a note after another, and reads the list, until told to stop; comes again when asked to."""

    def __init__(self, collector: CollectorProcess) -> None:
        self.writer = Writer("honest")
        self.notes = self.lists = 0
        self.busy: Counter[int] = Counter()
        self._collector = collector
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._accepted(self.writer.started())
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _work(self) -> None:
        while not self._stop.wait(0.02):
            self._accepted(self.writer.noted(str(self.notes + 1)))
            self.notes += 1
            answer = ask(self._collector.http_port, "/v1/operations", token=self._collector.token)
            assert answer.status == 200, answer
            self.lists += 1

    def _accepted(self, body: bytes) -> None:
        while (answer := send(self._collector.http_port, body)).status != 200:
            assert answer.status == 503, answer
            self.busy[answer.status] += 1
            time.sleep(0.1)


def test_strangers_take_only_their_own_places_and_lose_them(collector: CollectorProcess):
    port = collector.http_port
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(wire(port, UPGRADE.format(port=port).encode())) for _ in range(150)]
        lines = Counter(connection.recv(12) for connection in waiting)
        assert lines[b"HTTP/1.1 101"] <= 64 < lines[b"HTTP/1.1 503"]
        # What was let in has to greet in time; then there is room for who comes next.
        eventually(lambda: all(list(map(has_ended, waiting))), 20, every_s=0.1)
        with Reader(port, collector.token) as reader:
            assert reader.hello()["type"] == "welcome"


def test_all_attacks_at_once(collector: CollectorProcess):
    process = psutil.Process(collector.pid)
    attacks: list[Callable[[CollectorProcess], object]] = [
        gzip_bombs,
        grpc_bombs,
        deep_and_wide,
        slow_heads,
        slow_bodies,
        strangers,
        fragments,
    ]
    open_before = process.num_fds()
    memory = Memory(collector.pid)
    with Honest(collector) as honest, ThreadPoolExecutor(len(attacks)) as threads:
        answers = {}
        for attack, answer in [(one.__name__, threads.submit(one, collector)) for one in attacks]:
            answers[attack] = answer.result(110)
    print(answers, honest.notes, honest.busy, memory.grown_bytes // MIB)

    assert set(answers["gzip_bombs"]) <= {400, 413}
    assert answers["gzip_bombs"][413] >= 30
    assert set(answers["grpc_bombs"]) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert set(answers["deep_and_wide"]) <= {200, 400, 413}
    assert set(answers["strangers"]) == {b"HTTP/1.1 101", b"HTTP/1.1 503"}
    assert answers["fragments"] == [1009, 4400, 4400, 1009]
    assert memory.grown_bytes < 400 * MIB

    # Nothing of it is left, and nobody who is honest lost anything.
    assert honest.notes > 10
    assert honest.lists == honest.notes
    eventually(lambda: process.num_fds() <= open_before + 5, 40)
    with Reader(collector.http_port, collector.token) as reader:
        [seen] = [
            view
            for message in reader.subscribe()
            for view in message.get("operations", ())
            if view["name"] == "honest"
        ]
    assert seen["message"] == str(honest.notes)
