"""What a live operation says: its durable events, its ticks, its notes. The base of `run.Operation`."""

# ruff: noqa: TC004 - `load` fetches these names when the first operation begins

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from otelprogress import active
from otelprogress.exceptions import InvalidValue
from otelprogress.imports import fetch
from otelprogress.model import semconv
from otelprogress.step import ROOT_INDEX, Step

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from otelprogress.active import Instrumentation
    from otelprogress.model.events import Event, Source, State
    from otelprogress.otel.emitter import SpanLedger
    from otelprogress.outcome import clean_message

LEVELS: Final = frozenset({"info", "warning", "error"})


def load() -> None:
    """Import what only operations need."""
    fetch(
        globals(),
        {"otelprogress.model.events": ("Event", "Source"), "otelprogress.outcome": ("clean_message",)},
    )


class Voice:
    """One run as its events show it: who it is, what counts now, and the ways out for what it says."""

    __slots__ = (
        "__weakref__",
        "_announced",
        "_event_lock",
        "_ins",
        "_ledger",
        "_message",
        "_message_said",
        "_moved",
        "_open",
        "_saying",
        "_sequence",
        "_span",
        "_state",
        "_step",
        "_steps",
        "ended",
        "name",
        "root",
        "run_id",
        "sampled",
    )

    def __init__(self, ins: Instrumentation | None, name: str, root: Step) -> None:
        self._ins = ins
        self.name = name
        self.run_id = ""
        self.sampled = True
        self.ended = False
        self._announced = False
        """Its start was said: what moves may be told from now on."""
        self.root = root
        self._step = root
        self._moved = root
        self._steps: dict[str, Step] = {}
        self._open: list[Step] = []
        self._sequence = itertools.count(1)
        self._event_lock = threading.RLock()
        self._saying: list[int] = []
        """Threads that are just handing over an event of it."""
        self._span: Span | None = None
        self._ledger: SpanLedger | None = None
        self._state: State | None = None
        self._message: str | None = None
        self._message_said: str | None = None

    @property
    def instrumentation(self) -> Instrumentation:
        """What it reports through."""
        assert self._ins is not None
        return self._ins

    def _ensure_begun(self) -> None:
        """Have a span and a run id from here on: what is said needs both."""
        raise NotImplementedError

    def _say(
        self, kind: str, *, time_unix_ns: int | None = None, step: Step | None = None, **fields: Any
    ) -> None:
        """One durable event, with the current step and its counts."""
        self._hand_over(self._made(kind, time_unix_ns=time_unix_ns, step=step, **fields))

    def _made(
        self, kind: str, *, time_unix_ns: int | None = None, step: Step | None = None, **fields: Any
    ) -> Event | None:
        """The event, with the next number of this run; `None`: it could not be made, which is counted."""
        try:
            with self._event_lock:
                return self._event(
                    kind, time_unix_ns or time.time_ns(), step or self._moved, next(self._sequence), fields
                )
        except Exception as problem:
            active.count_misuse(f"an event could not be made: {type(problem).__name__}: {problem}")
            return None

    def _hand_over(self, event: Event | None) -> None:
        """Let it out: to the span, the application's logs and the host."""
        if event is None:
            return
        ins = self.instrumentation
        try:
            # A signal handler may have interrupted this very thread in here, with the span's lock held: what it says
            # goes past the span. (A list: taking an entry out is one call, whatever other threads do.)
            me = threading.get_ident()
            span = None if me in self._saying else self._span
            self._saying.append(me)
            try:
                # Outside the lock: processors of the user's run in there. A host puts two that cross back in order.
                ins.emitter.emit(event, span, self._ledger)
            finally:
                self._saying.remove(me)
        except Exception as problem:
            active.count_misuse(f"an event could not be said: {type(problem).__name__}: {problem}")

    def _event(
        self, kind: str, time_unix_ns: int, step: Step, sequence: int | None, said: dict[str, Any]
    ) -> Event:
        ins = self.instrumentation
        completed, total, unit, initial, counters = step.snapshot()
        rooted = step.index == ROOT_INDEX
        # Without an index counts are those of the current step: beside steps, the root's own have to say so.
        counts = completed is not None or total is not None or counters is not None
        unnamed_index = ROOT_INDEX if counts and self._steps else None
        said.setdefault("state", self._state)
        return Event(
            kind=kind,
            run_id=self.run_id,
            time_unix_ns=time_unix_ns,
            writer_id=ins.writer_id,
            sequence=sequence,
            service=ins.service or None,
            process_id=ins.process_id,
            sampled=self.sampled,
            step_name=None if rooted else step.name,
            step_index=unnamed_index if rooted else step.index,
            completed=completed,
            total=total,
            unit=unit,
            initial=initial,
            counters=counters,
            **said,
        )

    def tick(self, now_unix_ns: int) -> Event | None:
        """What moved since the last tick, as one event; `None`: nothing did. Called by the sampler only."""
        if self.ended or not self._announced:
            return None
        moved: Step | None = None
        for step in (self.root, *self._open):
            seen = step.snapshot()
            if step._seen is None:
                step._seen = (None, None, None, None, None)
            if seen != step._seen:
                step._seen = seen
                moved = step
        if moved is None and self._message == self._message_said:
            return None
        if moved is not None:
            self._moved = moved
        self._message_said = self._message
        fields: dict[str, Any] = {} if self._message is None else {"message": self._message}
        return self._event(semconv.OPERATION_PROGRESSED, now_unix_ns, self._moved, None, fields)

    def note(self, message: str, *, level: str = "info") -> None:
        """Say one line for people, now. At most 1,024 characters, control characters are stripped.

        Args:
            message: what to say.
            level: `info`, `warning` or `error`.
        """
        self._note(self._step, message, level)

    @active.contained
    def _note(self, step: Step, message: str, level: str) -> None:
        if self.ended:
            active.misuse(f"note() after operation {self.name!r} ended")
            return
        if str(level) not in LEVELS:
            active.misuse(f"note(level={level!r}): one of {', '.join(sorted(LEVELS))}", InvalidValue)
            level = "info"
        self._ensure_begun()
        self._say(
            semconv.OPERATION_NOTED,
            step=step,
            message=clean_message(message),
            level=None if level == "info" else level,
        )

    @active.contained
    def note_from_elsewhere(self, message: str, *, level: str, time_unix_ns: int) -> None:
        """Tell the host of a line that existing code wrote elsewhere too: a host folds floods of these."""
        if self.ended or not self.run_id:
            return
        ins = self.instrumentation
        ins.submit(
            Event(
                kind=semconv.OPERATION_NOTED,
                run_id=self.run_id,
                time_unix_ns=time_unix_ns,
                source=Source.FOREIGN,
                writer_id=ins.writer_id,
                sampled=self.sampled,
                message=clean_message(message),
                level=None if level == "info" else level,
            )
        )

    @active.contained
    def show(self, message: str | None) -> None:
        """Say with the next tick what is being done: the latest wins, unlike `note()`, which is kept."""
        self._message = None if message is None else clean_message(message)
