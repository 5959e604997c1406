"""The collector's host: one hub, one store, and the cycle that makes what is accepted durable before it is answered.

Everything runs on one event loop. A cycle takes the requests that wait, reduces their events into the hub, hands
the new log entries and the states of the runs behind them to the store in one batch, and only then answers the
requests and lets readers look: between the two nobody sees the hub, so nothing is shown that a crash could take
back. While a commit is under way on the store's thread, the next requests gather: that is the group commit.

When the store refuses (a full disk), the batch is kept and tried again, and every request is refused meanwhile.
Readers go on. What they may then see before it is durable was answered to nobody; should the process die before the
disk has room again, their cursors are ahead of the log, which is a gap that is said (`docs/guarantees.md`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import msgspec

from otelprogress.exceptions import InvalidRecord
from otelprogress.feed.clock import Clock, SystemClock
from otelprogress.model.events import Event
from otelprogress_collector.recording import Recorder
from otelprogress_collector.store.interface import Batch, Store, StoreUnavailable

if TYPE_CHECKING:
    from otelprogress.model.tree import Applied
    from otelprogress.protocol.hub import Hub

_LOG: Final = logging.getLogger("otelprogress_collector.host")
_CYCLE_EVENTS: Final = 1_024
"""Events reduced in one cycle: readers and answers wait no longer than that takes."""
_SLICE_EVENTS: Final = 128
"""Events reduced before the loop gets a turn."""
_RETRY_STORE_S: Final = 1.0
_RETRY_AFTER_S: Final = 1.0
_MAX_SLEEP_S: Final = 3600.0


class Overloaded(Exception):
    """More waits than may wait: try again in a moment. Nothing was taken."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds, at most 5."""


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """What became of the events of one request."""

    rejected: int = 0
    """Events that the model refused: their writer's mistake."""
    reason: str = ""
    """Why the first of them was refused."""


class HostStats(msgspec.Struct, gc=False):
    """What was counted since the start."""

    requests: int = 0
    events: int = 0
    invalid: int = 0
    """Events that the model refused."""
    failures: int = 0
    """Errors of our own while reducing an event or telling a listener: bugs."""
    overloaded: int = 0
    """Requests refused because too much waited."""
    refused: int = 0
    """Requests refused because the store could not take them."""
    cycles: int = 0
    commits: int = 0
    commit_failures: int = 0


class _Request:
    __slots__ = ("answer", "events", "size_bytes")

    def __init__(self, events: Sequence[Event], size_bytes: int, answer: asyncio.Future[Accepted]) -> None:
        self.events = events
        self.size_bytes = size_bytes
        self.answer = answer


