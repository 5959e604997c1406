"""One thread that looks: it turns moved counters into ticks, ten times a second, only while something is live.

Loops and `advance()` move numbers and tell nobody. This thread reads them. It is also where finalizers hand over
what they must not do themselves, and where the chores of the process run (`add_chore`): draining a host that has no
feed, the terminal's frames, the writer's sign of life.
"""

from __future__ import annotations

import _thread
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otelprogress.active import Instrumentation

PERIOD_S: Final = 0.1
FIRST_LOOK_S: Final = 0.005
"""How long after waking the first look comes; the next ones follow at twice the distance each, up to `PERIOD_S`."""
LINGER_S: Final = 1.0
"""How long it goes on looking after the last operation ended, so that short ones do not wake it each time."""
MAX_SHARE: Final = 0.05
"""Of one core: with very many live operations it looks less often rather than cost more."""
MAX_DEFERRED: Final = 10_000

Job = Callable[[], object]
Chore = Callable[[], object]
"""Answers `True` when it wants to be run again soon though nothing is live."""
_logger = logging.getLogger("otelprogress")


class Sampler:
    """The process's one sampling thread. A daemon, started by the first operation.

    Args:
        period_s: seconds between two looks while something is live.
    """

    def __init__(self, *, period_s: float = PERIOD_S) -> None:
        self.period_s = period_s
        self.errors = 0
        """What raised inside; logged at debug level, never passed on."""
        self._instrumentation: Instrumentation | None = None
        self._chores: tuple[Chore, ...] = ()
        self._deferred: deque[Job] = deque()
        # A bare lock as a bell: ringing is one atomic C call, so a finalizer may ring it wherever it interrupts.
        self._bell = _thread.allocate_lock()
        self._bell.acquire()
        self._parked = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._refused = False
        self._starting = threading.Lock()

    def bind(self, instrumentation: Instrumentation) -> None:
        """Whose live operations to look at."""
        self._instrumentation = instrumentation

    def add_chore(self, chore: Chore) -> None:
        """Run `chore` after each look, also in the linger and whenever the bell rings. It must not block."""
        self._chores = (*self._chores, chore)

    def operation_began(self) -> None:
        """Make sure that somebody looks. Any thread; cheap while the thread is awake."""
        if self._thread is None:
            self._start()
        elif self._parked:
            self.ring()

    def ring(self) -> None:
        """Look now. Any thread, also from a finalizer; never blocks."""
        try:
            self._bell.release()
        except RuntimeError:  # it rings already
            return

    def defer(self, job: Job) -> None:
        """Run `job` soon on the sampling thread: for finalizers, which may interrupt any lock's holder."""
        if len(self._deferred) < MAX_DEFERRED:
            self._deferred.append(job)
        else:
            self.errors += 1
        self.ring()

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None or self._closed:
                return
            thread = threading.Thread(target=self._run, name="otelprogress-sampler", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # No thread is left, or the interpreter is leaving. The next operation tries again.
                if not self._refused:
                    _logger.warning("otelprogress: nothing is shown until a thread can be started: %s", error)
                self._refused = True
                return
            self._thread = thread

    def ensure_started(self) -> None:
        """Start the thread though nothing is live yet (a host without a feed needs somebody to drain it)."""
        if self._thread is None:
            self._start()

    def _run(self) -> None:
        pause_s = FIRST_LOOK_S
        idle_since = time.monotonic()
        while True:
            if self._parked:
                self._bell.acquire()
                self._parked = False
                pause_s = FIRST_LOOK_S
                idle_since = time.monotonic()
            else:
                self._bell.acquire(timeout=pause_s)
            if self._closed:
                return
            started = time.monotonic()
            busy = self.look()
            ended = time.monotonic()
            if busy:
                idle_since = ended
            elif ended - idle_since > LINGER_S:
                # Parked before the last look, so that an operation that begins in between rings.
                self._parked = True
                if self._busy():
                    self._parked = False
            pause_s = max(min(2 * pause_s, self.period_s), (ended - started) / MAX_SHARE)

    def _busy(self) -> bool:
        ins = self._instrumentation
        return bool(self._deferred) or (ins is not None and bool(ins.live))

    def look(self) -> bool:
        """Look once: deferred jobs, every live operation, every chore. Returns whether anything is live."""
        while self._deferred:
            self._guard(self._deferred.popleft())
        ins = self._instrumentation
        busy = ins is not None and bool(ins.live)
        if ins is not None and busy:
            now_unix_ns = time.time_ns()
            for operation in list(ins.live.values()):
                try:
                    if (tick := operation.tick(now_unix_ns)) is not None:
                        ins.submit(tick)
                except Exception as error:
                    self._failed(error)
        for chore in self._chores:
            busy = self._guard(chore) is True or busy
        return busy

    def _guard(self, job: Job) -> object:
        try:
            return job()
        except Exception as error:
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        _logger.debug("otelprogress: the sampler survived an error of its own", exc_info=error)

    def close(self, timeout_s: float = 1.0) -> None:
        """Stop the thread, then look once more on this one. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.ring()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        self.look()

    def reset_after_fork(self) -> None:
        """In a forked child: no thread, nothing deferred, a bell of its own; starts again with the next operation."""
        self._thread = None
        self._deferred.clear()
        self._chores = ()
        self._bell = _thread.allocate_lock()
        self._bell.acquire()
        self._starting = threading.Lock()
        self._parked = False
        self._closed = False
