"""A terminal of a fixed size that can be read back, and views to draw on it."""

from __future__ import annotations

import io

import pyte

from otelprogress.model.events import Eta, OperationView, State, StepState, StepView

SECOND = 10**9
NOW = 1_780_000_000 * SECOND


class Screen(io.TextIOBase):
    """A file that is a terminal, drawn by pyte. `raw` keeps every character that was written."""

    def __init__(self, columns: int = 80, lines: int = 24, encoding: str = "utf-8") -> None:
        self._screen = pyte.HistoryScreen(columns, lines, history=10_000, ratio=0.5)
        self._screen.set_mode(pyte.modes.LNM)
        self._stream = pyte.Stream(self._screen)
        self.raw = ""
        self.writes = 0
        self._encoding = encoding

    encoding = property(lambda self: self._encoding)

    def isatty(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        text.encode(self._encoding)
        self.raw += text
        self.writes += 1
        self._stream.feed(text)
        return len(text)

    @property
    def lines(self) -> list[str]:
        """What is seen, without the empty end, after what was scrolled away."""
        width = self._screen.columns
        gone = ["".join(row[x].data for x in range(width)).rstrip() for row in self._screen.history.top]
        seen = gone + [line.rstrip() for line in self._screen.display]
        while seen and not seen[-1]:
            seen.pop()
        return seen

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def make_view(number: int = 1, **changes: object) -> OperationView:
    fields: dict[str, object] = {
        "id": f"{1:032x}-{number:016x}",
        "handle": f"load-{number}",
        "name": "load",
        "title": f"load {number}",
        "state": State.RUNNING,
        "revision": 1,
        "as_of_unix_ns": NOW,
        "started_at_unix_ns": NOW - 100 * SECOND,
        "updated_at_unix_ns": NOW - SECOND,
    }
    return OperationView(**{**fields, **changes})


def make_step(name: str, index: int, state: StepState = StepState.SUCCEEDED, **changes: object) -> StepView:
    return StepView(name=name, index=index, state=state, **changes)


def nightly_load() -> OperationView:
    return make_view(
        2,
        handle="nightly_load-2",
        name="nightly load",
        title="nightly load 2026-11-21",
        ratio=0.67,
        eta=Eta(61, 119),
        rate=2_000.0,
        controls=("cancel", "pause"),
        message="12 rows rejected: bad date",
        level="warning",
        step_count=3,
        step=make_step("load", 2, StepState.RUNNING, completed=61_200, total=120_000, unit="{row}"),
        steps=(
            make_step(
                "extract", 0, started_at_unix_ns=NOW - 280 * SECOND, ended_at_unix_ns=NOW - 222 * SECOND
            ),
            make_step("clean", 1, started_at_unix_ns=NOW - 222 * SECOND, ended_at_unix_ns=NOW - 62 * SECOND),
        ),
    )


def reindex() -> OperationView:
    return make_view(
        3,
        handle="reindex-1",
        name="reindex",
        title="reindex acme",
        stalled=True,
        stalled_since_unix_ns=NOW - 45 * SECOND,
        usual_interval_s=8.0,
        started_at_unix_ns=NOW - 90 * SECOND,
    )
