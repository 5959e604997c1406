from __future__ import annotations

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.model.carriers import HASHES_KEPT, Carrier, Lane, admit, fingerprint_of, give_up
from otelprogress.model.events import Source
from tests.model.saying import S, Saying


@given(st.integers(1, 40), st.randoms(use_true_random=False))
def test_any_order_comes_out_in_order_and_once(count: int, rng: random.Random):
    run = Saying()
    events = [run.note(str(n), n) for n in range(count)]
    arriving = events + rng.sample(events, k=count // 2)
    rng.shuffle(arriving)
    lane = Lane("w1")
    out = [each for event in arriving for each in admit(lane, event, event.sequence) or ()]
    assert out == [(event, False) for event in events]


def test_what_was_given_up_comes_late_once():
    run = Saying()
    first, second, third, fourth = (run.note(str(n), n) for n in range(4))
    lane = Lane("w1")
    admit(lane, first, 1)
    assert admit(lane, fourth, 4) == []
    assert give_up(lane) == [fourth]
    assert admit(lane, third, 3) == [(third, True)]
    assert admit(lane, third, 3) is None
    assert admit(lane, second, 2) == [(second, True)]
    assert lane.missing == []


def test_a_fingerprint_is_the_same_for_every_carrier_and_differs_by_content():
    note = Saying().note("hm", 1, sequence=None)
    assert fingerprint_of(note) == fingerprint_of(msgspec.structs.replace(note, source=Source.SPAN_EVENT))
    assert fingerprint_of(note) != fingerprint_of(msgspec.structs.replace(note, message="hm!"))
    assert fingerprint_of(msgspec.structs.replace(note, message="\ud800", attempt=2**80))


def test_only_the_latest_fingerprints_are_kept():
    run, carrier = Saying(), Carrier()
    for n in range(HASHES_KEPT * 2):
        assert not carrier.seen(run.note("hm", n))
    assert len(carrier.hashes) == HASHES_KEPT


def test_notes_refill_at_their_rate():
    carrier = Carrier()
    assert sum(carrier.take_note(S, 10.0, 100.0) for _ in range(150)) == 100
    assert sum(carrier.take_note(2 * S, 10.0, 100.0) for _ in range(150)) == 10
