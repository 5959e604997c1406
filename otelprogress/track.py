"""`track()`: a loop that counts, at the price of the loop.

No code of ours runs between two items. What knows how much is left (a list, a range, a dict, …) is iterated by its
own iterator and read from the sampler thread by `operator.length_hint`; anything else runs through `compress` with
a `repeat` whose own hint is the count; operations with controls get selectors in chunks (`gate.Chunks`). All three
are exact, live, and from any thread. `chain` puts a finisher behind the items: reached, the loop is exhausted;
collected without being reached, it was left early.
"""

from __future__ import annotations

import itertools
import operator
import sys
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from otelprogress import active
from otelprogress.exceptions import InvalidValue
from otelprogress.gate import Chunks
from otelprogress.imports import first_use
from otelprogress.loops import (
    ENDLESS,
    AsyncIteration,
    CountedLoop,
    Finisher,
    GatedLoop,
    HintedLoop,
    ListLoop,
    Loop,
    SelectedLoop,
)
from otelprogress.step import Step, as_count

if TYPE_CHECKING:
    from otelprogress.active import Instrumentation
    from otelprogress.run import Operation

T = TypeVar("T")


class _Indexed:
    def __getitem__(self, index: int) -> int:
        raise IndexError


_SEQUENCE_ITERATOR: Final = type(iter(cast("Iterable[int]", _Indexed())))
_SAMPLES: Final[tuple[Iterable[Any], ...]] = (
        [], (), range(0), {}, {}.keys(), {}.values(), {}.items(), set(), "", "é", b"", bytearray(), deque(),
        reversed([]), reversed({}), reversed({}.keys()), reversed({}.values()), reversed({}.items()),
        reversed(deque()), itertools.repeat(None, 0),
)  # fmt: skip
_TELLING: Final = frozenset(type(iter(sample)) for sample in _SAMPLES)
"""Iterators of the interpreter's own that tell how much is left, exactly, from any thread, without running code of
the user's (as the hint of an arbitrary sequence's iterator would, in the sampler's thread)."""


def _tells(iterable: object, iterator: object) -> bool:
    kind = type(iterator)
    return kind in _TELLING or (kind is _SEQUENCE_ITERATOR and type(iterable).__module__ == "numpy")


def where() -> object:
    """This thread and, where one runs, this task: loops of one place stand inside one another, others add up."""
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            # Asked first: `current_task` answers by an exception where no loop runs: a tenth of what a
            # short loop costs in all.
            task = None if asyncio._get_running_loop() is None else asyncio.current_task()
        except (RuntimeError, AttributeError):  # asyncio is just being imported
            task = None
        if task is not None:
            return id(task)
    return threading.get_ident()


def _known_total(total: float | None) -> float | None:
    known = as_count(total)
    if total is None or known is not None:
        return known
    active.misuse(f"track(total={total!r}): give a finite number that is not negative, or None", InvalidValue)
    return None


def _known_initial(initial: float) -> float:
    known = as_count(initial)
    if known is not None:
        return known
    active.misuse(f"track(initial={initial!r}): give a finite number that is not negative", InvalidValue)
    return 0


def _size_of(iterable: object) -> int | None:
    try:
        size = operator.length_hint(iterable, -1)
    except Exception:  # a __len__ of the user's: the plain loop would not have called it
        return None
    return size if size >= 0 else None


def _counted(
    step: Step,
    iterable: Iterable[T],
    operation: Operation | None,
    *,
    total: float | None,
    unit: str | None,
    initial: float,
) -> Iterator[T]:
    iterator = iter(iterable)
    gate = step.operation.gate
    loop: Loop
    items: Iterator[T]
    if gate is not None or not _tells(iterable, iterator):
        if total is None and (size := _size_of(iterable)) is not None:
            total = initial + size
        if gate is not None:
            chunks = Chunks(gate, step.operation)
            loop = GatedLoop(step, total, operation, chunks)
            items = itertools.compress(iterator, itertools.chain.from_iterable(chunks))
        else:
            selectors = itertools.repeat(True, ENDLESS)
            loop = SelectedLoop(step, total, operation, selectors)
            items = itertools.compress(iterator, selectors)
    elif type(iterable) is list:
        loop = ListLoop(step, total, operation, iterator, items=iterable, before=initial)
        items = iterator
    else:
        size = operator.length_hint(iterator)
        loop = HintedLoop(step, initial + size if total is None else total, operation, iterator, size)
        items = iterator
    if not step.take_on(loop, unit=unit, initial=initial, where=where()):
        return iterator
    # The finisher's items are none: it is asked for them only once the others are exhausted.
    return itertools.chain(items, cast("Iterable[T]", Finisher(loop)))


def _counted_async(
    step: Step,
    iterable: AsyncIterable[T],
    operation: Operation | None,
    *,
    total: float | None,
    unit: str | None,
    initial: float,
) -> AsyncIterator[T]:
    source = aiter(iterable)
    if total is None and (size := _size_of(iterable)) is not None:
        total = initial + size
    loop = CountedLoop(step, total, operation)
    if not step.take_on(loop, unit=unit, initial=initial, where=where()):
        return source
    return AsyncIteration(source, loop, step.operation.gate, step.operation)


def track_under(
    step: Step,
    iterable: Iterable[T] | AsyncIterable[T],
    name: str | None = None,
    *,
    total: float | None = None,
    unit: str | None = None,
    initial: float = 0,
) -> Iterator[T] | AsyncIterator[T]:
    """`track()` for a given step: with a `name` as a child operation of it, otherwise as its own count."""
    if step.operation.ended:
        return _plain(iterable)
    try:
        if name is None:
            return _under(step, iterable, total=total, unit=unit, initial=initial)
        return _as_operation(
            step.operation.instrumentation,
            iterable,
            name,
            total=total,
            unit=unit,
            initial=initial,
            below=step,
        )
    except Exception as error:
        problem = error
    return _plain_instead(iterable, problem)


