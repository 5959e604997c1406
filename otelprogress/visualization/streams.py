"""Keep `print` and logging from tearing the bars: what the program writes appears above them.

Rich's own redirection is not used, for three reasons that users would meet: it sends a `stdout` that is a file or a
pipe to the terminal, it breaks long lines at the terminal's width, and it leaves out logging handlers made before.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PARTIAL_CHARS: Final = 4_096
"""Of an unfinished line; the front of a longer one is written out at once."""
_MOVES_THE_CURSOR: Final = re.compile("\x1b\\[[0-9;]*[ABEFHfJd]|\x1b\\[\\?1049h|\x1b[78M]")
"""Up, down, to a position, erasing the screen, the other screen. Erasing a line and colours are no harm."""


class _AsItIs:
    """A text that passes a console untouched: the program's own colours are its own business."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(self.text)


class AboveTheBars(io.TextIOBase):
    """Stands in for `sys.stdout` or `sys.stderr` while bars are drawn.

    Whole lines are printed above the bars; an unfinished one (a prompt, dots, another tool's bar) is kept in
    `partial`, which the view shows as a line of its own until it is finished. While it is not `active`, which is
    when somebody kept it beyond the bars, everything passes.
    """

    def __init__(self, console: Console, file: TextIO, yield_terminal: Callable[[], None]) -> None:
        super().__init__()
        self._console = console
        self._yield_terminal = yield_terminal
        self._lock = threading.RLock()
        self.file = file
        self.active = True
        self.partial = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a property in C, an attribute in the stubs
        """The file's."""
        return self.file.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]  # a property in C, an attribute in the stubs
        """The file's."""
        return self.file.errors

    def fileno(self) -> int:
        """The file's: children write to the terminal itself."""
        return self.file.fileno()

    def isatty(self) -> bool:
        """The file's, which is a terminal."""
        return self.file.isatty()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Print whole lines above the bars, keep the unfinished one. Returns the number of characters taken."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self.active and _MOVES_THE_CURSOR.search(text):
            # The program draws a display of its own: two on one terminal destroy each other, ours is the guest.
            self._yield_terminal()
        if not self.active:
            return self.file.write(text)
        with self._lock:
            whole, newline, rest = (self.partial + text).rpartition("\n")
            # A carriage return starts the line again: only what follows is still on the screen.
            rest = rest[rest.rstrip("\r").rfind("\r") + 1 :]
            if len(rest) > MAX_PARTIAL_CHARS:
                newline, whole, rest = "\n", whole + newline + rest, ""
            self.partial = rest
            if newline:
                lines = "\n".join(_last_drawn(line) for line in whole.split("\n"))
                self._console.print(_AsItIs(lines + "\n"), soft_wrap=True, end="")
        return len(text)

    def flush(self) -> None:
        """Nothing waits here but an unfinished line, which the view draws."""
        if not self.active:
            self.file.flush()


def _last_drawn(line: str) -> str:
    """What is left of a line on the screen whose start was returned to."""
    return line.rstrip("\r").rpartition("\r")[2]


class Redirection:
    """The program's streams, and the logging handlers that hold them, sent above the bars while it is installed.

    Args:
        console: draws the bars.
        yield_terminal: called, on the thread that writes, before the program moves the cursor itself. It has to
            erase the bars and `remove()` the redirection.
    """

    def __init__(self, console: Console, yield_terminal: Callable[[], None]) -> None:
        self._console = console
        self._yield_terminal = yield_terminal
        # Kept: a logging handler that was made meanwhile holds one of them for ever.
        self._proxies: list[AboveTheBars] = []
        self._replaced: list[tuple[str, AboveTheBars]] = []
        self._handlers: list[tuple[logging.StreamHandler[TextIO], TextIO, AboveTheBars]] = []

    def install(self) -> None:
        """Take over the streams that are terminals, and only those."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            proxy = self._proxy_for(stream)
            if proxy is None:
                continue
            proxy.active = True
            if stream is not proxy:
                self._replaced.append((name, proxy))
                setattr(sys, name, proxy)
        by_file = {id(proxy.file): proxy for proxy in self._proxies if proxy.active}
        for handler in _stream_handlers():
            stream = handler.stream
            if (proxy := by_file.get(id(stream))) is not None:
                handler.stream = cast("TextIO", proxy)
                self._handlers.append((handler, stream, proxy))

    def remove(self) -> str:
        """Give the streams back where they are still ours. Takes no lock, so that a forked child may call it.

        Returns:
            What was written without a line end.
        """
        left = ""
        for proxy in self._proxies:
            proxy.active = False
            left += proxy.partial
            proxy.partial = ""
        for handler, stream, proxy in self._handlers:
            if cast("object", handler.stream) is proxy:
                handler.stream = stream
        self._handlers.clear()
        for name, proxy in self._replaced:
            if getattr(sys, name) is proxy:
                setattr(sys, name, proxy.file)
        self._replaced.clear()
        return left

    def partials(self) -> list[str]:
        """The unfinished lines, as they are."""
        return [
            _last_drawn(partial) for proxy in self._proxies if proxy.active and (partial := proxy.partial)
        ]

    def _proxy_for(self, stream: TextIO | AboveTheBars | None) -> AboveTheBars | None:
        if isinstance(stream, AboveTheBars):
            return stream if stream in self._proxies else None
        try:
            if stream is None or not stream.isatty():
                return None
        except (AttributeError, ValueError, OSError):
            return None
        for proxy in self._proxies:
            if proxy.file is stream:
                return proxy
        proxy = AboveTheBars(self._console, stream, self._yield_terminal)
        self._proxies.append(proxy)
        return proxy


def _stream_handlers() -> Iterator[logging.StreamHandler[TextIO]]:
    loggers: Iterable[Any] = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                yield handler
