"""The shared log of durable events."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidRecord
from otelprogress.model.events import State
from otelprogress.protocol.filters import Facts
from otelprogress.protocol.journal import Entry, Ring, decode_facts, encode_facts


def entry(number: int) -> Entry:
    return Entry(str(number).encode(), number, None, None)  # type: ignore[arg-type]  # facts do not matter to the ring


def test_an_empty_ring_resumes_at_its_beginning_only():
    ring = Ring(4)
    assert (ring.head, ring.first, len(ring)) == (0, 1, 0)
    assert ring.can_resume(0)
    assert not ring.can_resume(1)
    assert list(ring.read(0)) == []


@given(st.integers(1, 9), st.integers(0, 40))
def test_it_holds_the_newest_entries_in_order(capacity: int, count: int):
    ring = Ring(capacity)
    for number in range(1, count + 1):
        assert ring.append(entry(number)) == number
    assert len(ring) == min(capacity, count)
    for position in range(count + 3):
        kept = max(0, count - capacity) <= position <= count
        assert ring.can_resume(position) is kept
        if kept:
            read = [(offset, item.revision) for offset, item in ring.read(position)]
            assert read == [(number, number) for number in range(position + 1, count + 1)]
        else:
            with pytest.raises(LookupError):
                list(ring.read(position))


def test_a_ring_without_room_is_refused():
    with pytest.raises(ValueError, match="room"):
        Ring(0)


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 12), st.integers(0, 20))
def test_a_restored_ring_goes_on_as_the_one_it_was(capacity: int, count: int, kept: int, more: int):
    ring = Ring(capacity)
    for number in range(1, count + 1):
        ring.append(entry(number))
    kept = min(kept, count)
    restored = Ring(capacity)
    restored.restore(count, [entry(number) for number in range(count - kept + 1, count + 1)])
    for number in range(count + 1, count + more + 1):
        assert restored.append(entry(number)) == ring.append(entry(number)) == number
    assert restored.head == ring.head
    assert len(restored) == min(capacity, kept + more)
    read = list(restored.read(restored.first - 1))
    assert read == list(ring.read(restored.first - 1))
    assert not restored.can_resume(restored.first - 2)


def test_a_ring_with_entries_of_its_own_is_not_restored():
    ring = Ring(4)
    ring.append(entry(1))
    with pytest.raises(ValueError, match="1 entries of its own"):
        ring.restore(3, [])


def test_more_entries_than_there_ever_were_are_refused():
    with pytest.raises(ValueError, match="2 entries cannot end at offset 1"):
        Ring(4).restore(1, [entry(1), entry(2)])


# --- facts beside the journal ------------------------------------------------------------------------------------

texts = st.text(max_size=12)
facts = st.builds(
    Facts,
    id=st.sampled_from([f"{n:032x}-{n:016x}" for n in range(1, 4)]),
    handle=texts,
    tenant=st.sampled_from(["", "acme"]),
    name=texts,
    label=st.none() | texts,
    service=texts,
    state=st.sampled_from(State),
    parent_id=st.none() | st.sampled_from([f"{n:032x}-{n:016x}" for n in range(1, 4)]),
    ancestors=st.lists(texts, max_size=3).map(tuple),
    attributes=st.dictionaries(
        texts,
        texts | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False),
        max_size=3,
    ),
    ended_at_unix_ns=st.none() | st.integers(0, 2**63 - 1),
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    after = draw(facts)
    before = draw(
        st.none() | st.just(after) | st.builds(msgspec.structs.replace, facts, id=st.just(after.id))
    )
    return Entry(b"{}", 1, after, before)


@given(st.lists(entries(), max_size=8), st.booleans())
def test_facts_come_back_as_they_were(written: list[Entry], in_order: bool):
    newest: dict[str, Facts] | None = {} if in_order else None
    for item in written:
        after, before = decode_facts(encode_facts(item), newest)
        assert (after, before) == (item.after, item.before)
        assert types(after) == types(item.after)
        assert (before is after) == (item.before is item.after) or before == after


def types(of: Facts) -> list[type]:
    return [type(value) for value in of.attributes.values()]


def test_entries_that_are_read_in_order_share_what_did_not_change():
    parent = Facts("p" * 49, "load-1", "", "load", None, "svc", State.RUNNING, None, (), {}, None)
    child = Facts(
        "c" * 49, "job-1", "", "job", None, "svc", State.RUNNING, parent.id, (parent.id,), {"k": 1}, None
    )
    ended = msgspec.structs.replace(child, state=State.FAILED, ended_at_unix_ns=5)
    log = [
        Entry(b"", 1, parent, None),
        Entry(b"", 1, child, None),
        Entry(b"", 2, child, child),
        Entry(b"", 3, ended, child),
    ]
    newest: dict[str, Facts] = {}
    (up, _), (first, _), (second, same), (last, before) = (
        decode_facts(encode_facts(item), newest) for item in log
    )
    assert first is second is same is before
    assert first.parent_id is first.ancestors[0] is up.id
    assert last.id is first.id
    assert last.handle is first.handle
    assert last.attributes is first.attributes
    assert last.service is up.service
    assert newest == {parent.id: up, child.id: last}


@pytest.mark.parametrize("torn", [b"", b"\x92", b"\x92\x01\xc0", b"\xc1"])
def test_what_are_no_facts_is_refused(torn: bytes):
    with pytest.raises(InvalidRecord, match="facts of an entry cannot be read"):
        decode_facts(torn)


def test_what_is_to_be_written_is_kept_beyond_the_capacity_until_it_is_taken():
    ring = Ring(2)
    ring.append(entry(1))
    assert ring.take_unwritten() == []
    ring.keep_unwritten()
    for number in range(2, 8):
        ring.append(entry(number))
    assert ring.take_unwritten() == [(number, entry(number)) for number in range(2, 8)]
    assert ring.take_unwritten() == []
    ring.append(entry(8))
    assert ring.take_unwritten() == [(8, entry(8))]
