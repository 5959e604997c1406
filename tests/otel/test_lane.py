from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelprogress.otel.lane import Lane
from otelprogress.otel.spool import MemorySpool
from otelprogress.otel.target import OtlpEndpoint
from otelprogress.otel.transport import DELIVERED, Answer, Verdict

ENDPOINT = OtlpEndpoint("http://c/v1/logs", "http/protobuf")
BUSY = Answer(Verdict.RETRY, "HTTP 503")
GONE = Answer(Verdict.RETRY, "ConnectionError", reached=False)


def encode(entries):
    if any(entry == "bad" for entry in entries):
        raise ValueError(entries)
    return "".join(entries[:2]).encode(), min(len(entries), 2)


def lane(*entries: str, limit: int = 100) -> Lane:
    made = Lane("logs", ENDPOINT, MemorySpool(limit, encode))
    for entry in entries:
        made.spool.put(entry)
    return made


def test_the_same_bytes_are_tried_until_an_answer_settles_them():
    one = lane("a", "b", "c")
    body = one.next_body()
    one.settle(BUSY, 10.0)
    assert one.next_body() is body
    one.settle(DELIVERED, 11.0)
    assert one.next_body() == b"c"
    assert one.stats.delivered == 2
    assert one.stats.retries == 1


def test_pauses_grow_to_a_cap_and_start_small_after_a_delivery():
    one = lane("a")
    pauses = []
    for _ in range(12):
        one.next_body()
        one.settle(BUSY, 0.0)
        pauses.append(one.not_before_s)
    assert pauses[0] <= 0.2
    assert 2.5 <= pauses[-1] <= 5.0
    one.settle(DELIVERED, 0.0)
    assert one.not_before_s == 0.0
    assert not one.failing


def test_what_the_receiver_asks_for_is_waited_for_up_to_half_a_minute():
    one = lane("a")
    one.next_body()
    one.settle(Answer(Verdict.RETRY, retry_after_s=7.0), 100.0)
    assert one.not_before_s == 107.0
    one.settle(Answer(Verdict.RETRY, retry_after_s=1e9), 100.0)
    assert one.not_before_s == 130.0


def test_a_refused_request_is_counted_and_the_next_one_goes_on():
    one = lane("a", "b", "c")
    one.next_body()
    one.settle(Answer(Verdict.REFUSED, "HTTP 400"), 0.0)
    assert one.stats.refused == 2
    assert one.next_body() == b"c"


def test_a_signal_that_nobody_takes_is_off_and_what_waited_is_counted():
    one = lane("a", "b", "c")
    one.next_body()
    one.settle(Answer(Verdict.UNSUPPORTED, "HTTP 404"), 0.0)
    assert one.done
    assert one.lost() == 3


def test_entries_that_a_partial_success_rejects_are_not_delivered_ones():
    one = lane("a", "b")
    one.next_body()
    one.settle(Answer(Verdict.DELIVERED, rejected=1), 0.0)
    assert (one.stats.delivered, one.stats.rejected) == (1, 1)


def test_an_entry_that_cannot_be_encoded_takes_no_neighbour_along():
    one = lane("a", "bad", "b", "bad")
    sent = []
    while (body := one.next_body()) is not None:
        sent.append(body)
        one.settle(DELIVERED, 0.0)
    assert b"".join(sent) == b"ab"
    assert one.lost() == 2


def test_before_the_exit_an_absent_receiver_is_not_asked_again():
    one = lane("a")
    one.next_body()
    one.settle(GONE, 0.0, closing_left_s=2.0)
    assert one.done
    assert one.abandon() == 1


def test_before_the_exit_a_busy_receiver_is_asked_again_soon():
    one = lane("a")
    one.next_body()
    one.settle(BUSY, 0.0, closing_left_s=2.0)
    assert not one.done
    assert one.not_before_s <= 0.1


def test_before_the_exit_nobody_waits_longer_than_there_is_time():
    one = lane("a")
    one.next_body()
    one.settle(Answer(Verdict.RETRY, retry_after_s=5.0), 0.0, closing_left_s=2.0)
    assert one.done


answers = st.builds(
    Answer,
    st.sampled_from(Verdict),
    retry_after_s=st.none() | st.floats(0, 100),
    rejected=st.integers(0, 5),
    reached=st.booleans(),
)
moves = st.lists(st.sampled_from(["put", "bad", "send"]) | answers, max_size=80)


@given(moves, st.integers(1, 8), st.none() | st.floats(0, 2))
def test_every_entry_is_accounted_for_whatever_is_answered(moves, limit, closing_left_s):
    one, given_to_it, in_flight = lane(limit=limit), 0, False
    for move in moves:
        if isinstance(move, Answer):
            if in_flight:
                one.settle(move, 0.0, closing_left_s=closing_left_s)
                in_flight = False
        elif move == "send":
            in_flight = not one.done and one.next_body() is not None
        elif not one.off_reason:
            one.spool.put(move)
            given_to_it += 1
    stats = one.stats
    assert stats.delivered + stats.rejected + stats.refused + one.lost() + one.waiting >= given_to_it
    assert stats.delivered + stats.refused + one.lost() + one.waiting <= given_to_it
    assert one.waiting >= 0


@given(st.lists(st.sampled_from([DELIVERED, BUSY]), max_size=60))
def test_what_is_delivered_is_in_order_and_complete(answered):
    one, delivered = lane(*(str(n % 10) for n in range(20))), b""
    for answer in answered:
        body = one.next_body()
        if body is None:
            break
        if answer is DELIVERED:
            delivered += body
        one.settle(answer, 0.0)
    assert b"01234567890123456789".startswith(delivered)
    assert len(delivered) == one.stats.delivered