class CollectorHost:
    """See the module.

    Args:
        hub: over the tree and the ring that the store gave (`recording.open_hub`).
        store: open.
        recorder: makes the batches of the store from what the hub did.
        clock: `None` reads this machine's.
        max_pending_bytes: of requests that wait; over it a request is refused with `Overloaded`.
    """

    def __init__(
        self,
        hub: Hub,
        store: Store,
        recorder: Recorder,
        *,
        clock: Clock | None = None,
        max_pending_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self.hub = hub
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.stats = HostStats()
        self._store = store
        self._recorder = recorder
        self._max_pending_bytes = max_pending_bytes
        self._pending: deque[_Request] = deque()
        self._pending_bytes = 0
        self._own: deque[Event] = deque()
        self._marks: list[asyncio.Future[Accepted]] = []
        self._work = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()
        self._unwritten: Batch | None = None
        self._on_change: list[Callable[[], None]] = []
        self._on_applied: list[Callable[[Sequence[Applied]], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="otelprogress-store")
        self._closing = False
        self.failed = asyncio.Event()
        """Set once a bug has ended it: the process should leave, and be started again from what is written."""

    # --- what receivers and the monitor call ------------------------------------------------------------------

    async def accept(self, events: Sequence[Event], size_bytes: int) -> Accepted:
        """Take the events of one request; returns once they are durable.

        Args:
            events: in order; none: answered at once.
            size_bytes: of the request, for the bound of what may wait.

        Raises:
            Overloaded: too much waits; nothing was taken.
            StoreUnavailable: the store cannot take anything now; the sender should come again.
        """
        if not events:
            return Accepted()
        if self._unwritten is not None or self._closing:
            self.stats.refused += 1
            raise StoreUnavailable(
                "the collector is leaving" if self._closing else "the store is not writable"
            )
        if self._pending and self._pending_bytes + size_bytes > self._max_pending_bytes:
            self.stats.overloaded += 1
            raise Overloaded(f"more than {self._max_pending_bytes} bytes wait to be stored", _RETRY_AFTER_S)
        request = _Request(events, size_bytes, asyncio.get_running_loop().create_future())
        self._pending.append(request)
        self._pending_bytes += size_bytes
        self._work.set()
        return await request.answer

    def submit(self, event: Event) -> None:
        """Take one event of the collector's own (a verdict); it goes with the next cycle. Never raises."""
        self._own.append(event)
        self._work.set()

    async def mark_closed(self, run_ids: Sequence[str]) -> None:
        """Remember that the spans of these runs were closed; returns once that is durable.

        Raises:
            StoreUnavailable: it cannot be remembered now.
        """
        if not self.writable:
            raise StoreUnavailable("the store is not writable")
        marked: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._recorder.closed.extend(run_ids)
        self._marks.append(marked)
        self._work.set()
        await marked

    @property
    def writable(self) -> bool:
        """Whether requests are taken; `False` while the store refuses, and at the end."""
        return self._unwritten is None and not self._closing

    @property
    def pending_bytes(self) -> int:
        """How many bytes of requests wait for their commit."""
        return self._pending_bytes

    # --- what readers call --------------------------------------------------------------------------------------

    async def readable(self) -> None:
        """Wait until readers may look at the hub. What follows without an `await` sees durable state only."""
        while not self._open.is_set():
            await self._open.wait()

    def is_readable(self) -> bool:
        """Whether readers may look right now."""
        return self._open.is_set()

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after each cycle that changed something; returns what ends that."""
        return _joined(self._on_change, listener)

    def on_applied(self, listener: Callable[[Sequence[Applied]], None]) -> Callable[[], None]:
        """Tell `listener` what each cycle applied, in order, once it is durable; returns what ends that."""
        return _joined(self._on_applied, listener)

    # --- the cycle ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to take requests, on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="otelprogress-host")
        self._task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """A bug ended the cycles: what is in memory and what is written may differ, so nothing more is taken."""
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        self.stats.failures += 1
        self._closing = True
        _LOG.critical(
            "the host failed, which is a bug of the collector; it has to be started again", exc_info=error
        )
        self._open.set()
        self._refuse_waiting()
        self.failed.set()

    async def close(self) -> None:
        """Answer what waits, write what was not written yet, take nothing more. The store stays open."""
        self._closing = True
        self._work.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def _run(self) -> None:
        while True:
            await self._wait()
            self._work.clear()
            await self._cycle()
            if self._closing and not (self._pending or self._own or self._marks):
                await self._cycle(last=True)
                return
            # Where requests never cease the next cycle would close the door before anybody who waits for it had a turn.
            await asyncio.sleep(0)

    async def _wait(self) -> None:
        """Until there is work, the hub's time has come, or the store is to be tried again."""
        if self._pending or self._own or self._marks:
            return
        due_s = _MAX_SLEEP_S
        if self._unwritten is not None:
            due_s = _RETRY_STORE_S
        else:
            now_unix_ns = self.clock.time_unix_ns()
            deadlines = (self.hub.next_deadline_unix_ns(), self._recorder.next_deadline_unix_ns())
            first = min((each for each in deadlines if each is not None), default=None)
            if first is not None:
                due_s = min(max(0.0, (first - now_unix_ns) / 1e9), _MAX_SLEEP_S)
        try:
            async with asyncio.timeout(due_s):
                await self._work.wait()
        except TimeoutError:
            return

    async def _cycle(self, *, last: bool = False) -> None:
        if self._unwritten is not None and not await self._write_again():
            self._refuse_waiting()
            return
        self.stats.cycles += 1
        self._open.clear()
        answers: list[tuple[asyncio.Future[Accepted], Accepted]] = []
        try:
            now_unix_ns = self.clock.time_unix_ns()
            before = self.hub.head, self.hub.changes
            self._recorder.begin(now_unix_ns)
            marks, self._marks = self._marks, []
            answers += [(marked, Accepted()) for marked in marks]
            applied = await self._reduce(now_unix_ns, answers)
            batch = self._recorder.batch(self.hub, applied, now_unix_ns, everything=last)
            if batch is not None:
                try:
                    await self._append(batch)
                except StoreUnavailable as refused:
                    self._unwritten = batch
                    self.stats.commit_failures += 1
                    _LOG.error(
                        "the store refuses, nothing is accepted until it takes this again: %s", refused
                    )
                    for future, _ in answers:
                        self._refuse(future, refused)
                    answers = []
        except BaseException:
            for future, _ in answers:
                self._refuse(future, StoreUnavailable("the collector failed"))
            raise
        finally:
            self._open.set()
        for future, accepted in answers:
            if not future.done():
                future.set_result(accepted)
        if applied:
            self._tell(applied)
        if (self.hub.head, self.hub.changes) != before:
            self._wake_readers()

    async def _reduce(
        self, now_unix_ns: int, answers: list[tuple[asyncio.Future[Accepted], Accepted]]
    ) -> list[Applied]:
        applied: list[Applied] = []
        hub = self.hub
        taken = since_turn = 0
        while self._own:
            self._publish(self._own.popleft(), now_unix_ns, applied)
        while self._pending and taken < _CYCLE_EVENTS:
            request = self._pending.popleft()
            self._pending_bytes -= request.size_bytes
            taken += len(request.events)
            self.stats.requests += 1
            rejected, reason = 0, ""
            for event in request.events:
                problem = self._publish(event, now_unix_ns, applied)
                if problem is not None:
                    rejected += 1
                    reason = reason or problem
                since_turn += 1
                if since_turn >= _SLICE_EVENTS:
                    since_turn = 0
                    await asyncio.sleep(0)
            answers.append((request.answer, Accepted(rejected, reason)))
        if self._pending:
            self._work.set()
        due = hub.next_deadline_unix_ns()
        if due is not None and due <= now_unix_ns:
            applied += hub.advance(now_unix_ns)
        return applied

    def _publish(self, event: Event, now_unix_ns: int, applied: list[Applied]) -> str | None:
        """Reduce one event; why it was refused, `None`: it was not."""
        self.stats.events += 1
        try:
            applied += self.hub.publish(event, now_unix_ns)
        except InvalidRecord as refused:
            self.stats.invalid += 1
            return str(refused)
        except Exception:
            self.stats.failures += 1
            _LOG.exception("an event was lost to a bug of the collector: %s of %s", event.kind, event.run_id)
            return "the collector failed on it"
        return None

    async def _append(self, batch: Batch) -> None:
        self.stats.commits += 1
        if self._store.durability == "memory":
            self._store.append(batch)
        else:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.append, batch)

    async def _write_again(self) -> bool:
        batch = self._unwritten
        assert batch is not None
        try:
            await self._append(batch)
        except StoreUnavailable:
            self.stats.commit_failures += 1
            return False
        self._unwritten = None
        _LOG.warning("the store takes again what it is given")
        return True

    def _refuse_waiting(self) -> None:
        refusal = StoreUnavailable("the store is not writable")
        for marked in self._marks:
            self._refuse(marked, refusal)
        self._marks.clear()
        while self._pending:
            self._refuse(self._pending.popleft().answer, refusal)
        self._pending_bytes = 0

    def _refuse(self, answer: asyncio.Future[Accepted], refusal: StoreUnavailable) -> None:
        self.stats.refused += 1
        if not answer.done():
            answer.set_exception(refusal)

    def _tell(self, applied: Sequence[Applied]) -> None:
        for listener in tuple(self._on_applied):
            try:
                listener(applied)
            except Exception:
                self.stats.failures += 1
                _LOG.exception("a listener failed: this is a bug of the collector")

    def _wake_readers(self) -> None:
        for wake in tuple(self._on_change):
            try:
                wake()
            except Exception:
                self.stats.failures += 1
                _LOG.exception("a reader could not be woken: this is a bug of the collector")


def _joined(listeners: list[Any], listener: Any) -> Callable[[], None]:
    listeners.append(listener)

    def leave() -> None:
        if listener in listeners:
            listeners.remove(listener)

    return leave
