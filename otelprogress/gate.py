"""Where a command meets the code: cancel, pause and own signals, honoured between two items or at a checkpoint.

A loop with controls still runs no Python between its items. Its selectors come in chunks of `repeat(True, n)`; a
command drains the chunk that is in use from the commanding thread, so that the loop asks for the next one, in Python,
before its very next item, however large the chunk was.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from otelprogress.exceptions import OperationCancelled

if TYPE_CHECKING:
    import asyncio

NEVER: Final = float("inf")
"""The time of `time.monotonic` until which something counts that has no deadline."""
CHUNK_ITEMS: Final = 65_536
"""Items between two looks of an undisturbed loop; draining as many takes 0.3 ms."""

OPPOSITES: Final = {"pause": "resume", "resume": "pause"}
"""What takes back what, as far as no code has come by yet."""

OnChange = Callable[[str], None]
"""Told what was applied: `cancel`, `pause` (the code stands still), `resume` (it goes on) or `signal` (handlers are to
run now); and that the time of a command was over before the code came by: `cancel_expired`, `pause_expired`."""


class Passer(Protocol):
    """An operation whose code comes by a gate: its own, or one of those around it."""

    def was_told(self, gate: Gate) -> bool:
        """Whether this thread or task was told of the cancel that stands: what it does now is to clean up."""

    def is_told(self, gate: Gate) -> None:
        """It is about to be told."""

    def stands_at(self, gate: Gate) -> None:
        """It stands still, paused."""

    def leaves(self, gate: Gate) -> None:
        """It goes on."""


class Gate:
    """Cancel and pause of one operation; a child without controls obeys the gates of its ancestors.

    Args:
        on_change: called in the instrumented code's thread when a command took effect.
        parent: the gate of the nearest ancestor that has one.
    """

    __slots__ = (
        "__weakref__",
        "_cancel_until_s",
        "_condition",
        "_loops",
        "_obeyed",
        "_on_change",
        "_pause_until_s",
        "_standing",
        "_waiters",
        "_wakers",
        "cancelled",
        "cancels",
        "parent",
        "paused",
        "reason",
        "signalled",
    )

    def __init__(self, on_change: OnChange, parent: Gate | None = None) -> None:
        self.parent = parent
        self.cancelled = False
        self.paused = False
        self.signalled = False
        self.reason = ""
        self._cancel_until_s = self._pause_until_s = NEVER
        self.cancels = 0
        """How often it was cancelled: who was told of one cancel is told of the next again."""
        self._obeyed = False
        """A cancel was raised: it holds for good."""
        self._standing = 0
        """Threads and tasks that stand still here: a pause that was obeyed does not expire."""
        self._wakers: set[Callable[[], object]] = set()
        self._on_change = on_change
        self._condition = threading.Condition()
        self._loops: weakref.WeakSet[Chunks] = weakref.WeakSet()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    # --- the commanding side, any thread ---------------------------------------------------------------------

    def cancel(self, reason: str = "", until_s: float = NEVER) -> None:
        """Let the next item or checkpoint raise `OperationCancelled`. Idempotent; the first reason stays.

        Args:
            reason: goes into the exception.
            until_s: by `time.monotonic`: code that comes by later goes on.
        """
        with self._condition:
            if not self.cancelled:
                self.reason = reason
                self.cancelled, self._cancel_until_s = True, until_s
            self.cancels += 1
            self._cancel_until_s = max(self._cancel_until_s, until_s)
            self._disturb()

    def pause(self, until_s: float = NEVER) -> None:
        """Let the next item or checkpoint stand still until `resume()` or `cancel()`.

        Args:
            until_s: by `time.monotonic`: code that comes by later goes on.
        """
        with self._condition:
            self._pause_until_s = max(self._pause_until_s, until_s) if self.paused else until_s
            self.paused = True
            self._disturb()

    def signal(self) -> None:
        """Let the next item or checkpoint run what `on_change("signal")` runs; nothing stands still for it."""
        with self._condition:
            self.signalled = True
            self._disturb()

    def resume(self) -> None:
        """Let paused code go on; nothing happens where nothing is paused."""
        with self._condition:
            self.paused = False
            self._disturb()

    def _disturb(self) -> None:
        self._condition.notify_all()
        for chunks in list(self._loops):
            chunks.drain()
        for wake in tuple(self._wakers):
            wake()
        waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            try:
                loop.call_soon_threadsafe(_settle, future)
            except RuntimeError:  # that loop was closed: nobody waits any more
                continue

    def reset_after_fork(self) -> None:
        """In a forked child: new locks, and a pause is over: nobody is there who could end it. Ancestors' too."""
        if self.parent is not None:
            self.parent.reset_after_fork()
        self._condition = threading.Condition()
        self._waiters = []
        self._wakers = set()
        self.paused = self.signalled = False
        self._standing = 0
        for chunks in list(self._loops):
            chunks.reset_after_fork()

    # --- the obeying side --------------------------------------------------------------------------------------

    def closed_by(self) -> Gate | None:
        """The gate, of this one and its ancestors, that stands in the way. `None`: go on.

        One that was cancelled comes first, then one with signals to handle, then one that is paused.
        """
        first_paused: Gate | None = None
        first_signalled: Gate | None = None
        for gate in self._chain():
            if gate.cancelled and not gate._cancel_expired():
                return gate
            if gate.signalled and first_signalled is None:
                first_signalled = gate
            if gate.paused and first_paused is None and not gate._pause_expired():
                first_paused = gate
        return first_signalled or first_paused

    def _cancel_expired(self) -> bool:
        with self._condition:  # against a new one that comes at this very moment
            if self._obeyed or (self.cancelled and time.monotonic() < self._cancel_until_s):
                return False
            expired, self.cancelled = self.cancelled, False
        if expired:
            self._on_change("cancel_expired")
        return True

    def _pause_expired(self) -> bool:
        with self._condition:
            if self._standing or (self.paused and time.monotonic() < self._pause_until_s):
                return False
            expired, self.paused = self.paused, False
        if expired:
            self._on_change("pause_expired")
        return True

    def check(self, passer: Passer | None = None) -> None:
        """Honour what was commanded: handle signals, stand still while paused, raise when cancelled.

        On the thread of a running event loop a pause is not honoured (it would stop the whole loop): only
        `acheck()` does that there.

        Args:
            passer: whose code it is; it is told of a cancel once in each thread and task, so that what it does
                afterwards to clean up is left alone. `None`: it is told each time.

        Raises:
            OperationCancelled: it was cancelled.
        """
        while (gate := self.closed_by()) is not None:
            if gate.cancelled:
                if gate._was_told(passer):
                    return
                gate._raise_cancelled()
            if gate.check_signals():
                continue
            if on_event_loop():
                return
            with gate._stood(passer):
                while self.closed_by() is gate and gate._holds():
                    with gate._condition:
                        if gate._holds():
                            # Bounded where another gate's cancel, which does not ring this bell, has to be seen too.
                            gate._condition.wait(None if gate is self and self.parent is None else 0.05)

    async def acheck(self, passer: Passer | None = None) -> None:
        """`check()` for coroutines: the loop goes on while this one stands still.

        Args:
            passer: as `check()`.

        Raises:
            OperationCancelled: it was cancelled.
        """
        import asyncio

        loop = asyncio.get_running_loop()
        while (gate := self.closed_by()) is not None:
            if gate.cancelled:
                if gate._was_told(passer):
                    return
                gate._raise_cancelled()
            if gate.check_signals():
                continue
            with gate._stood(passer):
                while self.closed_by() is gate and gate._holds():
                    future: asyncio.Future[None] = loop.create_future()
                    waiter = loop, future
                    for each in self._chain():
                        with each._condition:
                            each._waiters.append(waiter)
                    try:
                        # Asked again now that every change will settle the future.
                        if self.closed_by() is gate and gate._holds():
                            await future
                    finally:
                        # One gate rang, or the task was cancelled: the others shall not keep it.
                        for each in self._chain():
                            with each._condition, contextlib.suppress(ValueError):
                                each._waiters.remove(waiter)

    def _holds(self) -> bool:
        return self.paused and not self.cancelled and not self.signalled

    @property
    def stands(self) -> bool:
        """Whether a thread or a task stands still here."""
        return self._standing > 0

    def check_signals(self) -> bool:
        """Run the handlers of signals that came for this gate, if any did; returns whether any did."""
        with self._condition:
            signalled, self.signalled = self.signalled, False
        if signalled:
            self._on_change("signal")
        return signalled

    @contextlib.contextmanager
    def _stood(self, passer: Passer | None) -> Iterator[None]:
        """Somebody stands still here, and goes on once the pause is over."""
        with self._condition:
            self._standing += 1
        try:
            self._on_change("pause")
            if passer is not None:
                passer.stands_at(self)
            yield
        finally:
            with self._condition:
                self._standing -= 1
            if not self.paused:
                self._on_change("resume")
            if passer is not None:
                passer.leaves(self)

    def _was_told(self, passer: Passer | None) -> bool:
        if passer is None:
            return False
        if passer.was_told(self):
            return True
        passer.is_told(self)
        return False

    def _raise_cancelled(self) -> NoReturn:
        self._obeyed = True
        self._on_change("cancel")
        raise OperationCancelled(self.reason)

    def _chain(self) -> Iterator[Gate]:
        gate: Gate | None = self
        while gate is not None:
            yield gate
            gate = gate.parent

    def add_waker(self, wake: Callable[[], object]) -> None:
        """Call `wake`, on the commanding thread, whenever this gate or an ancestor's has something to say."""
        for gate in self._chain():
            with gate._condition:
                gate._wakers.add(wake)

    def remove_waker(self, wake: Callable[[], object]) -> None:
        """End `add_waker`."""
        for gate in self._chain():
            with gate._condition:
                gate._wakers.discard(wake)

    def watch(self, chunks: Chunks) -> None:
        """Drain `chunks` whenever this gate or an ancestor's has something to say."""
        for gate in self._chain():
            with gate._condition:
                gate._loops.add(chunks)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def on_event_loop() -> bool:
    """Whether this thread runs an event loop just now. asyncio is asked only where somebody has loaded it."""
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except (RuntimeError, AttributeError):  # the latter while asyncio is just being imported
        return False
    return True


