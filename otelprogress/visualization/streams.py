"""Keep `print` and logging from tearing the bars: what the program writes appears above them.

Rich's own redirection is not used, for three reasons that users would meet: it sends a `stdout` that is a file or a
pipe to the terminal, it breaks long lines at the terminal's width, and it leaves out logging handlers made before.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PARTIAL_CHARS: Final = 4_096
"""Of an unfinished line; the front of a longer one is written out at once."""


class _AsItIs:
    """A text that passes a console untouched: the program's own colours are its own business."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(self.text)


class AboveTheBars(io.TextIOBase):
    """Stands in for `sys.stdout` or `sys.stderr` while bars are drawn.

    Whole lines are printed above the bars; an unfinished one (a prompt, dots, another tool's bar) is kept in
    `partial`, which the view shows as a line of its own until it is finished.
    """

    def __init__(self, console: Console, file: TextIO) -> None:
        super().__init__()
        self._console = console
        self._file = file
        self._lock = threading.RLock()
        self.partial = ""

    @property
    def rich_proxied_file(self) -> TextIO:
        """What Rich consoles of the program's own look for."""
        return self._file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a property in C, an attribute in the stubs
        """The file's."""
        return self._file.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]  # a property in C, an attribute in the stubs
        """The file's."""
        return self._file.errors

    def fileno(self) -> int:
        """The file's: children write to the terminal itself."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """The file's, which is a terminal."""
        return self._file.isatty()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Print whole lines above the bars, keep the unfinished one. Returns the number of characters taken."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            whole, newline, rest = (self.partial + text).rpartition("\n")
            if not newline:
                # A carriage return starts the line again: only what follows is still on the screen.
                rest = _last_drawn(rest)
                whole = ""
            if len(rest) > MAX_PARTIAL_CHARS:
                newline, whole, rest = "\n", whole + newline + rest, ""
            self.partial = rest
            if newline:
                lines = "\n".join(_last_drawn(line) for line in whole.split("\n"))
                self._console.print(_AsItIs(lines + "\n"), soft_wrap=True, end="")
        return len(text)

    def flush(self) -> None:
        """Nothing waits here but an unfinished line, which the view draws."""

    def give_back(self) -> str:
        """The unfinished line, which is the caller's now."""
        with self._lock:
            partial, self.partial = self.partial, ""
        return partial


def _last_drawn(line: str) -> str:
    if "\r" not in line:
        return line
    body = line.rstrip("\r")
    return body.rpartition("\r")[2] or body


class Redirection:
    """The program's streams, and the logging handlers that hold them, sent above the bars while it is installed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stdout: AboveTheBars | None = None
        self._stderr: AboveTheBars | None = None
        self._handlers: list[tuple[logging.StreamHandler[TextIO], TextIO, AboveTheBars]] = []

    def install(self) -> None:
        """Take over the streams that are terminals, and only those."""
        self._stdout = self._proxy(sys.stdout)
        self._stderr = self._proxy(sys.stderr)
        replaced: dict[int, AboveTheBars] = {}
        if self._stdout is not None:
            replaced[id(sys.stdout)] = self._stdout
            sys.stdout = cast("TextIO", self._stdout)
        if self._stderr is not None:
            replaced[id(sys.stderr)] = self._stderr
            sys.stderr = cast("TextIO", self._stderr)
        for handler in _stream_handlers():
            stream = handler.stream
            proxy = replaced.get(id(stream))
            if proxy is not None:
                handler.stream = cast("TextIO", proxy)
                self._handlers.append((handler, stream, proxy))

    def remove(self) -> str:
        """Give the streams back where they are still ours. Takes no lock, so that a forked child may call it.

        Returns:
            What was written without a line end.
        """
        for handler, stream, proxy in self._handlers:
            if cast("object", handler.stream) is proxy:
                handler.stream = stream
        self._handlers.clear()
        left = ""
        for name, ours in (("stdout", self._stdout), ("stderr", self._stderr)):
            if ours is None:
                continue
            left += ours.partial
            ours.partial = ""
            if getattr(sys, name) is ours:
                setattr(sys, name, ours.rich_proxied_file)
        self._stdout = self._stderr = None
        return left

    def partials(self) -> list[str]:
        """The unfinished lines, as they are."""
        return [
            proxy.partial for proxy in (self._stdout, self._stderr) if proxy is not None and proxy.partial
        ]

    def _proxy(self, stream: TextIO | None) -> AboveTheBars | None:
        try:
            if stream is None or isinstance(stream, AboveTheBars) or not stream.isatty():
                return None
        except (AttributeError, ValueError, OSError):
            return None
        return AboveTheBars(self._console, stream)


def _stream_handlers() -> Iterator[logging.StreamHandler[TextIO]]:
    loggers: Iterable[Any] = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                yield handler
