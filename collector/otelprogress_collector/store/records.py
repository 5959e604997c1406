"""The rows of the database: what is in them, and the crc32 that each carries of all the rest of it. Pure.

What comes out of the database is not trusted to have the type it went in with: a flipped bit can turn a blob into a
number. So texts are read as bytes (`text_factory`), and whatever is not what was written raises `BadRecord`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from otelprogress_collector.store.durations import Key, Took
from otelprogress_collector.store.interface import JournalRow, RunRow

MAX_CHUNK_ROWS: Final = 256
"""Entries in one row of the journal: what a flipped bit can cost at most, beside what comes after it."""
MAX_CHANGED_RUNS: Final = 1024
"""Runs in one row of changes."""
MAX_CHUNK_BYTES: Final = 4 * 2**20
"""Of events in one row, unless a single one is larger: a slice of the journal is never much more in memory."""

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE_ENTRIES: Final = msgspec.msgpack.Decoder(list[JournalRow]).decode
_DECODE_CHANGES: Final = msgspec.msgpack.Decoder(tuple[list[str], list[RunRow]]).decode
_DECODE_TOOK: Final = msgspec.msgpack.Decoder(list[Took]).decode

CHUNK_COLUMNS: Final = "last_offset, first_offset, newest_unix_ns, entries, crc"
CHANGES_COLUMNS: Final = "place, changes, crc"
RUN_COLUMNS: Final = "run_id, state, live, ended_at_unix_ns, crc"
CLOSED_COLUMNS: Final = "run_id, crc"
NUMBER_COLUMNS: Final = "slug, number, crc"
DURATION_COLUMNS: Final = "tenant, name, step_name, took, last_ended_unix_ns, crc"
META_COLUMNS: Final = "key, value, crc"

Values = tuple[Any, ...]
"""What a row has in these columns, in that order."""


class BadRecord(Exception):
    """The row is not what was written."""


class Chunk(NamedTuple):
    """A row of the journal: entries that were appended together."""

    last_offset: int
    first_offset: int
    newest_unix_ns: int
    entries: bytes
    crc: int

    def is_sound(self) -> bool:
        """Whether it is what was written."""
        try:
            _check(self.crc, _crc_of_chunk, *self[:4])
        except BadRecord:
            return False
        return True

    def rows(self) -> list[JournalRow]:
        """Its entries, checked."""
        _check(self.crc, _crc_of_chunk, *self[:4])
        return _DECODE_ENTRIES(self.entries)


def chunks_of(journal: Sequence[JournalRow], max_rows: int = MAX_CHUNK_ROWS) -> Iterator[Chunk]:
    """Rows for the journal's entries."""
    for start in range(0, len(journal), max_rows):
        part = journal[start : start + max_rows]
        if len(part) > 1 and sum([len(row.encoded) for row in part]) > MAX_CHUNK_BYTES:
            yield from chunks_of(part, len(part) // 2)
            continue
        fields = (part[-1].offset, part[0].offset, max([row.time_unix_ns for row in part]), _ENCODE(part))
        yield Chunk(*fields, _crc_of_chunk(*fields))


def values_of_changes(last_place: int, forgotten: Sequence[str], runs: Sequence[RunRow]) -> Iterator[Values]:
    """What to write for what became of runs: first those that are forgotten, then the new states.

    Raises:
        OverflowError: an end cannot be kept.
    """
    if any(run.ended_at_unix_ns is not None and run.ended_at_unix_ns >> 63 for run in runs):
        raise OverflowError("the end of a run is before 1970 or has more than 63 bits")
    for start in range(0, max(len(runs), 1), MAX_CHANGED_RUNS):
        last_place += 1
        changes = _ENCODE((() if start else forgotten, runs[start : start + MAX_CHANGED_RUNS]))
        yield (last_place, changes, _crc_of_changes(last_place, changes))


def changes_of(values: Values) -> tuple[list[str], list[RunRow]]:
    """Who is forgotten, and the new states, checked."""
    place, changes, crc = values
    _check(crc, _crc_of_changes, place, changes)
    return _DECODE_CHANGES(changes)


def values_of_run(run: RunRow) -> Values:
    """What to write for a run."""
    fields = (run.run_id, run.state, int(run.live), run.ended_at_unix_ns)
    return (*fields, _crc_of_run(run.run_id.encode(), *fields[1:]))


def run_of(values: Values) -> RunRow:
    """The run of a row, checked."""
    run_id, state, live, ended_at_unix_ns, crc = values
    _check(crc, _crc_of_run, run_id, state, live, ended_at_unix_ns)
    return RunRow(run_id=run_id.decode(), state=state, live=bool(live), ended_at_unix_ns=ended_at_unix_ns)


def is_sound_run(values: Values) -> bool:
    """Whether the run of a row is what was written; faster than `run_of`."""
    try:
        return bool(_crc_of_run(*values[:4]) == values[4])
    except (TypeError, ValueError):
        return False


def values_of_closed(run_id: str) -> Values:
    """What to write for a run whose span was closed."""
    return (run_id, _crc_of_closed(run_id.encode()))


def closed_of(values: Values) -> str:
    """The run id of a row, checked."""
    run_id, crc = values
    _check(crc, _crc_of_closed, run_id)
    return str(run_id.decode())


def values_of_number(slug: str, number: int) -> Values:
    """What to write for a slug."""
    return (slug, number, _crc_of_number(slug.encode(), number))


def number_of(values: Values) -> tuple[str, int]:
    """Slug and number of a row, checked."""
    slug, number, crc = values
    _check(crc, _crc_of_number, slug, number)
    return slug.decode(), number


def values_of_durations(key: Key, took: list[Took]) -> Values:
    """What to write for an operation or step."""
    encoded, last_unix_ns = _ENCODE(took), took[-1].ended_at_unix_ns
    tenant, name, step_name = (part.encode() for part in key)
    crc = _crc_of_durations(tenant, name, step_name, encoded, last_unix_ns)
    return (*key, encoded, last_unix_ns, crc)


def durations_of(values: Values) -> list[Took]:
    """The durations of a row, checked."""
    *fields, crc = values
    _check(crc, _crc_of_durations, *fields)
    return _DECODE_TOOK(fields[3])


def values_of_meta(key: str, value: bytes) -> Values:
    """What to write for a value that stands alone."""
    return (key, value, _crc_of_meta(key.encode(), value))


def meta_of(values: Values) -> tuple[str, bytes]:
    """Key and value of a row, checked."""
    key, value, crc = values
    _check(crc, _crc_of_meta, key, value)
    return key.decode(), value


def _check(crc: object, compute: Any, *fields: object) -> None:
    try:
        found = compute(*fields)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRecord(str(error)) from error
    if found != crc:
        raise BadRecord("the check sum differs")


# The lengths are part of what is summed up, so that a byte cannot move from one field to the next. `%x` takes nothing
# but whole numbers.


def _crc_of_chunk(last_offset: int, first_offset: int, newest_unix_ns: int, entries: bytes) -> int:
    return crc32(b"%x %x %x" % (first_offset, last_offset, newest_unix_ns), crc32(entries))


def _crc_of_changes(place: int, changes: bytes) -> int:
    return crc32(b"%x" % place, crc32(changes))


def _crc_of_run(run_id: bytes, state: bytes, live: int, ended_at_unix_ns: int | None) -> int:
    ended = -1 if ended_at_unix_ns is None else ended_at_unix_ns
    return crc32(run_id, crc32(b"%x %x %x" % (len(run_id), live, ended), crc32(state)))


def _crc_of_closed(run_id: bytes) -> int:
    return crc32(run_id)


def _crc_of_number(slug: bytes, number: int) -> int:
    return crc32(b"%x" % number, crc32(slug))


def _crc_of_durations(tenant: bytes, name: bytes, step_name: bytes, took: bytes, last_unix_ns: int) -> int:
    lengths = b"%x %x %x " % (len(tenant), len(name), last_unix_ns)
    return crc32(b"".join((lengths, tenant, name, step_name)), crc32(took))


def _crc_of_meta(key: bytes, value: bytes) -> int:
    return crc32(value, crc32(b"%x " % len(key) + key))
