"""What goes into a row comes out of it, or nothing does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress_collector.store import records
from otelprogress_collector.store.durations import Took
from otelprogress_collector.store.records import BadRecord, Chunk
from tests.collector.store.rows import row, rows, run

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
whole = st.integers(0, (1 << 63) - 1)


def as_read(values):
    """As a connection reads it: texts as bytes."""
    return tuple(value.encode() if isinstance(value, str) else value for value in values)


@given(count=st.integers(0, 700))
def test_a_journal_is_cut_into_rows_without_loss(count):
    given_rows = rows(1, count)
    chunks = list(records.chunks_of(given_rows))
    assert [one for chunk in chunks for one in chunk.rows()] == given_rows
    assert all(chunk.last_offset - chunk.first_offset < records.MAX_CHUNK_ROWS for chunk in chunks)


def test_large_entries_get_rows_of_their_own():
    given_rows = rows(1, 8, size=3_000_000)
    chunks = list(records.chunks_of(given_rows))
    assert len(chunks) == 8
    assert [one for chunk in chunks for one in chunk.rows()] == given_rows


def test_a_row_of_the_journal_is_as_young_as_its_youngest_entry():
    (chunk,) = records.chunks_of([row(1, time_unix_ns=5), row(2, time_unix_ns=9), row(3, time_unix_ns=7)])
    assert (chunk.first_offset, chunk.last_offset, chunk.newest_unix_ns) == (1, 3, 9)


@given(run_id=text, state=st.binary(max_size=50), ended=st.none() | whole)
def test_runs(run_id, state, ended):
    one = run(run_id, state, ended_at_unix_ns=ended)
    assert records.run_of(as_read(records.values_of_run(one))) == one
    (values,) = records.values_of_changes(7, [run_id], [one])
    assert values[0] == 8
    assert records.changes_of(as_read(values)) == ([run_id], [one])


def test_many_changes_are_several_rows_and_the_forgotten_stand_in_the_first():
    runs = [run(f"run-{number}") for number in range(2_500)]
    parts = [records.changes_of(as_read(values)) for values in records.values_of_changes(0, ["a"], runs)]
    assert [forgotten for forgotten, _ in parts] == [["a"], [], []]
    assert [one for _, part in parts for one in part] == runs


@given(slug=text, number=whole)
def test_numbers_and_closed(slug, number):
    assert records.number_of(as_read(records.values_of_number(slug, number))) == (slug, number)
    assert records.closed_of(as_read(records.values_of_closed(slug))) == slug


@given(key=st.tuples(text, text, text), took=st.lists(st.tuples(whole, st.floats(0, 1e9)), min_size=1))
def test_durations(key, took):
    kept = [Took(*one) for one in took]
    assert records.durations_of(as_read(records.values_of_durations(key, kept))) == kept


@given(key=text, value=st.binary(max_size=50))
def test_values_that_stand_alone(key, value):
    assert records.meta_of(as_read(records.values_of_meta(key, value))) == (key, value)


EXAMPLES = [
    (records.run_of, as_read(records.values_of_run(run("a", b"state", ended_at_unix_ns=5)))),
    (records.changes_of, as_read(next(records.values_of_changes(1, ["b"], [run("a")])))),
    (records.number_of, as_read(records.values_of_number("load", 3))),
    (records.closed_of, as_read(records.values_of_closed("a"))),
    (records.durations_of, as_read(records.values_of_durations(("t", "load", "step"), [Took(1, 2.0)]))),
    (records.meta_of, as_read(records.values_of_meta("epoch", b"value"))),
    (lambda values: Chunk(*values).rows(), tuple(next(records.chunks_of(rows(1, 3))))),
]


@pytest.mark.parametrize(("read", "values"), EXAMPLES)
def test_a_row_in_which_anything_differs_is_refused(read, values):
    read(values)
    for column in range(len(values)):
        for other in (None, b"", "", b"other", 0, -1, 7, 1.5, values[column - 1]):
            if other == values[column] and type(other) is type(values[column]):
                continue
            with pytest.raises(BadRecord):
                read((*values[:column], other, *values[column + 1 :]))


def test_a_byte_does_not_wander_from_one_column_to_the_next():
    tenant, name, *rest = as_read(records.values_of_durations(("ab", "c", "d"), [Took(1, 2.0)]))
    with pytest.raises(BadRecord):
        records.durations_of((tenant[:1], tenant[1:] + name, *rest))
    run_id, state, *rest = as_read(records.values_of_run(run("ab", b"c")))
    with pytest.raises(BadRecord):
        records.run_of((run_id[:1], run_id[1:] + state, *rest))
