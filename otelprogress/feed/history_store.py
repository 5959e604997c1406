"""The history's SQLite file: schema, rows, queries. No threads and no policy; `feed.history` has those.

One file serves all processes of a user: write-ahead logging lets them read while one writes, and every wait for a
lock ends after `busy_timeout_s`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from otelprogress.model.estimate import Baseline
from otelprogress.model.events import OperationView, StepState, StepView
from otelprogress.model.semconv import MAX_STEPS_IN_SNAPSHOT

SCHEMA_VERSION: Final = 1
MAX_RUNS: Final = 50_000
"""More ended runs than this are forgotten before their time, oldest first."""
MAX_CANDIDATES: Final = 20
CREATE_TIMEOUT_S: Final = 1.0
"""How long processes that make the file at the same moment wait for each other, once."""
BASELINE_RUNS: Final = 20
"""A baseline is taken over at most this many of the last runs that succeeded."""
MIN_RUNS_FOR_QUARTILES: Final = 4

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    handle TEXT NOT NULL,
    label TEXT,
    name TEXT NOT NULL,
    parent_id TEXT,
    state TEXT NOT NULL,
    live INTEGER NOT NULL,
    started_at_unix_ns INTEGER NOT NULL,
    updated_at_unix_ns INTEGER NOT NULL,
    ended_at_unix_ns INTEGER,
    host_pid INTEGER NOT NULL,
    host_identity TEXT NOT NULL,
    writer_pid INTEGER,
    writer_identity TEXT,
    view BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_by_start ON runs (started_at_unix_ns);
CREATE INDEX IF NOT EXISTS runs_by_name ON runs (name, started_at_unix_ns);
CREATE INDEX IF NOT EXISTS runs_by_handle ON runs (handle);
CREATE INDEX IF NOT EXISTS runs_that_live ON runs (live) WHERE live;
CREATE TABLE IF NOT EXISTS steps (
    run_id TEXT NOT NULL,
    step_index INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    duration_s REAL,
    view BLOB NOT NULL,
    PRIMARY KEY (run_id, step_index)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS numbers (slug TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
"""
CHUNK_ROWS: Final = 500
"""Rows in one transaction: others wait no longer than these take."""


def _put(table: str, columns: int) -> str:
    """A statement that puts the rows of one JSON array of arrays."""
    values = ", ".join(f"json_extract(value, '$[{column}]')" for column in range(columns))
    return f"INSERT OR REPLACE INTO {table} SELECT {values} FROM json_each(?)"  # noqa: S608  our own names


_PUT_RUNS: Final = _put("runs", 15)
_PUT_STEPS: Final = _put("steps", 6)
_BY_LABEL: Final = "label = ?1"
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE_VIEW: Final = msgspec.json.Decoder(OperationView).decode
_DECODE_STEP: Final = msgspec.json.Decoder(StepView).decode


class UsualDurations(NamedTuple):
    """How long operations of some name, and their steps, took in the last runs that succeeded."""

    runs: int
    """How many runs that is; never 0."""
    operation: Baseline
    steps: dict[str, Baseline]
    """By step name; only steps that succeeded in some of these runs."""

    def of(self, step_name: str = "") -> Baseline | None:
        """Of a step, or of the whole operation for an empty name; `None`: that step never succeeded."""
        return self.steps.get(step_name) if step_name else self.operation


class Process(NamedTuple):
    """A process that could still say how a run goes on (`feed.process_identity`)."""

    pid: int
    identity: str


class LiveRun(NamedTuple):
    """A run without an outcome, and who would know more: the recording host, and the writer where that is another."""

    id: str
    host: Process
    writer: Process | None


