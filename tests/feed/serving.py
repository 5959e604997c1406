"""A real server over a real hub, and the smallest possible client for talking to it frame by frame."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

from otelprogress.feed.connection import ServerLimits
from otelprogress.feed.host import Host
from otelprogress.feed.server import WebSocketServer
from otelprogress.model.tree import OperationTree
from otelprogress.protocol.cursor import CursorKey
from otelprogress.protocol.hub import Hub
from otelprogress.protocol.messages import SUBPROTOCOL

TOKEN = "a-token-for-tests"


def real_host(**options: Any) -> Host:
    return Host(Hub(OperationTree(), epoch="epoch-1", cursor_key=CursorKey(b"k" * 32)), **options)


@contextlib.contextmanager
def serving(host: Host | None = None, **options: Any) -> Iterator[WebSocketServer]:
    limits = options.pop("limits", None) or ServerLimits()
    server = WebSocketServer(host or real_host(), token=TOKEN, port=0, limits=limits, **options)
    server.start()
    try:
        yield server
    finally:
        server.close(2.0)


def dial(
    server: WebSocketServer, path: str = "/v1/feed", *, token: str | None = TOKEN, **options: Any
) -> ClientConnection:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    headers |= options.pop("headers", {})
    options.setdefault("subprotocols", [SUBPROTOCOL])
    return connect(server.url + path, additional_headers=headers, compression=None, proxy=None, **options)


def say(connection: ClientConnection, kind: str, **fields: Any) -> None:
    connection.send(json.dumps({"type": kind, **fields}))


def hear(connection: ClientConnection, timeout_s: float = 10.0) -> dict[str, Any]:
    return json.loads(connection.recv(timeout=timeout_s))


def hear_until(connection: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """Everything up to and including the first message of that type."""
    heard = []
    while not heard or heard[-1]["type"] != kind:
        heard.append(hear(connection))
    return heard


def hello(connection: ClientConnection, **fields: Any) -> dict[str, Any]:
    say(connection, "hello", version=1, client="test", **fields)
    return hear(connection)


def subscribe(connection: ClientConnection, **fields: Any) -> list[dict[str, Any]]:
    """Greet and subscribe; what came up to the end of the snapshot."""
    welcome = hello(connection)
    assert welcome["type"] == "welcome", welcome
    say(connection, "subscribe", **({"id": "s1"} | fields))
    return hear_until(connection, "snapshot_end")
