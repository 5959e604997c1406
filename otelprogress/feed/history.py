"""What ran here, after it ended: a local SQLite history of this user's operations.

It listens to a host. Listening only notes what changed; a thread of its own writes it: a run when it starts, every
five seconds while it moves, a second after a step at the latest, and when it ends. The application and the feed never wait for the disk, except for
the number in a handle (`next_number`), which is taken in blocks and waits 0.1 s at most.

Kept for 30 days are names, counts, durations, outcomes, the last message and the pid; neither attributes nor results
nor what somebody answered to a prompt. A history that cannot be written (read-only or full disk, a broken file)
switches itself off with one line in the log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, Self, TypeVar

import msgspec

from otelprogress.exceptions import AmbiguousOperation, ProgressError, UnknownOperation
from otelprogress.feed.clock import Clock, SystemClock
from otelprogress.feed.history_store import HistoryStore, LiveRun, Process, RunRow, UsualDurations, is_busy
from otelprogress.feed.process_identity import GONE, is_gone, process_identity
from otelprogress.feed.runtime_folder import ensure_private_folder
from otelprogress.model.events import FeedEvent, OperationView, State, StepView
from otelprogress.model.redaction import redacted
from otelprogress.model.semconv import MAX_MESSAGE_CHARS

FILE_NAME: Final = "history.sqlite3"
RETENTION_S: Final = 30 * 86_400
WRITE_EVERY_S: Final = 5.0
BUSY_TIMEOUT_S: Final = 0.1
MAX_PENDING: Final = 65_536
"""Changed runs waiting for the disk; what comes beyond is dropped and counted."""
_LINGER_S: Final = 0.1
"""Between two writes: starts and ends that come in a burst share a transaction."""
_FORGET_EVERY_S: Final = 6 * 3600.0
_MAX_BLOCK: Final = 4096
_AT_ONCE: Final = frozenset({"operation.started", "operation.ended"})
_SOON: Final = frozenset({"step.started", "step.ended", "operation.state_changed"})
_SOON_S: Final = 1.0
"""What a process that is killed can have done unseen by its history, where it has steps."""
_NOT_RECORDED: Final = frozenset({"writer.alive", "left"})

_LOG = logging.getLogger("otelprogress.history")
_Answer = TypeVar("_Answer")


class Recorded(Protocol):
    """What a host tells its listeners (`model.tree.Applied`), as far as the history looks at it."""

    @property
    def event(self) -> FeedEvent:
        """The run after the event."""


class _Block:
    """Numbers of one slug that this process has reserved. Not shared between threads."""

    __slots__ = ("last_reserved", "last_used", "size")

    def __init__(self) -> None:
        self.last_used = self.last_reserved = 0
        self.size = 0


def history_path(environ: Mapping[str, str] = os.environ) -> Path:
    """`$OTELPROGRESS_RUNTIME_DIR/history.sqlite3` if that is set, else below `$XDG_STATE_HOME` (`~/.local/state`)."""
    if folder := environ.get("OTELPROGRESS_RUNTIME_DIR"):
        return Path(folder) / FILE_NAME
    state = environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "otelprogress" / FILE_NAME


class History:
    """Records what a host tells it, and answers what is recorded. Safe to use from several threads and processes.

    Recording never raises; see `off_because`. In a forked child everything is a no-op: the child makes its own.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        clock: Clock | None = None,
        write_every_s: float = WRITE_EVERY_S,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        """Nothing is opened or written before the first use.

        Args:
            path: the file; `None`: `history_path()`.
            clock: for retention and the times of verdicts; `None`: this machine's.
            write_every_s: how often a run that moves is written.
            busy_timeout_s: how long to wait for another process's lock before trying again later.
        """
        self.path = path or history_path()
        self.off_because: str | None = None
        """Why nothing is recorded any more; `None`: it is."""
        self.dropped = 0
        """Changed runs that were never written, because the disk was too slow."""
        self._clock = clock or SystemClock()
        self._write_every_s = write_every_s
        self._busy_timeout_s = busy_timeout_s
        self._pid = os.getpid()
        self._host = Process(self._pid, process_identity(self._pid) or "")
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._runs: dict[str, OperationView] = {}
        self._steps: dict[tuple[str, int], StepView] = {}
        self._urgent = False
        self._due_s = 0.0
        self._closing = False
        self._thread: threading.Thread | None = None
        self._writers: dict[int, Process] = {}
        self._forget_at_s = 0.0
        # Two connections: whoever asks for a number must not wait until a batch is on the disk.
        self._batch_store: HistoryStore | None = None
        self._front_store: HistoryStore | None = None
        self._front_lock = threading.Lock()
        self._blocks: dict[str, _Block] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- recording -----------------------------------------------------------------------------------------

    def __call__(self, applied: Sequence[Recorded]) -> None:
        """Note what changed; a listener of `Host`. Never blocks on the disk."""
        if self.off_because is not None or os.getpid() != self._pid:
            return
        urgent = soon = False
        with self._changed:
            if self._closing:
                return
            was_idle = not self._runs
            for one in applied:
                event = one.event
                if event.kind in _NOT_RECORDED:
                    continue
                view = event.operation
                if view.id not in self._runs and len(self._runs) >= MAX_PENDING:
                    self.dropped += 1
                    continue
                self._runs[view.id] = view
                if event.step is not None and len(self._steps) < MAX_PENDING:
                    self._steps[view.id, event.step.index] = event.step
                urgent = urgent or event.kind in _AT_ONCE
                soon = soon or event.kind in _SOON
            if not self._runs:
                return
            now_s = time.monotonic()
            due_s = now_s + (min(_SOON_S, self._write_every_s) if soon else self._write_every_s)
            is_earlier = was_idle or due_s < self._due_s
            if is_earlier:
                self._due_s = due_s
            self._urgent = self._urgent or urgent
            if is_earlier or urgent:
                self._changed.notify()
        if self._thread is None:
            self._start()

    def next_number(self, slug: str) -> int:
        """The number of the next handle for that slug, from 1; not given to any other process of this user.

        Numbers are reserved in blocks that start with one and double, so that a name that is used once a day counts
        1, 2, 3 and a name used a thousand times a second does not wait for the disk. When the file cannot be used,
        counting goes on in memory.
        """
        with self._front_lock if os.getpid() == self._pid else contextlib.nullcontext():
            block = self._blocks.get(slug)
            if block is None:
                block = self._blocks[slug] = _Block()
            if (
                block.last_used >= block.last_reserved
                and self.off_because is None
                and os.getpid() == self._pid
            ):
                size = min(_MAX_BLOCK, max(1, 2 * block.size))
                first = self._front(lambda store: store.reserve_numbers(slug, size))
                if first is not None:
                    block.last_used, block.last_reserved, block.size = first - 1, first + size - 1, size
            block.last_used += 1
            return block.last_used

    def flush(self) -> None:
        """Write what is pending now, on the calling thread. For tests and for programs that are about to `exec`."""
        if os.getpid() == self._pid:
            self._write_pending()

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is pending and give the file up; waits `timeout_s` at most. A second call does nothing."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        if self._thread is None or not self._thread.is_alive():
            self._finish()
        else:
            self._thread.join(timeout_s)

    # --- asking --------------------------------------------------------------------------------------------

    def operations(
        self,
        limit: int = 100,
        *,
        live: bool | None = None,
        name: str | None = None,
        roots: bool = False,
        before_unix_ns: int | None = None,
    ) -> list[OperationView]:
        """Recorded runs, without their step lists, the latest start first.

        Args:
            limit: how many at most.
            live: only those without (`True`) or with an outcome (`False`).
            name: a glob of `*` and `?` over the operation's name.
            roots: only those without a parent.
            before_unix_ns: only those that started earlier, for the next page.

        Returns:
            Views as of the last write; empty also when there is no history, or none that can be read.
        """
        return (
            self._ask(
                lambda store: store.views(
                    limit=limit,
                    live=live,
                    name=name,
                    roots=roots,
                    before_unix_ns=before_unix_ns,
                ),
            )
            or []
        )

    def get(self, text: str) -> OperationView:
        """The run with that id, handle, label or unique prefix, with its steps.

        A label means its live run, or the one that started last when none is live.

        Raises:
            UnknownOperation: nothing recorded matches.
            AmbiguousOperation: several runs match; `candidates` has their handles (at most 20).
        """
        candidates = self._ask(lambda store: store.candidates(text)) or []
        if len(candidates) > 1:
            handles = [handle for _, handle in candidates]
            raise AmbiguousOperation(
                f"{text!r} can be {', '.join(handles)}: give more of it, or the id", handles
            )
        view = self._ask(lambda store: store.view(candidates[0][0])) if candidates else None
        if view is None:
            raise UnknownOperation(
                f"no operation {text!r} is in the history; `otelprogress list` shows what is"
            )
        return view

    def outcomes(self, run_ids: Sequence[str]) -> dict[str, OperationView]:
        """Those of these runs that ended as their writer says, with their steps, by id: succeeded, failed, cancelled."""

        def ended(store: HistoryStore) -> dict[str, OperationView]:
            views = (store.view(run_id) for run_id in store.ended_by_writer(run_ids))
            return {view.id: view for view in views if view is not None}

        return self._ask(ended) or {}

    def baseline(self, name: str) -> UsualDurations | None:
        """Usual durations of operations of that name and of their steps; `None`: none succeeded yet."""
        return self._ask(lambda store: store.baseline(name))

    def mark_lost(
        self,
        run_id: str,
        detector: str,
        cause: str | None = None,
        evidence_unix_ns: int | None = None,
    ) -> OperationView | None:
        """Record that a run was lost.

        Args:
            run_id: which.
            detector: who says so: `pid`, `link`, …
            cause: why, where known: `SIGKILL`, `exit 1`.
            evidence_unix_ns: when it was last heard; `None`: when it was last written.

        Returns:
            The run as lost; `None`: it is not known, or had an outcome already.
        """

        def end(store: HistoryStore) -> OperationView | None:
            view = store.view(run_id)
            if view is None or not view.live:
                return None
            evidence = max(
                evidence_unix_ns or view.updated_at_unix_ns or view.as_of_unix_ns, view.started_at_unix_ns
            )
            lost = msgspec.structs.replace(
                view,
                state=State.LOST,
                revision=view.revision + 1,
                as_of_unix_ns=self._clock.time_unix_ns(),
                ended_at_unix_ns=evidence,
                eta=None,
                rate=None,
                stalled=False,
                stalled_since_unix_ns=None,
                lost_detector=detector,
                lost_cause=cause,
                lost_evidence_unix_ns=evidence,
            )
            # The step list has rows of its own.
            return lost if store.end(msgspec.structs.replace(lost, steps=(), steps_folded=0)) else None

        return self._ask(end)

    def lose_orphans(self) -> list[OperationView]:
        """Record as lost every run whose host is gone, and its writer too where that was another process.

        A host that runs gives its own verdicts; this is for readers, when none is left.
        """
        lost = []
        for run in self._ask(HistoryStore.live_runs) or []:
            if _is_orphan(run):
                view = self.mark_lost(run.id, "pid", f"process {(run.writer or run.host).pid} is gone")
                if view is not None:
                    lost.append(view)
        return lost

    # --- inside --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="otelprogress-history", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is going down, or has no thread left: close() writes
            self._thread = None

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._urgent and not self._closing:
                    if not self._runs:
                        self._changed.wait()
                    elif (remaining_s := self._due_s - time.monotonic()) > 0:
                        self._changed.wait(remaining_s)
                    else:
                        break
                if self._closing:
                    break
            self._write_pending()
            with self._changed:
                self._changed.wait_for(lambda: self._closing, _LINGER_S)
        self._finish()

    def _write_pending(self) -> None:
        with self._writing:
            self._write_batch()

    def _write_batch(self) -> None:
        with self._changed:
            runs, self._runs = self._runs, {}
            steps, self._steps = self._steps, {}
            self._urgent = False
            self._due_s = time.monotonic() + self._write_every_s
        if not runs or self.off_because is not None:
            return
        try:
            if self._batch_store is None:
                self._batch_store = self._open()
            self._batch_store.write(
                [RunRow(_without_private_parts(view), self._writer(view)) for view in runs.values()],
                [(run_id, step) for (run_id, _), step in steps.items()],
                self._host,
            )
            if self._clock.monotonic_s() >= self._forget_at_s:
                self._forget_at_s = self._clock.monotonic_s() + _FORGET_EVERY_S
                self._batch_store.forget(self._clock.time_unix_ns() - int(RETENTION_S * 1e9))
        except sqlite3.Error as error:
            if is_busy(error):
                with self._changed:  # what came meanwhile is newer
                    self._runs = {**runs, **self._runs}
                    self._steps = {**steps, **self._steps}
            else:
                self._switch_off(error)
        except Exception as error:
            self._switch_off(error)

    def _finish(self) -> None:
        self._write_pending()
        unused = [
            (slug, block.last_used, block.last_reserved)
            for slug, block in self._blocks.items()
            if block.last_used < block.last_reserved
        ]
        with self._front_lock:
            if unused and self.off_because is None:
                self._front(lambda store: store.return_numbers(unused))
            for store in (self._front_store, self._batch_store):
                if store is not None:
                    with contextlib.suppress(sqlite3.Error):
                        store.close()
            self._front_store = self._batch_store = None

    def _writer(self, view: OperationView) -> Process | None:
        pid = view.process_id
        if pid is None or pid == self._pid:
            return None
        known = self._writers.get(pid)
        if known is None or is_gone(*known):
            known = self._writers[pid] = Process(pid, process_identity(pid) or GONE)
        return known

    def _open(self) -> HistoryStore:
        ensure_private_folder(self.path.parent)
        return HistoryStore(self.path, busy_timeout_s=self._busy_timeout_s)

    def _ask(self, question: Callable[[HistoryStore], _Answer]) -> _Answer | None:
        """The answer of the file; `None` when there is no file or it cannot be used."""
        if self.off_because is not None or os.getpid() != self._pid:
            return None
        try:
            if not self.path.exists():
                return None
        except OSError as error:  # its folder is closed to us
            self._switch_off(error)
            return None
        with self._front_lock:
            return self._front(question)

    def _front(self, question: Callable[[HistoryStore], _Answer]) -> _Answer | None:
        """Ask over the front connection, whose lock the caller holds."""
        try:
            if self._front_store is None:
                self._front_store = self._open()
            return question(self._front_store)
        except sqlite3.Error as error:
            if not is_busy(error):
                self._switch_off(error)
        except (OSError, ProgressError, msgspec.MsgspecError) as error:
            self._switch_off(error)
        return None

    def _switch_off(self, error: Exception) -> None:
        if self.off_because is None:
            self.off_because = f"{self.path}: {error}"
            _LOG.warning("otelprogress keeps no history: %s", self.off_because)


def _is_orphan(run: LiveRun) -> bool:
    return is_gone(*run.host) and (run.writer is None or is_gone(*run.writer))


def _without_private_parts(view: OperationView) -> OperationView:
    return msgspec.structs.replace(
        view,
        steps=(),
        steps_folded=0,
        attributes={},
        result=None,
        message=redacted(view.message, MAX_MESSAGE_CHARS),
        error_message=redacted(view.error_message, MAX_MESSAGE_CHARS),
        input_id=None,
        input_prompt=None,
        input_schema=None,
        input_default=None,
        input_deadline_unix_ns=None,
    )
