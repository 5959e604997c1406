"""Every tqdm bar of the process, live, without a change to the code that draws it.

`install()` wraps `tqdm.std.tqdm`, the base of every flavour (auto, asyncio, notebook, rich, `thread_map`, …), when the
application imports it. A bar's own `n` is read by the sampler, so a loop pays nothing; tqdm moves it at most every
`mininterval` (0.1 s). A bar with a description is an operation; one without counts for the current step, like `track()`.
Bars with `disable=True` count too: who switched the drawing off did not switch the work off.

Left alone: `tqdm.pandas` before its first bar, and bars made before tqdm was wrapped.
"""

from __future__ import annotations

import atexit
import functools
import re
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from otelprogress import active
from otelprogress.exceptions import OperationCancelled
from otelprogress.run import Plan, begin
from otelprogress.track import where

if TYPE_CHECKING:
    from otelprogress.run import Operation
    from otelprogress.step import Step

_MARK: Final = "__otelprogress__"
_DEFAULT_UNIT: Final = "it"


class _Bar:
    """One bar, as something that a step can read (`step.Tracked`)."""

    __slots__ = ("_bar", "around", "initial", "operation", "outer_error", "place", "step")

    over: Final = False
    """It is let go at once when it is closed."""

    def __init__(
        self, bar: Any, step: Step, operation: Operation | None, around: Step | None, place: object
    ) -> None:
        self._bar = bar
        self.step = step
        self.operation = operation
        self.around = around
        """The step that was current when the bar was made."""
        self.place = place
        """The thread or task that made it."""
        self.initial = self.done()
        self.outer_error = sys.exc_info()[1]
        """What was being handled when the bar was made: not this bar's failure."""

    @property
    def total(self) -> float | None:
        """As the bar has it now; code may change it."""
        total = getattr(self._bar, "total", None)
        return total if isinstance(total, (int, float)) else None

    def done(self) -> float:
        """Items done, those done before the bar included."""
        done = getattr(self._bar, "n", 0)
        return done if isinstance(done, (int, float)) and done > 0 else 0

    def handed_out(self) -> float:
        """One more than was done since the bar was made: a step takes the item in the loop's body off."""
        return self.done() - self.initial + 1


_bars: WeakKeyDictionary[Any, _Bar] = WeakKeyDictionary()


def install() -> None:
    """Wrap tqdm now if it is imported, else when it is. Calling it again changes nothing."""
    import wrapt

    atexit.unregister(_end_complete)
    atexit.register(_end_complete)
    wrapt.register_post_import_hook(_wrap_module, "tqdm.std")


def _wrap_module(module: Any) -> None:
    bar_class = module.tqdm
    if getattr(bar_class, _MARK, False):
        return
    setattr(bar_class, _MARK, True)
    bar_class.__init__ = _wrapped_init(bar_class.__init__)
    bar_class.__iter__ = _wrapped_iter(bar_class.__iter__)
    bar_class.close = _wrapped_close(bar_class.close)
    bar_class.__del__ = _wrapped_close(bar_class.__del__)


def _wrapped_init(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if active.draws_bars and kwargs.get("file") in {None, sys.stderr, sys.stdout}:
            # Two drawers on one screen tear each other: ours shows this bar.
            kwargs["file"] = _SILENT
        original(self, *args, **kwargs)
        _guarded(_begin, self, *args, **kwargs)

    return init


def _guarded(call: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """A bar must go on whatever becomes of us."""
    try:
        call(*args, **kwargs)
    except Exception as problem:
        active.count_misuse(f"the tqdm bridge lost a bar: {type(problem).__name__}: {problem}")


def _begin(bar: Any, iterable: object = None, desc: str | None = None, *_: object, **options: Any) -> None:
    ins = active.instrumentation()
    if ins is None or active.current is None:
        return
    around = step = active.step_of()
    place = where()
    unit = options.get("unit", _DEFAULT_UNIT)
    unit = None if unit == _DEFAULT_UNIT else unit
    operation: Operation | None = None
    if desc or step is None:
        title = (desc or "").strip().rstrip(":").strip() or _caller()
        # Names stay of low cardinality: "epoch 3" and "epoch 4" are two runs of one operation.
        operation = begin(
            ins, Plan(name=re.sub(r"\d+", "#", title)), title=title, below=_enclosing(around, place)
        )
        step = operation.root
    read = _Bar(bar, step, operation, around, place)
    if step.take_on(read, unit=unit, initial=read.initial, where=place):
        _bars[bar] = read
        if getattr(bar, "disable", False):
            bar.update = functools.partial(_update_disabled, bar)
    elif operation is not None:
        operation.end()


def _enclosing(around: Step | None, place: object) -> Step | None:
    """Where a bar's operation belongs: below the bar whose loop it stands in, if no operation is in between."""
    read: _Bar
    for bar, read in reversed(list(_bars.items())):
        loops = getattr(bar, "iterable", None) is not None
        if read.operation is not None and loops and read.place == place and read.around is around:
            return read.operation.root
    return around


def _end_complete() -> None:
    """At the exit: a bar that nobody closed and that has all its items did not die."""
    for bar, read in list(_bars.items()):
        if read.total is not None and read.done() >= read.total:
            _guarded(_end, bar)


def _caller() -> str:
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in {
        "tqdm",
        "otelprogress",
    }:
        frame = frame.f_back
    name: str = "loop" if frame is None else frame.f_code.co_qualname.replace("<locals>.", "")
    return "loop" if name == "<module>" else name


def _update_disabled(bar: Any, n: float | None = 1) -> None:
    bar.n += 1 if n is None else n


def _wrapped_iter(original: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    @functools.wraps(original)
    def iterate(self: Any) -> Iterator[Any]:
        return _count_disabled(self) if getattr(self, "disable", False) and self in _bars else original(self)

    return iterate


def _count_disabled(bar: Any) -> Iterator[Any]:
    """What tqdm does for a disabled bar, and counting."""
    try:
        for item in bar.iterable:
            yield item
            bar.n += 1
    finally:
        _end(bar)


def _wrapped_close(original: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(original)
    def close(self: Any) -> None:
        try:
            original(self)
        finally:
            _guarded(_end, self)

    return close


def _end(bar: Any) -> None:
    read = _bars.pop(bar, None)
    if read is None:
        return
    error = sys.exc_info()[1]
    if error is read.outer_error or isinstance(error, (StopIteration, StopAsyncIteration)):
        error = None  # the latter is how an async bar hears that there are no more items
    done, total = read.done(), read.total
    read.step.let_go(read, worked_off=done - read.initial)
    operation = read.operation
    if operation is None:
        return
    if isinstance(error, GeneratorExit) or (error is None and total is not None and done < total):
        # A `for` loop hides from a bar why it was left: the operation or span around it knows.
        operation.end_cancelled(f"left at {done:g}" + ("" if total is None else f" of {total:g}"))
    else:
        operation.end(
            error if isinstance(error, (Exception, OperationCancelled, KeyboardInterrupt)) else None
        )


class _Silent:
    """A terminal that shows nothing: tqdm keeps all its habits and draws there."""

    encoding: Final = "utf-8"

    def write(self, text: str) -> int:
        """Forget it."""
        return len(text)

    def flush(self) -> None:
        """Nothing is held."""

    def isatty(self) -> bool:
        """So that `disable=None` does not switch the bar off."""
        return True


_SILENT: Final = _Silent()
