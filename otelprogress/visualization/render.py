"""Rows as lines of a terminal, with Rich: shared by the application's own terminal and `otelprogress watch`.

Every row is exactly one line of the terminal, so that a redraw knows how many lines it replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.text import Text

from otelprogress.visualization.view_model import ASCII_MARKS, Mark, Row, Tone

if TYPE_CHECKING:
    from typing import TextIO

_Put = Callable[[str, Tone], None]

STYLES: Final = {
    Tone.PLAIN: "",
    Tone.DIM: "dim",
    Tone.LIVE: "cyan",
    Tone.GOOD: "green",
    Tone.WARN: "yellow",
    Tone.BAD: "bold red",
}
_INDENT: Final = 2
_MIN_BAR: Final = 8
_MAX_BAR: Final = 30
_MIN_WIDTH_WITH_BAR: Final = 44
_MIN_TITLE: Final = 8


class _Columns(NamedTuple):
    """Cells."""

    width: int
    title: int
    bar: int


class TreeRenderable:
    """Rows as lines, for a Rich console. Texts are never markup."""

    def __init__(self, rows: Sequence[Row], *, footer: str = "") -> None:
        self.rows = rows
        self.footer = footer

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        widest = max((self._head_cells(row) for row in self.rows if row.head is not None), default=0)
        title_width = max(_MIN_TITLE, min(widest, width * 2 // 5))
        bar_width = 0
        if width >= _MIN_WIDTH_WITH_BAR and any(row.ratio is not None for row in self.rows):
            bar_width = max(_MIN_BAR, min(_MAX_BAR, width // 5))
        lines = [
            self._line(row, console, options, _Columns(width, title_width, bar_width)) for row in self.rows
        ]
        if self.footer:
            lines.append(list(Text(self.footer, style="dim").render(console)))
        for line in lines:
            yield from Segment.adjust_line_length(line, min(width, Segment.get_line_length(line)))
            yield Segment.line()

    @staticmethod
    def _head_cells(row: Row) -> int:
        assert row.head is not None
        return row.depth * _INDENT + 2 + cell_len(row.head.text)

    def _line(self, row: Row, console: Console, options: ConsoleOptions, columns: _Columns) -> list[Segment]:
        width, title_width, bar_width = columns
        ascii_only = options.ascii_only
        line: list[Segment] = [Segment(" " * (row.depth * _INDENT))] if row.depth else []

        def put(text: str, tone: Tone) -> None:
            # A terminal without Unicode gets a question mark rather than an encoding error.
            safe = text.encode("ascii", "replace").decode("ascii") if ascii_only else text
            line.append(Segment(safe, console.get_style(STYLES[tone]) if STYLES[tone] else None))

        if row.head is not None:
            put(_sign(row.head.mark, ascii_only) + " ", row.head.tone)
            room = title_width - row.depth * _INDENT - 2
            bar_follows = bool(bar_width)
            if row.ratio is None and not row.parts:
                room = max(room, cell_len(row.head.text))
            put(_fit(row.head.text, max(1, room), ascii_only), Tone.PLAIN)
            if bar_follows and row.ratio is not None:
                line.append(Segment("  "))
                bar = ProgressBar(total=1.0, completed=row.ratio, width=bar_width)
                drawn = [
                    part for part in console.render(bar, options.update(width=bar_width)) if part.text != "\n"
                ]
                line.extend(Segment.adjust_line_length(drawn, bar_width))
            if row.parts:
                line.append(Segment("  "))
        self._put_parts(row, put, line, ascii_only)
        if row.aside:
            room = width - Segment.get_line_length(line) - cell_len(row.aside)
            if room >= 2:
                line.append(Segment(" " * room))
                put(row.aside, Tone.DIM)
        length = Segment.get_line_length(line)
        if length > width:
            line = Segment.adjust_line_length(line, width - 1)
            put("." if ascii_only else "…", Tone.DIM)
        return line

    @staticmethod
    def _put_parts(row: Row, put: _Put, line: list[Segment], ascii_only: bool) -> None:
        between = " " if row.head is not None else "   "
        for index, part in enumerate(row.parts):
            if not part.text:
                continue
            if index:
                line.append(Segment(between))
            if part.mark:
                put(_sign(part.mark, ascii_only) + " ", part.tone)
                put(part.text, Tone.PLAIN)
            else:
                put(part.text, part.tone)


def _sign(mark: Mark, ascii_only: bool) -> str:
    return ASCII_MARKS[mark] if ascii_only else mark.value


def _fit(text: str, cells: int, ascii_only: bool) -> str:
    if cell_len(text) <= cells:
        return set_cell_size(text, cells)
    return set_cell_size(text, max(0, cells - 1)) + ("." if ascii_only else "…")


def make_console(file: TextIO, *, width: int | None = None, height: int | None = None) -> Console:
    """A console that takes texts as they are: no markup, no highlighting, no emoji codes. NO_COLOR is obeyed.

    Args:
        file: where it writes.
        width: cells; `None`: the terminal's, asked anew at each redraw.
        height: lines; `None`: likewise.
    """
    return Console(
        file=file,
        width=width,
        height=height,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )


def drawable(file: TextIO) -> bool:
    """Whether lines of this file can be redrawn: a terminal, and not a dumb one."""
    try:
        if not file.isatty():
            return False
    except (AttributeError, ValueError, OSError):
        return False
    return not Console(file=file).is_dumb_terminal
