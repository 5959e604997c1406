"""The spool on disk: what waits in it outlives its process, and the next one of the same application delivers it.

Writers append to a bounded queue in memory. A thread that may wait, the sender's or while that one waits for an answer
the spool's own, encodes what is there and writes it before anything of it is sent. Where the disk takes nothing the
queue goes on as a spool in memory does, and says so.
"""

from __future__ import annotations

import logging
import threading
import time
from queue import SimpleQueue
from typing import Any, Final

from otelprogress.otel.spool import MAX_BATCH, MAX_REQUEST_BYTES, Encode, MemorySpool
from otelprogress.otel.spool_folder import SpoolFolder
from otelprogress.otel.spool_segment import SUFFIX, Segment

_LOG = logging.getLogger("otelprogress.otel.spool")

MAX_BYTES: Final = 64 * 1024 * 1024
"""Of all files of one process; over it the oldest go."""
_SEGMENTS: Final = 16
"""A full spool is about so many files: that share goes at once when there is no room."""
_MIN_SEGMENT_BYTES: Final = 4_096
_TRUNCATE_OVER_BYTES: Final = 64 * 1024
"""A file that holds only what is dealt with begins anew once it is this long."""
_KEEP_UP_AFTER_S: Final = 0.05
"""The spool's own thread writes what the sender's has not written by then: it waits for an answer."""
_DISK_PAUSE_S: Final = 1.0
"""How long a disk that takes nothing is left alone."""
_LAST_WRITE_S: Final = 0.5
"""How long an exit waits for the last write."""