def _plain(iterable: Iterable[T] | AsyncIterable[T]) -> Iterator[T] | AsyncIterator[T]:
    """What a loop without us would iterate."""
    if hasattr(iterable, "__iter__") or not hasattr(iterable, "__aiter__"):
        return iter(cast("Iterable[T]", iterable))
    return aiter(iterable)


def _plain_instead(
    iterable: Iterable[T] | AsyncIterable[T], problem: Exception
) -> Iterator[T] | AsyncIterator[T]:
    """Go on without counting; where the iterable itself was the problem, raise as a plain loop would."""
    plain = _plain(iterable)
    active.contain("track()", problem)
    return plain


def _under(
    step: Step,
    iterable: Iterable[T] | AsyncIterable[T],
    *,
    total: float | None,
    unit: str | None,
    initial: float,
) -> Iterator[T] | AsyncIterator[T]:
    total, initial = _known_total(total), _known_initial(initial)
    if not hasattr(iterable, "__iter__") and hasattr(iterable, "__aiter__"):
        return _counted_async(step, iterable, None, total=total, unit=unit, initial=initial)
    return _counted(step, cast("Iterable[T]", iterable), None, total=total, unit=unit, initial=initial)


def _as_operation(
    ins: Instrumentation,
    iterable: Iterable[T] | AsyncIterable[T],
    name: str,
    *,
    total: float | None,
    unit: str | None,
    initial: float,
    title: str | None = None,
    label: str | None = None,
    controls: Sequence[str] = (),
    below: Step | None = None,
) -> Iterator[T] | AsyncIterator[T]:
    first_use("otelprogress.run")
    from otelprogress.plan import Plan
    from otelprogress.run import begin

    total, initial = _known_total(total), _known_initial(initial)
    is_async = not hasattr(iterable, "__iter__") and hasattr(iterable, "__aiter__")
    if not is_async:
        iterable = _iterable_once(cast("Iterable[T]", iterable))
    planned = total
    if planned is None and (size := _size_of(iterable)) is not None:
        planned = initial + size
    operation = begin(
        ins,
        Plan(
            name=str(name),
            label=label,
            controls=(controls,) if isinstance(controls, str) else tuple(controls or ()),
            total=planned,
            unit=unit,
            initial=initial,
        ),
        title=title,
        below=below,
    )
    if operation.ended:  # it could not begin
        return _plain(iterable)
    # From here on the loop says what there is: a list may grow.
    root = operation.root
    root.reset()
    if is_async:
        return _counted_async(
            root, cast("AsyncIterable[T]", iterable), operation, total=total, unit=unit, initial=initial
        )
    return _counted(root, cast("Iterable[T]", iterable), operation, total=total, unit=unit, initial=initial)


def _iterable_once(iterable: Iterable[T]) -> Iterable[T]:
    """The iterable itself, after `iter()` of something that is none raised as a plain loop would: before a span opens."""
    if not hasattr(iterable, "__iter__"):
        return iter(iterable)
    return iterable


@overload
def track(
    iterable: Iterable[T],
    name: str | None = None,
    *,
    title: str | None = None,
    total: float | None = None,
    unit: str | None = None,
    initial: float = 0,
    label: str | None = None,
    controls: Sequence[str] = (),
) -> Iterator[T]: ...
@overload
def track(
    iterable: AsyncIterable[T],
    name: str | None = None,
    *,
    title: str | None = None,
    total: float | None = None,
    unit: str | None = None,
    initial: float = 0,
    label: str | None = None,
    controls: Sequence[str] = (),
) -> AsyncIterator[T]: ...
def track(
    iterable: Iterable[T] | AsyncIterable[T],
    name: str | None = None,
    *,
    title: str | None = None,
    total: float | None = None,
    unit: str | None = None,
    initial: float = 0,
    label: str | None = None,
    controls: Sequence[str] = (),
) -> Iterator[T] | AsyncIterator[T]:
    """Iterate, and count the items as done.

    Inside an operation and without a `name` it counts for the current step. Otherwise the loop is an operation of
    its own (a child, inside another): succeeded when it is exhausted, cancelled when it is left early. That
    operation is not current inside the loop's body. An unnamed loop inside another one that already counts for
    the same step is not counted: the outer one is the measure. Nothing configured: `iter(iterable)`.

    Args:
        iterable: sync or async. What is both is taken as sync.
        name: of the operation, of low cardinality; `None`: see above, outside an operation the calling function's.
        title: for people, at most 120 characters; `None`: the name.
        total: items in all, `initial` included; `None`: what the iterable says, if it does.
        unit: `row` means `{row}`; `By` for bytes.
        initial: items done before this run: counted as done, left out of the rate.
        label: of your own, to find the operation by. Only with an operation of its own.
        controls: `cancel`, `pause`. Only with an operation of its own; the others obey the current operation's.

    Raises:
        OperationCancelled: out of the loop, when its operation accepts `cancel` and was cancelled.
    """
    ins = active.instrumentation()
    if ins is None:
        return _plain(iterable)
    step = active.step_of()
    if step is not None and name is None and not controls and label is None:
        return track_under(step, iterable, total=total, unit=unit, initial=initial)
    if name is None:
        name = sys._getframe(1).f_code.co_qualname.replace("<locals>.", "")
        if name == "<module>":
            name = "loop"
    try:
        return _as_operation(
            ins,
            iterable,
            name,
            total=total,
            unit=unit,
            initial=initial,
            title=title,
            label=label,
            controls=controls,
            below=step,
        )
    except Exception as error:
        problem = error
    return _plain_instead(iterable, problem)
