"""What instrumented code reported, for assertions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from otelprogress import active
from otelprogress.feed.host import Host
from otelprogress.integrations import tqdm_bridge
from otelprogress.model.events import FeedEvent, OperationView, StepView
from otelprogress.model.tree import Applied, OperationTree
from otelprogress.otel.emitter import ProgressEmitter
from otelprogress.otel.outlet import OUTLET
from otelprogress.otel.provider import ProviderBinding
from otelprogress.otel.span_processor import ProgressSpanProcessor
from otelprogress.protocol.cursor import CursorKey
from otelprogress.protocol.hub import Hub


class CapturedStep:
    """One step, as it stood when it was looked at. Everything a `StepView` has, and `counts`."""

    def __init__(self, view: StepView) -> None:
        self.view = view

    @property
    def name(self) -> str:
        """As given to `step()`."""
        return self.view.name

    @property
    def state(self) -> str:
        """`pending`, `running`, `succeeded`, `failed` or `skipped`."""
        return str(self.view.state)

    @property
    def counts(self) -> dict[str, float]:
        """Named counts, as `step.count(rejected=1)` made them."""
        return dict(self.view.counters)

    @property
    def completed(self) -> float | None:
        """Items done; `None`: it counted none."""
        return self.view.completed

    @property
    def total(self) -> float | None:
        """Items in all; `None`: not known."""
        return self.view.total

    @property
    def unit(self) -> str | None:
        """UCUM: `{row}`; `None`: not said."""
        return self.view.unit

    @property
    def ratio(self) -> float | None:
        """0 to 1; `None`: unknown."""
        return self.view.ratio

    def __repr__(self) -> str:
        return f"<step {self.name!r} {self.state} {self.completed}/{self.total} {self.counts or ''}>"


class CapturedOperation:
    """One run, as it stood when it was looked at. `view` has everything; the rest is what tests ask for."""

    def __init__(self, view: OperationView, events: Sequence[FeedEvent]) -> None:
        self.view = view
        self.events = tuple(events)
        """What was published about it, in order."""

    @property
    def id(self) -> str:
        """`<trace id>-<span id>` in hex."""
        return self.view.id

    @property
    def parent_id(self) -> str | None:
        """The id of the operation it is a child of; `None`: a root."""
        return self.view.parent_id

    @property
    def name(self) -> str:
        """Its low-cardinality name."""
        return self.view.name

    @property
    def title(self) -> str:
        """Its title for people; the name where none was given."""
        return self.view.title or self.view.name

    @property
    def state(self) -> str:
        """Its state now."""
        return str(self.view.state)

    @property
    def outcome(self) -> str | None:
        """`succeeded`, `failed`, `cancelled` or `lost`; `None` while it lives."""
        return None if self.view.outcome is None else str(self.view.outcome)

    @property
    def ratio(self) -> float | None:
        """0 to 1; `None`: unknown."""
        return self.view.ratio

    @property
    def error_type(self) -> str | None:
        """The qualified name of the exception that ended it; `None`: none did."""
        return self.view.error_type

    @property
    def message(self) -> str | None:
        """The last note; `None`: there was none."""
        return self.view.message

    @property
    def notes(self) -> list[str]:
        """All notes, in order."""
        return [event.message for event in self.events if event.kind == "operation.noted" and event.message]

    @property
    def steps(self) -> list[CapturedStep]:
        """Its steps in their order, without the root counts of an operation that has none."""
        return [CapturedStep(step) for step in self.view.steps if step.index >= 0]

    @property
    def completed(self) -> float | None:
        """Items of the current step done; `None`: none were counted."""
        return None if self.view.step is None else self.view.step.completed

    @property
    def total(self) -> float | None:
        """Items of the current step in all; `None`: not known."""
        return None if self.view.step is None else self.view.step.total

    @property
    def counts(self) -> dict[str, float]:
        """Named counts of the current step."""
        return {} if self.view.step is None else dict(self.view.step.counters)

    def step(self, name: str) -> CapturedStep:
        """The step of that name.

        Raises:
            AssertionError: it has none; the message lists those it has.
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise AssertionError(f"{self!r} has no step {name!r}; it has {[step.name for step in self.steps]}")

    def __repr__(self) -> str:
        return f"<operation {self.name!r} {self.state}>"


class ProgressCapture:
    """Everything reported inside one `capture()`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._events: list[FeedEvent] = []
        host.add_listener(self._keep)

    def _keep(self, applied: Sequence[Applied]) -> None:
        self._events += [each.event for each in applied]

    @property
    def events(self) -> list[FeedEvent]:
        """What was published, in order."""
        return list(self._events)

    @property
    def operations(self) -> list[CapturedOperation]:
        """All operations, in the order of their starts."""
        return [
            CapturedOperation(view, [event for event in self._events if event.operation.id == view.id])
            for view in self._host.views(steps=True)
        ]

    def all(self, name: str = "*") -> list[CapturedOperation]:
        """Those whose name matches the glob, in the order of their starts."""
        return [operation for operation in self.operations if fnmatchcase(operation.name, name)]

    def one(self, name: str = "*") -> CapturedOperation:
        """The only one whose name matches the glob.

        Raises:
            AssertionError: none matches, or several do; the message lists all that were captured.
        """
        found = self.all(name)
        if len(found) != 1:
            raise AssertionError(
                f"{len(found)} operations match {name!r}, not one; captured: {self.operations}"
            )
        return found[0]


@contextmanager
def capture() -> Iterator[ProgressCapture]:
    """Capture what runs inside, in this process and on any thread, in place of whatever `configure()` set up.

    Nothing is drawn, sent or written; no port is opened and no thread started. The application's own TracerProvider,
    if there is one, is used as it stands, so that span exporters of a test see the spans.
    """
    hub = Hub(OperationTree(), epoch="capture", cursor_key=CursorKey(bytes(32)))
    host = Host(hub, inline=True)
    capturing = active.Instrumentation(
        emitter=ProgressEmitter(host.submit),
        binding=ProviderBinding(span_processor=ProgressSpanProcessor()),
        submit=host.submit,
        strict=True,
    )
    tqdm_bridge.install()
    outlet = OUTLET.state()
    OUTLET.open(
        host.submit,
        writer_id=capturing.writer_id,
        process_id=capturing.process_id,
        enclosing=active.enclosing_span_id,
    )
    before, active.current = active.current, capturing
    was_captured, active.captured = active.captured, True
    try:
        yield ProgressCapture(host)
    finally:
        active.current = before
        active.captured = was_captured
        host.close()
        capturing.binding.shutdown(0)
        OUTLET.restore(outlet)