class DiskSpool:
    """See `spool.Spool`.

    Its requests are made of whole records, one behind the other: that is what OTLP messages allow, being protobuf with
    nothing but repeated fields.

    Args:
        folder: where this process's files stand.
        encode: makes the records. Called under the spool's lock, on threads that may wait.
        limit: entries that wait in memory for the disk.
        max_bytes: of all files.
    """

    def __init__(
        self, folder: SpoolFolder, encode: Encode, *, limit: int, max_bytes: int = MAX_BYTES
    ) -> None:
        self.failure = ""
        self.place = str(folder.root)
        self._folder = folder
        self._queue = MemorySpool(limit, encode)
        self._max_bytes = max_bytes
        self._segment_bytes = max(_MIN_SEGMENT_BYTES, max_bytes // _SEGMENTS)
        self._lock = threading.Lock()
        self._segments: list[Segment] = []
        """Oldest first; the last one is written to once `_own` is set."""
        self._own = False
        self._last_number = 0
        self._adopted = False
        self._body: bytes | None = None
        self._tried: list[tuple[Segment, int, int]] = []
        """The records of the request that is being tried: file, offset, entries."""
        self._tries_queue = False
        """Whether the request that is being tried never was on the disk."""
        self._disk_not_before_s = 0.0
        self._warned_of = ""
        self._dropped = 0
        self._closed = False
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._rung = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    @property
    def dropped(self) -> int:
        """See `Spool.dropped`."""
        return self._dropped + self._queue.dropped

    def __len__(self) -> int:
        # Along the way that entries take, without the lock: what moves on meanwhile is counted twice, and never not.
        count = len(self._queue)
        count += sum(segment.waiting for segment in tuple(self._segments))
        return count + sum(entries for _, _, entries in tuple(self._tried))

    # --- any thread ---------------------------------------------------------------------------------------

    def put(self, entry: Any) -> None:
        """See `Spool.put`."""
        self._queue.put(entry)
        if not self._rung and not self._closed:
            self._rung = True
            self._bell.put(None)
            if self._thread is None:
                self._start_thread()

    def _start_thread(self) -> None:
        if not self._starting.acquire(blocking=False):
            return  # somebody is just doing it
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._keep_up, name="otelprogress-spool", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError:  # no thread left: the sender's does all the writing
            self._rung = False
        finally:
            self._starting.release()

    # --- threads that may wait ----------------------------------------------------------------------------

    def _keep_up(self) -> None:
        while not self._closed:
            self._bell.get()
            if not self._closed:
                time.sleep(_KEEP_UP_AFTER_S)
            self._rung = False
            self.tend(time.monotonic())
        self._close()

    def tend(self, now_s: float) -> None:
        """Write what waits in memory, and at the first call take over what dead processes left."""
        with self._lock:
            if now_s < self._disk_not_before_s:
                return
            self.failure = ""
            try:
                self._adopt()
                self._write_queue()
                self._warned_of = ""
            except OSError as error:
                self._disk_not_before_s = now_s + _DISK_PAUSE_S
                self.failure = f"the spool in {self.place}: {error.strerror or type(error).__name__}"
                if self._warned_of != self.failure:
                    self._warned_of = self.failure
                    _LOG.warning("otelprogress: %s: events wait in memory", self.failure)

    def next_body(self) -> bytes | None:
        """See `Spool.next_body`; the disk's records are older than what waits in memory."""
        with self._lock:
            if self._closed:
                return None
            if self._body is None:
                self._body = self._read()
                if self._body is None:
                    self._body = self._queue.next_body()
                    self._tries_queue = self._body is not None
            return self._body

    def settle(self) -> int:
        """See `Spool.settle`."""
        with self._lock:
            tried, self._tried, self._body = self._tried, [], None
            if self._tries_queue:
                self._tries_queue = False
                return self._queue.settle()
            for segment, offset, _ in tried:
                if segment in self._segments:  # it may have been dropped meanwhile
                    try:
                        segment.mark_done(offset)
                    except OSError as error:  # a later process will send it again
                        self.failure = f"the spool in {self.place}: {error.strerror}"
            self._clear_up()
            return sum(count for _, _, count in tried)

    def abandon(self) -> int:
        """See `Spool.abandon`: what is on the disk is kept there; what the disk did not take in time is lost."""
        if self._closed:
            return 0
        self._closed = True
        self._bell.put(None)
        if self._thread is not None:
            self._thread.join(_LAST_WRITE_S)
        else:  # nothing was put, or no thread could be had
            self.tend(time.monotonic())
            self._close()
        return self._queue.abandon()

    def _close(self) -> None:
        with self._lock:
            self._clear_up(everything=True)
            for segment in self._segments:
                segment.close()
            self._folder.release()

    # --- under the lock -----------------------------------------------------------------------------------

    def _adopt(self) -> None:
        if self._adopted:
            return
        found = self._folder.adopt()
        self._adopted = True
        for path in found:
            try:
                segment = Segment.reopen(path)
            except OSError as error:
                _LOG.warning("otelprogress: %s cannot be read: %s", path, error)
                continue
            if segment is None:
                continue
            if segment.torn:
                _LOG.warning("otelprogress: the end of %s cannot be read", path)
            if segment.waiting:
                self._segments.append(segment)
            else:
                segment.delete()
        if count := sum(segment.waiting for segment in self._segments):
            _LOG.info("otelprogress: %d events of an earlier process wait in %s", count, self.place)

    def _write_queue(self) -> None:
        while (made := self._queue.pop()) is not None:
            if made.body is None:
                self.failure = made.failure
                self._queue.let_go()
                continue
            try:
                self._append(made.body, made.entries)
                self._queue.let_go()
            except OSError:
                self._queue.give_back(made)
                raise

    def _append(self, body: bytes, count: int) -> None:
        if not self._own or self._segments[-1].size + len(body) > self._segment_bytes:
            self._folder.make()
            number = self._last_number = max(self._last_number + 1, time.time_ns())
            self._segments.append(Segment.create(self._folder.path / f"{number:020d}{SUFFIX}"))
            self._own = True
        while (
            len(self._segments) > 1
            and sum(each.size for each in self._segments) + len(body) > self._max_bytes
        ):
            oldest = self._segments.pop(0)
            self._dropped += oldest.waiting
            oldest.delete()
        self._segments[-1].append(body, count)

    def _read(self) -> bytes | None:
        parts: list[bytes] = []
        count = size = 0
        for segment in self._segments:
            while (record := segment.peek()) is not None:
                count += record.entries
                size += record.length
                if parts and (count > MAX_BATCH or size > MAX_REQUEST_BYTES):
                    return b"".join(parts)
                self._tried.append((segment, record.offset, record.entries))
                body = segment.take(record)
                if body is None:
                    self._tried.pop()
                    self._dropped += record.entries
                    self.failure = f"the spool in {self.place}: a record is damaged"
                else:
                    parts.append(body)
        return b"".join(parts) or None

    def _clear_up(self, *, everything: bool = False) -> None:
        """Let go of files that hold nothing more."""
        busy = {id(segment) for segment, _, _ in self._tried}
        for segment in list(self._segments):
            if segment.waiting or id(segment) in busy:
                continue
            if everything or not (self._own and segment is self._segments[-1]):
                self._segments.remove(segment)
                segment.delete()
                self._own = self._own and bool(self._segments)
            elif segment.size > _TRUNCATE_OVER_BYTES:
                segment.empty()
