"""The collector's end of the worker link, as small as it can be: what a worker says is kept, what a test wants is said."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from http import HTTPStatus
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from otelprogress.protocol.messages import SUBPROTOCOL
from tests.waiting import eventually

TOKEN = "a-token-of-the-collector"


class Registered:
    """One connection that has registered."""

    def __init__(self, connection: ServerConnection, register: dict[str, Any]) -> None:
        self.connection = connection
        self.register = register
        self.frames: list[dict[str, Any]] = []
        self.ended = threading.Event()

    @property
    def writer(self) -> str:
        return self.register["writer"]

    def kinds(self) -> list[str]:
        return [frame["type"] for frame in self.frames]

    def say(self, kind: str, **fields: Any) -> None:
        self.connection.send(json.dumps({"type": kind, **fields}))


class CollectorEnd:
    """Serves `/v1/worker` on 127.0.0.1.

    Attributes:
        registered: every connection that has registered, oldest first.
        attempts: upgrades that were asked for, refused ones too.
        refuse_with: answers every upgrade with this status; `None`: the token decides.
    """

    def __init__(
        self, *, port: int = 0, token: str | None = TOKEN, tls: ssl.SSLContext | None = None
    ) -> None:
        self.port = port
        self.token = token
        self.registered: list[Registered] = []
        self.attempts = 0
        self.refuse_with: HTTPStatus | None = None
        self._tls = tls
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def open(self) -> list[Registered]:
        return [one for one in self.registered if not one.ended.is_set()]

    def one(self) -> Registered:
        """The one connection that stands."""
        eventually(lambda: len(self.open) == 1)
        return self.open[0]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._server = serve(
            self._serve,
            "127.0.0.1",
            self.port,
            ssl=self._tls,
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            compression=None,
            process_request=self._admit,
            ping_interval=None,
            close_timeout=1.0,
        )
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Go away as a process that is killed: every connection ends without a word."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            for one in self.open:
                self.cut(one)

    def cut(self, one: Registered) -> None:
        """End a connection by a reset."""
        sock = one.connection.socket
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.shutdown(socket.SHUT_RD)
            sock.close()
        except OSError:
            pass

    def _admit(self, connection: ServerConnection, request: Any) -> Any:
        self.attempts += 1
        if self.refuse_with is not None:
            return connection.respond(self.refuse_with, "no\n")
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return connection.respond(HTTPStatus.UNAUTHORIZED, "who are you?\n")
        if request.path != "/v1/worker":
            return connection.respond(HTTPStatus.NOT_FOUND, "nothing here\n")
        return None

    def _serve(self, connection: ServerConnection) -> None:
        one: Registered | None = None
        try:
            one = Registered(connection, json.loads(connection.recv()))
            one.say("welcome", connection="c-1", n=0)
            self.registered.append(one)
            while True:
                one.frames.append(json.loads(connection.recv()))
        except (ConnectionClosed, OSError, EOFError):
            pass
        finally:
            if one is not None:
                one.ended.set()
