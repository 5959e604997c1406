"""The in-process host: everything that happens to an event once the application has let go of it.

An application's thread appends to a bounded queue and at most rings a bell. Whoever drains - the feed's thread,
or the sampler's where there is no feed - reduces the events into the hub and tells the listeners.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from otelprogress.exceptions import InvalidRecord, UnknownOperation
from otelprogress.feed.clock import Clock, SystemClock
from otelprogress.model import semconv
from otelprogress.model.events import Event, OperationView

if TYPE_CHECKING:
    from otelprogress.model.tree import Applied
    from otelprogress.protocol.hub import Hub
    from otelprogress.protocol.messages import Filter

_LOG = logging.getLogger("otelprogress.feed")
_COMPLAIN_EVERY_S: Final = 60.0
_PASS_EVENTS: Final = 1_024
"""Events reduced under the lock at once: readers and sessions wait no longer than that takes."""
_TICK_SHARE: Final = 0.5
"""Conflated events may fill this share of the queue: they are the first to go, the next one heals them."""

_RESERVE_SHARE: Final = 0.25
_RESERVED_FOR: Final = frozenset({semconv.OPERATION_STARTED, semconv.OPERATION_ENDED})
"""Room kept beyond the bound, so that a flood of notes cannot cost an operation its beginning or its outcome."""

_EVERYTHING_SHARE: Final = 0.7
"""Of the time of a last drain; the rest of it is for beginnings and outcomes."""
_ORDER_WAIT_NS: Final = 6_000_000_000
"""No event waits longer for those before it (`TreeLimits`): after a last drain they do not come any more."""

Listener = Callable[[Sequence["Applied"]], None]


class HostStats(msgspec.Struct):
    """What a host had to refuse or survive, since its start."""

    dropped_durable: int = 0
    """Durable events refused because `max_pending` were waiting."""
    dropped_ticks: int = 0
    """Conflated events refused because the queue was filling up."""
    invalid: int = 0
    """Events that the model refused: their writer's mistake."""
    failures: int = 0
    """Errors of our own while reducing an event: a bug here."""
    listener_failures: int = 0
    """Errors raised by listeners."""
    wake_failures: int = 0
    """Errors raised by the wake function."""

    def report(self) -> str:
        """What is not 0, in one line, for `doctor`; empty: nothing was refused, nothing failed."""
        counts = {
            "events dropped": self.dropped_durable,
            "ticks dropped": self.dropped_ticks,
            "events refused as invalid": self.invalid,
            "errors of otelprogress": self.failures + self.listener_failures + self.wake_failures,
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


class Host:
    """One hub, its queue of incoming events and its listeners.

    Args:
        hub: state, log and positions. Only this host may publish to it.
        clock: `None` reads this machine's.
        inline: drain within `submit`, on the submitting thread (the pytest plugin). No wake, no thread needed.
        max_pending: events that may wait to be drained. Over it durable events are dropped and counted;
            conflated ones are dropped at half of it; a quarter more is kept for starts and ends.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        clock: Clock | None = None,
        inline: bool = False,
        max_pending: int = 65_536,
    ) -> None:
        self.hub = hub
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.stats = HostStats()
        self._inline = inline
        self._max_pending = max_pending
        self._max_pending_for_ticks = max(1, int(max_pending * _TICK_SHARE))
        self._max_pending_for_lives = max_pending + int(max_pending * _RESERVE_SHARE)
        self._listeners: tuple[Listener, ...] = ()
        self._wake: Callable[[], None] | None = None
        self._complained_at_s = -_COMPLAIN_EVERY_S
        self._complained_of = 0
        self._start_clean()

    def _start_clean(self) -> None:
        self.lock = threading.RLock()
        """Held around every touch of `hub`, also by whoever reads it from elsewhere (the server's sessions)."""
        self._delivery = threading.RLock()
        self._delivering = False
        self._inbox: deque[Event] = deque()
        self._rung = False
        self._closed = False
        self._leaving_at_s = math.inf
        """Until when the drains of all threads have to be over, because the process leaves."""

    def submit(self, event: Event) -> None:
        """Take over one event. Any thread; never blocks, never raises."""
        inbox = self._inbox
        if len(inbox) >= self._max_pending_for_ticks:
            if not event.durable:
                self.stats.dropped_ticks += 1
                return
            if len(inbox) >= self._max_pending and (
                event.kind not in _RESERVED_FOR or len(inbox) >= self._max_pending_for_lives
            ):
                self.stats.dropped_durable += 1
                return
        if self._closed:
            return
        inbox.append(event)
        if self._inline:
            self.drain()
        elif not self._rung:
            # Set before ringing, cleared before draining: an append after the clearing rings again.
            self._rung = True
            self._ring()

    def drain(self, timeout_s: float | None = None) -> int:
        """Reduce what is waiting, let due time pass in the hub, tell the listeners; how many were applied.

        `timeout_s` ends it early, after 1,024 events at least; `None`: it ends when nothing waits.

        Any thread; a second one waits for the first. A call out of a listener does nothing: the outer one goes on.
        What other threads keep submitting meanwhile is left for the next drain, so that this one ends; `pending`
        tells.
        """
        with self._delivery:
            if self._delivering:
                return 0
            self._delivering = True
            try:
                count = 0
                # A margin, so that what listeners answer is applied at once.
                left = len(self._inbox) + _PASS_EVENTS
                until_s = math.inf if timeout_s is None else self.clock.monotonic_s() + timeout_s
                while True:
                    taken, applied = self._reduce()
                    if applied:
                        count += len(applied)
                        self._tell(applied)
                    left -= taken
                    if not self._inbox or left <= 0:
                        break
                    if self.clock.monotonic_s() >= min(until_s, self._leaving_at_s):
                        break
            finally:
                self._delivering = False
        self._complain()
        return count

    def _reduce(self) -> tuple[int, list[Applied]]:
        """One batch: events that were waiting, and what time has caused since; how many were taken, and applied."""
        self._rung = False
        applied: list[Applied] = []
        inbox = self._inbox
        hub = self.hub
        with self.lock:
            now_unix_ns = self.clock.time_unix_ns()
            taken = min(len(inbox), _PASS_EVENTS)
            for _ in range(taken):
                try:
                    event = inbox.popleft()
                except IndexError:  # a fork or a close emptied it meanwhile
                    break
                try:
                    applied += hub.publish(event, now_unix_ns)
                except InvalidRecord as refused:
                    self.stats.invalid += 1
                    _LOG.debug("event refused: %s", refused)
                except Exception:
                    self.stats.failures += 1
                    _LOG.debug("event lost to an error of otelprogress", exc_info=True)
            try:
                due = hub.next_deadline_unix_ns()
                if due is not None and due <= now_unix_ns:
                    applied += hub.advance(now_unix_ns)
            except Exception:
                self.stats.failures += 1
                _LOG.debug("the passing of time failed in the hub", exc_info=True)
        return taken, applied

    def _tell(self, applied: Sequence[Applied]) -> None:
        for listener in self._listeners:
            try:
                listener(applied)
            except Exception:
                self.stats.listener_failures += 1
                _LOG.debug("a listener failed: %r", listener, exc_info=True)

    def _ring(self) -> None:
        wake = self._wake
        if wake is None:
            return
        try:
            wake()
        except Exception:
            self.stats.wake_failures += 1
            self._rung = False  # nobody heard it: the next event rings again

    def _complain(self, *, leaving: bool = False) -> None:
        """Say what was dropped, on the draining thread: once a minute at most, unless it is the last chance."""
        dropped = self.stats.dropped_durable
        if dropped == self._complained_of:
            return
        now_s = self.clock.monotonic_s()
        if now_s - self._complained_at_s < _COMPLAIN_EVERY_S and not leaving:
            return
        _LOG.warning(
            "otelprogress dropped %d events: %s",
            dropped - self._complained_of,
            "the process leaves faster than they could be taken in"
            if self._closed or self._leaving_at_s < math.inf
            else f"more than {self._max_pending} were waiting for the feed",
        )
        self._complained_at_s, self._complained_of = now_s, dropped

    @property
    def pending(self) -> int:
        """How many events wait to be drained."""
        return len(self._inbox)

    def add_listener(self, listener: Listener) -> None:
        """Tell `listener` every batch that was applied, in order, on the draining thread.

        It must be quick; what it raises is counted and goes no further. It may call `submit` and the readers.
        """
        with self._delivery:
            self._listeners = (*self._listeners, listener)

    def remove_listener(self, listener: Listener) -> None:
        """Stop telling `listener`; nothing happens if it was not listening."""
        with self._delivery:
            self._listeners = tuple(each for each in self._listeners if each != listener)

    def set_wake(self, wake: Callable[[], None] | None) -> None:
        """Call `wake` when there is something to drain: once until the next drain. `None`: nobody is woken.

        It runs on application threads: it must neither block nor take a lock that a drain holds.
        """
        self._wake = wake
        if self._inbox:
            self._ring()

    def next_deadline_unix_ns(self) -> int | None:
        """When `drain` should run though nothing was submitted; `None`: no such moment."""
        with self.lock:
            return self.hub.next_deadline_unix_ns()

    def view(self, run_id: str, *, steps: bool = True) -> OperationView:
        """One run as it stands, with its steps.

        Raises:
            UnknownOperation: no such run here; `resolve` turns handles and labels into run ids.
        """
        self.drain()
        with self.lock:
            view = self.hub.view(run_id, self.clock.time_unix_ns(), steps=steps)
        if view is None:
            raise UnknownOperation(f"no operation {run_id!r} in this process")
        return view

    def views(
        self, *, live: bool | None = None, roots: bool = False, steps: bool = False
    ) -> list[OperationView]:
        """Every run that is kept, in the order of their starts.

        Args:
            live: `True` only those without an outcome, `False` only those with one, `None` both.
            roots: only those without a parent operation here.
            steps: fill in `OperationView.steps`.
        """
        self.drain()
        with self.lock:
            tree = self.hub.tree
            now_unix_ns = self.clock.time_unix_ns()
            run_ids = list(tree.roots() if roots else tree.run_ids())
            found = [self.hub.view(run_id, now_unix_ns, steps=steps) for run_id in run_ids]
        views = [view for view in found if view is not None and live in (None, view.live)]
        views.sort(key=lambda view: view.started_at_unix_ns)
        return views

    def query(self, wanted: Filter, *, limit: int = 1_000) -> list[OperationView]:
        """The runs that match a feed filter, as a subscription's snapshot would hold them."""
        self.drain()
        with self.lock:
            return self.hub.query(wanted, self.clock.time_unix_ns(), limit)

    def resolve(self, text: str) -> str:
        """The run id behind a handle, id, label or unique prefix.

        Raises:
            UnknownOperation: nothing matches.
            AmbiguousOperation: several match; its `candidates` are their handles.
        """
        self.drain()
        with self.lock:
            return self.hub.tree.resolve(text)

    def drain_to_leave(self, timeout_s: float) -> None:
        """Drain what is waiting while listeners still hear it, before a process leaves.

        Where that takes longer than `timeout_s` seconds the last share of them belongs to starts and ends: an
        operation that ended well must not be left behind as one that runs. The rest is dropped, counted and said.
        """
        began_s = self.clock.monotonic_s()
        self._leaving_at_s = began_s + timeout_s * _EVERYTHING_SHARE
        self._drain_until_leaving()
        if self._inbox:
            self._keep_lives()
            self._leaving_at_s = began_s + timeout_s
            self._drain_until_leaving()
        self._end_waits()
        self._complain(leaving=True)
        self._leaving_at_s = math.inf

    def _drain_until_leaving(self) -> None:
        while self._inbox:
            self.drain()  # 1,024 events at least, also where no time is left
            if self.clock.monotonic_s() >= self._leaving_at_s:
                break

    def _keep_lives(self) -> None:
        with self._delivery:
            waiting = [self._inbox.popleft() for _ in range(len(self._inbox))]
            kept = [event for event in waiting if event.kind in _RESERVED_FOR]
            self._inbox.extendleft(reversed(kept))
            self.stats.dropped_durable += sum(event.durable for event in waiting) - len(kept)
            self.stats.dropped_ticks += sum(not event.durable for event in waiting)

    def _end_waits(self) -> None:
        """Apply what waits for events that were dropped: an outcome above all."""
        with self._delivery:
            with self.lock:
                until_unix_ns = self.clock.time_unix_ns() + _ORDER_WAIT_NS
                due_unix_ns = self.hub.next_deadline_unix_ns()
                if due_unix_ns is None or due_unix_ns > until_unix_ns:
                    return
                applied = self.hub.advance(until_unix_ns)
            self._tell(applied)

    def close(self, timeout_s: float | None = None) -> None:
        """Drain what is waiting and take nothing more. Readers go on working.

        What is not drained within `timeout_s` seconds is dropped and counted; `None`: everything is drained.
        """
        self._closed = True
        until_s = math.inf if timeout_s is None else self.clock.monotonic_s() + timeout_s
        while True:
            self.drain(None if timeout_s is None else until_s - self.clock.monotonic_s())
            if not self._inbox:
                return
            if self.clock.monotonic_s() >= until_s:
                break
        with self._delivery:
            self.stats.dropped_durable += len(self._inbox)
            self._inbox.clear()
        self._complain(leaving=True)

    def reset_after_fork(self) -> None:
        """Make this copy usable in a forked child: new locks, nothing waiting, nobody woken or told.

        The parent's runs stay readable in the hub; a child that reports on its own needs a hub of its own.
        """
        self._start_clean()
        self._listeners = ()
        self._wake = None
        self.stats = HostStats()
        self._complained_of = 0
