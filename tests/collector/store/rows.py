"""Batches for the tests of stores: small, numbered, and telling what is in them."""

from __future__ import annotations

from collections.abc import Iterable

from otelprogress_collector.store.interface import Batch, Duration, JournalRow, RunRow

ALL = 1 << 62
"""More than any size, any time, any offset."""


def row(offset: int, *, size: int = 20, time_unix_ns: int | None = None, **fields) -> JournalRow:
    encoded = f'{{"offset":{offset}}}'.encode()
    return JournalRow(
        offset=offset,
        run_id=fields.pop("run_id", f"run-{offset % 7}"),
        revision=offset,
        time_unix_ns=offset * 1_000 if time_unix_ns is None else time_unix_ns,
        encoded=encoded.ljust(size, b" "),
        facts=b"\x92\xc0\xc3" + b"%d" % offset,
        **fields,
    )


def rows(first: int, last: int, **how) -> list[JournalRow]:
    return [row(offset, **how) for offset in range(first, last + 1)]


def run(run_id: str, state: bytes = b"state", *, ended_at_unix_ns: int | None = None) -> RunRow:
    return RunRow(
        run_id=run_id, state=state, live=ended_at_unix_ns is None, ended_at_unix_ns=ended_at_unix_ns
    )


def took(
    duration_s: float,
    ended_at_unix_ns: int = 0,
    *,
    tenant: str = "",
    name: str = "load",
    step_name: str = "",
    outcome: str = "succeeded",
) -> Duration:
    return Duration(
        tenant=tenant,
        name=name,
        step_name=step_name,
        duration_s=duration_s,
        outcome=outcome,
        ended_at_unix_ns=ended_at_unix_ns,
    )


def append_each(store, journal: Iterable[JournalRow]) -> None:
    """Each row in a batch of its own."""
    for one in journal:
        store.append(Batch(journal=[one]))


def offsets(journal: Iterable[JournalRow]) -> list[int]:
    return [one.offset for one in journal]
