"""What tests of the feed share: a hub with a clock, ways to say things, and a session that is spoken to in JSON."""

from __future__ import annotations

import json

from otelprogress.model import semconv
from otelprogress.model.events import Event, State, run_id
from otelprogress.model.tree import OperationTree
from otelprogress.protocol.cursor import CursorKey
from otelprogress.protocol.hub import Hub
from otelprogress.protocol.messages import Limits
from otelprogress.protocol.session import Grant, ServerSession

NS = 10**9
START_NS = 1_800_000_000 * NS
KEY = CursorKey(b"a key of thirty-two bytes.......")


def rid(number: int, trace: int = 1) -> str:
    return run_id(trace, number)


class Stage:
    """A hub, and writers that speak through it."""

    def __init__(self, *, ring_events: int = 1000, limits: Limits | None = None, epoch: str = "e1") -> None:
        self.now_s = 100.0
        self.hub = Hub(OperationTree(), epoch=epoch, cursor_key=KEY, ring_events=ring_events, limits=limits)

    @property
    def now_ns(self) -> int:
        return START_NS + int(self.now_s * NS)

    def say(self, number: int, kind: str, **fields) -> list:
        return self.hub.publish(
            Event(kind=kind, run_id=rid(number), time_unix_ns=self.now_ns, **fields), self.now_ns
        )

    def start(self, number: int, name: str = "load", *, parent: int | None = None, **fields) -> None:
        parent_span = "" if parent is None else rid(parent)[33:]
        self.say(number, semconv.OPERATION_STARTED, name=name, parent_span_id=parent_span, **fields)

    def tick(self, number: int, completed: float) -> None:
        self.say(number, semconv.OPERATION_PROGRESSED, completed=completed, total=100.0)

    def note(self, number: int, message: str = "note") -> None:
        self.now_s += 0.001
        self.say(number, semconv.OPERATION_NOTED, message=message)

    def end(self, number: int, state: State = State.SUCCEEDED) -> None:
        self.say(number, semconv.OPERATION_ENDED, state=state)

    def session(self, *, hello: bool = True, **how) -> Talk:
        talk = Talk(self, **how)
        if hello:
            talk.say(type="hello", version=1)
            (welcome,) = talk.hear()
            assert welcome["type"] == "welcome"
        return talk


class Talk:
    """One raw client: JSON in, JSON out, no checks of its own."""

    def __init__(
        self,
        stage: Stage,
        *,
        grant=Grant(),
        token: str | None = None,
        limits: Limits | None = None,
        authorize=None,
    ) -> None:
        self.stage = stage
        self.tokens: list[str | None] = []

        def judge(token: str | None) -> Grant | None:
            self.tokens.append(token)
            return grant

        self.session = ServerSession(
            stage.hub,
            authorize=authorize or judge,
            limits=limits,
            server_info={"name": "test"},
            now_s=stage.now_s,
            token=token,
        )

    def say(self, **message) -> None:
        self.raw(json.dumps(message))

    def raw(self, frame: str | bytes) -> None:
        self.session.receive(frame, self.stage.now_s, self.stage.now_ns)

    def frames(self, budget_bytes: int = 1 << 20) -> list[bytes]:
        return self.session.outgoing(self.stage.now_s, self.stage.now_ns, budget_bytes=budget_bytes)

    def hear(self, budget_bytes: int = 1 << 20) -> list[dict]:
        return [json.loads(frame) for frame in self.frames(budget_bytes)]

    def types(self) -> list[str]:
        return [message["type"] for message in self.hear()]

    def subscribe(self, **fields) -> list[dict]:
        self.say(type="subscribe", **{"id": "1", **fields})
        return self.hear()

    @property
    def closed(self) -> int | None:
        return None if self.session.closed is None else self.session.closed[0]


def kinds(messages: list[dict]) -> list[str]:
    return [event["kind"] for message in messages for event in message.get("events", ())]


def revisions(messages: list[dict]) -> list[int]:
    return [event["revision"] for message in messages for event in message.get("events", ())]
