"""What a client makes of frames: deliveries, cursors, and proof that nothing is missing."""

from __future__ import annotations

import json

import pytest

from otelprogress.exceptions import LocalProtocolError, RemoteProtocolError
from otelprogress.protocol.client_session import MISSED, ClientSession, Delivery, MissedEvents, Subscription
from otelprogress.protocol.messages import (
    CommandStatus,
    DigestText,
    Drain,
    Error,
    Filter,
    Gap,
    Limits,
    Welcome,
)
from otelprogress.protocol.session import Grant, ServerSession

from .feed_kit import Stage, rid


class Pair:
    """A client session and a server session, joined back to back."""

    def __init__(self, stage: Stage, *subscriptions: Subscription, token: str | None = None) -> None:
        self.stage = stage
        self.client = ClientSession(subscriptions, token=token)
        self.server = ServerSession(stage.hub, authorize=lambda _token: Grant(), now_s=stage.now_s)
        self.lost = 0

    def exchange(self, *, lose=lambda _frame: False) -> list:
        out = []
        for _ in range(10):
            for frame in self.client.outgoing():
                self.server.receive(frame, self.stage.now_s, self.stage.now_ns)
            for frame in self.server.outgoing(self.stage.now_s, self.stage.now_ns):
                if lose(frame):
                    self.lost += 1
                else:
                    out += self.client.receive(frame)
        return out


def told(items: list) -> list[tuple[str, int]]:
    return [(item.event.kind, item.event.revision) for item in items if isinstance(item, Delivery)]


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.start(1)
    return stage


def test_the_state_comes_as_snapshot_events_and_then_what_happens(stage: Stage):
    subscription = Subscription()
    pair = Pair(stage, subscription, token="t")
    first = pair.exchange()
    assert isinstance(first[0], Welcome)
    assert told(first) == [("snapshot", 1)]
    assert first[1].event.gap is None
    stage.note(1)
    stage.end(1)
    assert told(pair.exchange()) == [("operation.noted", 2), ("operation.ended", 3)]
    assert [view.revision for view in subscription.operations] == [3]
    assert subscription.gaps == []


def test_only_the_last_event_of_a_frame_moves_the_cursor_on(stage: Stage):
    subscription = Subscription()
    pair = Pair(stage, subscription)
    pair.exchange()
    before = subscription.cursor
    stage.note(1)
    stage.note(1)
    first, second = pair.exchange()
    assert first.cursor == before
    assert second.cursor == subscription.cursor != before
    resumed = Pair(stage, Subscription(cursor=first.cursor))
    assert told(resumed.exchange()) == [("operation.noted", 2), ("operation.noted", 3)]


def test_a_subscription_goes_on_over_connections_without_doubling(stage: Stage):
    subscription = Subscription(level="ticks")
    Pair(stage, subscription).exchange()
    stage.tick(1, 5)
    pair = Pair(stage, subscription)
    assert told(pair.exchange()) == [("operation.progressed", 2)]
    # What was owed to anybody is sent again to a connection that resumes; this one knows it.
    assert told(Pair(stage, subscription).exchange()) == []
    stage.note(1)
    assert told(Pair(stage, subscription).exchange()) == [("operation.noted", 3)]


def test_a_lost_durable_event_is_noticed_by_the_next_one(stage: Stage):
    subscription = Subscription()
    pair = Pair(stage, subscription)
    pair.exchange()
    stage.note(1)
    assert pair.exchange(lose=lambda frame: b'"events"' in frame) == []
    assert pair.lost == 1
    stage.note(1)
    with pytest.raises(MissedEvents, match="revision 2 of load-1 never came") as caught:
        pair.exchange()
    assert caught.value.code == 4400
    assert subscription.cursor is None
    again = Pair(stage, subscription).exchange()
    assert told(again) == [("snapshot", 3)]
    assert again[1].event.gap == MISSED
    assert subscription.gaps == [MISSED]


