from __future__ import annotations

import random

import pytest

from otelprogress.otel.transport import DELIVERED, Answer, Verdict
from otelprogress_collector.exporters.pace import Next, Pace

BUSY = Answer(Verdict.RETRY, "HTTP 503")
GONE = Answer(Verdict.RETRY, "ConnectionRefusedError", reached=False)


@pytest.fixture
def pace():
    return Pace(rng=random.Random(7))


def settle(pace: Pace, answer: Answer, now_s: float = 0.0, *, requests: int = 1, **how) -> Next:
    return pace.settle(answer, requests=requests, size_bytes=10 * requests, now_s=now_s, **how)


def test_pauses_have_full_jitter_and_grow_to_half_a_minute(pace):
    caps = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    pauses = []
    for cap in caps:
        assert settle(pace, BUSY) is Next.AGAIN
        assert 0.0 <= pace.not_before_s <= cap
        pauses.append(pace.not_before_s / cap)
    assert min(pauses) < 0.3
    assert max(pauses) > 0.6
    assert pace.counts.retries == pace.failures == len(caps)


def test_an_answer_that_settles_ends_the_pause_and_the_next_begins_small(pace):
    for _ in range(8):
        settle(pace, BUSY)
    assert settle(pace, DELIVERED, requests=3) is Next.SETTLED
    assert (pace.not_before_s, pace.failures) == (0.0, 0)
    assert (pace.counts.delivered, pace.counts.delivered_bytes, pace.counts.attempts) == (3, 30, 9)
    settle(pace, BUSY)
    assert pace.not_before_s <= 0.5


def test_what_the_backend_asks_for_is_waited_for_up_to_a_minute(pace):
    settle(pace, Answer(Verdict.RETRY, retry_after_s=7.0), 100.0)
    assert pace.not_before_s == 107.0
    settle(pace, Answer(Verdict.RETRY, retry_after_s=1e9), 100.0)
    assert pace.not_before_s == 160.0


def test_a_refusal_is_counted_and_settles(pace):
    assert settle(pace, Answer(Verdict.REFUSED, "HTTP 400")) is Next.SETTLED
    assert (pace.counts.refused, pace.last_failure) == (1, "HTTP 400")


def test_requests_that_are_refused_together_are_tried_alone(pace):
    assert settle(pace, Answer(Verdict.REFUSED, "HTTP 400"), requests=5) is Next.ALONE
    assert pace.counts.refused == 0


def test_rejected_records_are_counted_and_the_request_is_delivered(pace):
    partial = Answer(Verdict.DELIVERED, "partial success: 'late'", rejected=4)
    assert settle(pace, partial) is Next.SETTLED
    assert (pace.counts.delivered, pace.counts.rejected) == (1, 4)
    settle(pace, Answer(Verdict.DELIVERED, rejected=-9))
    assert pace.counts.rejected == 4


def test_an_unsupported_signal_is_off(pace):
    assert settle(pace, Answer(Verdict.UNSUPPORTED, "HTTP 404"), requests=3) is Next.OFF
    assert pace.off_reason == "HTTP 404"


def test_the_leaving_collector_waits_for_nobody_when_the_rest_is_kept(pace):
    assert settle(pace, BUSY, closing_left_s=5.0, kept=True) is Next.KEEP


def test_the_leaving_collector_asks_again_soon_when_the_rest_would_be_lost(pace):
    for _ in range(10):
        assert settle(pace, BUSY, 100.0, closing_left_s=5.0) is Next.AGAIN
        assert pace.not_before_s <= 100.1
    assert settle(pace, Answer(Verdict.RETRY, retry_after_s=1.0), 100.0, closing_left_s=5.0) is Next.AGAIN
    assert pace.not_before_s == 101.0


def test_the_leaving_collector_gives_up_who_is_not_there_or_asks_for_too_much(pace):
    assert settle(pace, GONE, closing_left_s=5.0) is Next.KEEP
    assert settle(pace, Answer(Verdict.RETRY, retry_after_s=6.0), closing_left_s=5.0) is Next.KEEP
