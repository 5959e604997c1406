"""A step of an operation, and its counts. Moving a counter is all that instrumented code pays for.

An operation without steps counts on a step of its own without a name (index -1): its *root step*.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar, overload

from opentelemetry import context as otel_context

from otelprogress import active
from otelprogress.exceptions import InvalidValue
from otelprogress.imports import first_use

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from otelprogress.operation import Operation

T = TypeVar("T")
ROOT_INDEX: Final = -1
MAX_COUNTERS: Final = 8
_LARGEST: Final = sys.float_info.max


class Tracked(Protocol):
    """A loop or poll that counts for a step while it is live."""

    @property
    def total(self) -> float | None:
        """Items in all, those done before it began included; `None`: unknown."""

    @property
    def over(self) -> bool:
        """Whether its body was left for good: it counts until it is let go, and no loop stands inside it any more."""

    def handed_out(self) -> float:
        """Items given to the loop's body so far, the one in it included. Any thread; exact."""


class Counts(dict[str, float]):
    """Named counts of a step; a name that was never counted reads as 0."""

    def __missing__(self, name: str) -> float:
        return 0


def in_ucum(unit: str | None) -> str | None:
    """`row` → `{row}`: annotations of UCUM; what is written as UCUM (`{row}`, `By`) stays. Empty: no unit.

    Only words of lower-case letters, digits, `_`, `-` and spaces are taken for annotations, and `s`, `ms`, `1`, `%` are not.
    """
    if not unit:
        return None
    unit = str(unit)
    if unit in _UCUM or "{" in unit or not unit.replace("_", "").replace("-", "").replace(" ", "").isalnum():
        return unit
    return "{" + unit + "}" if unit[0].islower() else unit


_UCUM: Final = frozenset({"s", "ms", "us", "ns", "min", "h", "d", "1", "m", "g", "kg"})