class RunRow(NamedTuple):
    """What is written about a run."""

    view: OperationView
    writer: Process | None


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process held the lock for too long: worth another try, unlike every other error."""
    code: int = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class HistoryStore:
    """One connection, for one thread at a time. Every method may raise `sqlite3.Error`."""

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        """Open the file, and make it with mode 0600 where there is none (SQLite gives its side files the same)."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
        self._connection = sqlite3.connect(
            path,
            timeout=CREATE_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._prepare()
            self._connection.execute(f"PRAGMA busy_timeout = {round(busy_timeout_s * 1000)}")
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise sqlite3.NotSupportedError(f"a newer release wrote it (format {version})")
        # A power failure may cost the last rows; an fsync per row would cost every run.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        if version < SCHEMA_VERSION:
            self._switch_to_wal()
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _switch_to_wal(self) -> None:
        # The one statement that does not wait for the lock: processes that make the file together meet here.
        deadline_s = time.monotonic() + CREATE_TIMEOUT_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > deadline_s:
                    raise
            time.sleep(0.002)

    def close(self) -> None:
        """Give the connection up."""
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE: the lock is waited for here, where nothing was read yet, and not refused half-way.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # --- writing -------------------------------------------------------------------------------------------

    def write(self, runs: Sequence[RunRow], steps: Sequence[tuple[str, StepView]], host: Process) -> None:
        """Put runs and steps, replacing what was known of them; each chunk of them in one transaction.

        A chunk is one statement: `sqlite3` gives the interpreter lock up at each row that it is handed, and next to
        a busy main thread takes 5 ms to have it back.
        """
        for start in range(0, max(len(runs), len(steps)), CHUNK_ROWS):
            end = start + CHUNK_ROWS
            with self._transaction():
                self._connection.execute(
                    _PUT_RUNS, (_rows(_run_values(row, host) for row in runs[start:end]),)
                )
                self._connection.execute(
                    _PUT_STEPS, (_rows(_step_values(run_id, step) for run_id, step in steps[start:end]),)
                )

    def end(self, view: OperationView) -> bool:
        """Give a run its outcome, unless it has one by now. Returns whether it had none."""
        with self._transaction():
            changed = self._connection.execute(
                "UPDATE runs SET state = ?, live = 0, ended_at_unix_ns = ?, view = ? WHERE id = ? AND live",
                (view.state.value, view.ended_at_unix_ns, _ENCODE(view), view.id),
            )
            return changed.rowcount > 0

    def forget(self, before_unix_ns: int) -> int:
        """Delete what was not heard of since then, and the oldest of more than `MAX_RUNS`. Returns how many runs."""
        with self._transaction():
            gone = self._connection.execute(
                "DELETE FROM runs WHERE updated_at_unix_ns < ?", (before_unix_ns,)
            ).rowcount
            gone += self._connection.execute(
                "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE NOT live "
                "ORDER BY started_at_unix_ns DESC LIMIT -1 OFFSET ?)",
                (MAX_RUNS,),
            ).rowcount
            if gone:
                self._connection.execute("DELETE FROM steps WHERE run_id NOT IN (SELECT id FROM runs)")
            return gone

    def reserve_numbers(self, slug: str, count: int) -> int:
        """Take `count` numbers of the slug for this process alone. Returns the first of them; the very first is 1."""
        (last,) = self._connection.execute(
            "INSERT INTO numbers VALUES (?, ?) ON CONFLICT (slug) DO UPDATE SET last = last + excluded.last RETURNING last",
            (slug, count),
        ).fetchone()
        return int(last) - count + 1

    def return_numbers(self, unused: Iterable[tuple[str, int, int]]) -> None:
        """Give back the end of reserved blocks, where nobody reserved after us: (slug, last used, last reserved)."""
        with self._transaction():
            self._connection.executemany(
                "UPDATE numbers SET last = ? WHERE slug = ? AND last = ?",
                ((used, slug, reserved) for slug, used, reserved in unused),
            )

    # --- reading -------------------------------------------------------------------------------------------

    def views(
        self,
        *,
        limit: int,
        live: bool | None = None,
        name: str | None = None,
        roots: bool = False,
        before_unix_ns: int | None = None,
    ) -> list[OperationView]:
        """Runs, the latest start first; `name` is a glob of `*` and `?`."""
        where: list[str] = []
        values: list[Any] = []
        if live is not None:
            where.append("live" if live else "NOT live")
        if name is not None:
            where.append("name GLOB ?")
            values.append(name.replace("[", "[[]"))
        if roots:
            where.append("parent_id IS NULL")
        if before_unix_ns is not None:
            where.append("started_at_unix_ns < ?")
            values.append(before_unix_ns)
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        rows = self._connection.execute(
            f"SELECT view FROM runs {condition} ORDER BY started_at_unix_ns DESC, id LIMIT ?",  # noqa: S608  fixed texts
            (*values, limit),
        )
        return [_DECODE_VIEW(view) for (view,) in rows]

    def view(self, run_id: str) -> OperationView | None:
        """One run with its steps; `None`: not known."""
        row = self._connection.execute("SELECT view FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is None:
            return None
        view = _DECODE_VIEW(row[0])
        steps = {
            index: _DECODE_STEP(step)
            for index, step in self._connection.execute(
                "SELECT step_index, view FROM steps WHERE run_id = ? ORDER BY step_index",
                (run_id,),
            )
        }
        if view.step is not None and view.step.index >= 0:
            written = steps.get(view.step.index)
            if written is None or written.state in {StepState.PENDING, StepState.RUNNING}:
                steps[view.step.index] = view.step
        ordered = tuple(steps[index] for index in sorted(steps))
        return msgspec.structs.replace(
            view,
            steps=ordered[:MAX_STEPS_IN_SNAPSHOT],
            steps_folded=max(0, len(ordered) - MAX_STEPS_IN_SNAPSHOT),
        )

    def ended_by_writer(self, run_ids: Sequence[str]) -> list[str]:
        """Those of these runs whose writer said how they ended: not live, and not lost."""
        rows = self._connection.execute(
            "SELECT id FROM runs WHERE id IN (SELECT value FROM json_each(?)) AND NOT live AND state != 'lost'",
            (_ENCODE(list(run_ids)).decode(),),
        )
        return [run_id for (run_id,) in rows]

    def candidates(self, text: str) -> list[tuple[str, str]]:
        """(id, handle) of what `text` can mean: a whole id or handle, else a label, else a prefix of either.

        A label means its live runs, or the one that started last where none is live.
        """
        for condition in (
            "id = ?1 OR handle = ?1",
            _BY_LABEL,
            "substr(id, 1, ?2) = ?1 OR substr(handle, 1, ?2) = ?1",
        ):
            # The live ones first, so that the limit cannot hide them.
            rows = self._connection.execute(
                f"SELECT id, handle, live FROM runs WHERE {condition} "  # noqa: S608  fixed texts
                "ORDER BY live DESC, started_at_unix_ns DESC LIMIT ?3",
                (text, len(text), MAX_CANDIDATES),
            ).fetchall()
            if rows and condition == _BY_LABEL:
                rows = [row for row in rows if row[2]] or rows[:1]
            if rows:
                return [(run_id, handle) for run_id, handle, _ in rows]
        return []

    def live_runs(self) -> list[LiveRun]:
        """All runs without an outcome."""
        rows = self._connection.execute(
            "SELECT id, host_pid, host_identity, writer_pid, writer_identity FROM runs WHERE live",
        )
        return [
            LiveRun(
                run_id, Process(host_pid, host), Process(writer_pid, writer) if writer is not None else None
            )
            for run_id, host_pid, host, writer_pid, writer in rows
        ]

    def baseline(self, name: str) -> UsualDurations | None:
        """Usual durations of operations of that name; `None`: none succeeded yet."""
        rows = self._connection.execute(
            "SELECT id, ended_at_unix_ns - started_at_unix_ns FROM runs WHERE name = ? AND state = 'succeeded' "
            "AND ended_at_unix_ns IS NOT NULL ORDER BY started_at_unix_ns DESC LIMIT ?",
            (name, BASELINE_RUNS),
        ).fetchall()
        if not rows:
            return None
        marks = ", ".join("?" * len(rows))
        durations: defaultdict[str, list[float]] = defaultdict(list)
        for step, duration_s in self._connection.execute(
            f"SELECT name, duration_s FROM steps WHERE run_id IN ({marks}) "  # noqa: S608  question marks only
            "AND state = 'succeeded' AND duration_s IS NOT NULL",
            [run_id for run_id, _ in rows],
        ):
            durations[step].append(duration_s)
        return UsualDurations(
            runs=len(rows),
            operation=_baseline([max(0, duration_ns) / 1e9 for _, duration_ns in rows]),
            steps={step: _baseline(values) for step, values in durations.items()},
        )


def _baseline(durations_s: list[float]) -> Baseline:
    """Median and quartiles; of fewer than four runs, which have no quartiles worth the name, a quarter around them."""
    median_s, count = statistics.median(durations_s), len(durations_s)
    if count < MIN_RUNS_FOR_QUARTILES:
        return Baseline(median_s, 0.75 * min(durations_s), 1.25 * max(durations_s), count)
    low_s, _, high_s = statistics.quantiles(durations_s, n=4, method="inclusive")
    return Baseline(median_s, low_s, high_s, count)


def _run_values(row: RunRow, host: Process) -> tuple[object, ...]:
    view, writer = row
    return (
        view.id,
        view.handle,
        view.label,
        view.name,
        view.parent_id,
        view.state.value,
        view.live,
        view.started_at_unix_ns,
        view.updated_at_unix_ns or view.as_of_unix_ns,
        view.ended_at_unix_ns,
        host.pid,
        host.identity,
        writer.pid if writer else None,
        writer.identity if writer else None,
        msgspec.Raw(_ENCODE(view)),
    )


def _step_values(run_id: str, step: StepView) -> tuple[object, ...]:
    return (run_id, step.index, step.name, step.state.value, _duration_s(step), msgspec.Raw(_ENCODE(step)))


def _rows(rows: Iterable[tuple[object, ...]]) -> str:
    return _ENCODE(list(rows)).decode()


def _duration_s(step: StepView) -> float | None:
    if step.started_at_unix_ns is None or step.ended_at_unix_ns is None:
        return None
    return max(0, step.ended_at_unix_ns - step.started_at_unix_ns) / 1e9
