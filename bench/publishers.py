"""Who brings the events of a fan-out, each in the way of its server; events go out the moment they are made.

All three carry the same JSON, with the time in its message (`feed_load.stamped`).
"""

from __future__ import annotations

import socket
import time
from collections import deque
from select import EPOLLIN
from typing import Protocol

from bench.feed_load import Readers, stamped
from bench.otlp_bodies import own
from bench.otlp_load import Connection, HungUp
from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress.model.tree import OperationTree
from otelprogress.protocol.cursor import CursorKey
from otelprogress.protocol.hub import Hub

_RUNS = 20
_CONNECTIONS = 8


class Publisher(Protocol):
    """Publishes; never waits for readers."""

    def publish(self, count: int) -> None:
        """That many events, now."""

    def attend(self, numbers: list[int]) -> None:
        """Look at these file numbers of the readers' poll."""

    def close(self) -> None:
        """Hang up."""


class Story:
    """Durable events of some operations, without end."""

    def __init__(self) -> None:
        self._sequences = [0] * _RUNS
        self._trace = time.time_ns()
        self._next = 0

    def starts(self) -> list[Event]:
        """The operations begin."""
        return [
            self._event(
                run, semconv.OPERATION_STARTED, name="nightly load", parent_span_id="", steps=("load",)
            )
            for run in range(_RUNS)
        ]

    def notes(self, count: int, at_unix_ns: int) -> list[Event]:
        """Notes of all of them in turn, stamped with a time."""
        message = stamped(at_unix_ns)
        notes = []
        for _ in range(count):
            self._next = (self._next + 1) % _RUNS
            notes.append(
                self._event(
                    self._next,
                    semconv.OPERATION_NOTED,
                    message=message,
                    step_name="load",
                    step_index=0,
                    completed=10.0,
                    total=100.0,
                    unit="{row}",
                )
            )
        return notes

    def _event(self, run: int, kind: str, **said: object) -> Event:
        self._sequences[run] += 1
        return Event(
            kind=kind,
            run_id=f"{self._trace:032x}-{run + 1:016x}",
            time_unix_ns=time.time_ns(),
            writer_id="bench",
            sequence=self._sequences[run],
            **said,  # type: ignore[arg-type]  # fields of an event
        )


def feed_event() -> list[bytes]:
    """The JSON of one event as the feed has it, in pieces between which the stamp's digits stand."""
    story, now = Story(), time.time_ns()
    hub = Hub(OperationTree(), epoch="bench", cursor_key=CursorKey(bytes(32)))
    for event in (*story.starts(), *story.notes(_RUNS, now)):
        hub.publish(event, now)
    encoded = next(entry.encoded for _, entry in hub.ring.read(hub.head - 1))
    return encoded.split(stamped(now)[1:].encode())


class ToCollector:
    """OTLP requests to a collector, each answered once it is durable."""

    def __init__(self, port: int, readers: Readers, *, connections: int = _CONNECTIONS) -> None:
        self._port = port
        self._readers = readers
        self._story = Story()
        self._all: dict[int, Connection] = {}
        self._idle: deque[Connection] = deque()
        self._waiting: deque[tuple[int, int]] = deque()
        for _ in range(connections):
            self._connect()
        self._idle[0].post(own(self._story.starts()))

    def _connect(self) -> None:
        connection = Connection(self._port, "/v1/logs")
        self._all[connection.fileno()] = connection
        self._idle.append(connection)
        self._readers.poll.register(connection, EPOLLIN)

    def publish(self, count: int) -> None:
        self._waiting.append((count, time.time_ns()))
        self._send()

    def _send(self) -> None:
        while self._idle and self._waiting:
            # What had to wait keeps the time at which it was made: being late is what is measured.
            count, at_unix_ns = self._waiting.popleft()
            self._idle.popleft().send(own(self._story.notes(count, at_unix_ns)))

    def attend(self, numbers: list[int]) -> None:
        for number in numbers:
            connection = self._all[number]
            try:
                if connection.answered():
                    self._idle.append(connection)
            except HungUp:
                # Servers close what was idle for some seconds; one that is not idle owes an answer.
                self._idle.remove(connection)
                del self._all[number]
                connection.close()
                self._connect()
        self._send()

    def close(self) -> None:
        for connection in self._all.values():
            connection.close()


class ToSocket:
    """Events over plain TCP: lines, or the protocol of NATS."""

    def __init__(self, port: int, *, nats: bool) -> None:
        self._pieces = feed_event()
        self._nats = nats
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if nats:
            self._socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n')

    def publish(self, count: int) -> None:
        event = stamped(time.time_ns())[1:].encode().join(self._pieces)
        frame = b"PUB progress %d\r\n%b\r\n" % (len(event), event) if self._nats else event + b"\n"
        self._socket.sendall(frame * count)

    def attend(self, numbers: list[int]) -> None:
        """There is nothing to look at: nobody answers."""

    def close(self) -> None:
        self._socket.close()
