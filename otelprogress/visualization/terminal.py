"""The application's own terminal: bars where lines can be redrawn, one line per milestone elsewhere.

Both views are driven from one thread (the sampler's) and only ever write to the standard error. Neither is needed
for anything else: whatever they raise, the caller counts and drops them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from otelprogress.model.events import FeedEvent, OperationView
from otelprogress.model.text import clean
from otelprogress.visualization.lines import line_of
from otelprogress.visualization.render import TreeRenderable, drawable, make_console
from otelprogress.visualization.streams import Redirection
from otelprogress.visualization.view_model import Limits, title_of, tree_rows

UNDER_WAY_S: Final = 0.02
"""What prints that began before the streams were taken over are given, a few turns of the interpreter, on the view's thread."""
MAX_PRINTED_REMEMBERED: Final = 65_536
MAX_FINALS_PER_NAME: Final = 20
"""Ended operations of one name that stay on the screen; more are counted, failures always stay."""
MAX_PENDING_LINES: Final = 1_000
LINES_BURST: Final = 50
LINES_PER_S: Final = 10


class View(Protocol):
    """What `configure()` drives. All calls come from one thread."""

    def start(self) -> None:
        """Get ready; draws nothing yet."""

    def update(self, views: Iterable[OperationView], now_unix_ns: int) -> None:
        """Show these operations: all that live and those that ended lately, in any order."""

    def publish(self, events: Iterable[FeedEvent]) -> None:
        """Take note of what happened; any thread, never blocks."""

    def stop(self) -> None:
        """Leave the final state on the screen and give the terminal back. May be called twice."""


def open_view(mode: str, file: TextIO | None = None) -> View | None:
    """The view that `configure(view=…)` asks for.

    Args:
        mode: `bars`, `lines`, `auto` (bars where the file can be redrawn) or `off` (`None` is returned).
        file: `None` is the standard error.
    """
    target = file if file is not None else sys.stderr
    if mode == "off" or target is None:
        return None
    if mode == "bars" or (mode == "auto" and drawable(target)):
        return TerminalView(make_console(target))
    return LineView(target)


_drawing: weakref.WeakSet[TerminalView] = weakref.WeakSet()