class Step:
    """One step of one operation. Made by `operation.step()`; use it in a `with` statement.

    Attributes:
        name: empty for an operation's root step.
        index: from 0 in the operation's plan; -1 for the root step.
        operation: the operation it belongs to.
    """

    __slots__ = (
        "_completed",
        "_contexts",
        "_counters",
        "_entered",
        "_folded_total",
        "_initial",
        "_lock",
        "_seen",
        "_total",
        "_tracked",
        "_unit",
        "index",
        "name",
        "operation",
        "weight",
    )

    def __init__(self, operation: Operation, name: str, index: int, weight: float = 1.0) -> None:
        self.operation = operation
        self.name = name
        self.index = index
        self.weight = weight
        self._completed: float = 0
        self._total: float | None = None
        self._folded_total: float | None = 0
        """Sum over the loops that ended; `None`: one of them had no known total."""
        self._unit: str | None = None
        self._initial: float | None = None
        self._counters = Counts()
        self._tracked: tuple[tuple[Tracked, object], ...] = ()
        self._entered = 0
        self._contexts: list[tuple[Context, Context]] = []
        self._lock = threading.RLock()  # a finalizer may come in between on the same thread
        self._seen: object = None

    # --- counting ------------------------------------------------------------------------------------------------

    def advance(self, n: float = 1) -> None:
        """Count `n` more items done. Never negative: counts do not go back. Costs about 0.1 µs."""
        # One load, one addition, one store with no call between them: the interpreter does not switch threads inside.
        try:
            if n >= 0:
                self._completed += n
                return
        except Exception:  # noqa: S110 - whatever kind of object it is: the slow way says what is wrong
            pass
        self._refuse_advance(n)

    @active.contained
    def _refuse_advance(self, n: object) -> None:
        active.misuse(f"advance({active.quoted(n)}): give a number that is not negative", InvalidValue)

    @active.contained
    def count(self, /, **counts: float) -> None:
        """Add to named counts: `step.count(rejected=1)`. At most 8 names a step; they stand beside the items."""
        with self._lock:
            for name, said in counts.items():
                n = as_count(said)
                if n is None:
                    problem = f"count({name}={said!r}): give a finite number that is not negative"
                    break
                if name not in self._counters and len(self._counters) >= MAX_COUNTERS:
                    problem = f"count({name}=…): a step has at most {MAX_COUNTERS} named counts"
                    break
                self._counters[name] += n
            else:
                return
        active.misuse(problem, InvalidValue)

    @active.contained
    def set_total(self, total: float | None, *, unit: str | None = None) -> None:
        """Say how many items there are in all; `None`: unknown.

        Args:
            total: finite and not negative.
            unit: `row` means `{row}`; `By` for bytes. `None` leaves it as it is.
        """
        known = as_count(total)
        if total is not None and known is None:
            active.misuse(
                f"set_total({total!r}): give a finite number that is not negative, or None", InvalidValue
            )
            return
        with self._lock:
            self._total = known
            if unit is not None:
                self._unit = in_ucum(unit)

    @active.contained
    def set_completed(self, completed: float, total: float | None = None, *, unit: str | None = None) -> None:
        """Say how many items are done, as an absolute number. Loops tracked by this step count beside it."""
        count = as_count(completed)
        if count is None:
            active.misuse(f"completed={completed!r}: give a finite number that is not negative", InvalidValue)
            return
        self._completed = count
        if total is not None or unit is not None:
            self.set_total(self._total if total is None else total, unit=unit)

    def reset(self) -> None:
        """Forget what was said about the items so far."""
        with self._lock:
            self._completed, self._total, self._folded_total, self._initial = 0, None, 0, None

    def advance_by_difference(self, difference: float) -> None:
        """Move the count by what an absolute answer (a poll's) changed; may go back."""
        with self._lock:
            self._completed += difference

    @active.contained
    def set_initial(self, initial: float) -> None:
        """Say how many items were done before this run: counted as done, left out of the rate. Replaces an earlier one."""
        count = as_count(initial)
        if count is None:
            active.misuse(f"initial={initial!r}: give a finite number that is not negative", InvalidValue)
            return
        with self._lock:
            self._completed += count - (self._initial or 0)
            self._initial = count or None

    @property
    def counts(self) -> Counts:
        """A copy of the named counts. A name never counted reads as 0."""
        with self._lock:
            return Counts(self._counters)

    @property
    def completed(self) -> float:
        """Items done, those of finished loops and those handed out and worked off in live ones."""
        with self._lock:
            return self._sum()

    @property
    def total(self) -> float | None:
        """Items in all; `None`: unknown."""
        with self._lock:
            return self._total_now()

    @property
    def unit(self) -> str | None:
        """In UCUM: `{row}`, `By`."""
        return self._unit

    def _sum(self) -> float:
        done = self._completed
        for tracked, _ in self._tracked:
            handed_out = tracked.handed_out()
            # The item in the loop's body is not done yet.
            done += handed_out - 1 if handed_out >= 1 else handed_out
        return done

    def _total_now(self) -> float | None:
        if self._total is not None:
            return self._total
        total = self._folded_total
        if total is None:
            return None
        for tracked, _ in self._tracked:
            if tracked.total is None:
                return None
            total += tracked.total
        return total or None

    def snapshot(
        self,
    ) -> tuple[float | None, float | None, str | None, float | None, dict[str, float] | None]:
        """Completed, total, unit, initial and a copy of the named counts; `None` where nothing was ever said."""
        with self._lock:
            completed: float | None = self._sum()
            total = self._total_now()
            # advance() takes any number, and looks at its sign only.
            untold = not completed and total is None and not self._tracked
            completed = None if untold else as_count(completed)
            return (
                completed,
                total,
                self._unit,
                self._initial,
                dict(self._counters) if self._counters else None,
            )

    # --- loops -----------------------------------------------------------------------------------------------------

    def take_on(self, tracked: Tracked, *, unit: str | None, initial: float, where: object) -> bool:
        """Let a live loop count here.

        Args:
            tracked: the loop.
            unit: of its items; `None`: the step's.
            initial: items done before it began.
            where: which thread and task it runs in.

        Returns:
            `False` where it stands inside another loop that counts here: that one is the measure, and the sum of
            epochs and batches would mean nothing. Loops in other threads and tasks add up.
        """
        with self._lock:
            for around, there in self._tracked:
                if there == where and not around.over:
                    return False
            self._tracked = (*self._tracked, (tracked, where))
            if unit is not None:
                self._unit = in_ucum(unit)
            if initial:
                self._completed += initial
                self._initial = (self._initial or 0) + initial
            return True

    def let_go(self, tracked: Tracked, *, worked_off: float) -> None:
        """Keep what a loop did once it ended: `worked_off` items, and its total."""
        with self._lock:
            self._tracked = tuple(pair for pair in self._tracked if pair[0] is not tracked)
            self._completed += worked_off
            if tracked.total is None or self._folded_total is None:
                self._folded_total = None
            else:
                self._folded_total += tracked.total

    @overload
    def track(
        self,
        iterable: Iterable[T],
        name: str | None = None,
        *,
        total: float | None = None,
        unit: str | None = None,
        initial: float = 0,
    ) -> Iterator[T]: ...
    @overload
    def track(
        self,
        iterable: AsyncIterable[T],
        name: str | None = None,
        *,
        total: float | None = None,
        unit: str | None = None,
        initial: float = 0,
    ) -> AsyncIterator[T]: ...
    def track(
        self,
        iterable: Iterable[T] | AsyncIterable[T],
        name: str | None = None,
        *,
        total: float | None = None,
        unit: str | None = None,
        initial: float = 0,
    ) -> Iterator[T] | AsyncIterator[T]:
        """Iterate, counting the items as done here; see `otelprogress.track`. A `name` makes a child operation."""
        first_use("otelprogress.track")
        from otelprogress.track import track_under

        return track_under(self, iterable, name, total=total, unit=unit, initial=initial)

    @active.contained
    def poll(
        self,
        fn: Callable[[], float],
        *,
        total: float | None = None,
        unit: str | None = None,
        every_s: float = 1.0,
    ) -> None:
        """Ask `fn` how many items are done, for work without a loop of yours, until this step or its operation ends.

        Args:
            fn: gives an absolute count. Called in a thread of its own; may block; what it raises is counted, and it is
                asked again.
            total: how many there are in all; `None`: unknown.
            unit: `row` means `{row}`.
            every_s: seconds between two answers, at least 0.05.
        """
        first_use("otelprogress.poller")
        from otelprogress.poller import start_polling

        if total is not None or unit is not None:
            self.set_total(total, unit=unit)
        start_polling(self, fn, every_s)

    def note(self, message: str, *, level: str = "info") -> None:
        """Say one line for people, now. `level`: `info`, `warning` or `error`."""
        self.operation._note(self, message, level)

    # --- with ----------------------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether the code is inside it now."""
        return self._entered > 0

    def __enter__(self) -> Self:
        operation = self.operation
        if operation.ended:
            active.misuse(f"step {self.name!r} was entered after its operation ended")
            return self
        operation._step_entered(self)
        before = otel_context.get_current()
        inside = otel_context.set_value(active.KEY, self, before)
        otel_context.attach(inside)
        self._contexts.append((before, inside))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._contexts:
            current = otel_context.get_current()
            with self._lock:
                # Several threads and tasks may be inside the same step: each finds its own way in.
                # (Contexts are dicts, and equal ones are not the same: looked for by identity.)
                entered = self._contexts
                mine = next((i for i, pair in enumerate(entered) if pair[1] is current), len(entered) - 1)
                before, inside = entered.pop(mine)
            # Put back, not reset by token: a generator may be resumed in another context than it was entered in.
            if current is inside:
                otel_context.attach(before)
            self.operation._step_left(self, error)

    def __repr__(self) -> str:
        return f"<Step {self.name!r} of {self.operation!r}>"


def as_count(value: Any) -> float | None:
    """A number that can be meant as a count (not negative, finite as a double) as a plain int or float; else `None`.

    Numbers of other libraries (numpy, Decimal) are taken.
    """
    kind = type(value)
    if kind is int:
        return value if 0 <= value <= _LARGEST else None
    if kind is not float:
        if isinstance(value, (str, bytes)):
            return None
        try:
            value = int(value) if hasattr(value, "__index__") else float(value)
        except Exception:  # it is no number, or one too large, or its own conversion fails
            return None
    return value if 0 <= value <= _LARGEST else None
