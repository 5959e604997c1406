"""The live loops of `track()`: what a step reads while they run, and what stands behind their last item."""

from __future__ import annotations

import itertools
import operator
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from otelprogress import active
from otelprogress.gate import Chunks, Gate, Passer
from otelprogress.step import Step

if TYPE_CHECKING:
    from otelprogress.run import Operation

T = TypeVar("T")

ENDLESS: Final = 2**62
_EMPTY: Final[tuple[object, ...]] = ()


class Loop:
    """One live loop, read by its step. Subclasses know how their design counts.

    Args:
        step: where the items count.
        total: items in all, `None`: unknown.
        operation: the operation that this loop is, and whose end is its own; `None`: it only counts.
    """

    __slots__ = ("_operation", "_own_total", "_step", "over")

    def __init__(self, step: Step, total: float | None, operation: Operation | None) -> None:
        self.over = False
        self._step = step
        self._own_total = total
        self._operation = operation

    @property
    def total(self) -> float | None:
        """Items in all, those done before it began included; `None`: unknown."""
        return self._own_total

    def handed_out(self) -> int:
        """Items given to the body so far."""
        raise NotImplementedError

    @active.contained
    def exhausted(self) -> None:
        """Every item was handed out and worked off."""
        try:
            self._step.let_go(self, worked_off=self.handed_out())
        finally:
            if self._operation is not None:
                self._operation.end()

    @active.contained
    def left(self) -> None:
        """The loop was left early: `break`, `return`, an exception. Called by a finalizer, anywhere."""
        self.over = True  # now, not when it is let go: the very next loop counts beside it, not inside it
        ins = self._step.operation.instrumentation
        if ins.sampler is not None:
            # A finalizer may have interrupted any lock's holder: somebody else has to take the locks.
            ins.sampler.defer(self._left)
        else:
            self._left()

    @active.contained
    def _left(self) -> None:
        done = max(0, self.handed_out() - 1)  # the item in the body was not finished
        self._step.let_go(self, worked_off=done)
        operation = self._operation
        if operation is not None and not operation.ended:
            completed, total = self._step.completed, self._step.total
            of = "" if total is None else f" of {total:g}"
            operation.end_cancelled(f"left at {completed:g}{of}")


class HintedLoop(Loop):
    """Counts by what its iterator says is left."""

    __slots__ = ("_iterator", "_size")

    def __init__(
        self,
        step: Step,
        total: float | None,
        operation: Operation | None,
        iterator: Iterator[Any],
        size: int,
    ) -> None:
        super().__init__(step, total, operation)
        self._iterator = iterator
        self._size = size

    def handed_out(self) -> int:
        """See `Loop.handed_out`."""
        return self._size - operator.length_hint(self._iterator)


class ListLoop(Loop):
    """A list may grow while it is iterated: its size is asked each time."""

    __slots__ = ("_before", "_iterator", "_list")

    def __init__(
        self,
        step: Step,
        total: float | None,
        operation: Operation | None,
        iterator: Iterator[Any],
        *,
        items: list[Any],
        before: float,
    ) -> None:
        super().__init__(step, total, operation)
        self._iterator = iterator
        self._list = items
        self._before = before

    @property
    def total(self) -> float | None:
        """See `Loop.total`; as the list stands now, unless it was given."""
        return self._before + len(self._list) if self._own_total is None else self._own_total

    def handed_out(self) -> int:
        """See `Loop.handed_out`."""
        return len(self._list) - operator.length_hint(self._iterator)


class SelectedLoop(Loop):
    """Counts by the selectors that are left of a practically endless repeat."""

    __slots__ = ("_selectors",)

    def __init__(
        self,
        step: Step,
        total: float | None,
        operation: Operation | None,
        selectors: itertools.repeat[bool],
    ) -> None:
        super().__init__(step, total, operation)
        self._selectors = selectors

    def handed_out(self) -> int:
        """See `Loop.handed_out`."""
        return ENDLESS - operator.length_hint(self._selectors)


class GatedLoop(Loop):
    """Counts by chunks of selectors, which commands may drain."""

    __slots__ = ("_chunks",)

    def __init__(self, step: Step, total: float | None, operation: Operation | None, chunks: Chunks) -> None:
        super().__init__(step, total, operation)
        self._chunks = chunks

    def handed_out(self) -> int:
        """See `Loop.handed_out`."""
        return self._chunks.handed_out()


class Finisher:
    """Stands behind the last item. Nothing but the loop's own iterator may refer to it."""

    __slots__ = ("_loop",)

    def __init__(self, loop: Loop) -> None:
        self._loop: Loop | None = loop

    def __iter__(self) -> Iterator[Any]:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.exhausted()
        return iter(_EMPTY)

    def __del__(self) -> None:
        loop = self._loop
        if loop is not None:
            loop.left()


class CountedLoop(Loop):
    """An async loop: each item is a call anyway, so it simply counts."""

    __slots__ = ("before", "count")

    def __init__(self, step: Step, total: float | None, operation: Operation | None) -> None:
        super().__init__(step, total, operation)
        self.count = 0
        self.before = 0
        """Items worked off when the code last stood at the gate."""

    def handed_out(self) -> int:
        """See `Loop.handed_out`; while the code stands at the gate there is no item in the body."""
        return max(self.count, self.before + 1 if self.before else 0)


class AsyncIteration(AsyncIterator[T]):
    """What `async for` holds; collected without being exhausted, the loop was left early."""

    __slots__ = ("_gate", "_loop", "_passer", "_source")

    def __init__(
        self, source: AsyncIterator[T], loop: CountedLoop, gate: Gate | None, passer: Passer | None = None
    ) -> None:
        self._passer = passer
        self._source = source
        self._loop: CountedLoop | None = loop
        self._gate = gate

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._gate is not None and self._gate.closed_by() is not None:
            if self._loop is not None:
                self._loop.before = self._loop.count
            await self._gate.acheck(self._passer)
        try:
            item = await self._source.__anext__()
        except StopAsyncIteration:
            loop, self._loop = self._loop, None
            if loop is not None:
                loop.exhausted()
            raise
        if self._loop is not None:
            self._loop.count += 1
        return item

    async def aclose(self) -> None:
        """Leave the loop, and close its source where that can be closed."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.left()
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    def __del__(self) -> None:
        loop = getattr(self, "_loop", None)
        if loop is not None:
            loop.left()