def test_a_lost_durable_event_is_noticed_by_the_next_tick(stage: Stage):
    subscription = Subscription(level="ticks")
    pair = Pair(stage, subscription)
    pair.exchange()
    stage.note(1)
    pair.exchange(lose=lambda frame: b'"events"' in frame)
    stage.now_s += 1
    stage.tick(1, 1)
    with pytest.raises(MissedEvents):
        pair.exchange()


def test_what_came_before_a_missing_event_in_its_frame_is_still_delivered(stage: Stage):
    stage.start(2)
    subscription = Subscription()
    pair = Pair(stage, subscription)
    pair.exchange()
    stage.note(2)
    pair.exchange(lose=lambda frame: b'"events"' in frame)
    stage.note(1)
    stage.note(2)
    for frame in pair.server.outgoing(stage.now_s, stage.now_ns):
        assert told(pair.client.receive(frame)) == [("operation.noted", 2)]
    with pytest.raises(MissedEvents):
        pair.client.outgoing()


def test_a_lost_tick_is_nothing(stage: Stage):
    pair = Pair(stage, Subscription(level="ticks"))
    pair.exchange()
    stage.tick(1, 1)
    pair.exchange(lose=lambda frame: b'"events"' in frame)
    stage.now_s += 1
    stage.tick(1, 2)
    (delivery,) = pair.exchange()
    assert delivery.event.operation.step.completed == 2.0


def test_at_the_terminal_level_only_ends_count(stage: Stage):
    pair = Pair(stage, Subscription(level="terminal"))
    pair.exchange()
    stage.note(1)
    stage.note(1)
    stage.end(1)
    assert told(pair.exchange()) == [("operation.ended", 4)]


def test_a_gap_comes_before_its_snapshot_and_gives_it_the_reason():
    stage = Stage(ring_events=2)
    stage.start(1)
    subscription = Subscription()
    Pair(stage, subscription).exchange()
    for _ in range(4):
        stage.note(1)
    items = Pair(stage, subscription).exchange()
    assert isinstance(items[1], Gap)
    assert (items[1].reason, items[1].from_ is not None) == ("expired", True)
    assert told(items) == [("snapshot", 5)]
    assert items[2].event.gap == "expired"
    assert subscription.gaps == ["expired"]


def test_what_left_during_a_gap_is_told_from_the_whole_state():
    stage = Stage(ring_events=2)
    stage.start(1)
    stage.start(2)
    subscription = Subscription(filter=Filter(state=("running",), roots=False))
    Pair(stage, subscription).exchange()
    stage.end(1)
    for _ in range(4):
        stage.note(2)
    assert told(Pair(stage, subscription).exchange()) == [("snapshot", 5), ("left", 1)]
    assert [view.id for view in subscription.operations] == [rid(2)]


def test_a_run_that_comes_back_is_followed_anew(stage: Stage):
    subscription = Subscription(filter=Filter(state=("running",)))
    pair = Pair(stage, subscription)
    pair.exchange()
    stage.say(1, "otelprogress.operation.state_changed", state="waiting")
    stage.note(1)
    stage.say(1, "otelprogress.operation.state_changed", state="running")
    assert told(pair.exchange()) == [
        ("operation.state_changed", 2),
        ("left", 2),
        ("operation.state_changed", 4),
    ]


def test_a_host_that_forgot_revisions_is_accused(stage: Stage):
    subscription = Subscription()
    stage.note(1)
    Pair(stage, subscription).exchange()
    other = Stage(epoch="e2")
    other.start(1)
    with pytest.raises(RemoteProtocolError, match="forgot revisions"):
        Pair(other, subscription).exchange()


def test_windows_are_acknowledged_frame_by_frame(stage: Stage):
    subscription = Subscription(window_bytes=2000)
    pair = Pair(stage, subscription)
    pair.exchange()
    for _ in range(50):
        stage.note(1, "x" * 100)
    assert len(told([item for _ in range(10) for item in pair.exchange()])) == 50
    assert subscription.acknowledgement() is None


