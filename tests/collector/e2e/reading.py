"""A client of the feed that shows its frames, and uses nothing of ours to make or read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Self

from websockets.sync.client import connect

from otelprogress.protocol.messages import SUBPROTOCOL

Message = dict[str, Any]


class Reader:
    """One connection, greeted; blocking. In the process of a collector: on another thread than its loop."""

    def __init__(
        self, port: int, token: str | None, *, path: str = "/v1/feed", scheme: str = "ws", **options: Any
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._greeted = False
        self._connecting = connect(
            f"{scheme}://127.0.0.1:{port}{path}",
            additional_headers=headers | options.pop("headers", {}),
            subprotocols=[SUBPROTOCOL],
            compression=None,
            proxy=None,
            max_size=None,
            **options,
        )

    def __enter__(self) -> Self:
        self.wire = self._connecting.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._connecting.__exit__(None, None, None)

    def say(self, kind: str, **fields: Any) -> None:
        self.wire.send(json.dumps({"type": kind, **fields}))

    def hear(self, timeout_s: float = 15.0) -> Message:
        return json.loads(self.wire.recv(timeout=timeout_s))

    def hear_until(self, enough: Callable[[Message], bool]) -> list[Message]:
        """Everything up to and including the first message that is enough."""
        heard: list[Message] = []
        while not heard or not enough(heard[-1]):
            heard.append(self.hear())
        return heard

    def hello(self, **fields: Any) -> Message:
        self.say("hello", version=1, client="test", **fields)
        return self.hear()

    def subscribe(self, name: str = "s1", **fields: Any) -> list[Message]:
        """Greet, if that was not done, and subscribe; what came up to the end of the snapshot, or to the resumption."""
        if not self._greeted:
            welcome = self.hello()
            assert welcome["type"] == "welcome", welcome
            self._greeted = True
        self.say("subscribe", id=name, **fields)
        return self.hear_until(
            lambda message: message["type"] in ("snapshot_end", "error") or message.get("mode") == "resumed"
        )

    def hear_of(self, name: str) -> list[Message]:
        """Everything up to and including the first event of an operation of that name."""
        return self.hear_until(
            lambda message: (
                message["type"] == "events"
                and any(event["operation"]["name"] == name for event in message["events"])
            )
        )