class Chunks:
    """The selectors of one gated loop, for `compress(iterable, chain.from_iterable(chunks))`.

    `count()` is exact from any thread: what was handed out, never what a command drained. `handed_out()` knows besides
    that code which stands at the gate has worked off its last item.
    """

    __slots__ = ("__weakref__", "_before", "_done", "_gate", "_left", "_lock", "_passer")

    def __init__(self, gate: Gate, passer: Passer | None = None) -> None:
        self._gate = gate
        self._passer = passer
        self._lock = threading.RLock()
        self._done = 0
        """Items handed out of chunks before this one, and less what was drained of this one."""
        self._before = 0
        """Items worked off when the code last stood at the gate."""
        self._left: itertools.repeat[bool] = itertools.repeat(True, 0)
        gate.watch(self)

    def __iter__(self) -> Iterator[Iterator[bool]]:
        while True:
            # The new chunk is visible before the gate is asked: a command that comes between finds it and drains it.
            with self._lock:
                self._left = itertools.repeat(True, CHUNK_ITEMS)
                self._done += CHUNK_ITEMS
            if self._gate.closed_by() is not None:
                with self._lock:  # not counted while it stands still
                    self.drain()
                    self._before = self.count()
                self._gate.check(self._passer)
                if self._gate.closed_by() is not None:
                    # Paused on an event loop, or cleaning up after a cancel: go on, look at each item.
                    with self._lock:
                        self._left = itertools.repeat(True, 1)
                        self._done += 1
                else:
                    continue
            yield self._left

    def drain(self) -> None:
        """Take away what is left of the chunk in use, so that the loop asks again. Any thread."""
        with self._lock:
            # One C call, so no item can be handed out half way: what the list holds was not handed out.
            self._done -= len(list(self._left))

    def reset_after_fork(self) -> None:
        """In a forked child: a thread that counted here may have held the lock."""
        self._lock = threading.RLock()

    def count(self) -> int:
        """Items handed out so far."""
        with self._lock:
            return self._done - operator.length_hint(self._left)

    def handed_out(self) -> int:
        """Items handed out, as `loops.Loop` has it: one more than are worked off for certain.

        While the code stands at the gate that is one more than `count()`: there is none in the loop's body.
        """
        with self._lock:
            return max(self.count(), self._before + 1 if self._before else 0)
