"""Counts for work without a loop: ask a function of the user's, in a thread of its own, while a step is open."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from otelprogress import active
from otelprogress.exceptions import InvalidValue
from otelprogress.step import as_count

if TYPE_CHECKING:
    from otelprogress.step import Step

MIN_EVERY_S: Final = 0.05
MAX_EVERY_S: Final = 86_400.0


class Poll:
    """One function that is asked until its step closes.

    Args:
        step: where the answers count.
        fn: gives an absolute count.
        every_s: seconds between two answers.
        where: `poll()` was called there: `file:line`.
    """

    def __init__(self, step: Step, fn: Callable[[], float], every_s: float, *, where: str) -> None:
        self._step = step
        self._where = where
        self._fn = fn
        self._every_s = every_s
        self._needs_open = step.open
        self._last: float = 0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Ask in a daemon thread that sees the caller's context. A thread each: `fn` may block for long."""
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run,), name="otelprogress-poll", daemon=True).start()

    def finish(self, *, ask: bool) -> None:
        """Ask no more.

        Args:
            ask: once more, now, on this thread.
        """
        if ask and (count := self._answer()) is not None:
            self._count(count)
        self._stopped.set()

    def _run(self) -> None:
        while not self._over():
            self.ask()
            self._stopped.wait(self._every_s)

    def _over(self) -> bool:
        step = self._step
        return self._stopped.is_set() or step.operation.ended or (self._needs_open and not step.open)

    def ask(self) -> None:
        """Ask once. What `fn` raises, and an answer that is no count, is counted as misuse."""
        count = self._answer()
        if count is not None and not self._over():
            self._count(count)

    def _answer(self) -> float | None:
        try:
            answer = self._fn()
            count = as_count(answer)
            if count is None:
                raise InvalidValue(f"it answered {answer!r}, which is no count")
        except Exception as error:
            _complain(f"{self._name()} given to poll() failed: {type(error).__name__}: {error}", self._where)
            return None
        return count

    def _name(self) -> str:
        name = getattr(self._fn, "__qualname__", None)
        return f"{name}()" if isinstance(name, str) else "the function"

    def _count(self, count: float) -> None:
        self._step.advance_by_difference(count - self._last)
        self._last = count


def _complain(message: str, where: str) -> None:
    ins = active.current
    if ins is not None and ins.strict and ins.sampler is not None:
        # Nobody would catch it in the polling thread.
        active.count_misuse(message, where=where)
        return
    active.misuse(message, where=where)


def start_polling(step: Step, fn: Callable[[], float], every_s: float) -> None:
    """Poll for `step`; see `Step.poll`. Where no thread may run, `fn` is asked now and when the step closes."""
    ins = active.instrumentation()
    if ins is None or step.operation.ended or ins.submit is active.ignore:
        return
    seconds = as_count(every_s)
    if seconds is None or seconds < MIN_EVERY_S:
        active.misuse(f"poll(every_s={every_s!r}): a number of seconds, at least {MIN_EVERY_S}", InvalidValue)
        seconds = MIN_EVERY_S if seconds is not None else 1.0
    poll = Poll(step, fn, min(seconds, MAX_EVERY_S), where=active.call_site())
    step.operation._polls.append(poll)
    if ins.sampler is None:
        poll.ask()
    else:
        poll.start()
