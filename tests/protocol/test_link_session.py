from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.exceptions import RemoteProtocolError
from otelprogress.model import semconv
from otelprogress.model.events import Event, Source
from otelprogress.protocol import encoding
from otelprogress.protocol.link_session import (
    WINDOW_EVENTS,
    WORKER_FRAME_BYTES,
    LinkReceiver,
    LinkSender,
    registration,
)
from otelprogress.protocol.messages import LinkAck, LinkEvents, LinkWelcome, Register

RUN = f"{1:032x}-{1:016x}"
OTHER_RUN = f"{1:032x}-{2:016x}"


def note(sequence: int, message: str = "n", run: str = RUN) -> Event:
    return Event(
        kind=semconv.OPERATION_NOTED,
        run_id=run,
        time_unix_ns=sequence,
        writer_id="w",
        sequence=sequence,
        message=message,
    )


def tick(completed: float, run: str = RUN) -> Event:
    return Event(
        kind=semconv.OPERATION_PROGRESSED, run_id=run, time_unix_ns=1, writer_id="w", completed=completed
    )


def connect(sender: LinkSender, receiver: LinkReceiver) -> None:
    assert registration(sender.connection_opened()).writer == receiver.writer_id
    sender.receive(receiver.welcome("c"))


def exchange(sender: LinkSender, receiver: LinkReceiver) -> list[Event]:
    taken = []
    for frame in sender.outgoing():
        taken += receiver.receive(frame)
        sender.receive(receiver.ack())
    return taken


def test_what_is_offered_arrives_in_order_and_is_forgotten_once_acknowledged():
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    for n in range(1, 4):
        sender.offer(note(n))
    connect(sender, receiver)
    assert [event.sequence for event in exchange(sender, receiver)] == [1, 2, 3]
    assert sender.settled
    assert sender.outgoing() == []


@pytest.mark.parametrize(
    "frame",
    [
        b'{"type":"interest","run":"*","rate_hz":10.0}',
        b'{"type":"command","command_id":"c","run":"r","action":"rewind","later":1}',
        b'{"type":"resign","in_favour_of":"another"}',
        b'{"type":"drain","reconnect_after_s":[0.5,5.0]}',
        b'{"type":"error","ref":"events","code":"invalid","message":"no"}',
    ],
)
def test_what_a_later_host_may_say_has_no_effect_on_a_worker(frame: bytes):
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    connect(sender, receiver)
    sender.receive(frame)
    sender.offer(note(1))
    assert [event.sequence for event in exchange(sender, receiver)] == [1]


def test_nothing_is_sent_before_the_welcome():
    sender = LinkSender("w")
    sender.offer(note(1))
    assert sender.outgoing() == []
    sender.connection_opened()
    assert sender.outgoing() == []
    assert not sender.all_sent


def test_what_was_not_acknowledged_is_sent_again_on_the_next_connection_and_taken_once():
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    connect(sender, receiver)
    sender.offer(note(1))
    sender.offer(note(2))
    first = [event for frame in sender.outgoing() for event in receiver.receive(frame)]
    sender.connection_closed()  # the acknowledgement was lost with the connection
    assert not sender.settled
    sender.offer(note(3))
    connect(sender, receiver)
    assert [event.sequence for event in first + exchange(sender, receiver)] == [1, 2, 3]
    assert sender.settled


def test_a_parent_that_remembers_nothing_gets_everything_that_is_kept():
    sender = LinkSender("w")
    connect(sender, LinkReceiver("w"))
    sender.offer(note(1))
    sender.outgoing()
    sender.connection_closed()
    restarted = LinkReceiver("w")
    connect(sender, restarted)
    assert [event.sequence for event in exchange(sender, restarted)] == [1]


def test_only_the_newest_tick_of_a_run_waits_and_none_is_sent_twice():
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    for completed in (1, 2, 3):
        sender.offer(tick(completed))
        sender.offer(tick(completed * 10, OTHER_RUN))
    connect(sender, receiver)
    assert {event.run_id: event.completed for event in exchange(sender, receiver)} == {RUN: 3, OTHER_RUN: 30}
    sender.connection_closed()
    connect(sender, receiver)
    assert exchange(sender, receiver) == []


def test_a_tick_is_dropped_when_something_newer_of_its_run_is_durable():
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    sender.offer(tick(5))
    sender.offer(note(1))
    connect(sender, receiver)
    assert [event.kind for event in exchange(sender, receiver)] == [semconv.OPERATION_NOTED]


def test_a_tick_outlives_a_note_that_carries_no_counts():
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    sender.offer(tick(5))
    sender.offer(
        Event(kind=semconv.OPERATION_NOTED, run_id=RUN, time_unix_ns=2, source=Source.FOREIGN, message="m")
    )
    connect(sender, receiver)
    assert [event.completed for event in exchange(sender, receiver)] == [None, 5]