def test_without_a_window_nothing_is_acknowledged(stage: Stage):
    pair = Pair(stage, Subscription(window_bytes=0))
    pair.exchange()
    stage.note(1)
    for frame in pair.server.outgoing(stage.now_s, stage.now_ns):
        pair.client.receive(frame)
    assert pair.client.outgoing() == []


def test_subscriptions_come_and_go_on_an_open_connection(stage: Stage):
    pair = Pair(stage)
    pair.exchange()
    subscription = Subscription("late")
    pair.client.add(subscription)
    assert told(pair.exchange()) == [("snapshot", 1)]
    with pytest.raises(LocalProtocolError):
        pair.client.add(Subscription("late"))
    stage.note(1)
    late = pair.server.outgoing(stage.now_s, stage.now_ns)
    pair.client.remove(subscription)
    assert [pair.client.receive(frame) for frame in late] == [[]]
    stage.note(1)
    assert pair.exchange() == []


def test_messages_about_the_connection_are_given_as_they_came(stage: Stage):
    pair = Pair(stage, Subscription(filter=Filter(state=("done",))))
    items = pair.exchange()
    assert isinstance(items[1], Error)
    from otelprogress.protocol.messages import Command

    pair.client.command(Command(command_id="c", operation="load-1", action="cancel"))
    pair.client.renew("new")
    assert [type(item) for item in pair.exchange()] == [CommandStatus]
    pair.server.drain(stage.now_s)
    items = pair.exchange()
    assert isinstance(items[0], Drain)
    assert pair.client.drain == items[0]


def test_later_kinds_of_messages_are_ignored():
    assert ClientSession().receive('{"type":"weather","sun":true}') == []


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("[]", 4400),
        ('{"type":"events","id":1}', 4400),
        ('{"type":"bookmark","id":"1","cursor":"' + "x" * 2000 + '"}', 1009),
    ],
)
def test_a_server_that_breaks_the_protocol_is_named(frame: str, code: int):
    with pytest.raises(RemoteProtocolError) as caught:
        ClientSession(limits=Limits(server_frame_bytes=1000)).receive(frame)
    assert caught.value.code == code


def test_a_second_welcome_is_wrong(stage: Stage):
    pair = Pair(stage)
    frame = None
    for sent in pair.client.outgoing():
        pair.server.receive(sent, stage.now_s, stage.now_ns)
    (frame,) = pair.server.outgoing(stage.now_s, stage.now_ns)
    pair.client.receive(frame)
    with pytest.raises(RemoteProtocolError, match="second welcome"):
        pair.client.receive(frame)


def test_the_snapshot_page_tells_how_many_are_left_out(stage: Stage):
    stage.start(2)
    subscription = Subscription(filter=Filter(limit=1))
    Pair(stage, subscription).exchange()
    assert subscription.more == 1


def test_the_first_frame_says_who_we_are():
    (hello,) = ClientSession(token="t", client="me").outgoing()
    assert json.loads(hello) == {"type": "hello", "version": 1, "client": "me", "token": "t"}


# --- digests ---------------------------------------------------------------------------------------------


def test_digests_come_as_they_are_and_move_the_cursor_on(stage: Stage):
    subscription = Subscription(render="digest", max_tokens=100, window_bytes=10)
    pair = Pair(stage, subscription)
    _, first = pair.exchange()
    assert isinstance(first, DigestText)
    assert (subscription.cursor, subscription.operations) == (first.cursor, [])
    stage.now_s += 10
    stage.note(1, "one")
    (second,) = pair.exchange()  # the first one was acknowledged
    assert '"one"' in second.text
    # A digest that got lost is told again, with what happened since.
    stage.now_s += 10
    stage.note(1, "two")
    assert pair.exchange(lose=lambda frame: b"digest" in frame) == []
    stage.note(1, "three")
    _, again = Pair(stage, subscription).exchange()
    assert [word in again.text for word in ("one", "two", "three", " full")] == [False, True, True, False]