class TerminalView:
    """Bars below whatever the program prints.

    The terminal is ours only while an operation lives: then `print` and logging go above the bars. Operations that
    ended are printed once, above, and stay. A program that moves the cursor itself (a display of Rich, curses) gets
    the terminal for good.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._redirection = Redirection(console, self._yield_terminal)
        self._lock = threading.RLock()
        self._yielded = False
        self._printed: OrderedDict[str, None] = OrderedDict()
        self._finals: dict[str, int] = {}
        self._left_out: dict[str, int] = {}
        self._last: list[OperationView] = []
        self._heard_ended: deque[OperationView] = deque(maxlen=MAX_PRINTED_REMEMBERED)
        self._now_unix_ns = 0

    def start(self) -> None:
        """Draws nothing: the first operation does."""
        _drawing.add(self)

    def publish(self, events: Iterable[FeedEvent]) -> None:
        """Bars show states; what ended is remembered, for a caller that gives only what lives to `update()`."""
        for event in events:
            if event.kind == "operation.ended" and event.operation.parent_id is None:
                self._heard_ended.append(event.operation)

    def update(self, views: Iterable[OperationView], now_unix_ns: int) -> None:
        """Redraw. Costs about a millisecond; meant for 10 times a second at most."""
        with self._lock:
            if self._yielded:
                self._heard_ended.clear()
            else:
                self._update(views, now_unix_ns)

    def _update(self, views: Iterable[OperationView], now_unix_ns: int) -> None:
        everything = list(views)
        self._now_unix_ns = now_unix_ns
        known = {view.id for view in everything}
        while self._heard_ended:
            view = self._heard_ended.popleft()
            if view.id not in known:
                known.add(view.id)
                everything.append(view)
        trees: dict[str, list[OperationView]] = {}
        parents = {view.id: view.parent_id for view in everything}
        for view in everything:
            trees.setdefault(_root_of(view.id, parents, known), []).append(view)
        live: list[OperationView] = []
        ended: list[list[OperationView]] = []
        for root_id, tree in trees.items():
            if any(view.live for view in tree):
                self._printed.pop(root_id, None)
                live.extend(tree)
            elif root_id not in self._printed:
                self._remember(root_id)
                ended.append(tree)
        self._last = live
        finals = [tree for tree in ended if self._stays(tree)]
        if not live and self._live is None:
            for tree in finals:
                self.console.print(self._renderable(tree), soft_wrap=True)
            return
        if self._live is None:
            self._begin()
        assert self._live is not None
        for tree in finals:
            self.console.print(self._renderable(tree), soft_wrap=True)
        if live:
            partials = [
                Text.from_ansi(text, no_wrap=True, overflow="crop") for text in self._redirection.partials()
            ]
            self._live.update(Group(*partials, self._renderable(live)), refresh=True)
        else:
            self._end(keep=False)

    def stop(self) -> None:
        """The last state stays where it is; the cursor stands below it."""
        with self._lock:
            _drawing.discard(self)
            if self._live is not None:
                self._live.update(self._renderable(self._last))
                self._end(keep=bool(self._last))
            for name, count in self._left_out.items():
                self.console.print(Text(f"… {count} more {name} succeeded", style="dim"), soft_wrap=True)
            self._left_out.clear()

    def _yield_terminal(self) -> None:
        """The program draws a display of its own: erase the bars and draw no more."""
        with self._lock:
            self._yielded = True
            if self._live is not None:
                self._live.update("")
                self._end(keep=False)

    def abandon(self) -> None:
        """In a forked child: the terminal belongs to the parent. Draws nothing and takes no lock."""
        self._lock = threading.RLock()
        self._yielded = True
        self._live = None
        self._left_out.clear()
        self._redirection.remove()

    def _begin(self) -> None:
        self._live = Live(
            console=self.console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._redirection.install()
        # A print that was under way has the stream of before: drawn over, its line would be wiped away.
        time.sleep(UNDER_WAY_S)
        self._live.start()
        # A program that is killed cannot show the cursor again: it is never hidden.
        self.console.show_cursor(True)

    def _end(self, *, keep: bool) -> None:
        assert self._live is not None
        live, self._live = self._live, None
        live.transient = not keep
        try:
            live.stop()
        finally:
            left = self._redirection.remove()
            if left:
                self.console.file.write(left)
                self.console.file.flush()

    def _renderable(self, views: list[OperationView]) -> TreeRenderable:
        # Two lines are left to the program, or its own output could never be seen.
        limits = Limits(rows=max(1, self.console.size.height - 2))
        return TreeRenderable(tree_rows(views, self._now_unix_ns, limits=limits))

    def _remember(self, run_id: str) -> None:
        self._printed[run_id] = None
        while len(self._printed) > MAX_PRINTED_REMEMBERED:
            self._printed.popitem(last=False)

    def _stays(self, tree: list[OperationView]) -> bool:
        root = tree[0]
        if len(tree) > 1 or root.outcome != "succeeded":
            return True
        name = clean(root.name, 60) or title_of(root)
        self._finals[name] = self._finals.get(name, 0) + 1
        if self._finals[name] <= MAX_FINALS_PER_NAME:
            return True
        self._left_out[name] = self._left_out.get(name, 0) + 1
        return False


def _root_of(run_id: str, parents: dict[str, str | None], known: set[str]) -> str:
    seen = {run_id}
    while (parent := parents.get(run_id)) is not None and parent in known and parent not in seen:
        seen.add(parent)
        run_id = parent
    return run_id


class LineView:
    """One line per milestone. A flood is folded: bursts of 50 lines, then 10 a second, the rest counted."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._pending: deque[str] = deque(maxlen=MAX_PENDING_LINES)
        self._published = 0
        self._taken = 0
        self._allowance = float(LINES_BURST)
        self._filled_at_unix_ns = 0
        self._folded = 0

    def start(self) -> None:
        """Nothing to prepare."""

    def publish(self, events: Iterable[FeedEvent]) -> None:
        """Any thread; the lines are written by the next `update()`."""
        for event in events:
            line = line_of(event)
            if line is not None:
                self._published += 1
                self._pending.append(line)

    def update(self, views: Iterable[OperationView], now_unix_ns: int) -> None:
        """Write what is pending, as far as the allowance goes."""
        if self._filled_at_unix_ns:
            passed_s = max(0, now_unix_ns - self._filled_at_unix_ns) / 1e9
            self._allowance = min(LINES_BURST, self._allowance + passed_s * LINES_PER_S)
        self._filled_at_unix_ns = now_unix_ns
        self._write(int(self._allowance))

    def stop(self) -> None:
        """Write the last burst whatever the allowance is: it tells how things ended."""
        self._write(LINES_BURST)

    def _write(self, allowed: int) -> None:
        lines: list[str] = []
        while self._pending:
            lines.append(self._pending.popleft())
        self._taken += len(lines)
        overflowed, self._taken = self._published - self._taken, self._published
        self._folded += max(0, overflowed)
        if len(lines) > allowed:
            # The newest lines say more than the oldest.
            self._folded += len(lines) - allowed
            lines = lines[len(lines) - allowed :]
        if not lines:
            return
        self._allowance = max(0.0, self._allowance - len(lines))
        if self._folded:
            lines.insert(0, f"… {self._folded} more lines (`otelprogress tail` has them)")
            self._folded = 0
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        text = "".join(f"{line}\n" for line in lines)
        with contextlib.suppress(ValueError, OSError):  # closed by the program: nobody reads it
            self._file.write(text.encode(encoding, "replace").decode(encoding))
            self._file.flush()


def _abandon_all() -> None:
    for view in list(_drawing):
        view.abandon()
    _drawing.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