def test_starts_and_outcomes_find_room_when_notes_do_not():
    sender, receiver = LinkSender("w", max_pending=10), LinkReceiver("w")
    for n in range(1, 101):
        sender.offer(note(n))
    assert sender.dropped == 92
    sender.offer(msgspec.structs.replace(note(101), kind=semconv.OPERATION_ENDED))
    connect(sender, receiver)
    assert [event.sequence for event in exchange(sender, receiver)] == [*range(1, 9), 101]


def test_ticks_of_many_runs_are_cut_into_frames_within_the_limit():
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    for n in range(1, 1001):
        sender.offer(msgspec.structs.replace(tick(n, f"{1:032x}-{n:016x}"), message="x" * 1000))
    connect(sender, receiver)
    frames = sender.outgoing()
    assert all(len(frame) <= WORKER_FRAME_BYTES for frame in frames)
    assert len([event for frame in frames for event in receiver.receive(frame)]) == 1000


def test_over_its_bound_it_drops_counts_and_tells_the_parent():
    sender, receiver = LinkSender("w", max_pending=2), LinkReceiver("w")
    for n in range(1, 6):
        sender.offer(note(n))
    assert sender.dropped == 3
    connect(sender, receiver)
    assert [event.sequence for event in exchange(sender, receiver)] == [1, 2]
    assert receiver.dropped == 3


def test_the_bytes_that_are_kept_are_bounded_too():
    sender = LinkSender("w", max_pending_bytes=10_000)
    for n in range(1, 101):
        sender.offer(note(n, "x" * 1000))
    assert 0 < sender.dropped < 100


def test_every_frame_is_within_the_limit_whatever_waits():
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    for n in range(1, 1001):
        sender.offer(note(n, "x" * 1000))
    connect(sender, receiver)
    frames = sender.outgoing()
    assert len(frames) > 1
    assert all(len(frame) <= WORKER_FRAME_BYTES for frame in frames)


def test_at_most_a_window_is_unacknowledged():
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    for n in range(1, WINDOW_EVENTS + 101):
        sender.offer(note(n))
    connect(sender, receiver)
    first = [event for frame in sender.outgoing() for event in receiver.receive(frame)]
    assert len(first) == WINDOW_EVENTS
    assert sender.outgoing() == []
    sender.receive(receiver.ack())
    assert len(exchange(sender, receiver)) == 100


def test_a_worker_that_says_bye_leaves_on_purpose():
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    connect(sender, receiver)
    assert not receiver.said_bye
    assert receiver.receive(sender.bye()) == []
    assert receiver.said_bye


def test_a_sign_of_life_carries_no_event():
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    connect(sender, receiver)
    assert receiver.receive(sender.alive()) == []


@pytest.mark.parametrize(
    "first",
    [
        encoding.encode(LinkEvents(n=1)),
        encoding.encode(Register(version=99, writer="w")),
        b"[]",
        b'{"type":"hello","version":1}',
    ],
)
def test_a_first_frame_that_is_no_registration_is_the_workers_mistake(first: bytes):
    with pytest.raises(RemoteProtocolError):
        registration(first)


def test_registering_twice_is_the_workers_mistake():
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    with pytest.raises(RemoteProtocolError):
        receiver.receive(sender.connection_opened())


def test_an_acknowledgement_of_what_was_never_sent_is_the_parents_mistake():
    sender = LinkSender("w")
    sender.connection_opened()
    with pytest.raises(RemoteProtocolError):
        sender.receive(encoding.encode(LinkAck(n=7)))
    with pytest.raises(RemoteProtocolError):
        sender.receive(encoding.encode(LinkWelcome(connection="c", n=7)))


@given(seed=st.integers(0, 2**32), cuts=st.integers(0, 12))
def test_over_any_cuts_each_event_arrives_exactly_once_and_in_order(seed: int, cuts: int):
    rng = random.Random(seed)
    sender, receiver = LinkSender("w"), LinkReceiver("w")
    arrived: list[int | None] = []
    offered = 0

    for _ in range(cuts):
        connect(sender, receiver)
        for _ in range(rng.randrange(8)):
            if rng.random() < 0.6:
                offered += 1
                sender.offer(note(offered))
                continue
            frames = sender.outgoing()
            got_through = rng.randint(0, len(frames))
            for frame in frames[:got_through]:
                arrived.extend(event.sequence for event in receiver.receive(frame))
                if rng.random() < 0.7:
                    sender.receive(receiver.ack())
            if got_through < len(frames):
                break  # the connection was cut
        sender.connection_closed()
    connect(sender, receiver)
    arrived.extend(event.sequence for event in exchange(sender, receiver))
    assert arrived == list(range(1, offered + 1))
    assert sender.settled
