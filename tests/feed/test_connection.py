"""A feed connection and the times it is held to, in virtual time: pings, slow readers, tokens that expire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from otelprogress.feed.connection import ServerLimits, SessionRunner
from otelprogress.protocol.messages import Limits
from otelprogress.protocol.server_session import Grant, ServerSession
from tests.feed.fakes import noted, progressed, started
from tests.feed.serving import real_host


class VirtualLoop:
    """The clock and the timers of a loop; time passes only in `run_until`."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.fired = 0
        self._timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now_s

    def time_unix_ns(self) -> int:
        return 1_700_000_000_000_000_000 + round(self.now_s * 1e9)

    def monotonic_s(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when_s, call, (), self)  # type: ignore[arg-type]  # what it needs is here
        self._timers.append(timer)
        return timer

    def call_soon(self, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self.call_at(self.now_s, call)

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        self._timers.remove(timer)

    def get_debug(self) -> bool:
        return False

    def run_until(self, until_s: float) -> None:
        while self._timers and (first := min(self._timers, key=asyncio.TimerHandle.when)).when() <= until_s:
            self._timers.remove(first)
            self.now_s = max(self.now_s, first.when())
            self.fired += 1
            assert self.fired < 1000, "a busy loop"
            first._run()
        self.now_s = until_s


class Wire:
    """A connection whose peer does what the test says."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.last_heard_s = loop.now_s
        self.on_writable: Callable[[], None] | None = None
        self.written_bytes = self.buffered_bytes = 0
        self.paused = False
        self.sent: list[bytes] = []
        self.pings_at_s: list[float] = []
        self.shut_with: tuple[int, float] | None = None

    @property
    def is_open(self) -> bool:
        return self.shut_with is None

    def write_frames(self, frames: list[bytes]) -> None:
        self.sent += frames
        self.written_bytes += sum(map(len, frames))

    def ping_now(self) -> None:
        self.pings_at_s.append(self.loop.now_s)

    def shut(self, code: int, reason: str) -> None:
        if self.shut_with is None:
            self.shut_with = (code, self.loop.now_s)


class Scene(SimpleNamespace):
    loop: VirtualLoop
    wire: Wire
    runner: SessionRunner

    def publish(self, *events) -> None:
        for event in events:
            self.host.submit(event)
        self.host.drain()
        self.runner.pump()


@pytest.fixture
def scene_of():
    def make(grant: Grant = Grant(), level: str = "ticks", **subscribe: object) -> Scene:  # noqa: B008 - frozen
        loop = VirtualLoop()
        host = real_host(clock=loop)
        wire = Wire(loop)
        session = ServerSession(host.hub, authorize=lambda _: grant, now_s=loop.now_s)
        runner = SessionRunner(wire, session, host, ServerLimits())  # type: ignore[arg-type]  # a stand-in
        runner.pump()
        runner.receive('{"type":"hello","version":1}')
        fields = "".join(f',"{key}":{value}' for key, value in subscribe.items())
        runner.receive(f'{{"type":"subscribe","id":"1","level":"{level}"{fields}}}')
        return Scene(loop=loop, host=host, wire=wire, runner=runner)

    return make


def test_the_limits_that_are_told_are_those_that_are_kept():
    told, kept = Limits(), ServerLimits()
    assert (told.ping_interval_s, told.pong_timeout_s) == (kept.ping_interval_s, kept.pong_timeout_s)
    assert told.hello_frame_bytes == kept.max_frame_before_auth_bytes
    assert told.client_frame_bytes == kept.max_client_frame_bytes


def test_a_silent_peer_is_pinged_after_25_s_and_closed_4510_8_s_later(scene_of):
    scene = scene_of()
    scene.loop.run_until(1100.0)
    assert scene.wire.pings_at_s == [1025.0]
    assert scene.wire.shut_with == (4510, 1033.0)


def test_any_byte_after_the_ping_keeps_the_connection(scene_of):
    scene = scene_of()
    scene.loop.run_until(1030.0)
    scene.wire.last_heard_s = 1030.0
    scene.loop.run_until(1054.0)
    assert scene.wire.pings_at_s == [1025.0]
    scene.loop.run_until(1056.0)
    assert scene.wire.pings_at_s == [1025.0, 1055.0]
    assert scene.wire.is_open


def test_a_peer_that_accepts_no_byte_for_30_s_is_closed_4508_and_not_looked_at_all_the_time(scene_of):
    scene = scene_of()
    scene.publish(started())
    scene.wire.paused, scene.wire.buffered_bytes = True, 10
    scene.publish(noted(2), progressed(5.0))
    scene.loop.run_until(1100.0)
    code, at_s = scene.wire.shut_with
    assert code == 4508
    assert 1030.0 <= at_s <= 1032.0
    assert scene.loop.fired < 100


def test_a_slow_reader_that_takes_a_byte_now_and_then_stays(scene_of):
    scene = scene_of()
    scene.publish(started())
    scene.wire.paused, scene.wire.buffered_bytes = True, 10
    scene.publish(noted(2))
    for _ in range(9):
        scene.loop.run_until(scene.loop.now_s + 20.0)
        scene.wire.buffered_bytes -= 1
    assert scene.wire.is_open


@pytest.mark.parametrize("reads", [True, False])
def test_a_token_that_expires_on_the_open_connection_closes_it_with_4501(scene_of, reads: bool):
    scene = scene_of(Grant(expires_at_s=1010.0))
    scene.publish(started())
    if not reads:
        scene.wire.paused, scene.wire.buffered_bytes = True, 10
        scene.publish(noted(2))
    scene.loop.run_until(1015.0)
    code, at_s = scene.wire.shut_with
    assert code == 4501
    assert 1010.0 <= at_s <= 1011.0
    sent = len(scene.wire.sent)
    scene.publish(noted(3))
    assert len(scene.wire.sent) == sent


@pytest.mark.parametrize("window_bytes", [1, 1500])
def test_a_client_that_does_not_acknowledge_is_not_looked_at_all_the_time(scene_of, window_bytes: int):
    scene = scene_of(window_bytes=window_bytes)
    scene.publish(started())
    for number in range(2, 9):
        scene.publish(noted(number, message="x" * 200), progressed(float(number)))
    for _ in range(20):
        scene.loop.run_until(scene.loop.now_s + 20.0)
        scene.wire.last_heard_s = scene.loop.now_s
    assert scene.wire.is_open
    assert scene.loop.fired < 200


def test_a_fault_of_our_own_closes_with_4500(scene_of, monkeypatch: pytest.MonkeyPatch):
    scene = scene_of()
    monkeypatch.setattr(scene.runner.session, "outgoing", lambda *_, **__: 1 / 0)
    scene.publish(started())
    assert scene.wire.shut_with == (4500, 1000.0)
